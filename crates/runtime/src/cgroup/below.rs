//! What is below a cgroup. Whoever may write to it nests as deep as it likes, deeper than any path is long (PATH_MAX of
//! limits.h): the way goes by descriptors, a constant number of them, and nothing of it is on the stack.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// Who is in it and below it; nobody, if it is not there. 0 is one whom our own pid namespace does not show (cgroups(7)).
pub(super) fn pids(directory: &Path) -> io::Result<Vec<i32>> {
    let mut pids = Vec::new();
    let look = |here: BorrowedFd<'_>| {
        let text = match read(here, c"cgroup.procs") {
            // It has gone meanwhile; or it is threaded, and its processes are those of one above it (cgroup-v2.rst,
            // "Threads").
            Err(Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP) => return Ok(()),
            text => text?,
        };
        pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        Ok(())
    };
    match rustix::fs::openat(CWD, directory, DIRECTORY, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(pids),
        top => walk(top?, look, |_, _| Ok(()))?,
    }
    Ok(pids)
}

/// Removes it with what is below it; a busy one is asked again, ever more rarely, until the deadline.
pub(super) fn remove(directory: &Path, deadline: Instant) -> io::Result<()> {
    let mut pause = Duration::from_micros(50);
    let mut has_walked = false;
    loop {
        match rustix::fs::unlinkat(CWD, directory, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::BUSY) if !has_walked || Instant::now() < deadline => has_walked = true,
            Err(errno) => return Err(errno.into()),
        }
        match rustix::fs::openat(CWD, directory, DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(()),
            top => walk(top?, |_| Ok(()), remove_one)?,
        }
        // The kernel tells of an emptied cgroup in version 2 only (cgroup.events), so here we ask.
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn remove_one(parent: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        // What is busy keeps those above it busy, and is asked again with them.
        Err(Errno::NOENT | Errno::BUSY) => Ok(()),
        result => result,
    }
}

/// Goes through a directory and all below it. `look` is called on the way down, with each; `leave` on the way up, with
/// where each but the first lies, and its name.
fn walk(
    top: OwnedFd,
    mut look: impl FnMut(BorrowedFd<'_>) -> Result<(), Errno>,
    mut leave: impl FnMut(BorrowedFd<'_>, &CStr) -> Result<(), Errno>,
) -> Result<(), Errno> {
    look(top.as_fd())?;
    // Of each directory on the way to here: its name, and those in it that are yet to be gone into.
    let mut way = vec![(CString::default(), directories(top.as_fd())?)];
    let mut here = top;
    while let Some((name, rest)) = way.last_mut() {
        if let Some(next) = rest.pop() {
            here = match rustix::fs::openat(&here, &next, DIRECTORY, Mode::empty()) {
                Err(Errno::NOENT | Errno::NODEV) => continue,
                below => below?,
            };
            look(here.as_fd())?;
            way.push((next, directories(here.as_fd())?));
            continue;
        }
        let name = std::mem::take(name);
        way.pop();
        if !way.is_empty() {
            // A cgroup stays where it is: only its name can change, in version 1.
            here = rustix::fs::openat(&here, c"..", DIRECTORY, Mode::empty())?;
            leave(here.as_fd(), &name)?;
        }
    }
    Ok(())
}

/// The directories in one that nobody has read before by this descriptor.
fn directories(here: BorrowedFd<'_>) -> Result<Vec<CString>, Errno> {
    let mut space = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(here, &mut space);
    let mut found = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Err(Errno::NOENT | Errno::NODEV) => break,
            entry => entry?,
        };
        let name = entry.file_name();
        if entry.file_type() == FileType::Directory && name != c"." && name != c".." {
            found.push(name.to_owned());
        }
    }
    Ok(found)
}

fn read(directory: BorrowedFd<'_>, name: &CStr) -> Result<String, Errno> {
    use std::io::Read;
    let file = rustix::fs::openat(directory, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = String::new();
    let read = std::fs::File::from(file).read_to_string(&mut text);
    read.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes directories one in another, each with a name of 200 bytes.
    fn nest(directory: &Path, depth: usize) {
        let name = CString::new("n".repeat(200)).unwrap();
        let mut here = rustix::fs::openat(CWD, directory, DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..depth {
            rustix::fs::mkdirat(&here, &name, Mode::RWXU).unwrap();
            rustix::fs::mkdirat(&here, c"beside", Mode::RWXU).unwrap();
            here = rustix::fs::openat(&here, &name, DIRECTORY, Mode::empty()).unwrap();
        }
    }

    #[test]
    fn what_is_deeper_than_a_path_is_long_is_seen_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().join("top");
        std::fs::create_dir(&top).unwrap();
        nest(&top, 100);
        let mut seen = 0;
        let count = |_: BorrowedFd<'_>| {
            seen += 1;
            Ok(())
        };
        let opened = || rustix::fs::openat(CWD, &top, DIRECTORY, Mode::empty()).unwrap();
        walk(opened(), count, |_, _| Ok(())).unwrap();
        assert_eq!(seen, 201);
        walk(opened(), |_| Ok(()), remove_one).unwrap();
        remove(&top, Instant::now()).unwrap();
        assert!(!top.exists());
    }
}
