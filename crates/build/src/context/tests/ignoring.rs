use super::*;

fn context() -> Context {
    let archive = Forge::default()
        .file("Dockerfile", "FROM scratch")
        .file(".dockerignore", "x")
        .entry(tar::EntryType::Directory, "src/", |header| header.set_mode(0o700), b"")
        .file("src/main.rs", "1")
        .file("src/main.o", "2")
        .file("src/deep/er/keep.o", "3")
        .directory("target")
        .file("target/x", "4")
        .hard_link("again", "src/main.rs");
    read(&archive.end()).unwrap()
}

#[track_caller]
fn check(ignore: &str, expected: &[&str]) -> Context {
    let left = context().ignoring(&IgnoreFile::parse(ignore).unwrap());
    let shown: Vec<String> =
        listing(&left).into_iter().map(|line| line.split('=').next().unwrap().to_owned()).collect();
    assert_eq!(shown, expected, "{ignore:?}");
    left
}

#[test]
fn what_is_left_out_is_not_seen() {
    check(
        "",
        &[
            ".dockerignore",
            "Dockerfile",
            "again",
            "src/",
            "src/deep/",
            "src/deep/er/",
            "src/deep/er/keep.o",
            "src/main.o",
            "src/main.rs",
            "target/",
            "target/x",
        ],
    );
    check(
        "target\n.docker*\nDockerfile\nsrc/*.o",
        &["again", "src/", "src/deep/", "src/deep/er/", "src/deep/er/keep.o", "src/main.rs"],
    );
    let left = check("*\n!src/**/keep.o", &["src/", "src/deep/", "src/deep/er/", "src/deep/er/keep.o"]);
    // A directory that was left out and comes for what is in it is as it was.
    assert_eq!(left.node(b"src").unwrap().unwrap().mode, 0o700);
    check("**", &[]);
}

#[test]
fn names_of_one_file_are_counted_again() {
    let left = check("src\ntarget\n.*", &["Dockerfile", "again"]);
    assert_eq!(left.node(b"again").unwrap().unwrap().identity, None);
    assert_eq!(contents(&left, b"again"), b"1");
    let left = check("*\n!src/main.rs\n!again", &["again", "src/", "src/main.rs"]);
    assert!(left.node(b"again").unwrap().unwrap().identity.is_some());
}
