//! HTTP/1.1 as a client speaks it that can break off anywhere, and tells an answer from none.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use dozen_testbox::{Machine, Side, patience};

/// Longer than a server that ends gives its clients.
const SILENCE: Duration = Duration::from_secs(25);

#[derive(Debug, Clone, Copy)]
pub enum Manner {
    /// With its length.
    Whole,
    /// In pieces, of which nobody knows how many.
    Chunked,
    /// With its length, and then only so much of it.
    Cut(usize),
    /// All of it, and nobody waits for what is said.
    Away,
}

#[derive(Debug)]
pub struct Request<'a> {
    pub method: &'a str,
    pub path: String,
    pub fields: Vec<(&'a str, String)>,
    pub body: &'a [u8],
    pub manner: Manner,
}

impl<'a> Request<'a> {
    pub fn new(method: &'a str, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), fields: Vec::new(), body: &[], manner: Manner::Whole }
    }

    pub fn with(mut self, body: &'a [u8]) -> Self {
        self.body = body;
        self
    }

    pub fn manner(mut self, manner: Manner) -> Self {
        self.manner = manner;
        self
    }

    pub fn field(mut self, name: &'a str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body[..self.body.len().min(300)]).into_owned()
    }
}

#[derive(Debug)]
pub enum Outcome {
    Answered(Answer),
    /// Nothing reached a server.
    NotSent,
    /// Whatever was asked may have been done.
    Lost,
    /// The same, and the server is there: it says nothing.
    Silent,
}

/// See the module.
#[derive(Debug)]
pub struct Client {
    machine: Arc<Machine>,
    port: u16,
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    pub fn new(machine: Arc<Machine>, port: u16) -> Self {
        Self { machine, port, stream: None }
    }

    pub fn ask(&mut self, request: &Request<'_>) -> Outcome {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => match self.connect() {
                Ok(stream) => BufReader::new(stream),
                Err(_) => return Outcome::NotSent,
            },
        };
        // One that refuses a body need not read it: what it says comes all the same.
        let sent = send(stream.get_mut(), request);
        if matches!(request.manner, Manner::Cut(_) | Manner::Away) {
            return Outcome::Lost;
        }
        match receive(&mut stream, request.method == "HEAD") {
            Ok(answer) => {
                if sent.is_ok() && answer.field("connection").is_none_or(|value| value != "close") {
                    self.stream = Some(stream);
                }
                Outcome::Answered(answer)
            }
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                Outcome::Silent
            }
            Err(_) => Outcome::Lost,
        }
    }

    fn connect(&self) -> std::io::Result<TcpStream> {
        let stream = self.machine.connect(Side::Machine, SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)))?;
        stream.set_read_timeout(Some(patience(SILENCE)))?;
        stream.set_write_timeout(Some(patience(SILENCE)))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

fn send(stream: &mut TcpStream, request: &Request<'_>) -> std::io::Result<()> {
    let Request { method, path, fields, body, manner } = request;
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n");
    for (name, value) in fields {
        head += &format!("{name}: {value}\r\n");
    }
    let body = match manner {
        Manner::Whole | Manner::Away => body,
        Manner::Cut(length) => &body[..*length],
        Manner::Chunked => {
            head += "Transfer-Encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes())?;
            for piece in body.chunks(50_000) {
                write!(stream, "{:x}\r\n", piece.len())?;
                stream.write_all(piece)?;
                stream.write_all(b"\r\n")?;
            }
            return stream.write_all(b"0\r\n\r\n");
        }
    };
    if !matches!(*method, "GET" | "HEAD" | "DELETE") {
        head += &format!("Content-Length: {}\r\n", request.body.len());
    }
    head += "\r\n";
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)
}

fn receive(stream: &mut BufReader<TcpStream>, is_head: bool) -> std::io::Result<Answer> {
    let line = |stream: &mut BufReader<TcpStream>| {
        let mut line = String::new();
        match stream.read_line(&mut line)? {
            0 => Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof)),
            _ => Ok(line.trim_end().to_owned()),
        }
    };
    let odd = || std::io::Error::from(std::io::ErrorKind::InvalidData);
    let first = line(stream)?;
    let status = first.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(odd)?;
    let mut fields = Vec::new();
    loop {
        let line = line(stream)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(odd)?;
        fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut answer = Answer { status, fields, body: Vec::new() };
    let length = answer.field("content-length").and_then(|length| length.parse().ok());
    if !is_head && status != 204 {
        // Ours says it of all that it gives.
        answer.body = vec![0; length.ok_or_else(odd)?];
        stream.read_exact(&mut answer.body)?;
    }
    Ok(answer)
}
