//! A directory with an image in it, as a tar stream: an OCI layout (`skopeo copy … oci:DIRECTORY`), or a directory of
//! skopeo's own (`dir:DIRECTORY`); what `docker save` wrote, unpacked, is one too.
//!
//! All of its files are sent, as `tar -C DIRECTORY -c .` would: what they are worth is the engine's to judge. Links go
//! as links, which lead nowhere outside an archive, and are not followed here.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};

use super::parts::{Member, Part, Source};
use crate::failure::Failure;

/// What a directory with an image has one of.
const MARKS: [&str; 3] = ["oci-layout", "index.json", "manifest.json"];
/// As many as the engine takes of an archive.
const ENTRIES_LIMIT: usize = 100_000;
/// `blobs/sha256/HEX`, and some more.
const DEPTH_LIMIT: usize = 8;
const BLOCK: u64 = 512;

/// The stream that the directory makes, sorted by name.
pub fn parts(path: &str) -> Result<Vec<Part>, Failure> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root =
        rustix::fs::open(path, flags, Mode::empty()).map_err(|error| Failure::new(format!("open {path}: {error}")))?;
    let mut walk = Walk { path, root: Arc::new(root), parts: Vec::new(), count: 0 };
    if !MARKS.iter().any(|mark| walk.stat(mark.as_bytes()).is_ok_and(|stat| is(&stat, FileType::RegularFile))) {
        let hint = "an OCI layout has index.json, a directory of skopeo's manifest.json";
        return Err(Failure::new(format!("{path} is a directory without an image")).with_hint(hint));
    }
    walk.directory(b"", 0)?;
    walk.parts.push(vec![0; 2 * BLOCK as usize].into());
    Ok(walk.parts)
}

fn is(stat: &Stat, kind: FileType) -> bool {
    FileType::from_raw_mode(stat.st_mode) == kind
}

struct Walk<'a> {
    path: &'a str,
    root: Arc<OwnedFd>,
    parts: Vec<Part>,
    count: usize,
}

impl Walk<'_> {
    fn stat(&self, name: &[u8]) -> rustix::io::Result<Stat> {
        rustix::fs::statat(&self.root, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    fn refuse(&self, name: &[u8], why: impl std::fmt::Display) -> Failure {
        Failure::new(format!("{}/{}: {why}", self.path, String::from_utf8_lossy(name)))
    }

    fn directory(&mut self, name: &[u8], depth: usize) -> Result<(), Failure> {
        if depth > DEPTH_LIMIT {
            return Err(self.refuse(name, "no image has directories nested so deep"));
        }
        for child in self.children(name).map_err(|error| self.refuse(name, error))? {
            self.count += 1;
            if self.count > ENTRIES_LIMIT {
                return Err(self.refuse(b"", format_args!("it has more than {ENTRIES_LIMIT} files")));
            }
            let child = [name, if name.is_empty() { &b""[..] } else { b"/" }, &child].concat();
            let stat = self.stat(&child).map_err(|error| self.refuse(&child, error))?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => self.directory(&child, depth + 1)?,
                FileType::RegularFile => self.file(&child, u64::try_from(stat.st_size).unwrap_or(0)),
                FileType::Symlink => self.link(&child)?,
                _ => return Err(self.refuse(&child, "an image has files, directories and links only")),
            }
        }
        Ok(())
    }

    fn children(&self, name: &[u8]) -> rustix::io::Result<Vec<Vec<u8>>> {
        let name = if name.is_empty() { b"." } else { name };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let directory = Dir::new(rustix::fs::openat(&self.root, name, flags, Mode::empty())?)?;
        let mut names = Vec::new();
        for entry in directory {
            names.push(entry?.file_name().to_bytes().to_vec());
            // Whatever there is beyond is refused by the caller.
            if names.len() > ENTRIES_LIMIT + 2 {
                break;
            }
        }
        names.retain(|name| name != b"." && name != b"..");
        names.sort();
        Ok(names)
    }

    fn file(&mut self, name: &[u8], size: u64) {
        self.parts.push(header(name, b'0', size, b"").into());
        // A name that the kernel gave has no NUL.
        let member = Member::new(self.root.clone(), CString::new(name).unwrap_or_default());
        self.parts.push(Part { source: Source::Member(Arc::new(member)), range: 0..size });
        let padding = size.next_multiple_of(BLOCK) - size;
        self.parts.push(vec![0; padding as usize].into());
    }

    fn link(&mut self, name: &[u8]) -> Result<(), Failure> {
        let target = rustix::fs::readlinkat(&self.root, name, Vec::new()).map_err(|error| self.refuse(name, error))?;
        self.parts.push(header(name, b'2', 0, target.to_bytes()).into());
        Ok(())
    }
}

