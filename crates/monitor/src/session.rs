//! One process and its streams: the container's first, or an exec's.

use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::io::Errno;
use rustix::pipe::PipeFlags;

use crate::isolate::{Process, Streams};
use crate::log::Stream;
use crate::outbox::Outbox;
use crate::protocol::WindowSize;
use crate::watched::{Token, Watched};

/// Which streams a process gets; the others are /dev/null.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// A pipe for standard input.
    pub stdin: bool,
    /// One for standard output.
    pub stdout: bool,
    /// One for standard error.
    pub stderr: bool,
}

/// Our ends of a process's pipes.
#[derive(Debug, Default)]
pub struct Ends {
    input: Option<OwnedFd>,
    outputs: [Option<OwnedFd>; 2],
}

/// Makes pipes, or asks for a terminal.
pub fn streams(wanted: Wanted, terminal: bool, size: Option<WindowSize>) -> rustix::io::Result<(Streams, Ends)> {
    if terminal {
        return Ok((Streams::Terminal(size), Ends::default()));
    }
    let null = |flags| -> rustix::io::Result<OwnedFd> {
        rustix::fs::open("/dev/null", flags | rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty())
    };
    let mut ends = Ends::default();
    let input = if wanted.stdin {
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        ends.input = Some(writer);
        reader
    } else {
        null(rustix::fs::OFlags::RDONLY)?
    };
    let mut output = |index: usize, wanted: bool| {
        if !wanted {
            return null(rustix::fs::OFlags::WRONLY);
        }
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        ends.outputs[index] = Some(reader);
        Ok(writer)
    };
    let outputs = [output(0, wanted.stdout)?, output(1, wanted.stderr)?];
    let [stdout, stderr] = outputs;
    Ok((Streams::Each([input, stdout, stderr]), ends))
}

/// A process of the container's.
#[derive(Debug)]
pub struct Session {
    /// `None`: the container's first.
    pub exec_id: Option<String>,
    /// In the host's pid namespace.
    pub pid: i32,
    /// Readable once it has ended.
    pub end: Watched,
    /// The terminal's master; held open, because closing it hangs up on the process.
    pub terminal: Option<OwnedFd>,
    /// Standard output or the terminal, and standard error, until they end.
    pub outputs: [Option<Watched>; 2],
    /// Standard input, until it is closed.
    pub input: Option<Watched>,
    /// What standard input has not taken yet.
    pub input_waiting: Outbox,
    /// Close standard input after that.
    pub input_ends: bool,
    /// Once it has ended.
    pub exit_code: Option<i32>,
    /// Then its streams are waited for until here: someone else may hold them.
    pub streams_until: Option<Instant>,
}

impl Session {
    /// Takes over a process and its streams.
    pub fn new(id: u32, exec_id: Option<String>, process: Process, ends: Ends) -> rustix::io::Result<Self> {
        let (mut input, mut outputs) = (ends.input, ends.outputs);
        if let Some(terminal) = &process.terminal {
            input = Some(rustix::io::fcntl_dupfd_cloexec(terminal, 3)?);
            outputs = [Some(rustix::io::fcntl_dupfd_cloexec(terminal, 3)?), None];
        }
        let [stdout, stderr] = outputs;
        let output = |stream, descriptor: Option<OwnedFd>| {
            descriptor.map(|descriptor| Watched::new(descriptor, Token::Output(id, stream))).transpose()
        };
        Ok(Self {
            exec_id,
            pid: process.pid,
            end: Watched::as_is(process.pidfd, Token::End(id)),
            terminal: process.terminal,
            outputs: [output(0, stdout)?, output(1, stderr)?],
            input: input.map(|descriptor| Watched::new(descriptor, Token::Input(id))).transpose()?,
            input_waiting: Outbox::default(),
            input_ends: false,
            exit_code: None,
            streams_until: None,
        })
    }

    /// All of its output has been read.
    pub fn output_ended(&self) -> bool {
        self.outputs.iter().all(Option::is_none)
    }

    /// It takes more input at once.
    pub fn input_has_room(&self) -> bool {
        // Without a reader it takes everything and drops it.
        self.input.is_none() || self.input_waiting.is_empty()
    }

    /// Feeds standard input. What it does not take waits.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.input.is_some() {
            self.input_waiting.push_raw(bytes);
            self.feed_waiting();
        }
    }

    /// No more input comes.
    pub fn end_input(&mut self) {
        self.input_ends = true;
        self.feed_waiting();
    }

    /// Writes what the process takes.
    pub fn feed_waiting(&mut self) {
        while let Some(input) = &self.input {
            if self.input_waiting.is_empty() {
                // A terminal has no end of file to pass on but the character for it, which is the client's to send.
                if self.input_ends && self.terminal.is_none() {
                    self.input = None;
                }
                return;
            }
            match rustix::io::write(input, self.input_waiting.front()) {
                Ok(count) => self.input_waiting.advance(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    // Nobody reads it any more.
                    self.input = None;
                    self.input_waiting = Outbox::default();
                }
            }
        }
    }

    /// The stream behind an output.
    pub fn stream(output: usize) -> Stream {
        if output == 0 { Stream::Stdout } else { Stream::Stderr }
    }
}
