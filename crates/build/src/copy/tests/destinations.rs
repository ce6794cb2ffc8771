//! What becomes of it in the image.

use super::*;

const ONE: [&str; 1] = ["f=1"];

#[test]
fn a_slash_or_a_directory_says_where() {
    let to = |destination: &str, image: &[&str], expected: &[&str]| {
        check(&copy(&["f"], destination), &ONE, image, expected);
    };
    to("/", &[], &["f=1"]);
    to("/x", &[], &["x=1"]);
    to("/x/", &[], &["x/", "x/f=1"]);
    to("/x/y/z", &[], &["x/", "x/y/", "x/y/z=1"]);
    to("/x/y/z/", &[], &["x/", "x/y/", "x/y/z/", "x/y/z/f=1"]);
    to("/x", &["x/"], &["x/", "x/f=1"]);
    to("/x", &["x=old"], &["x=1"]);
    to("/x", &["x|"], &["x=1"]);
}

#[test]
fn directories_that_are_there_keep_what_they_are() {
    let image = ["tmp/ 1777 4:5", "tmp/a/ 0700", "var/log/x=1"];
    check(&copy(&["f"], "/tmp/"), &ONE, &image, &["tmp/ 1777 4:5", "tmp/f=1"]);
    check(&copy(&["f"], "/tmp/a/b/f"), &ONE, &image, &["tmp/ 1777 4:5", "tmp/a/ 700", "tmp/a/b/", "tmp/a/b/f=1"]);
    check(&copy(&["/"], "/tmp"), &ONE, &image, &["tmp/ 1777 4:5", "tmp/f=1"]);
    // But those that are copied by name.
    check(&copy(&["/"], "/"), &["tmp/ 0711 1:1", "tmp/g=2"], &image, &["tmp/ 711 1:1", "tmp/g=2"]);
    // It has the copied directory's time, and nothing else of it.
    check(&copy(&["d"], "/tmp/a"), &["d/ 0711 1:1"], &image, &["tmp/ 1777 4:5", "tmp/a/ 700"]);
    check(&copy(&["d"], "/tmp/n"), &["d/ 0711 1:1"], &image, &["tmp/ 1777 4:5", "tmp/n/"]);
    // The root has an entry if it is not what a root is.
    check(&copy(&["f"], "/"), &ONE, &["/ 0700 1:2"], &["/ 700 1:2", "f=1"]);
}

#[test]
fn times_stay_as_they_are() {
    let image = tree(&["old/"]);
    let copied = done(&copy(&["f"], "/old/new/"), &tree(&ONE), &image).unwrap();
    let times: Vec<_> = copied.entries.iter().map(|entry| entry.node.mtime.0).collect();
    assert_eq!(times, [7, 1000, 7]);
}

#[test]
fn links_of_the_image_are_gone_through() {
    let image = [
        "bin->usr/bin",
        "usr/bin/sh=sh",
        "far->/usr/../usr/bin",
        "lost->new/place",
        "to-file->usr/bin/sh",
        "up->../..",
    ];
    let to = |destination: &str, expected: &[&str]| check(&copy(&["f"], destination), &ONE, &image, expected);
    to("/bin/", &["usr/", "usr/bin/", "usr/bin/f=1"]);
    to("/bin", &["usr/", "usr/bin/", "usr/bin/f=1"]);
    to("/bin/x", &["usr/", "usr/bin/", "usr/bin/x=1"]);
    to("/far/x/y", &["usr/", "usr/bin/", "usr/bin/x/", "usr/bin/x/y=1"]);
    to("/to-file", &["usr/", "usr/bin/", "usr/bin/sh=1"]);
    to("/up/x", &["x=1"]);
    to("/lost", &["new/", "new/place=1"]);
    to("/lost/", &["new/", "new/place/", "new/place/f=1"]);
    check(&copy(&["/"], "/bin"), &["s/t=1"], &image, &["usr/", "usr/bin/", "usr/bin/s/", "usr/bin/s/t=1"]);
    let operation = Copy { link: true, ..copy(&["f"], "/bin/x") };
    check(&operation, &ONE, &image, &["bin/", "bin/x=1"]);
}

