//! A rotated file is compressed by a child of the monitor's, at the lowest priority: the monitor, which has one thread,
//! goes on taking output, and grows by nothing.
//!
//! The child writes beside the log. The monitor gives the file its name, when the child has ended well and
//! the disk has all of it, for only the monitor knows by which number the file goes by then.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use flate2::{Compression, GzBuilder};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};

use crate::watched::{Token, Watched};

/// A child at work.
#[derive(Debug)]
pub(super) struct Compressor {
    /// It.
    pub(super) child: Pid,
    /// The inode's number of what it compresses.
    pub(super) inode: u64,
    /// Readable once it has ended: SIGCHLD alone may come when nobody waits for it.
    pub(super) end: Watched,
}

impl Compressor {
    /// Has a child compress a file into another, which is made.
    ///
    /// # Errors
    /// There is no such file, the other cannot be made, or there can be no more processes.
    pub(super) fn begin(source: &Path, target: &Path) -> io::Result<Self> {
        let source = File::open(source)?;
        let inode = source.metadata()?.ino();
        let target = super::file::open(target, true)?;
        let parent = rustix::process::getpid();
        // SAFETY: the child runs on with a copy of this process, whose only thread this is (in tests, glibc sees to
        // the allocator's locks), and ends within this function.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                let work = || work(source, target, inode, parent);
                let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
                // SAFETY: nothing of the monitor's is run on the way out.
                unsafe { libc::_exit(i32::from(!matches!(result, Ok(Ok(()))))) }
            }
            child => {
                let child = Pid::from_raw(child).ok_or_else(|| io::Error::other("a child without a number"))?;
                let end = rustix::process::pidfd_open(child, PidfdFlags::empty());
                match end {
                    Ok(end) => Ok(Self { child, inode, end: Watched::as_is(end, Token::Log) }),
                    Err(error) => {
                        stop(child);
                        Err(error.into())
                    }
                }
            }
        }
    }

    /// Ends it.
    pub(super) fn stop(self) {
        stop(self.child);
    }
}

/// It is our child, and was not waited for: the number is its own.
fn stop(child: Pid) {
    let _ = rustix::process::kill_process(child, Signal::KILL);
    let _ = rustix::process::waitpid(Some(child), WaitOptions::empty());
}

/// In the child.
fn work(mut source: File, target: File, inode: u64, parent: Pid) -> io::Result<()> {
    let (first, last) = (source.as_raw_fd().min(target.as_raw_fd()), source.as_raw_fd().max(target.as_raw_fd()));
    let ranges = [(3, first - 1), (first + 1, last - 1), (last + 1, i32::MAX)];
    for (from, to) in ranges.into_iter().filter(|(from, to)| from <= to) {
        // The lock, the container's pipes, clients: nothing of it may outlive the monitor here.
        // SAFETY: nobody uses these descriptors in this process any more.
        unsafe { libc::close_range(from.cast_unsigned(), to.cast_unsigned(), 0) };
    }
    // SAFETY: prctl(2) with these options and setpriority(2) take numbers.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as usize, 0_usize, 0_usize, 0_usize);
        libc::setpriority(libc::PRIO_PROCESS, 0, 19);
    }
    if rustix::process::getppid() != Some(parent) {
        return Err(io::Error::other("the monitor has died meanwhile"));
    }
    let mut encoder = GzBuilder::new().extra(former_inode(inode)).write(target, Compression::fast());
    io::copy(&mut source, &mut encoder)?;
    encoder.finish()?.sync_data()
}

/// A field of the header (RFC 1952, section 2.3.1.1), by which those who follow the log recognise the file that they were
/// reading when it was compressed.
fn former_inode(inode: u64) -> Vec<u8> {
    [&b"DZ\x08\0"[..], &inode.to_le_bytes()].concat()
}

/// The inode's number of what was compressed, from the beginning of the compressed file. `None` if it does not say.
pub fn inode_of(header: &[u8]) -> Option<u64> {
    let extra = header.strip_prefix(&[0x1f, 0x8b, 8])?;
    // Bit 2 of the flags: there are extra fields; their length stands after ten bytes.
    let fields = extra.first().filter(|flags| **flags & 4 != 0).and(extra.get(9..))?;
    let number = fields.strip_prefix(b"DZ\x08\0")?;
    Some(u64::from_le_bytes(*number.first_chunk()?))
}

/// So much of a compressed file has [`inode_of`] in it.
pub const HEADER_BYTES: usize = 24;
