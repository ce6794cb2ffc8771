use proptest::prelude::*;

use super::*;

#[track_caller]
fn check(rules: &str, out: &[&str], seen: &[&str]) {
    let file = IgnoreFile::parse(rules).unwrap();
    for path in out {
        assert!(file.leaves_out(path), "{path} is seen with {rules:?}");
    }
    for path in seen {
        assert!(!file.leaves_out(path), "{path} is left out with {rules:?}");
    }
}

#[test]
fn one_pattern() {
    check("temp?", &["tempa", "tempa/b"], &["temp", "a/tempa", "temp/"]);
    check("*/temp*", &["a/temporary.txt", "a/temp", "a/temp/b"], &["temp", "a/b/temp"]);
    check("*/*/temp*", &["a/b/temporary.txt"], &["a/temp"]);
    check("**/*.go", &["a.go", "a/b/c.go", ".go"], &["a.goo", "ago"]);
    check("**", &["a", "a/b", ".x"], &[]);
    check("a/**", &["a/b", "a/b/c"], &["a", "ab", "b/a/c"]);
    check("a/**/b", &["a/b", "a/c/b", "a/c/d/b/e"], &["a/cb", "ab"]);
    check("**/a/b", &["a/b", "c/a/b", "c/d/a/b/e"], &["ca/b"]);
    check("a**b", &["ab", "a/b", "ac/b"], &["acb", "a/c"]);
    check("*", &["a", ".a", "a/b"], &[]);
    check("[a-c]x", &["ax", "cx"], &["dx", "[x"]);
    check("[^a-c]x", &["dx"], &["ax", "/x"]);
    check("\\*", &["*"], &["a"]);
    check("a.b$+(c)|^{d}", &["a.b$+(c)|^{d}"], &["axb$+(c)|^{d}"]);
    check("é?", &["éa", "é日"], &["éab"]);
}

#[test]
fn lines_are_cleaned() {
    check("/a/", &["a", "a/b"], &["b/a"]);
    check("  a \r\n", &["a"], &[]);
    check("./a/../b//c/.", &["b/c"], &["a", "a/b"]);
    check("../a\n/../c", &["c"], &["a", "../b"]);
    check("\u{feff}# a\n\n #b\n.\n/\n", &["#b"], &["a", "# a", "."]);
    check("! a\nb", &["b"], &["a"]);
    for (text, line, message) in [
        ("a\n!", 2, "illegal exclusion pattern: \"!\""),
        ("[a", 1, "syntax error in pattern"),
        ("[]", 1, "syntax error in pattern"),
        ("a\\", 1, "syntax error in pattern"),
    ] {
        assert_eq!(IgnoreFile::parse(text).unwrap_err(), IgnoreError { line, message: message.to_owned() });
    }
}

#[test]
fn the_last_match_counts() {
    check("*.md\n!README.md", &["a.md"], &["README.md", "b/a.md"]);
    check("*.md\n!README*.md\nREADME-secret.md", &["a.md", "README-secret.md"], &["README.md"]);
    check("*.md\nREADME-secret.md\n!README*.md", &["a.md"], &["README-secret.md"]);
    check("a\n!a/b", &["a", "a/c"], &["a/b", "a/b/c"]);
    check("!a/b\na", &["a/b"], &[]);
    check("*\n!a\na/c", &["b", "a/c"], &["a", "a/b"]);
    check("**\n!**/*.txt", &["a", "b/c"], &["a.txt", "b/c.txt"]);
}

#[test]
fn a_directory_is_looked_through_if_something_in_it_may_be_seen() {
    let file = IgnoreFile::parse("*\n!a/b/*.c\n!**/keep\n").unwrap();
    assert!(["a", "a/b", "z", "z/y"].iter().all(|directory| file.may_see_below(directory)));
    let file = IgnoreFile::parse("*\n!a/b\n!c*/d").unwrap();
    for (directory, may) in [("a", true), ("a/b", true), ("a/b/x", true), ("a/x", false), ("cx", true), ("d", false)] {
        assert_eq!(file.may_see_below(directory), may, "{directory}");
    }
    assert!(!IgnoreFile::parse("a\nb").unwrap().may_see_below("a"));
}

#[test]
fn the_file_beside_the_dockerfile_comes_first() {
    let found = candidates(Path::new("docker/Web.Dockerfile"), Path::new("/src"));
    assert_eq!(found, [PathBuf::from("docker/Web.Dockerfile.dockerignore"), PathBuf::from("/src/.dockerignore")]);
}

#[test]
fn no_pattern_takes_long() {
    let file = IgnoreFile::parse(&format!("{}b", "*a".repeat(200))).unwrap();
    assert!(!file.leaves_out(&"a".repeat(5000)));
}

proptest! {
    #[test]
    fn nothing_panics(rules in "[a-c*?!/.\\[\\]^\\\\#\n é-]{0,30}", path in "[a-cé/.]{0,20}") {
        if let Ok(file) = IgnoreFile::parse(&rules) {
            let is_out = file.leaves_out(&path);
            prop_assert!(!is_out || !file.is_empty());
            file.may_see_below(&path);
        }
    }

    #[test]
    fn what_is_in_a_directory_goes_with_it(directory in "[a-c]{1,3}(/[a-c]{1,3}){0,2}", below in "[a-c]{1,3}") {
        let file = IgnoreFile::parse(&directory).unwrap();
        let path = format!("{directory}/{below}");
        prop_assert!(file.leaves_out(&path));
    }

    #[test]
    fn what_is_seen_is_looked_for(exception in "[a-c*?]{1,3}(/[a-c*?]{1,3}){0,2}", path in "[a-c]{1,2}(/[a-c]{1,2}){1,3}") {
        let Ok(file) = IgnoreFile::parse(&format!("**\n!{exception}")) else { return Ok(()) };
        if !file.leaves_out(&path) {
            for (at, _) in path.match_indices('/') {
                prop_assert!(file.may_see_below(&path[..at]), "{} {}", exception, &path[..at]);
            }
        }
    }
}
