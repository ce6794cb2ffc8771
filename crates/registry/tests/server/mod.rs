//! A server that says what a test has it say, byte for byte, and closes each connection behind its answer.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use dozen_model::Digest;
use sha2::{Digest as _, Sha256};

pub struct Asked {
    pub method: String,
    pub path: String,
    pub fields: Vec<(String, String)>,
    pub body: String,
}

impl Asked {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

pub struct Server {
    address: SocketAddr,
    count: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
}

impl Server {
    pub fn new(answer: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::start(answer, Duration::ZERO)
    }

    /// Keeps the connection open behind its answer.
    pub fn stalling(answer: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::start(answer, Duration::from_secs(30))
    }

    fn start(answer: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static, stall: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (count, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, ends, answer) = (count.clone(), is_over.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                let (counted, answer) = (counted.clone(), answer.clone());
                std::thread::spawn(move || speak(&stream.unwrap(), &*answer, &counted, stall));
            }
        });
        Self { address, count, is_over }
    }

    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Requests so far.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        // Until nobody listens any more.
        while TcpStream::connect(self.address).is_ok() {
            std::thread::yield_now();
        }
    }
}

fn speak(stream: &TcpStream, answer: &dyn Fn(&Asked) -> Vec<u8>, count: &AtomicUsize, stall: Duration) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        Some(line.trim_end().to_owned())
    };
    let first = line()?;
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut fields = Vec::new();
    while let Some((name, value)) = line()?.split_once(':') {
        fields.push((name.to_owned(), value.trim().to_owned()));
    }
    let mut asked = Asked { method, path, fields, body: String::new() };
    let length: u64 = asked.field("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    reader.take(length).read_to_string(&mut asked.body).ok()?;
    count.fetch_add(1, Ordering::SeqCst);
    let answer = answer(&asked);
    let mut stream = stream;
    stream.write_all(&answer).ok()?;
    if !stall.is_zero() {
        stream.set_read_timeout(Some(stall)).ok()?;
        let _ = stream.read(&mut [0]);
    }
    stream.shutdown(Shutdown::Both).ok()
}

pub fn reply(status: &str, fields: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
    for (name, value) in fields {
        head += &format!("{name}: {value}\r\n");
    }
    if !fields.iter().any(|(name, _)| *name == "Content-Length") {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    format!("{head}\r\n{body}").into_bytes()
}

pub fn json(content_type: &str, body: &str) -> Vec<u8> {
    reply("200 OK", &[("Content-Type", content_type)], body)
}

pub fn not_found() -> Vec<u8> {
    let body = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
    reply("404 Not Found", &[], body)
}

pub fn digest(bytes: &[u8]) -> Digest {
    Digest::from_sha256(Sha256::digest(bytes).into())
}
