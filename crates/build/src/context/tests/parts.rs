//! Several archives make one context, and a directory of one is a context of its own.

use super::*;

fn text(context: &Context, path: &str) -> Option<String> {
    context.file(path, 100).unwrap().map(|bytes| String::from_utf8(bytes).unwrap())
}

#[test]
fn each_archive_has_its_place() {
    let whole = Forge::default().file("a", "1").directory("lib/x").link("in", "lib/x/../../a").end();
    let part = Forge::default().file("f", "2").hard_link("g", "f").link("up", "/a").end();
    let parts =
        [(Vec::new(), whole.as_slice()), (b"lib/x".to_vec(), part.as_slice()), (b".git".to_vec(), part.as_slice())];
    let context = Context::read_parts(parts, spool()).unwrap();
    for (path, want) in [
        ("a", Some("1")),
        ("in", Some("1")),
        ("lib/x/f", Some("2")),
        ("lib/x/g", Some("2")),
        ("lib/x/up", Some("1")),
        (".git/g", Some("2")),
        ("f", None),
    ] {
        assert_eq!(text(&context, path).as_deref(), want, "{path}");
    }
    let names = |path: &str| context.node(path.as_bytes()).unwrap().unwrap().identity;
    assert!(names("lib/x/f").is_some() && names("lib/x/f") == names("lib/x/g") && names("lib/x/f") != names(".git/f"));

    let out = Forge::default().file("../f", "3").end();
    let refused = Context::read_parts([(b"lib".to_vec(), out.as_slice())], spool()).unwrap_err();
    assert!(refused.to_string().contains("leads out by '..'"), "{refused}");
    // Its place is a link of the archive before: it leads nowhere else than in there.
    let before = Forge::default().link("lib", "/../etc").end();
    let after = Forge::default().file("passwd", "mine").end();
    let parts = [(Vec::new(), before.as_slice()), (b"lib".to_vec(), after.as_slice())];
    assert_eq!(text(&Context::read_parts(parts, spool()).unwrap(), "etc/passwd").as_deref(), Some("mine"));
}

#[test]
fn a_directory_is_a_context() {
    let archive = Forge::default().file("a", "1").file("d/b", "2").hard_link("d/e/c", "d/b").link("d/up", "../a");
    let context = read(&archive.link("l", "d").end()).unwrap();
    for path in ["d", "/d/", "l", "l/e/.."] {
        let below = context.below(path).unwrap().unwrap();
        assert_eq!(below.count(), 4, "{path}");
        assert_eq!((text(&below, "b").as_deref(), text(&below, "e/c").as_deref()), (Some("2"), Some("2")));
        assert_eq!((text(&below, "up"), text(&below, "a")), (None, None));
        assert_eq!(below.node(b"b").unwrap().unwrap().identity, below.node(b"e/c").unwrap().unwrap().identity);
    }
    assert_eq!(context.below("").unwrap().unwrap().count(), context.count());
    assert!(context.below("a").unwrap().is_none() && context.below("none").unwrap().is_none());
}
