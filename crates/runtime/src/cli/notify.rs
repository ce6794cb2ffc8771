//! Word that a container is ready (sd_notify(3)), for who starts us with `$NOTIFY_SOCKET`.
//!
//! The container gets a socket of ours in its place. Whoever starts it, `start` or `run`, listens until it says `READY=1`
//! or ends, and passes on that and nothing else: who is in a container does not speak in its starter's name. After that
//! nobody listens, and who speaks is told so (ECONNREFUSED), which sd_notify(3) takes for nothing to be told.

use std::fs;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_spec::runtime::{LinuxNamespaceType, MountBuilder};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{CWD, Mode};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType,
};

use super::state::Directory;
use crate::Spec;
use crate::error::{Context, RuntimeError};

/// In the directory that the container sees.
const SOCKET: &str = "notify";
/// A longer message is not read to its end.
const MOST_BYTES: usize = 4096;
/// How long a service manager may take to hear us, and to see who has spoken before we are gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who is to be told, and by way of what.
pub(super) struct Notify {
    manager: SocketAddrUnix,
    /// Of the container, where it sees `directory`.
    place: PathBuf,
    directory: PathBuf,
}

impl Notify {
    /// `None`: nobody wants to be told.
    pub(super) fn of_environment(container: &Directory) -> Result<Option<Self>, RuntimeError> {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return Ok(None) };
        let (manager, place) = decide(name.as_bytes())?;
        Ok(Some(Self { manager, place, directory: container.path.join("notify") }))
    }

    /// Gives the container its part.
    pub(super) fn tell(&self, spec: &mut Spec) -> Result<(), RuntimeError> {
        let namespaces = spec.linux().iter().flat_map(|linux| linux.namespaces().iter().flatten());
        let has_path = |path: &Option<PathBuf>| path.as_ref().is_some_and(|path| !path.as_os_str().is_empty());
        if namespaces.into_iter().any(|it| it.typ() == LinuxNamespaceType::Mount && has_path(it.path())) {
            return Err(RuntimeError::NotBuilt("NOTIFY_SOCKET with a joined mount namespace".to_owned()));
        }
        match rustix::fs::mkdirat(CWD, &self.directory, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            made => made.context(|| format!("make {}", self.directory.display()))?,
        }
        let options = ["bind", "ro", "nosuid", "nodev", "noexec"].map(str::to_owned).to_vec();
        let mount = MountBuilder::default().destination(&self.place).typ("bind").source(&self.directory);
        let mount = mount.options(options).build().map_err(|error| RuntimeError::Invalid(error.to_string()))?;
        spec.set_mounts(Some(spec.mounts().iter().flatten().cloned().chain([mount]).collect()));
        if let Some(process) = spec.process_mut() {
            let others = process.env().iter().flatten().filter(|entry| !entry.starts_with("NOTIFY_SOCKET=")).cloned();
            let own = format!("NOTIFY_SOCKET={}", self.place.join(SOCKET).display());
            let environment = others.chain([own]).collect();
            process.set_env(Some(environment));
        }
        Ok(())
    }

    /// Before the container can speak. `None`: it was created without.
    pub(super) fn listen(self, spec: &Spec) -> Result<Option<Listening>, RuntimeError> {
        let context = || format!("listen on {}/{SOCKET}", self.directory.display());
        let directory = match fs::File::open(&self.directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.context(context)?,
        };
        // By a short name: an address has room for 107 bytes.
        let short = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd()));
        let socket = datagram_socket().context(context)?;
        let address = SocketAddrUnix::new(&short).context(context)?;
        match rustix::net::bind(&socket, &address) {
            // One that was killed before the container ran has left it; or it listens still.
            Err(Errno::ADDRINUSE) => match rustix::net::connect(&datagram_socket().context(context)?, &address) {
                Err(Errno::CONNREFUSED) => {
                    fs::remove_file(&short).context(context)?;
                    rustix::net::bind(&socket, &address).context(context)?;
                }
                _ => return Err(RuntimeError::Conflict("the container is being started already".to_owned())),
            },
            bound => bound.context(context)?,
        }
        // Whoever the container's process is.
        fs::set_permissions(&short, fs::Permissions::from_mode(0o777)).context(context)?;
        label(&short, spec);
        Ok(Some(Listening { socket, manager: self.manager }))
    }
}

/// Where the manager listens, and where the container finds our directory: by the manager's own name, as with crun, but
/// for a name that a manager in the container would want for itself.
fn decide(name: &[u8]) -> Result<(SocketAddrUnix, PathBuf), RuntimeError> {
    let failed = |what: String| move |errno: Errno| RuntimeError::system(what, errno);
    let text = String::from_utf8_lossy(name).into_owned();
    let what = format!("use NOTIFY_SOCKET={text:?}");
    match name {
        [b'/', ..] => {
            let path = Path::new(std::ffi::OsStr::from_bytes(name));
            let place = if path.starts_with("/run/systemd") { Path::new("/run/notify") } else { path };
            Ok((SocketAddrUnix::new(path).map_err(failed(what))?, place.to_owned()))
        }
        [b'@', rest @ ..] => {
            Ok((SocketAddrUnix::new_abstract_name(rest).map_err(failed(what))?, PathBuf::from("/run/notify")))
        }
        _ => Err(RuntimeError::NotBuilt(format!("NOTIFY_SOCKET={text:?}, which is no socket of this host,"))),
    }
}

