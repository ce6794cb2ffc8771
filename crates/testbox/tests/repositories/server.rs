//! Servers beside the machine: git's own daemon, git by HTTP, and files by HTTP. They end with the test.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use dozen_testbox::{Machine, NEIGHBOUR_ADDRESS, Side, until};

/// A repository that is committed to, with its own directory `NAME` below `root`.
pub struct Work {
    at: PathBuf,
}

impl Work {
    pub fn new(root: &Path, name: &str) -> Self {
        Self::of_format(root, name, "sha1")
    }

    /// With commits' numbers by that algorithm.
    pub fn of_format(root: &Path, name: &str, format: &str) -> Self {
        let at = root.join(name);
        std::fs::create_dir_all(&at).unwrap();
        let work = Self { at };
        work.git(&["init", "-q", "-b", "main", &format!("--object-format={format}")]);
        work
    }

    /// Whatever the machine that the tests run on has in its own configuration.
    pub fn git(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("git");
        command.current_dir(&self.at).args(["-c", "protocol.file.allow=always"]).args(arguments).stdin(Stdio::null());
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").env("HOME", "/nonexistent");
        for (name, value) in [("NAME", "Test"), ("EMAIL", "test@example.org"), ("DATE", "2024-02-29T12:00:00Z")] {
            command.env(format!("GIT_AUTHOR_{name}"), value).env(format!("GIT_COMMITTER_{name}"), value);
        }
        let done = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        assert!(done.status.success(), "git {arguments:?}: {}", text(&done.stderr));
        text(&done.stdout)
    }

    /// Writes an object, whatever is in it; its number.
    pub fn raw(&self, kind: &str, bytes: &[u8]) -> String {
        let path = self.at.join(".git/raw");
        std::fs::write(&path, bytes).unwrap();
        self.git(&["hash-object", "-w", "--literally", "-t", kind, ".git/raw"])
    }

    pub fn file(&self, name: &str, text: &str) {
        let path = self.at.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub fn executable(&self, name: &str) {
        std::fs::set_permissions(self.at.join(name), PermissionsExt::from_mode(0o755)).unwrap();
    }

    pub fn link(&self, name: &str, target: &str) {
        std::os::unix::fs::symlink(target, self.at.join(name)).unwrap();
    }

    /// Commits all that is there; its number.
    pub fn commit(&self) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "-q", "-m", "more"]);
        self.git(&["rev-parse", "HEAD"])
    }
}

/// `git daemon` on the neighbour, which gives everybody what lies below a directory; killed when it is dropped.
pub struct GitDaemon(Child);

impl GitDaemon {
    pub fn new(machine: &Machine, root: &Path) -> Self {
        let mut command = Command::new("git");
        command.args(["daemon", "--reuseaddr", "--listen=0.0.0.0", "--export-all", "--informative-errors"]);
        command.arg(format!("--base-path={}", root.display())).arg(root);
        command.env("GIT_CONFIG_COUNT", "1").env("GIT_CONFIG_KEY_0", "safe.directory").env("GIT_CONFIG_VALUE_0", "*");
        command.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
        let child = machine.on(Side::Neighbour, || command.spawn()).unwrap();
        let daemon = Self(child);
        let address = (NEIGHBOUR_ADDRESS, 9418).into();
        until("git daemon listens", || machine.connect(Side::Machine, address).ok());
        daemon
    }
}

impl Drop for GitDaemon {
    fn drop(&mut self) {
        // Those that serve are its children.
        let group = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = self.0.wait();
    }
}

/// Files below a directory, by HTTP over TLS, on the neighbour's port 8443; ends when it is dropped.
pub struct Secure(Child);

