//! What sources find.

use super::*;

const CONTEXT: [&str; 12] = [
    "a.txt=a",
    "b.txt=b",
    "c.md=c",
    "dir/x=x",
    "dir/sub/y=y",
    "dir/sub/z.txt=z",
    "dir2/x.txt=x2",
    "link->dir",
    "file-link->dir/x",
    "lost->nowhere",
    "[=bracket",
    "out->/../../dir/sub",
];

/// Sources, and what comes below /d/.
#[track_caller]
fn finds(source: &str, expected: &[&str]) {
    let below: Vec<String> = expected.iter().map(|line| format!("d/{line}")).collect();
    let mut all = vec!["d/"];
    all.extend(below.iter().map(String::as_str));
    check(&copy(&[source], "/d/"), &CONTEXT, &[], if expected.is_empty() { &[] } else { &all });
}

#[test]
fn paths_are_looked_up_from_the_root() {
    for source in ["a.txt", "/a.txt", "./a.txt", "dir/../a.txt", "../a.txt", "/../../a.txt", "a.txt/", "dir//../a.txt"]
    {
        finds(source, &["a.txt=a"]);
    }
    finds("dir/sub/y", &["y=y"]);
}

#[test]
fn a_directory_stands_for_what_is_in_it() {
    for source in ["dir", "dir/", "dir/.", "/dir", "link", "link/"] {
        finds(source, &["sub/", "sub/y=y", "sub/z.txt=z", "x=x"]);
    }
    finds("link/sub", &["y=y", "z.txt=z"]);
    finds("out", &["y=y", "z.txt=z"]);
}

#[test]
fn a_link_that_is_asked_for_is_followed_and_one_in_a_directory_is_not() {
    finds("file-link", &["file-link=x"]);
    finds("file-l*", &["file-link=x"]);
    check(&copy(&["/"], "/"), &["l->f", "f=1"], &[], &["f=1", "l->f"]);
}

#[test]
fn stars_stop_at_slashes() {
    finds("*.txt", &["a.txt=a", "b.txt=b"]);
    finds("?.txt", &["a.txt=a", "b.txt=b"]);
    finds("dir/*", &["x=x", "y=y", "z.txt=z"]);
    finds("*/x*", &["x=x", "x.txt=x2"]);
    finds("link/s*/y", &["y=y"]);
    finds("d*/*/y", &["y=y"]);
    finds("*/*/*.txt", &["z.txt=z"]);
    finds("[a-b].txt", &["a.txt=a", "b.txt=b"]);
    finds("[^a].txt", &["b.txt=b"]);
    finds("[^a-c].*", &[]);
    finds("[[]", &["[=bracket"]);
    finds("\\a.tx?", &["a.txt=a"]);
    finds("**/x", &["x=x"]);
    finds("dir*", &["sub/", "sub/y=y", "sub/z.txt=z", "x=x", "x.txt=x2"]);
}

#[test]
fn a_pattern_that_finds_nothing_copies_nothing() {
    for source in ["nothing*", "*.c", "nothing*/x", "nowhere/*", "a.txt/*", "*/nothing"] {
        finds(source, &[]);
    }
}

