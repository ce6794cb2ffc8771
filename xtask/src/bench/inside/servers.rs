//! Registries as servers, without an engine: our own and Debian's docker-registry, which a hundred clients ask for one large
//! layer at once. The clients cost next to nothing: what they get is discarded in the kernel.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use rustix::net::RecvFlags;
use sha2::{Digest, Sha256};

use super::super::work::Subject;
use super::engine::Engine;
use super::memory;
use super::registries::{PORT, Server, remove_store};
use super::tasks::{Task, seconds};
use crate::failure::{Attempt, Failure};

const CLIENTS: usize = 100;
const LAYER_BYTES: usize = 100_000_000;
const REPOSITORY: &str = "/v2/load/blobs";
/// Discarded with one call.
const DISCARDED_BYTES: usize = 1 << 20;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Until the last of the clients has all.
    Time,
    /// The most that the server takes meanwhile.
    Memory,
}

/// The server of an engine's makers.
pub struct Servers {
    engine: Engine,
    look: Look,
    server: Option<Server>,
    layer: String,
}

impl Servers {
    pub fn new(engine: Engine, look: Look) -> Self {
        Self { engine, look, server: None, layer: String::new() }
    }

    fn pull_by_all(&self) -> Result<(), Failure> {
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| pull(&self.layer))).collect();
            clients
                .into_iter()
                .try_for_each(|client| client.join().unwrap_or_else(|_| Err(Failure::new("a client failed"))))
        })
    }
}

impl Task for Servers {
    fn prepare(&mut self) -> Result<(), Failure> {
        let server = if self.engine.subject == Subject::Dozen { Server::of_dozen()? } else { Server::with_nothing()? };
        self.server = Some(server);
        let layer = noise();
        let digest = Sha256::digest(&layer).iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        self.layer = format!("{REPOSITORY}/sha256:{digest}");
        let opened = ask("POST", &format!("{REPOSITORY}/uploads/"), &[], 202)?;
        let location = opened.location.ok_or_else(|| Failure::new("an upload has no place"))?;
        // With a host or without.
        let path = location.find("/v2/").map_or(location.as_str(), |begin| &location[begin..]);
        let mark = if path.contains('?') { '&' } else { '?' };
        ask("PUT", &format!("{path}{mark}digest=sha256:{digest}"), &layer, 201).map(|_| ())
    }

    fn round(&mut self) -> Result<f64, Failure> {
        let Some(server) = &self.server else { return Err(Failure::new("there is no server")) };
        if self.look == Look::Time {
            return seconds(|| self.pull_by_all());
        }
        let server = [server.pid()];
        memory::forget_peaks(&server)?;
        self.pull_by_all()?;
        Ok(memory::peaks_of(&server)? as f64)
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.server = None;
        remove_store()
    }
}

/// The head of an answer, and what is left of the connection.
pub(super) struct Answered {
    location: Option<String>,
    pub(super) length_bytes: usize,
    pub(super) rest: BufReader<TcpStream>,
}

pub(super) fn ask(method: &str, path: &str, body: &[u8], wanted: u16) -> Result<Answered, Failure> {
    let asked = format_args!("{method} {path}").to_string();
    let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], PORT))).attempting(&asked)?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{PORT}\r\nConnection: close\r\nContent-Length: {}\r\n\
         Content-Type: application/octet-stream\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).attempting(&asked)?;
    // Small, so that nearly all of a layer is still in the kernel.
    let mut answered = Answered { location: None, length_bytes: 0, rest: BufReader::with_capacity(1024, stream) };
    let mut line = String::new();
    answered.rest.read_line(&mut line).attempting(&asked)?;
    if line.split(' ').nth(1) != Some(&wanted.to_string()) {
        return Err(Failure::new(format!("{asked}: {}", line.trim())));
    }
    loop {
        line.clear();
        answered.rest.read_line(&mut line).attempting(&asked)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { return Ok(answered) };
        match name.to_ascii_lowercase().as_str() {
            "location" => answered.location = Some(value.to_owned()),
            "content-length" => answered.length_bytes = value.parse().attempting("read a length")?,
            _ => {}
        }
    }
}

/// All of the layer, which nobody looks at.
fn pull(layer: &str) -> Result<(), Failure> {
    let mut answered = ask("GET", layer, &[], 200)?;
    let mut left = answered.length_bytes.saturating_sub(answered.rest.buffer().len());
    let mut nothing = vec![0; DISCARDED_BYTES];
    while left > 0 {
        // It is not copied: tcp(7), "MSG_TRUNC".
        let (_, length) = rustix::net::recv(answered.rest.get_mut(), &mut nothing[..], RecvFlags::TRUNC)
            .attempting("receive a layer")?;
        if length == 0 {
            return Err(Failure::new(format!("{left} bytes of a layer are missing")));
        }
        left = left.saturating_sub(length);
    }
    if answered.length_bytes == LAYER_BYTES { Ok(()) } else { Err(Failure::new("that is not the layer")) }
}

/// The same everywhere (xorshift64).
fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(next).take(LAYER_BYTES / 8).flatten().collect()
}
