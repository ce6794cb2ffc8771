//! The server, and what befalls it: it is killed, ended in order, loses its directory, and moves from a directory to a store
//! and back.

use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dozen_testbox::{Machine, Random, Side, dozen_program, python_program, until};
use rustix::process::{Pid, Signal, kill_process};

use crate::shared::Shared;

pub const PORT: u16 = 5000;
pub const METRICS_PORT: u16 = 5009;
/// What nothing names stays so long.
pub const GRACE: Duration = Duration::from_secs(3);
/// So does an upload that nobody goes on with.
pub const UPLOAD_TIMEOUT: Duration = Duration::from_secs(4);
/// What a repository may have: less than all there is to be pushed.
pub const QUOTA_BYTES: u64 = 6 << 20;
/// Before the rules take what has no tag.
const UNTAGGED_AFTER: &str = "2s";

const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "an-id"), ("AWS_SECRET_ACCESS_KEY", "a-key")];
/// It sends heads and bodies by a write each, and would wait for the first to be acknowledged, which takes 40 ms.
const STORE: &str = "import localbucket; localbucket.S3Handler.disable_nagle_algorithm = True; localbucket.main()";
const ENDPOINT: &str = "http://127.0.0.1:9000";

/// Where all of it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Directory(PathBuf),
    /// With the directory for what is on its way.
    Bucket {
        prefix: String,
        local: PathBuf,
    },
}

/// An S3-compatible server that heeds `If-None-Match: *`.
#[derive(Debug)]
struct Store(Child);

/// See the module.
#[derive(Debug)]
pub struct Life {
    shared: Arc<Shared>,
    chance: Random,
    place: Place,
    server: Option<Child>,
    store: Option<Store>,
    /// Places so far.
    places: u32,
    pub kills: u64,
    pub ends: u64,
    pub losses: u64,
    pub moves: u64,
    /// Until it listened, at the longest.
    pub longest_begin: Duration,
    /// How far its log was looked through.
    read_bytes: usize,
}

impl Life {
    pub fn begin(shared: Arc<Shared>, chance: Random, has_store: bool) -> Self {
        let machine = shared.machine.clone();
        std::fs::write(rules(&machine), format!(
            "[[rule]]\nrepositories = [\"passing/**\"]\nkeep-tags = [\"keep*\"]\nuntagged-after = \"{UNTAGGED_AFTER}\"\n"
        ))
        .unwrap();
        let store = has_store.then(|| Store::start(&machine));
        let place = Place::Directory(machine.directory().join("place-0"));
        let (kills, ends, losses, moves) = (0, 0, 0, 0);
        let mut life = Self {
            shared,
            chance,
            place,
            server: None,
            store,
            places: 0,
            kills,
            ends,
            losses,
            moves,
            longest_begin: Duration::ZERO,
            read_bytes: 0,
        };
        if has_store {
            life.place = life.new_bucket();
        }
        life.serve();
        life
    }

    fn new_bucket(&mut self) -> Place {
        self.places += 1;
        let local = self.shared.machine.directory().join(format!("place-{}", self.places));
        Place::Bucket { prefix: format!("s3://images/place-{}", self.places), local }
    }

    fn log(&self) -> PathBuf {
        self.shared.machine.directory().join("server.log")
    }

    /// What the server said last.
    pub fn log_tail(&self) -> String {
        tail(&self.log())
    }