#[test]
fn what_is_not_there_is_named() {
    let missing = |source: &str, path: &str| {
        let words = format!("failed to compute cache key: \"{path}\": not found");
        check_error(&copy(&[source], "/d/"), &CONTEXT, &[], &words);
    };
    missing("foo", "/foo");
    missing("./foo/", "/foo");
    missing("dir/../foo", "/foo");
    missing("a.txt/x", "/a.txt/x");
    missing("lost", "/lost");
    missing("los*", "/lost");
    check_error(&copy(&["a.txt", "foo"], "/d/"), &CONTEXT, &[], "failed to compute cache key: \"/foo\": not found");
    let error = done(&copy(&["foo"], "/"), &tree(&[]), &tree(&[])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn what_is_no_pattern_is_refused() {
    for source in ["[", "[]", "[a", "a[b-", "[-a]*"] {
        let words = format!("invalid pattern {source:?}: syntax error in pattern");
        check_error(&copy(&[source], "/d/"), &CONTEXT, &[], &words);
    }
    let operation = excluding(&["x", "["], copy(&["dir"], "/d/"));
    check_error(&operation, &CONTEXT, &[], "invalid pattern \"[\": syntax error in pattern");
}

#[test]
fn links_in_circles_are_no_way() {
    let error = done(&copy(&["a/x"], "/d/"), &tree(&["a->b", "b->a"]), &tree(&[])).unwrap_err();
    assert_eq!(error.to_string(), "/a/x: too many levels of symbolic links");
}

#[test]
fn no_pattern_takes_long() {
    let name = format!("{}=x", "a".repeat(4000));
    let pattern = format!("{}b", "*a".repeat(1000));
    check(&copy(&[&pattern], "/"), &[&name], &[], &[]);
}

#[test]
fn what_is_excluded_does_not_come() {
    let exclude = |patterns: &[&str], source: &str, expected: &[&str]| {
        let operation = excluding(patterns, copy(&[source], "/d/"));
        let below: Vec<String> = expected.iter().map(|line| format!("d/{line}")).collect();
        let mut all = vec!["d/"];
        all.extend(below.iter().map(String::as_str));
        check(&operation, &CONTEXT, &[], &all);
    };
    exclude(&["sub"], "dir", &["x=x"]);
    exclude(&["sub/y"], "dir", &["sub/", "sub/z.txt=z", "x=x"]);
    exclude(&["*.txt"], "dir", &["sub/", "sub/y=y", "sub/z.txt=z", "x=x"]);
    exclude(&["**/*.txt"], "dir", &["sub/", "sub/y=y", "x=x"]);
    exclude(&["*/*.txt", "x"], "dir", &["sub/", "sub/y=y"]);
    exclude(&["*"], "dir", &[]);
    // Patterns are below the source, not below the context.
    exclude(&["dir/x"], "dir", &["sub/", "sub/y=y", "sub/z.txt=z", "x=x"]);
    exclude(&["*", "!sub/y"], "dir", &["sub/", "sub/y=y"]);
    exclude(&["#x", "x"], "dir2", &["x.txt=x2"]);
    exclude(&["b*"], "?.txt", &["a.txt=a"]);
    exclude(&["y", "x"], "d*/*", &["x.txt=x2", "z.txt=z"]);
}

#[test]
fn parents_are_kept() {
    let origin =
        ["x/a.txt=1", "x/y/a.txt=2", "x/y/b.txt=3", "x/y/c.md=4", "x/ 0700", "x/y/ 0750 5:6", "z/=skip", "top.txt=t"];
    let origin: Vec<&str> = origin.into_iter().filter(|line| !line.ends_with("=skip")).collect();
    let keeps = |sources: &[&str], expected: &[&str]| check(&parents(sources, "/p/"), &origin, &[], expected);
    keeps(&["./x/a.txt", "top.txt"], &["p/", "p/top.txt=t", "p/x/ 700", "p/x/a.txt=1"]);
    keeps(&["x/y/a.txt"], &["p/", "p/x/ 700", "p/x/y/ 750 5:6", "p/x/y/a.txt=2"]);
    keeps(&["./x/./y/*.txt"], &["p/", "p/y/ 750 5:6", "p/y/a.txt=2", "p/y/b.txt=3"]);
    keeps(&["x/y"], &["p/", "p/x/ 700", "p/x/y/ 750 5:6", "p/x/y/a.txt=2", "p/x/y/b.txt=3", "p/x/y/c.md=4"]);
    keeps(&["**/b.txt"], &["p/", "p/x/ 700", "p/x/y/ 750 5:6", "p/x/y/b.txt=3"]);
    keeps(&["x/**/*.txt"], &["p/", "p/x/ 700", "p/x/a.txt=1", "p/x/y/ 750 5:6", "p/x/y/a.txt=2", "p/x/y/b.txt=3"]);
    keeps(&["/x/./y/c.md"], &["p/", "p/y/ 750 5:6", "p/y/c.md=4"]);
    keeps(&["?/./y/c.md"], &["p/", "p/y/ 750 5:6", "p/y/c.md=4"]);
    keeps(&["*.c"], &["p/"]);
    let operation = excluding(&["**/a.txt"], parents(&["x/**/*.txt"], "/p/"));
    check(&operation, &origin, &[], &["p/", "p/x/ 700", "p/x/y/ 750 5:6", "p/x/y/b.txt=3"]);
    let words = "failed to compute cache key: \"/x/no\": not found";
    check_error(&parents(&["x/./no"], "/p/"), &origin, &[], words);
    check_error(&parents(&["x/no"], "/p/"), &origin, &[], words);
}

#[test]
fn parents_that_are_there_take_the_mode_alone() {
    let operation = parents(&["x/a"], "/");
    check(&operation, &["x/ 0700 1:1", "x/a=1"], &["x/ 0755 9:9"], &["x/ 700 9:9", "x/a=1"]);
}
