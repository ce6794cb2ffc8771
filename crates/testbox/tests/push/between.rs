//! Somebody who stands before a registry and takes what is sent: passes it on, or answers as a test says.

use std::cell::RefCell;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dozen_testbox::{Machine, Side};

/// A request, whose body is still to come.
pub struct Asked {
    pub method: String,
    pub path: String,
    pub head: String,
    port: u16,
    reader: RefCell<BufReader<TcpStream>>,
}

impl Asked {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn length(&self) -> usize {
        self.field("content-length").map_or(0, |length| length.parse().unwrap())
    }

    /// It comes while it is made, and has no length.
    pub fn is_chunked(&self) -> bool {
        self.field("transfer-encoding") == Some("chunked")
    }

    /// A layer on its way: large, and in one piece or as the rest of one.
    pub fn is_layer(&self) -> bool {
        let is_blob = matches!(self.method.as_str(), "PUT" | "PATCH") && self.path.contains("/blobs/");
        is_blob && (self.is_chunked() || self.length() > 100_000)
    }

    /// So much of the body.
    pub fn take(&self, bytes: usize) -> io::Result<Vec<u8>> {
        if self.is_chunked() {
            return self.take_chunks(bytes);
        }
        let mut body = vec![0; bytes];
        self.reader.borrow_mut().read_exact(&mut body)?;
        Ok(body)
    }

    /// The same of one that has no length, or all of it if there is less.
    fn take_chunks(&self, bytes: usize) -> io::Result<Vec<u8>> {
        let (mut body, mut reader) = (Vec::new(), self.reader.borrow_mut());
        while body.len() < bytes {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let length = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
            // A line's end stands after each.
            let mut chunk = vec![0; length + 2];
            reader.read_exact(&mut chunk)?;
            body.extend_from_slice(&chunk[..length]);
            if length == 0 {
                break;
            }
        }
        body.truncate(bytes);
        Ok(body)
    }

    pub fn body(&self) -> io::Result<Vec<u8>> {
        self.take(if self.is_chunked() { usize::MAX } else { self.length() })
    }

    /// What the registry itself answers to all of it; `None` if it is not there.
    pub fn forward(&self) -> Option<Vec<u8>> {
        let body = self.body().ok()?;
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok()?;
        let fields = self.head.lines().filter(|line| {
            let name = line.split(':').next().unwrap_or_default();
            let own = ["authorization", "connection", "content-length", "transfer-encoding"];
            !own.iter().any(|known| name.eq_ignore_ascii_case(known))
        });
        let fields: String = fields.map(|line| format!("{line}\r\n")).collect();
        let own = format!("Connection: close\r\nContent-Length: {}\r\n", body.len());
        write!(stream, "{} {} HTTP/1.1\r\n{own}{fields}\r\n", self.method, self.path).ok()?;
        stream.write_all(&body).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        Some(answer)
    }
}

/// See the module. It listens on the machine's loopback.
pub struct Between {
    pub host: String,
    is_over: Arc<AtomicBool>,
    address: SocketAddr,
}

impl Between {
    /// Before the registry at this port. Without an answer the connection ends.
    pub fn start(
        machine: &Machine,
        port: u16,
        answer: impl Fn(&Asked) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let (is_over, answer) = (Arc::new(AtomicBool::new(false)), Arc::new(answer));
        let (ends, (said, bound)) = (is_over.clone(), std::sync::mpsc::channel());
        // Connections of its own are opened on the machine: the thread stays there, and so do those that it starts.
        let serve = move |listener: TcpListener| {
            for stream in listener.incoming() {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                let (stream, answer) = (stream.unwrap(), answer.clone());
                std::thread::spawn(move || speak(stream, port, &*answer));
            }
        };
        machine
            .on(Side::Machine, move || {
                std::thread::spawn(move || {
                    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
                    said.send(listener.local_addr().unwrap()).unwrap();
                    serve(listener);
                });
                Ok(())
            })
            .unwrap();
        let address = bound.recv().unwrap();
        Self { host: address.to_string(), is_over, address }
    }

    /// Nobody listens any more.
    pub fn stop(self, machine: &Machine) {
        self.is_over.store(true, Ordering::SeqCst);
        let _ = machine.connect(Side::Machine, self.address);
    }
}

fn speak(mut stream: TcpStream, port: u16, answer: &dyn Fn(&Asked) -> Option<Vec<u8>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && head != "\r\n" {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let asked = Asked { method, path, head: head.trim_end().to_owned(), port, reader: RefCell::new(reader) };
    if let Some(answer) = answer(&asked) {
        stream.write_all(&answer).ok()?;
    }
    stream.shutdown(Shutdown::Both).ok()
}

pub fn reply(status: &str, fields: &[(&str, &str)], body: &[u8]) -> Option<Vec<u8>> {
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{fields}\r\n", body.len());
    Some([head.as_bytes(), body].concat())
}