    /// Starts the server, and waits until it listens.
    pub fn serve(&mut self) {
        let machine = &self.shared.machine;
        let mut command = command(machine, &["serve"]);
        let (root, rules) = (self.root().to_owned(), rules(machine));
        command.arg("--root").arg(&root).arg("--retention").arg(rules);
        command.args(["--metrics-listen", "127.0.0.1:5009", "--collect-every", "100ms", "--scrub-every", "2s"]);
        command.args(["--scrub-rate", "64m", "--grace", &seconds(GRACE), "--upload-timeout", &seconds(UPLOAD_TIMEOUT)]);
        command.args(["--quota", &QUOTA_BYTES.to_string()]);
        if let Place::Bucket { prefix, .. } = &self.place {
            command.args(["--store", prefix, "--store-endpoint", ENDPOINT, "--take-over"]);
        }
        let log = OpenOptions::new().append(true).create(true).open(self.log()).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let begun = Instant::now();
        let mut child = command.spawn().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], PORT));
        until("the registry listens", || {
            let status = child.try_wait().unwrap();
            assert!(status.is_none(), "the registry has ended: {status:?}\n{}", tail(&self.log()));
            machine.connect(Side::Machine, address).ok()
        });
        self.server = Some(child);
        self.longest_begin = self.longest_begin.max(begun.elapsed());
        self.shared.note(&format!(" -- it serves {:?} after {:?}", self.place, begun.elapsed()));
        self.shared.turn();
    }

    fn root(&self) -> &Path {
        match &self.place {
            Place::Directory(root) | Place::Bucket { local: root, .. } => root,
        }
    }

    /// Ends the server, in order or not.
    pub fn end(&mut self, signal: Signal) {
        let Some(mut server) = self.server.take() else { return };
        self.shared.turn();
        self.shared.note(&format!(" -- {signal:?}"));
        kill_process(Pid::from_raw(server.id().cast_signed()).unwrap(), signal).unwrap();
        let status = server.wait().unwrap();
        if signal == Signal::TERM {
            self.ends += 1;
            if !status.success() {
                self.shared.trouble(&[], format!("the server did not end in order: {status}"));
            }
        } else {
            self.kills += 1;
        }
        self.shared.model().ended();
        self.look_through_log();
    }

    /// What no server says whose disk and store are well.
    fn look_through_log(&mut self) {
        let text = std::fs::read_to_string(self.log()).unwrap();
        let bad = ["panicked", " is lost", " is damaged", "ERROR"];
        for line in text[self.read_bytes..].lines().filter(|line| bad.iter().any(|word| line.contains(word))) {
            self.shared.trouble(&[], format!("the log says: {line}"));
        }
        self.read_bytes = text.len();
    }

    /// One of the signals, mostly the hard one.
    pub fn end_somehow(&mut self) {
        let signal = if self.chance.once_in(3) { Signal::TERM } else { Signal::KILL };
        self.end(signal);
    }

    /// Something happens to it.
    pub fn happen(&mut self) {
        match self.chance.below(12) {
            // Nothing, this time.
            0 => return,
            1 | 2 if self.store.is_some() => {
                self.end_somehow();
                self.migrate();
            }
            3..=5 if matches!(self.place, Place::Bucket { .. }) => {
                self.end_somehow();
                self.lose_directory();
            }
            _ => self.end_somehow(),
        }
        self.serve();
    }

    /// Of a registry in a bucket, all that is on this machine.
    fn lose_directory(&mut self) {
        self.shared.moves.fetch_add(1, Ordering::SeqCst);
        self.shared.note(" -- its directory is lost");
        std::fs::remove_dir_all(self.root()).unwrap();
        self.losses += 1;
    }

    /// To a store, or back; killed in the middle, perhaps, and said again.
    fn migrate(&mut self) {
        self.shared.moves.fetch_add(1, Ordering::SeqCst);
        let from = self.place.clone();
        let to = match &from {
            Place::Directory(_) => self.new_bucket(),
            Place::Bucket { .. } => {
                self.places += 1;
                Place::Directory(self.shared.machine.directory().join(format!("place-{}", self.places)))
            }
        };
        self.shared.note(&format!(" -- it moves to {to:?}"));
        let mut arguments = vec!["migrate", "--store-endpoint", ENDPOINT];
        if matches!(from, Place::Bucket { .. }) {
            arguments.push("--take-over");
        }
        let words = [word(&from), word(&to)];
        arguments.extend(["--from", &words[0], "--to", &words[1]]);
        for _ in 0..self.chance.below(3) {
            let mut cut = command(&self.shared.machine, &arguments);
            let mut cut = cut.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            // The random moment itself, not a wait for anything.
            std::thread::sleep(Duration::from_millis(self.chance.below(400)));
            cut.kill().unwrap();
            if cut.wait().unwrap().success() {
                return self.moved(to);
            }
        }
        let done = run(command(&self.shared.machine, &arguments));
        // A cut one may have come to its end all the same.
        assert!(done.0 || done.1.contains("has a registry in it already"), "it does not move: {}", done.1);
        self.moved(to);
    }

    fn moved(&mut self, to: Place) {
        std::fs::remove_dir_all(self.root()).unwrap();
        self.place = to;
        self.moves += 1;
    }

    /// Reads all that it keeps, while nobody serves it: what `dozen registry check` says.
    pub fn check(&self) -> (bool, String) {
        let machine = &self.shared.machine;
        run(match &self.place {
            Place::Directory(root) => command(machine, &["check", "--root", root.to_str().unwrap()]),
            Place::Bucket { prefix, .. } => {
                command(machine, &["check", "--store", prefix, "--store-endpoint", ENDPOINT])
            }
        })
    }

    /// Where the files of its blobs are, of the directory or of the store that has them.
    pub fn blobs(&self) -> PathBuf {
        match &self.place {
            Place::Directory(root) => root.join("blobs"),
            Place::Bucket { prefix, .. } => {
                let prefix = prefix.strip_prefix("s3://").unwrap();
                self.shared.machine.directory().join("store").join(prefix).join("blobs")
            }
        }
    }

    /// Where its uploads are.
    pub fn uploads(&self) -> PathBuf {
        match &self.place {
            Place::Directory(root) => root.join("uploads"),
            Place::Bucket { local, .. } => local.join("bucket/uploads"),
        }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

impl Store {
    fn start(machine: &Machine) -> Self {
        let data = machine.directory().join("store");
        std::fs::create_dir_all(data.join("images")).unwrap();
        let mut command = machine.command(python_program());
        command.args(["-c", STORE, "--port", "9000"]).arg(data);
        let log = File::create(machine.directory().join("store.txt")).unwrap();
        let process = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], 9000));
        until("the store listens", || machine.connect(Side::Machine, address).ok());
        Self(process)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn command(machine: &Machine, arguments: &[&str]) -> Command {
    let mut command = machine.command(dozen_program());
    command.arg("registry").args(arguments).envs(KEYS);
    command
}

/// Whether it succeeded, and what it said.
fn run(mut command: Command) -> (bool, String) {
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

fn word(place: &Place) -> String {
    match place {
        Place::Directory(root) => root.to_str().unwrap().to_owned(),
        Place::Bucket { prefix, .. } => prefix.clone(),
    }
}

fn rules(machine: &Machine) -> PathBuf {
    machine.directory().join("retention.toml")
}

fn seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs())
}

fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut lines: Vec<&str> = text.lines().rev().filter(|line| !line.contains(" went: ")).take(30).collect();
    lines.reverse();
    lines.join("\n")
}
