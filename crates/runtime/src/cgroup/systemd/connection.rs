//! A conversation with systemd's manager: one thread, one question at a time.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::message::{Call, Kind, Message, PREFIX_BYTES, Writer};
use crate::error::RuntimeError;

/// systemd's own socket, root's alone, which needs no bus.
const PRIVATE: &str = "/run/systemd/private";
const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";
const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const BUS: &str = "org.freedesktop.DBus";
/// How long a manager may take over one wish. While it reads its units anew it answers nobody; systemctl(1) waits as long.
const PATIENCE: Duration = Duration::from_secs(90);
/// On its own socket systemd tells of everyone's jobs. More than these, unread, are not kept.
const MOST_JOBS: usize = 4096;

/// Why there is no answer, or which one.
#[derive(Debug, thiserror::Error)]
pub(super) enum BusError {
    /// systemd's refusal: the error's name on the bus, and its text.
    #[error("{text}")]
    Refused { name: String, text: String },
    #[error("{0}")]
    Broken(String),
}

impl From<io::Error> for BusError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                Self::Broken(format!("systemd does not answer within {} s", PATIENCE.as_secs()))
            }
            io::ErrorKind::UnexpectedEof => Self::Broken("systemd has closed the connection".to_owned()),
            _ => Self::Broken(crate::error::words(&error)),
        }
    }
}

impl From<super::message::Malformed> for BusError {
    fn from(error: super::message::Malformed) -> Self {
        Self::Broken(error.to_string())
    }
}

impl BusError {
    /// The last part of an error's name.
    pub(super) fn is(&self, name: &str) -> bool {
        matches!(self, Self::Refused { name: known, .. } if known.rsplit('.').next() == Some(name))
    }

    pub(super) fn during(self, action: String) -> RuntimeError {
        RuntimeError::system(action, io::Error::other(self.to_string()))
    }
}

/// A job that has ended.
#[derive(Debug)]
struct Job {
    sender: String,
    path: String,
    result: String,
}

#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    serial: u32,
    jobs: VecDeque<Job>,
}

impl Connection {
    /// systemd's own socket, or else the system's bus.
    pub(super) fn open() -> Result<Self, RuntimeError> {
        let attempt = |path: &str, is_bus: bool| -> Result<Self, BusError> {
            Self::over(UnixStream::connect(Path::new(path))?, is_bus)
        };
        attempt(PRIVATE, false).or_else(|_| attempt(SYSTEM_BUS, true)).map_err(|error| {
            RuntimeError::Invalid(format!(
                "cannot reach systemd, neither at {PRIVATE} nor by the bus at {SYSTEM_BUS}: {error}"
            ))
        })
    }

    /// Over a stream whose other end waits to be greeted.
    pub(super) fn over(stream: UnixStream, is_bus: bool) -> Result<Self, BusError> {
        let mut connection = Self { stream, serial: 0, jobs: VecDeque::new() };
        connection.authenticate()?;
        if is_bus {
            connection.call_bus("Hello", "", &Writer::default())?;
            let mut rule = Writer::default();
            rule.text(&format!("type='signal',sender='{SYSTEMD}',interface='{MANAGER}',member='JobRemoved'"));
            connection.call_bus("AddMatch", "s", &rule)?;
            // On a bus it says nothing to those who have not asked.
            connection.call("Subscribe", "", &Writer::default())?;
        }
        Ok(connection)
    }

