//! A machine with an engine that can be killed, and commands that survive its death.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dozen_testbox::{Machine, dozen_program, image_archive, patience, until};
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Flock, FlockOffsetType, FlockType, Pid, PidfdFlags, Signal};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use rustix::time::Timespec;

/// No command takes so long, whatever is killed under it: one that does hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// Makes `twice.tar`: an image whose only layer has a file that takes the place of an earlier one of its own.
const TWICE: &str = r#"
mkdir twice; cd twice
echo 1 > file; tar -cf layer.tar file; echo 2 > file; tar -rf layer.tar file
id=$(sha256sum < layer.tar | cut -d' ' -f1)
echo '{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:'$id'"]}}' > config.json
echo '[{"Config":"config.json","RepoTags":["twice:1"],"Layers":["layer.tar"]}]' > manifest.json
tar -cf ../twice.tar config.json manifest.json layer.tar
"#;

/// Makes `site`, of which an image is built.
const SITE: &str = r#"
mkdir site; cd site
echo word > file; echo hidden > token
cat > Dockerfile <<EOF
FROM busybox AS made
ARG SOURCE_DATE_EPOCH
WORKDIR /made
COPY file .
RUN --mount=type=cache,target=/cache,from=busybox,source=/home --mount=type=secret,id=token --mount=target=/context     cat /context/file /run/secrets/token > both && echo >> /cache/runs
FROM busybox
COPY --from=made /made /srv
CMD ["cat", "/srv/both"]
EOF
"#;

/// What a command has done.
#[derive(Debug)]
pub struct Outcome {
    pub line: String,
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Outcome {
    #[track_caller]
    pub fn expect(self, code: i32) -> String {
        assert_eq!(
            self.code, code,
            "exit code of 'dozen {}'\n-- stdout\n{}\n-- stderr\n{}",
            self.line, self.out, self.err
        );
        self.out
    }
}

/// The machine, and its engine while there is one.
pub struct Bench {
    pub machine: Arc<Machine>,
    engine: Option<Child>,
    network: Option<File>,
}

impl Bench {
    /// With an engine and an image.
    pub fn new() -> Self {
        Self::on(Machine::new())
    }

    /// On a machine that has been made ready.
    pub fn on(machine: Machine) -> Self {
        std::fs::create_dir(machine.directory().join("failpoints")).unwrap();
        let mut bench = Self { machine: Arc::new(machine), engine: None, network: None };
        std::os::unix::fs::symlink(dozen_program(), bench.program()).unwrap();
        assert!(bench.start());
        for script in [TWICE, SITE] {
            let made =
                Command::new("sh").args(["-ec", script]).current_dir(bench.machine.directory()).status().unwrap();
            assert!(made.success());
        }
        let archive = image_archive("busybox");
        bench.dozen(&["load", "--input", archive.to_str().unwrap()]).expect(0);
        bench
    }

    // ---- failpoints ----

    /// Begins a round: the log of the earlier ones is of no use.
    pub fn arm(&self, failpoint: &str) {
        self.forget_log();
        std::fs::write(self.failpoint(failpoint), "").unwrap();
    }

    pub fn is_armed(&self, failpoint: &str) -> bool {
        self.failpoint(failpoint).exists()
    }

    /// The engine appends to it.
    pub fn forget_log(&self) {
        std::fs::write(self.machine.directory().join("engine.log"), "").unwrap();
    }

    /// No engine of this round did.
    pub fn no_panic(&self) {
        let log = std::fs::read_to_string(self.machine.directory().join("engine.log")).unwrap();
        assert!(!log.contains("panicked"), "{log}");
        self.forget_log();
    }

    fn failpoint(&self, name: &str) -> PathBuf {
        self.machine.directory().join("failpoints").join(name)
    }

    // ---- the engine ----

