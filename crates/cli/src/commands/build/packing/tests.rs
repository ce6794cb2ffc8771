use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use super::*;

fn packed(directory: &Path, ignore: &str) -> Result<Vec<u8>, String> {
    let mut archive = Vec::new();
    let ignore = IgnoreFile::parse(ignore).unwrap();
    match pack(directory, &ignore, &mut archive) {
        Ok(()) => Ok(archive),
        Err(error) => Err(error.to_string()),
    }
}

/// tar, which has its own idea of archives, is the judge.
fn tar(archive: &[u8], flags: &[&str], directory: &Path) -> String {
    let file = directory.join("../archive.tar");
    fs::write(&file, archive).unwrap();
    let output = Command::new("tar").args(flags).arg("-f").arg(&file).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{flags:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn names(directory: &Path, ignore: &str) -> Vec<String> {
    let archive = packed(directory, ignore).unwrap();
    assert_eq!(archive.len() % tar::BLOCK, 0);
    tar(&archive, &["-t"], directory).lines().map(str::to_owned).collect()
}

/// A directory `in` beside which there is room.
fn made(files: &[&str]) -> (tempfile::TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("in");
    fs::create_dir(&root).unwrap();
    for file in files {
        fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
        fs::write(root.join(file), file).unwrap();
    }
    (directory, root)
}

#[test]
fn the_archive_is_the_directory() {
    let long = "long/".repeat(40) + &"n".repeat(200);
    let (directory, at) = made(&["empty", "b/exact", "b/script", "a", &long]);
    fs::write(at.join("empty"), "").unwrap();
    fs::write(at.join("b/exact"), vec![1; 1024]).unwrap();
    fs::write(at.join("large"), vec![7; 700_001]).unwrap();
    fs::set_permissions(at.join("b/script"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::create_dir(at.join("nothing")).unwrap();
    symlink("/etc/shadow", at.join("outside")).unwrap();
    symlink("../".repeat(60), at.join("up")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, at.join("pipe"), Mode::RUSR).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at.join("socket")).unwrap();
    let archive = packed(&at, "").unwrap();
    let listing = tar(&archive, &["-tv", "--numeric-owner"], &at);
    assert!(listing.lines().all(|line| line.split_whitespace().nth(1) == Some("0/0")), "{listing}");
    assert!(listing.contains("-rwsr-xr-x 0/0"), "{listing}");
    let found = names(&at, "");
    assert!(found.contains(&"outside".to_owned()) && !found.contains(&"socket".to_owned()), "{found:?}");
    // Each directory's names are sorted, and a directory comes before what is in it.
    let mut sorted = found.clone();
    sorted.sort_by(|a, b| a.trim_end_matches('/').split('/').cmp(b.trim_end_matches('/').split('/')));
    assert_eq!(found, sorted);
    let out = directory.path().join("out");
    fs::create_dir(&out).unwrap();
    tar(&archive, &["-x", "-p"], &out);
    fs::remove_file(at.join("pipe")).unwrap();
    fs::remove_file(out.join("pipe")).unwrap();
    fs::remove_file(at.join("socket")).unwrap();
    let same = Command::new("diff").args(["-r", "--no-dereference"]).args([&at, &out]).output().unwrap();
    assert!(same.status.success(), "{}", String::from_utf8_lossy(&same.stdout));
}

#[test]
fn a_file_with_several_names_is_sent_once() {
    let (directory, at) = made(&["a", "other"]);
    fs::create_dir(at.join("b")).unwrap();
    fs::hard_link(at.join("a"), at.join("b/c")).unwrap();
    // Names that are left out, and those outside, are nothing to the others.
    fs::hard_link(at.join("a"), at.join("0")).unwrap();
    fs::hard_link(at.join("other"), directory.path().join("outside")).unwrap();
    let archive = packed(&at, "0").unwrap();
    let listing = tar(&archive, &["-tv"], &at);
    assert!(listing.contains("b/c link to a\n"), "{listing}");
    assert_eq!(listing.matches("link to").count(), 1, "{listing}");
}

#[test]
fn what_is_ignored_is_not_sent() {
    let (_directory, at) = made(&["a.log", "keep.log", "src/main", "src/junk/x", "src/junk/keep", ".git/HEAD", "z"]);
    let files = |ignore: &str| names(&at, ignore).join(" ");
    assert_eq!(files("*.log\n!keep.log\n.git\nsrc/junk"), "keep.log src/ src/main z");
    // A directory that is left out comes along with what is not, and only with that.
    assert_eq!(files("*\n!src/junk/keep"), "src/ src/junk/ src/junk/keep");
    assert_eq!(files("*\n!nowhere/*"), "");
    assert_eq!(files("**/junk\n.git\n*.log"), "src/ src/main z");
    assert_eq!(files("*"), "");
}

#[test]
fn what_cannot_be_sent_is_named() {
    let (directory, at) = made(&["file"]);
    let gone = directory.path().join("gone");
    let said = packed(&gone, "").unwrap_err();
    assert!(said.contains("gone") && said.contains("went away"), "{said}");
    let mut deep = at.clone();
    for _ in 0..DEPTH_LIMIT + 2 {
        deep.push("d");
    }
    fs::create_dir_all(&deep).unwrap();
    assert!(packed(&at, "").unwrap_err().contains("nested more than"), "{}", at.display());
    assert!(packed(&at, "d").is_ok());
}

/// A file that becomes shorter while it is read is an error, and no zeros.
#[test]
fn a_file_that_shrinks_is_an_error() {
    struct Shrinks<'a>(&'a Path);
    impl Write for Shrinks<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            fs::write(self.0, "short").unwrap();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let (_directory, at) = made(&["file"]);
    let file = at.join("file");
    fs::write(&file, vec![1; 1 << 20]).unwrap();
    let error = pack(&at, &IgnoreFile::default(), Shrinks(&file)).unwrap_err().to_string();
    assert!(error.contains("file has become shorter"), "{error}");
}

#[test]
fn who_takes_no_more_ends_it() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let (_directory, at) = made(&["file"]);
    assert!(matches!(pack(&at, &IgnoreFile::default(), Full), Err(PackError::Out(_))));
}
