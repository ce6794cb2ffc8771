//! A container's terminal on the user's own: bytes both ways, the size, raw mode.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, OutputModes, Termios};

use super::process::{Signals, exit_code, send};
use crate::create::WindowSize;
use crate::error::{Context, RuntimeError};

/// What is read at once: a pipe that polls as writable takes as much without blocking (pipe(7), PIPE_BUF).
const PIECE_BYTES: usize = 4096;

/// The size of the user's terminal, for one that is carried to it.
pub(super) fn users_size() -> Option<WindowSize> {
    let size = rustix::termios::tcgetwinsize(UsersTerminal::find()?).ok()?;
    (size.ws_row > 0).then_some(WindowSize { rows: size.ws_row, columns: size.ws_col })
}

/// Before the first word: what goes to a file or a pipe has lines as there are elsewhere, ended by a line feed alone, as
/// with runc. Who sits at a terminal needs the carriage return, since that is raw meanwhile.
pub(super) fn write_plain_lines(master: &OwnedFd) -> Result<(), RuntimeError> {
    if rustix::termios::isatty(io::stdout()) {
        return Ok(());
    }
    let context = || "set the container's terminal".to_owned();
    let mut modes = rustix::termios::tcgetattr(master).context(context)?;
    modes.output_modes.remove(OutputModes::ONLCR);
    rustix::termios::tcsetattr(master, OptionalActions::Now, &modes).context(context)
}

/// Carries between the user and a process with a terminal until that ends; its exit code.
pub(super) fn carry(process: &OwnedFd, master: OwnedFd) -> Result<u8, RuntimeError> {
    // Before the user's terminal is changed, so that no signal ends us and leaves it raw.
    let signals = Signals::take()?;
    let users = UsersTerminal::find().map(UsersTerminal::make_raw).transpose()?;
    let mut relay = Relay::new(master)?;
    loop {
        let events = relay.wait(process, &signals)?;
        if events.signal {
            match (signals.read()?, &users) {
                (libc::SIGWINCH, Some(users)) => users.hand_on_size(&relay.master),
                (libc::SIGWINCH, None) => {}
                (number, _) => send(process, number)?,
            }
        }
        if events.ended {
            relay.finish()?;
            return exit_code(process);
        }
    }
}

/// The terminal that the user sits at, raw (termios(3)); dropped, it is as it was before.
struct UsersTerminal {
    terminal: OwnedFd,
    before: Termios,
}

impl UsersTerminal {
    /// That of the standard streams, else the session's. `None`: there is no user at a terminal.
    fn find() -> Option<OwnedFd> {
        let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
        let streams = [input.as_fd(), output.as_fd(), error.as_fd()];
        let own = streams.into_iter().find(|stream| rustix::termios::isatty(stream));
        match own {
            Some(stream) => stream.try_clone_to_owned().ok(),
            None => rustix::fs::open("/dev/tty", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).ok(),
        }
    }

    fn make_raw(terminal: OwnedFd) -> Result<Self, RuntimeError> {
        let context = || "set the terminal to raw mode".to_owned();
        let before = rustix::termios::tcgetattr(&terminal).context(context)?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(&terminal, OptionalActions::Now, &raw).context(context)?;
        Ok(Self { terminal, before })
    }

    /// Gives the container's terminal the size of the user's.
    fn hand_on_size(&self, master: &OwnedFd) {
        if let Ok(size) = rustix::termios::tcgetwinsize(&self.terminal) {
            // A terminal that has just been hung up needs no size.
            let _ = rustix::termios::tcsetwinsize(master, size);
        }
    }
}

