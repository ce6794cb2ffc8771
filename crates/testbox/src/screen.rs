//! A terminal with a program on it, and a person who types.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use crate::machine::Machine;
use crate::wait::patience;

/// What a program may take to show something.
const PATIENCE: Duration = Duration::from_secs(20);

/// A program on a pseudo-terminal of its own.
#[derive(Debug)]
pub struct Screen {
    master: std::fs::File,
    child: Child,
    shown: String,
}

impl Machine {
    /// Runs a program on a terminal of 24 rows and 80 columns, as the machine's user would.
    pub fn screen(&self, program: &Path, arguments: &[&str]) -> Screen {
        let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        rustix::pty::grantpt(&master).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        // Before there is a program that could ask for it.
        set_size(&master, 24, 80);
        let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let side = || Stdio::from(rustix::fs::open(name.as_c_str(), flags, Mode::empty()).unwrap());
        // setsid(1) makes its standard input the program's controlling terminal, which signals and sizes come by.
        let mut command = self.command("setsid");
        command.args(["--ctty", "--wait"]).arg(program).args(arguments);
        command.stdin(side()).stdout(side()).stderr(side());
        let child = command.spawn().unwrap();
        Screen { master: master.into(), child, shown: String::new() }
    }
}

fn set_size(master: impl AsFd, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(master, size).unwrap();
}

impl Screen {
    /// Types, as it is: a line ends with `\r`, ctrl-c is `\x03`.
    pub fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Changes the size, as a person who drags the window's corner.
    pub fn resize(&self, rows: u16, columns: u16) {
        set_size(&self.master, rows, columns);
    }

    /// Waits until this is on the screen, below what was waited for before.
    #[track_caller]
    pub fn shows(&mut self, text: &str) {
        let begun = Instant::now();
        loop {
            if let Some(place) = self.shown.find(text) {
                self.shown.drain(..place + text.len());
                return;
            }
            let ended = !self.look();
            let place = self.shown.contains(text);
            assert!(place || !ended, "the program has ended without '{text}':\n{}", self.shown);
            assert!(begun.elapsed() < patience(PATIENCE), "the screen does not show '{text}':\n{}", self.shown);
        }
    }

    /// Waits for the program's end: its exit code and what was on the screen below the last thing waited for.
    #[track_caller]
    pub fn end(mut self) -> (i32, String) {
        let begun = Instant::now();
        while self.look() {
            assert!(begun.elapsed() < patience(PATIENCE), "the program does not end:\n{}", self.shown);
        }
        let status = self.child.wait().unwrap();
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
        (code, std::mem::take(&mut self.shown))
    }

    /// Reads what there is, or waits for a moment. False once nobody has the terminal's other side any more: reading
    /// fails with EIO then.
    fn look(&mut self) -> bool {
        let moment = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        let mut polled = [PollFd::new(&self.master, PollFlags::IN)];
        if rustix::event::poll(&mut polled, Some(&moment)).unwrap() == 0 {
            return true;
        }
        let mut buffer = [0; 4096];
        match rustix::io::read(&self.master, &mut buffer) {
            Ok(0) | Err(_) => false,
            Ok(count) => {
                self.shown += &String::from_utf8_lossy(&buffer[..count]);
                true
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