    /// Starts it. False if it died before it answered.
    pub fn start(&mut self) -> bool {
        assert!(!self.engine_lives(), "there is an engine");
        let log = self.machine.directory().join("engine.log");
        let log = OpenOptions::new().create(true).append(true).open(log).unwrap();
        let mut command = self.machine.command(self.program());
        command.env("DOZEN_FAILPOINTS", self.machine.directory().join("failpoints"));
        let engine = command.arg("daemon").stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let process = process_of(&engine);
        self.engine = Some(engine);
        let answered = self.wait_until_it_answers(&process);
        if answered && self.network.is_none() {
            // Read once it answers: before that, the child may not have entered the machine.
            let pid = self.engine.as_ref().unwrap().id();
            self.network = Some(File::open(format!("/proc/{pid}/ns/net")).unwrap());
        }
        answered
    }

    /// The next engine is of another build: another file, at least, under the same name.
    pub fn install_another_build(&self) {
        let newer = self.program().with_extension("new");
        std::fs::copy(dozen_program(), &newer).unwrap();
        std::fs::rename(newer, self.program()).unwrap();
    }

    fn program(&self) -> PathBuf {
        self.machine.directory().join("dozen")
    }

    /// A keeper that dies with the socket that it has just made takes the connections to it along: then the engine
    /// has another one made, and whoever asks comes again.
    fn wait_until_it_answers(&mut self, process: &OwnedFd) -> bool {
        until("the engine answers", || {
            let Ok(mut stream) = UnixStream::connect(self.machine.socket()) else {
                return (!self.engine_lives()).then_some(false);
            };
            if stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: box\r\nConnection: close\r\n\r\n").is_err() {
                return None;
            }
            // The keeper holds the socket, so a connection alone says nothing.
            match first_of(&[stream.as_fd(), process.as_fd()]) {
                Some(0) => {
                    let mut answer = String::new();
                    let _ = stream.read_to_string(&mut answer);
                    assert!(answer.is_empty() || answer.contains("200 OK"), "the engine answered: {answer}");
                    (!answer.is_empty()).then_some(true)
                }
                Some(_) => Some(false),
                None => panic!("the engine does not answer"),
            }
        })
    }

    pub fn engine_lives(&mut self) -> bool {
        self.engine.as_mut().is_some_and(|engine| engine.try_wait().unwrap().is_none())
    }

    /// A running engine, if need be a new one.
    pub fn revive(&mut self) {
        if !self.engine_lives() {
            assert!(self.start(), "the engine does not start again");
        }
    }

    pub fn engine_pid(&self) -> Option<Pid> {
        self.engine.as_ref().map(Pid::from_child)
    }

    pub fn kill_engine(&mut self) {
        if let Some(mut engine) = self.engine.take() {
            engine.kill().unwrap();
            engine.wait().unwrap();
        }
    }

    /// Asks it to end in order, or waits until it has died.
    pub fn end_engine(&mut self, terminate: bool) {
        let Some(mut engine) = self.engine.take() else { return };
        let process = process_of(&engine);
        if terminate {
            let _ = rustix::process::pidfd_send_signal(&process, Signal::TERM);
        }
        assert!(first_of(&[process.as_fd()]).is_some(), "the engine does not end");
        engine.wait().unwrap();
    }

    // ---- commands ----