impl Secure {
    /// The server, and its certificate.
    pub fn new(machine: &Machine, root: &Path) -> (Self, PathBuf) {
        let own = rcgen::generate_simple_self_signed([NEIGHBOUR_ADDRESS.to_string()]).unwrap();
        let (certificate, key) = (machine.directory().join("certificate.pem"), machine.directory().join("key.pem"));
        std::fs::write(&certificate, own.cert.pem()).unwrap();
        std::fs::write(&key, own.signing_key.serialize_pem()).unwrap();
        let mut command = Command::new("python3");
        command.current_dir(root).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.args(["-c", SECURE]).args([&certificate, &key]);
        let secure = Self(machine.on(Side::Neighbour, || command.spawn()).unwrap());
        let address = (NEIGHBOUR_ADDRESS, 8443).into();
        until("the server listens", || machine.connect(Side::Machine, address).ok());
        (secure, certificate)
    }
}

const SECURE: &str = "
import http.server, ssl, sys
server = http.server.ThreadingHTTPServer(('0.0.0.0', 8443), http.server.SimpleHTTPRequestHandler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
";

impl Drop for Secure {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A request as far as anybody here cares.
#[derive(Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: String,
    /// In small letters.
    pub fields: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

pub type Log = Arc<Mutex<Vec<String>>>;

/// A server of HTTP on that side, on port 8000, until the process ends; what it was asked for, with the answer's status.
pub fn serve(
    machine: &Machine,
    side: Side,
    answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + Clone + 'static,
) -> Log {
    let log = Log::default();
    let listener = machine.on(side, || TcpListener::bind("0.0.0.0:8000")).unwrap();
    let asked = log.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (asked, answer) = (asked.clone(), answer.clone());
            // Some clients stop in the middle.
            std::thread::spawn(move || speak(stream.unwrap(), &asked, &answer).ok());
        }
    });
    log
}

fn speak(mut stream: TcpStream, log: &Log, answer: &impl Fn(&Request) -> Vec<u8>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let (mut words, mut fields) = (line.split(' '), BTreeMap::new());
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (path, query) = (path.to_owned(), query.to_owned());
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        fields.insert(name.to_lowercase(), value.to_owned());
    }
    let length = fields.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let request = Request { method, path, query, fields, body };
    let answer = answer(&request);
    let status = String::from_utf8_lossy(answer.get(9..12).unwrap_or_default()).into_owned();
    log.lock().unwrap().push(format!("{} {}?{} {status}", request.method, request.path, request.query));
    stream.write_all(&answer)
}

/// An answer that ends with its connection.
pub fn answer(status: &str, fields: &[&str], body: &[u8]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n", body.len());
    fields.iter().for_each(|field| head.push_str(&format!("{field}\r\n")));
    [head.as_bytes(), b"\r\n", body].concat()
}

/// What git-http-backend(1) says to a request: repositories below `root` are at `/`.
pub fn git_backend(root: &Path, request: &Request) -> Vec<u8> {
    let field = |name: &str| request.fields.get(name).cloned().unwrap_or_default();
    let mut command = Command::new("git");
    command.arg("http-backend").env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command.env("GIT_PROJECT_ROOT", root).env("GIT_HTTP_EXPORT_ALL", "1").env("PATH_INFO", &request.path);
    command.env("REQUEST_METHOD", &request.method).env("QUERY_STRING", &request.query);
    command.env("CONTENT_TYPE", field("content-type")).env("HTTP_CONTENT_ENCODING", field("content-encoding"));
    command.env("CONTENT_LENGTH", request.body.len().to_string()).env("GIT_PROTOCOL", field("git-protocol"));
    command.env("GIT_CONFIG_COUNT", "1").env("GIT_CONFIG_KEY_0", "safe.directory").env("GIT_CONFIG_VALUE_0", "*");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let body = request.body.clone();
    let writing = std::thread::spawn(move || stdin.write_all(&body).ok());
    let output = child.wait_with_output().unwrap().stdout;
    writing.join().unwrap();
    let end = output.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(output.len());
    let head = String::from_utf8_lossy(&output[..end]).into_owned();
    let status = head.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK").to_owned();
    let fields: Vec<&str> = head.lines().filter(|line| !line.starts_with("Status: ")).collect();
    answer(&status, &fields, output.get(end + 4..).unwrap_or_default())
}
