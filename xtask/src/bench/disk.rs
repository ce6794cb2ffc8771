//! The file system that a run works on: ext4 as mke2fs makes it for everybody, with a journal, in a sparse file.
//!
//! What the host has may be anything. An ext4 without a journal, for one, gives no inode out again within a minute of its
//! deletion and looks through all of them for each file that is made (Linux, fs/ext4/ialloc.c, `recently_deleted`): a load
//! that followed a `rmi` took three times as long there, whoever's it was.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::{Attempt, Failure};
use crate::steps;

/// How large it is; what is not written takes no room.
const SIZE: &str = "24G";

/// Makes it below `scratch`, a directory that is not there yet; gives where it is mounted.
pub fn mount(scratch: &Path) -> Result<PathBuf, Failure> {
    let mounted = mountpoint(scratch);
    std::fs::create_dir_all(&mounted).attempting(format_args!("create {}", mounted.display()))?;
    let image = scratch.join("disk.ext4");
    let mut make = Command::new("mke2fs");
    // Nothing is left for the kernel to do in the background, while something is measured.
    make.args(["-q", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0"]).arg(&image).arg(SIZE);
    steps::capture(&mut make)?;
    // Past the page cache of the host's own file system: what is read again is read from that of this one.
    let direct = attach(&image, &["--direct-io=on"]);
    let device = direct.or_else(|_| attach(&image, &[]))?;
    let done = steps::capture(Command::new("mount").arg(&device).arg(&mounted));
    // Once nothing uses it any more (losetup(8), `--detach`); at once, if the mount failed.
    steps::capture(Command::new("losetup").arg("--detach").arg(&device))?;
    done.map(|_| mounted)
}

fn attach(image: &Path, options: &[&str]) -> Result<String, Failure> {
    let answer = steps::capture(Command::new("losetup").args(["--find", "--show"]).args(options).arg(image))?;
    Ok(answer.trim_end().to_owned())
}

/// Removes all of it, however far it had come.
pub fn remove(scratch: &Path) -> Result<(), Failure> {
    let mounted = mountpoint(scratch);
    let table = std::fs::read_to_string("/proc/self/mountinfo").attempting("read /proc/self/mountinfo")?;
    if table.lines().any(|line| line.split(' ').nth(4).is_some_and(|point| Path::new(point) == mounted)) {
        steps::capture(Command::new("umount").arg(&mounted))?;
    }
    match std::fs::remove_dir_all(scratch) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).attempting(format_args!("remove {}", scratch.display()))
        }
        _ => Ok(()),
    }
}

fn mountpoint(scratch: &Path) -> PathBuf {
    scratch.join("files")
}
