//! What is exported, against what a real overlay shows.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use dozen_ledger::Ledger;
use dozen_model::ImageId;
use jiff::Timestamp;

use crate::tree;
use crate::*;

/// A store with an image of one layer for each script, each made in a real overlay of those below it, and a container's
/// directory on top of which the last script has worked.
struct Fixture {
    home: tempfile::TempDir,
    store: ImageStore,
    image: ImageId,
}

fn shell(script: &str) -> Vec<u8> {
    let output = Command::new("unshare").args(["--mount", "bash", "-euc", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

impl Fixture {
    fn new(layers: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&home.path().join("state.db"), &MIGRATIONS).unwrap();
        let store = ImageStore::open(home.path(), ledger).unwrap();
        let import = ImportRequest {
            config: ImageConfig::default(),
            platform: Platform::host(),
            message: String::new(),
            reference: None,
            created: Timestamp::UNIX_EPOCH,
        };
        let image = store.import([0; 1024].as_slice(), import).unwrap();
        let mut fixture = Self { home, store, image };
        for script in layers {
            let container = fixture.container(script);
            let commit = CommitRequest {
                healthcheck: None,
                base: fixture.image.clone(),
                upper: &container.path().join("upper"),
                config: ImageConfig::default(),
                author: None,
                comment: None,
                created_by: String::new(),
                reference: None,
                created: None,
            };
            fixture.image = fixture.store.commit(commit, &|| true).unwrap().unwrap();
        }
        fixture
    }

    /// Runs a script in an overlay above the image; `upper` keeps what it did.
    fn container(&self, script: &str) -> tempfile::TempDir {
        let place = tempfile::tempdir_in(self.home.path()).unwrap();
        for name in ["upper", "work", "merged"] {
            fs::create_dir(place.path().join(name)).unwrap();
        }
        self.run(place.path(), script);
        place
    }

    fn run(&self, place: &Path, script: &str) -> Vec<u8> {
        let lower = self.store.lower_directories(&self.image).unwrap();
        let lower: Vec<_> = lower.iter().map(|path| path.display().to_string()).collect();
        shell(&format!(
            "cd {}; mount -t overlay overlay -o lowerdir={},upperdir=upper,workdir=work,redirect_dir=off,metacopy=off merged
             cd merged; {script}",
            place.display(),
            lower.join(":")
        ))
    }

    fn export(&self, place: &Path) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.store.export(&self.image, &place.join("upper"), &mut bytes).unwrap();
        bytes
    }
}

/// Everything about a tree that an archive keeps, a line for each name.
const LOOK: &str = r#"find . -mindepth 1 ! -type s -printf '%P|%y|%m|%U|%G|%l\n' | LC_ALL=C sort
    find . -mindepth 1 -type f -printf '%P|%s|%n|%T@\n' | LC_ALL=C sort
    find . -mindepth 1 -type f -size -64k -print0 | LC_ALL=C sort -z | xargs -0r sha256sum
    find . -mindepth 1 \( -type c -o -type b \) -print0 | LC_ALL=C sort -z | xargs -0r stat -c '%n %t %T'
    python3 -c 'import os
for top, directories, files in os.walk(b"."):
    for path in (os.path.join(top, name) for name in directories + files):
        for key in os.listxattr(path, follow_symlinks=False):
            if not key.startswith("trusted."): print(path, key, os.getxattr(path, key, follow_symlinks=False))' | LC_ALL=C sort"#;

const LAYERS: [&str; 3] = [
    "mkdir -p etc usr/bin data/deep gone/with/all kept; echo base > etc/name; echo x > usr/bin/tool; chown 7:8 usr/bin/tool
     chmod 4755 usr/bin/tool; ln usr/bin/tool usr/bin/alias; cp -p usr/bin/tool kept/tool; ln kept/tool kept/alias; ln -s ../etc/name usr/link; echo 1 > data/a; echo 2 > data/deep/b
     echo 3 > gone/with/all/c; mknod kept/null c 1 3; mknod kept/disk b 7 200; mkfifo kept/pipe; touch was-file
     mkdir was-dir; touch was-dir/x
     python3 -c 'import os
os.setxattr(\"etc/name\", \"user.note\", b\"mine\")
os.setxattr(\"kept/alias\", \"security.capability\", bytes.fromhex(\"0100000200200000000000000000000000000000\"))'",
    "echo new > etc/other; rm -r gone; rm -r data; mkdir data; echo 4 > data/z; rm was-file; mkdir was-file
     touch was-file/now; rm -r was-dir; echo file > was-dir; chmod 700 kept; touch -d '1999-01-02 03:04:05.678901234' etc/old",
    "rm usr/link; mkdir -p gone/with; echo d > gone/with/d; rm usr/bin/alias; rm -r data; mkdir -p data/deep",
];

const CHANGES: &str = "rm usr/bin/tool; rm -r usr/bin; rm -r usr; mkdir usr; echo own > usr/own; ln usr/own usr/second; rm was-dir; mkdir was-dir; touch was-dir/y
     rm kept/pipe; echo > $'na\\xffme'; mkdir -p $(printf 'n%.0s' {1..120})/$(printf 'm%.0s' {1..200}); mv etc/old etc/older
     printf 'line\\nbreak' > $'new\\nline'; truncate -s 8M etc/holes; printf x | dd of=etc/holes bs=1 seek=5000000 conv=notrunc status=none
     touch .wh.not-a-whiteout; python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('socket')\"";

/// The tree that GNU tar makes of the archive.
fn unpacked(bytes: &[u8], home: &Path) -> tempfile::TempDir {
    let place = tempfile::tempdir_in(home).unwrap();
    fs::write(place.path().join("archive"), bytes).unwrap();
    fs::create_dir(place.path().join("merged")).unwrap();
    shell(&format!(
        "cd {}; tar -xpf archive -C merged --xattrs --xattrs-include='*' --numeric-owner",
        place.path().display()
    ));
    place
}

fn look(at: &Path) -> String {
    String::from_utf8_lossy(&shell(&format!("cd {}; {LOOK}", at.display()))).into_owned()
}

#[test]
fn an_export_is_what_the_overlay_shows() {
    let fixture = Fixture::new(&LAYERS);
    let container = fixture.container(CHANGES);
    let seen = String::from_utf8_lossy(&fixture.run(container.path(), LOOK)).into_owned();
    assert!(
        seen.contains("usr/own|4|2|")
            && seen.contains("kept/disk 7 c8")
            && seen.contains("kept/alias|f|4755|7|8|")
            && seen.contains("user.note")
            && seen.contains("security.capability"),
        "{seen}"
    );
    let bytes = fixture.export(container.path());
    let place = unpacked(&bytes, fixture.home.path());
    let got = look(&place.path().join("merged"));
    assert!(got == seen, "want:\n{seen}\ngot:\n{got}");
    assert!(fixture.export(container.path()) == bytes, "a second export differs");
    // A file of 8 MiB with one byte in it, in the archive and after it.
    assert!(bytes.len() < 200_000, "{}", bytes.len());
    assert!(fs::metadata(place.path().join("merged/etc/holes")).unwrap().blocks() < 100);
}

#[test]
fn what_is_exported_is_imported_and_the_same() {
    let fixture = Fixture::new(&LAYERS);
    let container = fixture.container(&CHANGES.replace("touch .wh.not-a-whiteout", "true"));
    let seen = fixture.run(container.path(), LOOK);
    let bytes = fixture.export(container.path());
    let import = ImportRequest {
        config: ImageConfig::default(),
        platform: Platform::host(),
        message: "Imported from -".into(),
        reference: Some("again".parse().unwrap()),
        created: Timestamp::UNIX_EPOCH,
    };
    let image = fixture.store.import(bytes.as_slice(), import).unwrap();
    let layer = fixture.store.lower_directories(&image).unwrap().remove(0);
    assert_eq!(look(&layer), String::from_utf8_lossy(&seen));
    // And as it was saved: the archive itself.
    let again = Fixture { image, ..fixture };
    let empty = again.container("true");
    assert!(again.export(empty.path()) == bytes, "the export of the import differs");
}

/// A process in the container has all it may write swapped and removed while it is read.
#[test]
fn what_changes_meanwhile_neither_fails_nor_leads_out() {
    use std::sync::atomic::{AtomicBool, Ordering};
    /// Also when the test fails.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let fixture = Fixture::new(&["mkdir -p a/b d; echo in > a/b/file; echo in > d/file"]);
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("file"), "secret of the host").unwrap();
    let container = fixture.container("true");
    let upper = container.path().join("upper");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = Stop(&done);
        scope.spawn(|| {
            let root = tree::open_root(&upper).unwrap();
            for round in 0u32.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                let at = upper.join("a");
                for step in 0..4 {
                    let _ = match (round + step) % 4 {
                        0 => std::os::unix::fs::symlink(outside.path(), &at),
                        1 => {
                            fs::create_dir(&at).and_then(|()| std::os::unix::fs::symlink(outside.path(), at.join("b")))
                        }
                        2 => fs::write(&at, vec![7; 70_000]).and_then(|()| fs::write(upper.join("d"), "x")),
                        _ => rustix::fs::mknodat(&root, "a", rustix::fs::FileType::Fifo, 0o600.into(), 0)
                            .map_err(Into::into),
                    };
                    let _ = fs::remove_file(upper.join("d"));
                    tree::remove(std::os::fd::AsFd::as_fd(&root), b"a").ok();
                }
            }
        });
        for _ in 0..300 {
            let bytes = fixture.export(container.path());
            assert!(!bytes.windows(6).any(|six| six == b"secret"), "the host's file is in the archive");
            let mut archive = tar::Archive::new(bytes.as_slice());
            archive.entries().and_then(|mut entries| entries.try_for_each(|entry| entry.map(drop))).unwrap();
        }
    });
}