#[test]
fn a_file_is_replaced_and_a_directory_is_not() {
    check(&copy(&["/"], "/"), &["a=1", "l->a"], &["a->b", "l=x", "b=y"], &["a=1", "l->a"]);
    check(&copy(&["a"], "/d/"), &["a=1"], &["d/a->../b", "b=y"], &["d/", "d/a=1"]);
    let words = "cannot replace to directory /d/a with file";
    check_error(&copy(&["a"], "/d/"), &["a=1"], &["d/a/"], words);
    check_error(&copy(&["/"], "/d"), &["a->b"], &["d/a/x=1"], words);
    for standing in ["a=1", "a->d", "a|"] {
        check_error(&copy(&["/"], "/"), &["a/x=1"], &[standing, "d/"], "cannot copy to non-directory: /a");
    }
    check_error(&copy(&["a"], "/f"), &["a/x=1"], &["f=1"], "cannot copy to non-directory: /f");
    for destination in ["/f/", "/f/x", "/f/x/y", "/l/x"] {
        let error = done(&copy(&["a"], destination), &tree(&["a=1"]), &tree(&["f=1", "l->f"])).unwrap_err();
        assert_eq!(error.to_string(), "mkdir /f: not a directory", "{destination}");
    }
}

#[test]
fn several_files_need_a_directory() {
    let words = "When using COPY with more than one source file, the destination must be a directory and end with a /";
    let files = ["a.x=1", "b.x=2", "d/c=3", "e/c=4"];
    check_error(&copy(&["a.x", "b.x"], "/n"), &files, &[], words);
    check_error(&copy(&["*.x"], "/n"), &files, &["n=0"], words);
    check_error(&Copy { link: true, ..copy(&["*.x"], "/n") }, &files, &["n/"], words);
    check(&copy(&["a.*"], "/n"), &files, &[], &["n=1"]);
    check(&copy(&["a.x", "b.x"], "/n"), &files, &["n/"], &["n/", "n/a.x=1", "n/b.x=2"]);
    check(&copy(&["a.x", "b.x"], "/n/"), &files, &[], &["n/", "n/a.x=1", "n/b.x=2"]);
    // Several directories come together, and the later source wins.
    check(&copy(&["d", "e"], "/n"), &files, &[], &["n/", "n/c=4"]);
    check(&copy(&["e", "d"], "/n"), &files, &[], &["n/", "n/c=3"]);
}

#[test]
fn owner_and_mode_are_set() {
    let origin = ["d/ 0711 1:2", "d/f=1 0600 3:4", "d/x=2 0700", "d/l->f 0777 5:6"];
    let with = |owner: Option<&str>, mode: Option<&str>, expected: &[&str]| {
        let mode = mode.map(|mode| FileMode::parse(mode).unwrap());
        let operation = Copy { owner: owner.map(str::to_owned), mode, ..copy(&["/"], "/n") };
        check(&operation, &origin, &[], expected);
    };
    with(None, None, &["n/", "n/d/ 711 1:2", "n/d/f=1 600 3:4", "n/d/l->f 5:6", "n/d/x=2 700"]);
    with(
        Some("web"),
        None,
        &["n/ 33:34", "n/d/ 711 33:34", "n/d/f=1 600 33:34", "n/d/l->f 33:34", "n/d/x=2 700 33:34"],
    );
    with(None, Some("4750"), &["n/", "n/d/ 4750 1:2", "n/d/f=1 4750 3:4", "n/d/l->f 5:6", "n/d/x=2 4750"]);
    with(Some("9"), Some("go=rX"), &["n/ 9:9", "n/d/ 9:9", "n/d/f=1 9:9", "n/d/l->f 9:9", "n/d/x=2 755 9:9"]);
}

#[test]
fn a_heredoc_is_a_file_of_the_copys_time() {
    let inline = |name: &str, content: &str| Source::Inline { name: name.into(), content: content.into() };
    let operation = Copy { sources: vec![inline("EOF", "hello")], ..copy(&[], "/x") };
    let copied = done(&operation, &tree(&[]), &tree(&[])).unwrap();
    assert_eq!(lines(&copied.entries), ["x=hello"]);
    assert_eq!(copied.entries[0].node.mtime, (1000, 0));
    let operation = Copy { sources: vec![inline("a", "1"), inline("b", "2")], ..copy(&[], "/d/") };
    check(&operation, &[], &[], &["d/", "d/a=1", "d/b=2"]);
}

