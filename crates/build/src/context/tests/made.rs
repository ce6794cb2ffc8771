//! A part of a context becomes files.

use super::*;

fn into(context: &Context, path: &str) -> (tempfile::TempDir, Result<Option<Unpacked>, ContextError>) {
    let place = tempfile::tempdir().unwrap();
    let directory = File::open(place.path()).unwrap();
    let made = context.unpack(path, directory.as_fd(), "made");
    (place, made)
}

fn mode(path: &Path) -> (u32, u32, i64) {
    let found = path.symlink_metadata().unwrap();
    (found.mode() & 0o7777, found.uid(), found.mtime())
}

#[test]
fn all_that_is_below_a_path_is_made() {
    let archive = Forge::default()
        .entry(tar::EntryType::Directory, "d/", |header| header.set_mode(0o2711), b"")
        .entry(tar::EntryType::Regular, "d/run", |header| header.set_mode(0o4755), b"run")
        .hard_link("d/z", "d/run")
        .link("d/out", "/etc/passwd")
        .file("d/e/f", &"x".repeat(100_000))
        .entry(tar::EntryType::Fifo, "d/pipe", |_| {}, b"")
        .link("l", "d")
        .file("other", "1");
    let context = read(&archive.end()).unwrap();
    for path in ["d", "/d/", "l", "d/../l/."] {
        let (place, made) = into(&context, path);
        assert_eq!(made.unwrap(), Some(Unpacked::Directory));
        let made = place.path().join("made");
        let mut names: Vec<_> = std::fs::read_dir(&made).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["e", "out", "pipe", "run", "z"]);
        assert_eq!(mode(&made), (0o2711, 0, 5));
        assert_eq!(mode(&made.join("run")), (0o4755, 0, 5));
        assert_eq!(std::fs::read_to_string(made.join("run")).unwrap(), "run");
        assert_eq!(std::fs::read(made.join("e/f")).unwrap().len(), 100_000);
        assert_eq!(made.join("run").metadata().unwrap().ino(), made.join("z").metadata().unwrap().ino());
        assert_eq!(made.join("out").read_link().unwrap(), Path::new("/etc/passwd"));
        assert_eq!(mode(&made.join("e")).0, 0o755);
    }
}

#[test]
fn the_whole_a_file_or_nothing() {
    let context = read(&Forge::default().file("a", "1").link("b", "a").link("lost", "nowhere").end()).unwrap();
    let (place, made) = into(&context, "/");
    assert_eq!(made.unwrap(), Some(Unpacked::Directory));
    assert_eq!(std::fs::read_to_string(place.path().join("made/a")).unwrap(), "1");
    let (place, made) = into(&context, "b");
    assert_eq!(made.unwrap(), Some(Unpacked::File));
    assert_eq!(std::fs::read_to_string(place.path().join("made")).unwrap(), "1");
    for path in ["c", "lost", "a/x"] {
        let (place, made) = into(&context, path);
        assert_eq!(made.unwrap(), None);
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    }
}

#[test]
fn what_stands_there_is_not_written_to() {
    let context = read(&Forge::default().file("a", "1").end()).unwrap();
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("made"), "old").unwrap();
    let directory = File::open(place.path()).unwrap();
    for path in ["/", "a"] {
        let error = context.unpack(path, directory.as_fd(), "made").unwrap_err();
        assert!(matches!(error, ContextError::Unpack { .. }), "{error}");
    }
    assert_eq!(std::fs::read_to_string(place.path().join("made")).unwrap(), "old");
}