    /// As whom the kernel knows us to be (the D-Bus specification, "Authentication Protocol", EXTERNAL).
    ///
    /// Greeting and BEGIN are one write, and nothing follows before the answer, as with sd-bus(3) on our side: on its side
    /// it does not look at a call that it has read together with BEGIN until more comes in.
    fn authenticate(&mut self) -> Result<(), BusError> {
        let deadline = Instant::now() + PATIENCE;
        let uid = rustix::process::geteuid().as_raw().to_string();
        let uid: String = uid.bytes().map(|digit| format!("{digit:02x}")).collect();
        self.write(format!("\0AUTH EXTERNAL {uid}\r\nBEGIN\r\n").as_bytes(), deadline)?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n") {
            let mut byte = [0u8];
            self.read(&mut byte, deadline)?;
            answer.push(byte[0]);
            if answer.len() > 512 {
                return Err(BusError::Broken("an endless answer to our greeting".to_owned()));
            }
        }
        if !answer.starts_with(b"OK ") {
            return Err(BusError::Broken(format!("we are not let in: {}", String::from_utf8_lossy(&answer).trim())));
        }
        Ok(())
    }

    /// Calls a method of systemd's manager, and waits for the answer.
    pub(super) fn call(&mut self, method: &str, signature: &str, body: &Writer) -> Result<Message, BusError> {
        let path = "/org/freedesktop/systemd1";
        self.ask(Call { destination: SYSTEMD, path, interface: MANAGER, method }, signature, body)
    }

    /// A property of one of the manager's objects, as a variant.
    pub(super) fn property(&mut self, path: &str, interface: &str, name: &str) -> Result<Message, BusError> {
        let mut body = Writer::default();
        body.text(interface).text(name);
        let properties = "org.freedesktop.DBus.Properties";
        self.ask(Call { destination: SYSTEMD, path, interface: properties, method: "Get" }, "ss", &body)
    }

    /// Returns once the manager has come round to the next question: what it had put off till then is done.
    pub(super) fn settle(&mut self) -> Result<(), BusError> {
        let interface = "org.freedesktop.DBus.Peer";
        let ping = Call { destination: SYSTEMD, path: "/org/freedesktop/systemd1", interface, method: "Ping" };
        self.ask(ping, "", &Writer::default()).map(drop)
    }

    fn call_bus(&mut self, method: &str, signature: &str, body: &Writer) -> Result<Message, BusError> {
        let call = Call { destination: BUS, path: "/org/freedesktop/DBus", interface: BUS, method };
        self.ask(call, signature, body)
    }

    /// Calls a method whose answer is a job, and waits until that has ended; its result, `done` if all is well.
    pub(super) fn run_job(&mut self, method: &str, signature: &str, body: &Writer) -> Result<String, BusError> {
        let answer = self.call(method, signature, body)?;
        let job = answer.texts()?.first().map(|path| (*path).to_owned());
        let job = job.ok_or_else(|| BusError::Broken(format!("{method} has answered without a job")))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            while let Some(ended) = self.jobs.pop_front() {
                // On a bus anyone may send us a signal; the bus says truly who has.
                if ended.path == job && ended.sender == answer.sender {
                    return Ok(ended.result);
                }
            }
            let message = self.receive(deadline)?;
            self.note(message);
        }
    }

    fn ask(&mut self, call: Call<'_>, signature: &str, body: &Writer) -> Result<Message, BusError> {
        let deadline = Instant::now() + PATIENCE;
        self.serial += 1;
        let message = call.encode(self.serial, signature, body);
        self.write(&message, deadline)?;
        loop {
            let message = self.receive(deadline)?;
            match message.kind {
                Kind::Return if message.reply_to == Some(self.serial) => return Ok(message),
                Kind::Error if message.reply_to == Some(self.serial) => {
                    let text = message.texts().ok().and_then(|texts| texts.first().map(|text| (*text).to_owned()));
                    let text = text.unwrap_or_else(|| message.error_name.clone());
                    return Err(BusError::Refused { name: message.error_name, text });
                }
                _ => self.note(message),
            }
        }
    }

    /// Keeps what is told of jobs that have ended.
    fn note(&mut self, message: Message) {
        if message.kind != Kind::Signal || message.member != "JobRemoved" || message.interface != MANAGER {
            return;
        }
        if let Ok([path, _unit, result]) = message.texts().as_deref()
            && self.jobs.len() < MOST_JOBS
        {
            let (path, result) = ((*path).to_owned(), (*result).to_owned());
            self.jobs.push_back(Job { sender: message.sender.clone(), path, result });
        }
    }

    fn receive(&mut self, deadline: Instant) -> Result<Message, BusError> {
        let mut prefix = [0u8; PREFIX_BYTES];
        self.read(&mut prefix, deadline)?;
        let mut bytes = prefix.to_vec();
        bytes.resize(Message::length(&prefix)?, 0);
        self.read(&mut bytes[PREFIX_BYTES..], deadline)?;
        Ok(Message::decode(&bytes)?)
    }

    /// One who sends a byte now and then is not waited for longer than one who sends none.
    fn read(&mut self, mut buffer: &mut [u8], deadline: Instant) -> Result<(), BusError> {
        while !buffer.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(buffer) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(count) => buffer = &mut buffer[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
            if !buffer.is_empty() && Instant::now() >= deadline {
                return Err(io::Error::from(io::ErrorKind::TimedOut).into());
            }
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8], deadline: Instant) -> Result<(), BusError> {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.stream.set_write_timeout(Some(left))?;
        Ok(self.stream.write_all(bytes)?)
    }
}
