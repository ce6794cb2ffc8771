//! Sockets of the file system that are listened to, and that somebody else may have removed or replaced.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

pub(crate) struct Listener {
    pub(crate) socket: OwnedFd,
    /// Device and inode of its file.
    pub(crate) file: Option<(u64, u64)>,
}

impl Listener {
    /// True while the path leads to it; someone may have removed or replaced the file.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        self.file.is_some() && identity(path) == self.file
    }
}

/// How long the socket of a keeper that is dead may outlive its lock.
const PREDECESSOR_PATIENCE: Duration = Duration::from_secs(2);

/// Listens as the one who has the lock. The kernel closes a dying keeper's descriptors one by one: its lock can be had
/// a moment before its socket is gone.
pub(crate) fn listen_after_predecessor(path: &Path) -> io::Result<UnixListener> {
    let begun = Instant::now();
    loop {
        match listen(path, 0o600, None) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && begun.elapsed() < PREDECESSOR_PATIENCE => {
                std::thread::sleep(Duration::from_millis(2));
            }
            result => return result,
        }
    }
}

/// Listens at a path. A socket that nobody listens on any more is replaced, a living one is not.
pub(crate) fn listen(path: &Path, mode: u32, group: Option<u32>) -> io::Result<UnixListener> {
    if is_served(path)? {
        return Err(Errno::ADDRINUSE.into());
    }
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_socket() => std::fs::remove_file(path)?,
        // A file of another kind is not ours to remove.
        Ok(_) => return Err(Errno::EXIST.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // Nobody else's from the first moment on.
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(before);
    let listener = listener?;
    let prepare = || -> io::Result<()> {
        if let Some(group) = group {
            std::os::unix::fs::chown(path, None, Some(group))?;
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode & 0o777))?;
        // std listens with a queue of 128 (or -1 in newer versions); a second listen(2) only changes its length.
        rustix::net::listen(&listener, 4096)?;
        listener.set_nonblocking(true)
    };
    if let Err(error) = prepare() {
        let _ = std::fs::remove_file(path);
        return Err(error);
    }
    Ok(listener)
}

/// The file that a listener is bound to; `None` if there is none.
pub(crate) fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// True if a living server listens at the path.
fn is_served(path: &Path) -> io::Result<bool> {
    // Without blocking: the queue of a dead engine's listener may be full.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) | Err(Errno::AGAIN) => Ok(true),
        Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dying_keepers_socket_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keeper.sock");
        let dying = UnixListener::bind(&path).unwrap();
        let _listener = std::thread::scope(|scope| {
            // It is gone once somebody has seen it.
            scope.spawn(move || dying.accept().map(drop));
            listen_after_predecessor(&path).unwrap()
        });
        assert!(is_served(&path).unwrap());
    }
}