/// As the container's other files are labelled. What fails is heard of by nobody: the container cannot speak then.
fn label(socket: &Path, spec: &Spec) {
    if let Some(label) = spec.linux().as_ref().and_then(|linux| linux.mount_label().as_ref()) {
        let _ = rustix::fs::setxattr(socket, c"security.selinux", label.as_bytes(), rustix::fs::XattrFlags::empty());
    }
}

fn datagram_socket() -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .and_then(|socket| rustix::io::fcntl_dupfd_cloexec(socket, 3))
}

/// The container may speak.
pub(super) struct Listening {
    socket: OwnedFd,
    manager: SocketAddrUnix,
}

impl Listening {
    /// Waits until it has said that it is ready, and passes that on, or until `process`, its first, has ended. `leaving`:
    /// with this number of it, if the manager is to watch it in our place.
    pub(super) fn wait(self, process: BorrowedFd<'_>, leaving: Option<i32>) -> Result<(), RuntimeError> {
        loop {
            let mut polled =
                [PollFd::new(&self.socket, PollFlags::IN), PollFd::from_borrowed_fd(process, PollFlags::IN)];
            match rustix::event::poll(&mut polled, None) {
                Err(Errno::INTR) => continue,
                result => result.context(|| "wait until the container is ready".to_owned())?,
            };
            // Its last word counts.
            if !polled[0].revents().is_empty() {
                let mut message = [0; MOST_BYTES];
                // Descriptors that come along are closed by the kernel.
                match rustix::net::recv(&self.socket, &mut message, RecvFlags::DONTWAIT) {
                    Ok((length, _)) if is_ready(&message[..length]) => break,
                    Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(errno) => return Err(RuntimeError::system("hear whether the container is ready", errno)),
                }
            } else if !polled[1].revents().is_empty() {
                return Ok(());
            }
        }
        let context = || "tell NOTIFY_SOCKET that the container is ready".to_owned();
        let socket = datagram_socket().context(context)?;
        rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Send, Some(PATIENCE))
            .context(context)?;
        let send = |text: &[u8]| rustix::net::sendto(&socket, text, SendFlags::NOSIGNAL, &self.manager);
        send(b"READY=1").context(context)?;
        if let Some(pid) = leaving {
            send(format!("MAINPID={pid}").as_bytes()).context(context)?;
            self.await_manager(&socket).context(context)?;
        }
        Ok(())
    }

    /// A manager finds out who has spoken as long as that is there (sd_notify_barrier(3)).
    fn await_manager(&self, socket: &OwnedFd) -> Result<(), Errno> {
        let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let descriptors = [theirs.as_fd()];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        let text = [IoSlice::new(b"BARRIER=1")];
        rustix::net::sendmsg_addr(socket, &self.manager, &text, &mut control, SendFlags::NOSIGNAL)?;
        drop(theirs);
        let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        // One that knows nothing of it, or has gone, is not waited for longer.
        match rustix::event::poll(&mut [PollFd::new(&ours, PollFlags::empty())], Some(&patience)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

/// A message is of lines, each a variable (sd_notify(3)).
fn is_ready(message: &[u8]) -> bool {
    message.split(|byte| *byte == b'\n').any(|line| line == b"READY=1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_line_says_ready() {
        for (message, expected) in [
            (&b"READY=1"[..], true),
            (b"STATUS=up\nREADY=1\n", true),
            (b"READY=10", false),
            (b"STATUS=READY=1", false),
            (b"READY=0", false),
            (b"", false),
        ] {
            assert_eq!(is_ready(message), expected, "{message:?}");
        }
    }

    #[test]
    fn a_container_finds_it_by_the_managers_name() {
        for (name, expected) in [
            ("/run/notify/the-socket", Some("/run/notify/the-socket")),
            ("/run/systemd/notify", Some("/run/notify")),
            ("@abstract", Some("/run/notify")),
            ("vsock:2:1234", None),
            ("relative", None),
        ] {
            let place = decide(name.as_bytes()).ok().map(|(_, place)| place);
            assert_eq!(place, expected.map(PathBuf::from), "{name}");
        }
        assert!(decide(&[b'/'; 200]).is_err());
    }

    #[test]
    fn who_listens_is_not_pushed_aside() {
        let root = tempfile::tempdir().unwrap();
        let container = Directory::of(root.path(), "id").unwrap();
        let spec = Spec::default();
        let listen = || {
            let (manager, place) = decide(b"@nobody").unwrap();
            Notify { manager, place, directory: container.path.join("notify") }.listen(&spec)
        };
        assert!(listen().unwrap().is_none(), "it was created without");
        fs::create_dir_all(container.path.join("notify")).unwrap();
        let first = listen().unwrap();
        assert!(first.is_some());
        assert!(matches!(listen(), Err(RuntimeError::Conflict(_))));
        drop(first);
        assert!(listen().unwrap().is_some());
    }
}
