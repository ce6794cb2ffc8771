//! A registry on the machine: Debian's docker-registry, and before it, where a test wants one, somebody who stands between.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dozen_testbox::{Machine, Side, image_archive, until};

/// docker-registry on all of the machine's addresses.
pub struct Registry<'a> {
    machine: &'a Machine,
    process: Child,
    pub port: u16,
}

impl<'a> Registry<'a> {
    pub fn start(machine: &'a Machine) -> Self {
        Self::with(machine, 5000, "")
    }

    /// With more in its configuration.
    pub fn with(machine: &'a Machine, port: u16, more: &str) -> Self {
        Self::listening(machine, port, "", more)
    }

    /// With more of how it listens, too.
    pub fn listening(machine: &'a Machine, port: u16, how: &str, more: &str) -> Self {
        let directory = machine.directory().join(format!("registry-{port}"));
        std::fs::create_dir_all(&directory).unwrap();
        let file = directory.join("config.yml");
        let root = directory.join("data");
        let configuration = format!(
            "version: 0.1\nlog: {{ accesslog: {{ disabled: true }}, level: error }}\n\
             storage: {{ filesystem: {{ rootdirectory: {} }}, delete: {{ enabled: true }} }}\n\
             http: {{ addr: ':{port}'{how} }}\n{more}",
            root.display()
        );
        std::fs::write(&file, configuration).unwrap();
        let mut command = machine.command("docker-registry");
        command.arg("serve").arg(&file).stdout(Stdio::null());
        let registry = Self { machine, process: command.spawn().unwrap(), port };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        until("the registry listens", || machine.connect(Side::Machine, address).ok());
        registry
    }

    /// Puts a test image there, with its layers compressed.
    pub fn fill(&self, image: &str, name: &str) {
        let source = format!("oci-archive:{}", image_archive(image).display());
        let target = format!("docker://127.0.0.1:{}/{name}", self.port);
        let arguments = ["--insecure-policy", "copy", "--dest-tls-verify=false", "-q", &source, &target];
        self.machine.run("skopeo", &arguments).expect(0);
    }
}

impl Registry<'_> {
    /// Puts a manifest there.
    pub fn put(&self, name: &str, tag: &str, media_type: &str, manifest: &str) {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let mut stream = self.machine.connect(Side::Machine, address).unwrap();
        write!(
            stream,
            "PUT /v2/{name}/manifests/{tag} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
             Content-Type: {media_type}\r\nContent-Length: {}\r\n\r\n{manifest}",
            manifest.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }
}

impl Registry<'_> {
    /// Takes a blob over from another repository.
    pub fn mount(&self, name: &str, digest: &str, from: &str) {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let mut stream = self.machine.connect(Side::Machine, address).unwrap();
        let below = format!("{name}/blobs/uploads/?mount={digest}&from={from}");
        let head = format!("POST /v2/{below} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
        write!(stream, "{head}Content-Length: 0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }
}

impl Drop for Registry<'_> {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A request to who stands between.
pub struct Asked {
    pub method: String,
    pub path: String,
    head: String,
    port: u16,
}

impl Asked {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn is_blob(&self) -> bool {
        self.path.contains("/blobs/")
    }

    /// What the registry itself answers, to its end.
    pub fn forward(&self) -> Vec<u8> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        let fields = self.head.lines().filter(|line| {
            let name = line.split(':').next().unwrap_or_default();
            !["authorization", "connection"].iter().any(|known| name.eq_ignore_ascii_case(known))
        });
        let fields: String = fields.map(|line| format!("{line}\r\n")).collect();
        write!(stream, "{} {} HTTP/1.1\r\nConnection: close\r\n{fields}\r\n", self.method, self.path).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    }
}

/// Who stands between: answers as a test says, on the machine's loopback.
pub struct Between {
    pub host: String,
    is_over: Arc<AtomicBool>,
    address: SocketAddr,
}

impl Between {
    /// Before the registry at this port. An answer that is cut short is one that ends early.
    pub fn start(machine: &Machine, port: u16, answer: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let (is_over, answer) = (Arc::new(AtomicBool::new(false)), Arc::new(answer));
        let (ends, bound) = (is_over.clone(), std::sync::mpsc::channel());
        // Connections of its own are opened on the machine: the thread stays there, and so do those that it starts.
        let serve = move |listener: TcpListener| {
            for stream in listener.incoming() {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                let (stream, answer) = (stream.unwrap(), answer.clone());
                std::thread::spawn(move || speak(&stream, port, &*answer));
            }
        };
        let said = bound.0;
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
        let address = bound.1.recv().unwrap();
        Self { host: address.to_string(), is_over, address }
    }

    /// Nobody listens any more.
    pub fn stop(self, machine: &Machine) {
        self.is_over.store(true, Ordering::SeqCst);
        let _ = machine.connect(Side::Machine, self.address);
    }
}

fn speak(stream: &TcpStream, port: u16, answer: &(dyn Fn(&Asked) -> Vec<u8> + Send + Sync)) -> Option<()> {
    let mut reader = BufReader::new(stream);
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
    let asked = Asked { method, path, head: head.trim_end().to_owned(), port };
    let answer = answer(&asked);
    let mut stream = stream;
    stream.write_all(&answer).ok()?;
    stream.shutdown(Shutdown::Both).ok()
}

pub fn reply(status: &str, fields: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{fields}\r\n", body.len());
    [head.as_bytes(), body].concat()
}