    /// Runs the CLI. `None` if the engine died meanwhile.
    pub fn try_dozen(&mut self, arguments: &[impl AsRef<str>]) -> Option<Outcome> {
        let arguments: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
        let engine = process_of(self.engine.as_ref()?);
        let mut command = self.machine.command(dozen_program());
        let mut child = command.args(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let line = arguments.join(" ");
        match first_of(&[process_of(&child).as_fd(), engine.as_fd()]) {
            Some(0) => {
                let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
                let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
                Some(Outcome { line, code: status.code().unwrap_or(-1), out: text(stdout), err: text(stderr) })
            }
            ended => {
                // A client of a dead engine waits for the next one.
                child.kill().unwrap();
                child.wait().unwrap();
                assert!(ended.is_some(), "'dozen {line}' hangs");
                None
            }
        }
    }

    /// Runs the CLI under an engine that lives.
    #[track_caller]
    pub fn dozen(&mut self, arguments: &[impl AsRef<str>]) -> Outcome {
        let outcome = self.try_dozen(arguments);
        outcome.unwrap_or_else(|| panic!("the engine died during 'dozen {}'", arguments[0].as_ref()))
    }

    // ---- processes ----

    pub fn keeper(&self) -> Option<Pid> {
        holder(&self.machine.directory().join("run/keeper.lock"))
    }

    /// The monitor of a container, by the first twelve digits of its id.
    pub fn monitor(&self, short: &str) -> Option<Pid> {
        holder(&self.machine.directory().join("run/c").join(short).join("monitor.lock"))
    }

    /// Runs it as a process on the machine would, in a thread of its own.
    pub fn on_network<T: Send>(&self, visit: impl FnOnce() -> T + Send) -> T {
        let network = self.network();
        std::thread::scope(|scope| {
            let visitor = scope.spawn(move || {
                enter(&network);
                visit()
            });
            visitor.join().unwrap()
        })
    }

    pub fn network(&self) -> File {
        self.network.as_ref().expect("an engine has answered").try_clone().unwrap()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.kill_engine();
    }
}

/// Moves this thread to a network namespace for good.
pub fn enter(network: &File) {
    move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

/// `kill -9`, and waits until it is dead. A process that is gone already is fine.
pub fn kill(pid: Pid) {
    if let Ok(process) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        let _ = rustix::process::pidfd_send_signal(&process, Signal::KILL);
        assert!(first_of(&[process.as_fd()]).is_some(), "process {pid:?} does not die");
    }
}

/// `kill -STOP`: it lives and does nothing.
pub fn stop(pid: Pid) {
    rustix::process::kill_process(pid, Signal::STOP).unwrap();
}

/// Asks until there is an answer; the last words say what was missing.
#[track_caller]
pub fn until_none(what: &str, seconds: u64, mut missing: impl FnMut() -> Vec<String>) {
    let begun = Instant::now();
    loop {
        let left = missing();
        if left.is_empty() {
            return;
        }
        assert!(begun.elapsed() < patience(Duration::from_secs(seconds)), "{what}:\n{}", left.join("\n"));
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn process_of(child: &Child) -> OwnedFd {
    rustix::process::pidfd_open(Pid::from_child(child), PidfdFlags::empty()).unwrap()
}

/// Waits until one of them is readable (of several, the first in order). `None` after a long time.
fn first_of(descriptors: &[std::os::fd::BorrowedFd<'_>]) -> Option<usize> {
    let mut asked: Vec<_> =
        descriptors.iter().map(|descriptor| PollFd::from_borrowed_fd(*descriptor, PollFlags::IN)).collect();
    let limit = Timespec::try_from(patience(PATIENCE)).unwrap();
    while rustix::event::poll(&mut asked, Some(&limit)) == Err(rustix::io::Errno::INTR) {}
    asked.iter().position(|polled| !polled.revents().is_empty())
}

/// Who holds a record lock (fcntl(2), F_GETLK).
pub fn holder(path: &std::path::Path) -> Option<Pid> {
    let file = File::open(path).ok()?;
    let any = Flock { start: 0, length: 0, pid: None, typ: FlockType::ReadLock, offset_type: FlockOffsetType::Set };
    rustix::process::fcntl_getlk(&file, &any).ok().flatten()?.pid
}

/// The monitors of a run root, with the first twelve digits of their containers' ids.
pub fn monitors(run: &std::path::Path) -> Vec<(String, Pid)> {
    let entries = std::fs::read_dir(run.join("c")).into_iter().flatten().flatten();
    let monitor = |entry: std::fs::DirEntry| {
        Some((entry.file_name().to_string_lossy().into_owned(), holder(&entry.path().join("monitor.lock"))?))
    };
    entries.filter_map(monitor).collect()
}