/// The header of one entry, with those that hold what is too long for it (tar(5), "GNU tar Archives").
fn header(name: &[u8], kind: u8, size: u64, target: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, text) in [(b'L', name), (b'K', target)] {
        if text.len() > 100 {
            bytes.extend(header(b"././@LongLink", kind, text.len() as u64 + 1, b""));
            bytes.extend_from_slice(text);
            let length = (bytes.len() as u64 + 1).next_multiple_of(BLOCK);
            bytes.resize(length as usize, 0);
        }
    }
    let mut block = [0; BLOCK as usize];
    let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
    put(0, &name[..name.len().min(100)]);
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    // In base 256 from 8 GiB on.
    match size < 1 << 33 {
        true => put(124, format!("{size:011o}\0").as_bytes()),
        false => put(124, &[&[0x80, 0, 0, 0][..], &size.to_be_bytes()].concat()),
    }
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, &[kind]);
    put(157, &target[..target.len().min(100)]);
    put(257, b"ustar  \0");
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    bytes.extend_from_slice(&block);
    bytes
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use futures_util::TryStreamExt;

    use super::super::parts::{Parts, length};
    use super::*;

    async fn stream(parts: Vec<Part>) -> std::io::Result<Vec<u8>> {
        Parts::new(parts).try_fold(Vec::new(), |all, piece| async move { Ok([&all[..], &piece[..]].concat()) }).await
    }

    fn failure(path: &std::path::Path) -> String {
        parts(path.to_str().unwrap()).unwrap_err().message
    }

    /// tar, which has its own idea of archives, finds in ours what the directory has.
    #[tokio::test(flavor = "current_thread")]
    async fn the_stream_is_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join("in").join(name);
        let long = "b".repeat(128);
        fs::create_dir_all(at("blobs/sha512")).unwrap();
        fs::write(at("index.json"), "{}").unwrap();
        fs::write(at("empty"), "").unwrap();
        fs::write(at("exact"), vec![1; 1024]).unwrap();
        fs::write(at(&format!("blobs/sha512/{long}")), vec![7; 700_001]).unwrap();
        symlink(format!("../sha512/{long}"), at("blobs/sha512/link")).unwrap();
        symlink("/etc/shadow", at("outside")).unwrap();
        let found = parts(at("").to_str().unwrap()).unwrap();
        let bytes = stream(found.clone()).await.unwrap();
        assert_eq!(bytes.len() as u64, length(&found));
        fs::write(directory.path().join("tar"), &bytes).unwrap();
        fs::create_dir(directory.path().join("out")).unwrap();
        let run = |arguments: &str| {
            let output = Command::new("sh").args(["-c", arguments]).current_dir(directory.path()).output().unwrap();
            assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        run("tar -xf tar -C out && diff -r --no-dereference in out");
        assert_eq!(run("tar -tf tar | sort -c && tar -tf tar | wc -l").trim(), "6");
    }

    /// Who may write to the directory does not choose what else of the machine is sent.
    #[tokio::test(flavor = "current_thread")]
    async fn a_link_that_takes_a_files_place_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("blobs")).unwrap();
        fs::create_dir(at("elsewhere")).unwrap();
        fs::write(at("index.json"), "{}").unwrap();
        fs::write(at("blobs/one"), "good").unwrap();
        fs::write(at("elsewhere/one"), "evil").unwrap();
        let path = directory.path().to_str().unwrap();
        let found = parts(path).unwrap();
        fs::rename(at("blobs"), at("moved")).unwrap();
        symlink("elsewhere", at("blobs")).unwrap();
        stream(found).await.unwrap_err();
        fs::remove_file(at("blobs")).unwrap();
        fs::create_dir(at("blobs")).unwrap();
        symlink("/etc/passwd", at("blobs/one")).unwrap();
        let found = parts(path).unwrap();
        assert!(!String::from_utf8(stream(found).await.unwrap()).unwrap().contains("root:"));
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        assert!(failure(directory.path()).ends_with("is a directory without an image"));
        fs::create_dir(directory.path().join("manifest.json")).unwrap();
        assert!(failure(directory.path()).ends_with("is a directory without an image"));
        fs::write(directory.path().join("oci-layout"), "{}").unwrap();
        let pipe = directory.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, Mode::RUSR).unwrap();
        assert!(failure(directory.path()).ends_with("/pipe: an image has files, directories and links only"));
        fs::remove_file(pipe).unwrap();
        fs::create_dir_all(directory.path().join("1/2/3/4/5/6/7/8/9")).unwrap();
        assert!(failure(directory.path()).ends_with("no image has directories nested so deep"));
    }
}