impl Drop for UsersTerminal {
    fn drop(&mut self) {
        let _ = rustix::termios::tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

/// Bytes on their way. Nothing is read that has no place yet, so that who writes too fast waits, on either side.
struct Relay {
    master: OwnedFd,
    /// From the user, not yet written to the master.
    input: Vec<u8>,
    /// From the master, not yet written to the user.
    output: Vec<u8>,
    /// Standard input has not ended.
    user_writes: bool,
    /// Standard output takes what we write.
    user_reads: bool,
    /// Somebody holds the slave.
    is_open: bool,
}

/// What happened beside the bytes.
struct Events {
    signal: bool,
    ended: bool,
}

impl Relay {
    fn new(master: OwnedFd) -> Result<Self, RuntimeError> {
        // A process that reads nothing must not stop us: its terminal takes some thousand bytes, and then no more.
        rustix::fs::fcntl_getfl(&master)
            .and_then(|flags| rustix::fs::fcntl_setfl(&master, flags | OFlags::NONBLOCK))
            .context(|| "make the terminal's master non-blocking".to_owned())?;
        let (input, output) = (Vec::new(), Vec::new());
        Ok(Self { master, input, output, user_writes: true, user_reads: true, is_open: true })
    }

    /// Waits until something can be done, and does it.
    fn wait(&mut self, process: &OwnedFd, signals: &Signals) -> Result<Events, RuntimeError> {
        let (stdin, stdout) = (io::stdin(), io::stdout());
        let when = |wanted: bool, flag: PollFlags| if wanted { flag } else { PollFlags::empty() };
        let reads_user = self.is_open && self.user_writes && self.input.is_empty();
        let writes_user = !self.output.is_empty();
        let of_master = when(self.output.is_empty(), PollFlags::IN) | when(!self.input.is_empty(), PollFlags::OUT);
        let mut polled = vec![PollFd::new(process, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        // What has hung up is told again and again: only those are asked who can go on.
        let asked = [
            (reads_user, PollFd::new(&stdin, PollFlags::IN)),
            (writes_user, PollFd::new(&stdout, PollFlags::OUT)),
            (self.is_open && !of_master.is_empty(), PollFd::new(&self.master, of_master)),
        ];
        polled.extend(asked.iter().filter(|(wanted, _)| *wanted).map(|(_, descriptor)| descriptor.clone()));
        match rustix::event::poll(&mut polled, None) {
            Err(Errno::INTR) => return Ok(Events { signal: false, ended: false }),
            result => result.context(|| "wait for the container".to_owned())?,
        };
        let happened: Vec<PollFlags> = polled.iter().map(PollFd::revents).collect();
        drop(polled);
        let mut rest = happened[2..].iter();
        let mut next = |wanted: bool| wanted.then(|| rest.next().copied()).flatten().unwrap_or(PollFlags::empty());
        let (from_user, to_user) = (next(reads_user), next(writes_user));
        let master = next(self.is_open && !of_master.is_empty());
        if !from_user.is_empty() {
            self.read_user(&stdin);
        }
        if !to_user.is_empty() {
            self.write_user(&stdout);
        }
        if master.contains(PollFlags::OUT) {
            self.write_master();
        }
        if master.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) && self.output.is_empty() {
            self.read_master();
        }
        Ok(Events { signal: happened[1].contains(PollFlags::IN), ended: !happened[0].is_empty() })
    }

    fn read_user(&mut self, stdin: &io::Stdin) {
        let mut piece = [0; PIECE_BYTES];
        match rustix::io::read(stdin, &mut piece) {
            Ok(count) if count > 0 => self.input.extend_from_slice(&piece[..count]),
            Err(Errno::INTR | Errno::AGAIN) => {}
            // The end, or a stream that we have not got: the process hears no more, and goes on.
            Ok(_) | Err(_) => self.user_writes = false,
        }
    }

    fn write_user(&mut self, stdout: &io::Stdout) {
        match rustix::io::write(stdout, &self.output) {
            Ok(count) => drop(self.output.drain(..count)),
            Err(Errno::INTR | Errno::AGAIN) => {}
            // Nobody listens any more: the process need not wait for that.
            Err(_) => {
                self.user_reads = false;
                self.output.clear();
            }
        }
    }

    fn write_master(&mut self) {
        match rustix::io::write(&self.master, &self.input) {
            Ok(count) => drop(self.input.drain(..count)),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => self.input.clear(),
        }
    }

    fn read_master(&mut self) -> bool {
        let mut piece = [0; PIECE_BYTES];
        match rustix::io::read(&self.master, &mut piece) {
            Ok(count) if count > 0 => {
                if self.user_reads {
                    self.output.extend_from_slice(&piece[..count]);
                }
                return true;
            }
            Err(Errno::INTR) => return true,
            Err(Errno::AGAIN) => {}
            // EIO: nobody holds the slave (tty_ioctl(4) has no word of it; the kernel's pty driver answers so).
            Ok(_) | Err(_) => self.is_open = false,
        }
        false
    }

    /// What the process has written before its end, also where others hold its terminal still.
    fn finish(&mut self) -> Result<(), RuntimeError> {
        let stdout = io::stdout();
        loop {
            while !self.output.is_empty() {
                let mut polled = [PollFd::new(&stdout, PollFlags::OUT)];
                match rustix::event::poll(&mut polled, None) {
                    Err(Errno::INTR) => {}
                    result => result.map(drop).context(|| "wait for standard output".to_owned())?,
                }
                self.write_user(&stdout);
            }
            if !self.read_master() {
                return Ok(());
            }
        }
    }
}