#[test]
fn what_was_fetched_comes_in_its_place() {
    let file = tree(&["page.html=<html> 0600"]);
    let repository = tree(&["README=r", "src/main=m"]);
    let fetched = [Fetched { tree: &file, path: b"page.html" }, Fetched { tree: &repository, path: b"" }];
    let sources = vec![Source::Url("u".into()), Source::Path("f".into()), Source::Git("g".into())];
    let operation = Copy { sources, ..copy(&[], "/d/") };
    let (origin, image) = (tree(&ONE), tree(&[]));
    let spool = || tempfile::tempfile();
    let placing = Placing { destination: &image, owner: None, made_at: (0, 0), spool: &spool };
    let copied = plan(&operation, &Sources { origin: &origin, fetched: &fetched }, &placing).unwrap();
    let expected = ["d/", "d/README=r", "d/f=1", "d/page.html=<html> 600", "d/src/", "d/src/main=m"];
    assert_eq!(lines(&copied.entries), expected);
}

#[test]
fn names_of_one_file_stay_its_names() {
    let file = |text: &[u8]| Node { identity: Some((1, 2)), ..Node::text(text, (7, 0)) };
    let origin = PlainTree::empty().with(b"d/b", file(b"1")).with(b"d/a", file(b"1")).with(b"e/a", file(b"1"));
    let linked = |sources: &[&str], expected: &[&str]| {
        let copied = done(&copy(sources, "/n/"), &origin, &PlainTree::empty()).unwrap();
        assert_eq!(lines(&copied.entries), expected);
    };
    linked(&["/"], &["n/", "n/d/", "n/d/a=1", "n/d/b=>n/d/a", "n/e/", "n/e/a=>n/d/a"]);
    // What one source brings has nothing in common with what another brings, and what is gone is no name any more.
    linked(&["d", "e"], &["n/", "n/a=1", "n/b=1"]);
}

#[test]
fn what_a_layer_cannot_hold_is_refused() {
    let words = "/d/.wh.x cannot be copied: in a layer, a name that begins with .wh. means that another file is gone";
    check_error(&copy(&["/"], "/d/"), &[".wh.x=1"], &[], words);
    let device = Node { kind: NodeKind::CharacterDevice(0, 0), ..Node::text(b"", (0, 0)) };
    let origin = PlainTree::empty().with(b"c", device);
    let error = done(&copy(&["/"], "/"), &origin, &PlainTree::empty()).unwrap_err();
    assert!(error.to_string().contains("a character device 0:0"), "{error}");
    let long = format!("/{}", "x/".repeat(2100));
    assert!(done(&copy(&["f"], &long), &tree(&ONE), &tree(&[])).is_err());
}

#[test]
fn the_digest_is_of_what_is_copied() {
    let digest = |operation: &Copy, origin: &[&str]| {
        select(operation, &Sources { origin: &tree(origin), fetched: &[] }).unwrap().digest().clone()
    };
    let all = copy(&["d"], "/x");
    let origin = ["d/f=1", "d/l->f", "d/s/", "other=2"];
    let first = digest(&all, &origin);
    let mut later = tree(&origin);
    for path in [&b"d/f"[..], b"d/s"] {
        let node = Node { mtime: (99, 9), ..later.node(path).unwrap().unwrap() };
        later = later.with(path, node);
    }
    let of_later = select(&all, &Sources { origin: &later, fetched: &[] }).unwrap();
    assert_eq!(*of_later.digest(), first);
    assert_eq!(digest(&all, &["d/f=1", "d/l->f", "d/s/", "other=3", "more=4"]), first);
    for changed in [
        &["d/f=2", "d/l->f", "d/s/"][..],
        &["d/f=1", "d/l->g", "d/s/"],
        &["d/f=1", "d/l->f", "d/t/"],
        &["d/f=1", "d/l->f", "d/s=1"],
        &["d/f=1", "d/l->f"],
        &["d/f=1 0600", "d/l->f", "d/s/"],
        &["d/f=1 0644 1:0", "d/l->f", "d/s/"],
        &["d/f=1", "d/l->f", "d/s/ 0700"],
        &["d/f=1", "d/l->f 777 1:1", "d/s/"],
    ] {
        assert_ne!(digest(&all, changed), first, "{changed:?}");
    }
    // What the instruction sets is not asked for.
    let owned = Copy { owner: Some("1".into()), mode: FileMode::parse("600").ok(), ..all.clone() };
    assert_eq!(digest(&owned, &["d/f=1 0600 4:4"]), digest(&owned, &["d/f=1"]));
    // A pattern's findings have names.
    let some = copy(&["d/*"], "/x/");
    assert_ne!(digest(&some, &["d/f=1"]), digest(&some, &["d/g=1"]));
    assert_eq!(digest(&copy(&["d/f"], "/x"), &["d/f=1"]), digest(&copy(&["f"], "/y"), &["f=1"]));
}
