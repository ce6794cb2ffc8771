//! The monitor as a process of its own, over plain processes in place of containers.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dozen_model::{ErrorKind, LogFiles, UserSpec};
use dozen_monitor::client::{self, PendingStart};
use dozen_monitor::exit;
use dozen_monitor::protocol::{
    ExecRequest, ExitRecord, Failure, LogEnd, LogFileSettings, LogFormat, LogSettings, Reply, Request,
    SecretEnvironment, StartRequest, VERSION, WindowSize,
};
use dozen_runtime::Root;
use oci_spec::runtime::{ProcessBuilder, SpecBuilder};
use rustix::process::Pid;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_dozen-monitor-fake");
const STREAMS: Request = Request::Attach { stdin: true, stdout: true, stderr: true, log: false };

fn log_file() -> LogFileSettings {
    LogFileSettings {
        format: LogFormat::Json,
        files: LogFiles { file_size_bytes: 20_000_000, files: 3, compress: true },
        attributes: BTreeMap::new(),
    }
}

struct Bench {
    _directory: TempDir,
    request: StartRequest,
}

impl Bench {
    fn new(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let made = |name: &str| {
            let path = directory.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        let request = StartRequest {
            version: VERSION,
            id: "c1".to_owned(),
            data_directory: made("data"),
            // Longer than an address of a socket may be.
            run_directory: made(&"r".repeat(120)),
            spec: Box::new(spec(arguments, false)),
            root: Root::Directory(PathBuf::from("/")),
            cgroup: "/dozen-test/none".to_owned(),
            monitor_cgroup: "/dozen-test/monitors".to_owned(),
            user: UserSpec::default(),
            group_names: Vec::new(),
            stdin_open: true,
            stdin_once: true,
            init: false,
            log: LogSettings { file: Some(log_file()), remote: None },
            network_namespace_attached: false,
            secret_environment: SecretEnvironment::default(),
        };
        Self { _directory: directory, request }
    }

    fn shell(script: &str) -> Self {
        Self::new(&["/bin/sh", "-c", script])
    }

    fn created(&self) -> PendingStart {
        let mut pending = client::spawn(Path::new(PROGRAM), &self.request, None).unwrap();
        assert!(pending.wait_created().unwrap() > 1);
        pending
    }

    fn connect(&self, request: &Request) -> UnixStream {
        self.try_connect(request).unwrap().0
    }

    fn try_connect(&self, request: &Request) -> Result<(UnixStream, Reply), Failure> {
        client::connect(&self.request.run_directory, request)
    }

    /// Waits for the container's end.
    fn end(&self, watch: &UnixStream) -> ExitRecord {
        loop {
            if let Reply::Exited(record) = client::read_line(watch).unwrap() {
                assert_eq!(exit::read(&self.request.data_directory).unwrap().unwrap(), record);
                assert!(!self.request.run_directory.join("monitor.sock").exists());
                assert!(!client::is_alive(&self.request.run_directory));
                return record;
            }
        }
    }

    fn monitor(&self) -> Pid {
        Pid::from_raw(client::process(&self.request.run_directory).unwrap()).unwrap()
    }

    fn log(&self) -> Vec<(String, String)> {
        std::fs::read_to_string(self.request.data_directory.join("log.json"))
            .unwrap()
            .lines()
            .map(|line| {
                let entry: serde_json::Value = serde_json::from_str(line).unwrap();
                let text = |name: &str| entry[name].as_str().unwrap().to_owned();
                (text("stream"), text("log"))
            })
            .collect()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // A test that failed half-way leaves a monitor whose container never ends.
        let _ = self.try_connect(&Request::Signal { signal: 9, all: true });
    }
}

fn spec(arguments: &[&str], terminal: bool) -> dozen_runtime::Spec {
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let process = ProcessBuilder::default().args(arguments).terminal(terminal).build().unwrap();
    SpecBuilder::default().process(process).build().unwrap()
}

fn exec(arguments: &[&str]) -> ExecRequest {
    ExecRequest {
        exec_id: "e1".to_owned(),
        arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
        environment: Vec::new(),
        working_directory: None,
        user: UserSpec::default(),
        terminal: false,
        size: None,
        privileged: false,
        stdin: true,
        stdout: true,
        stderr: true,
    }
}

/// Standard output and standard error out of frames.
fn unframe(mut bytes: &[u8]) -> [Vec<u8>; 2] {
    let mut streams = [Vec::new(), Vec::new()];
    while let Some((header, rest)) = bytes.split_first_chunk::<8>() {
        let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
        streams[usize::from(header[0]) - 1].extend_from_slice(&rest[..length]);
        bytes = &rest[length..];
    }
    assert!(bytes.is_empty());
    streams
}

fn read_all(mut stream: &UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn output_goes_to_the_log_and_the_client_and_the_code_to_the_record() {
    let bench = Bench::shell("echo out; echo err >&2; cat; printf unfinished; exit 7");
    let pending = bench.created();
    assert!(client::is_alive(&bench.request.run_directory));
    let (watch, state) = bench.try_connect(&Request::Watch).unwrap();
    assert!(matches!(state, Reply::State { started: false, .. }));
    let mut attached = bench.connect(&STREAMS);
    pending.go().unwrap();
    attached.write_all(b"typed\n").unwrap();
    attached.shutdown(Shutdown::Write).unwrap();
    let [stdout, stderr] = unframe(&read_all(&attached));
    assert_eq!((stdout, stderr), (b"out\ntyped\nunfinished".to_vec(), b"err\n".to_vec()));
    let record = bench.end(&watch);
    assert_eq!((record.exit_code, record.out_of_memory, record.error), (7, false, None));
    assert_eq!(read_all(&watch), b"");
    let log = bench.log();
    let of = |stream: &str| log.iter().filter(|entry| entry.0 == stream).map(|entry| entry.1.as_str()).collect();
    let (stdout, stderr): (Vec<&str>, Vec<&str>) = (of("stdout"), of("stderr"));
    assert_eq!((stdout, stderr), (vec!["out\n", "typed\n", "unfinished"], vec!["err\n"]));
}

/// Without a free descriptor a client waits until there is one, and the monitor does not ask for it all the time.
#[test]
fn a_monitor_without_free_descriptors_rests() {
    use rustix::process::{Resource, Rlimit};
    let bench = Bench::shell("read -r line; exit 3");
    let pending = bench.created();
    let watch = bench.connect(&Request::Watch);
    pending.go().unwrap();
    let pid = Pid::from_raw(client::process(&bench.request.run_directory).unwrap()).unwrap();
    let limits = rustix::process::getrlimit(Resource::Nofile);
    let limit = |current: Option<u64>| {
        rustix::process::prlimit(Some(pid), Resource::Nofile, Rlimit { current, maximum: limits.maximum }).unwrap();
    };
    limit(Some(3));
    let directory = std::fs::File::open(&bench.request.run_directory).unwrap();
    let mut waiting = UnixStream::connect(format!("/proc/self/fd/{}/monitor.sock", directory.as_raw_fd())).unwrap();
    waiting.write_all(b"\"Watch\"\n").unwrap();
    let before = processor_ticks(pid);
    // As long as nobody answers, time passes.
    waiting.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    assert_eq!(waiting.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    let spent = processor_ticks(pid) - before;
    assert!(spent < 10, "{spent} of 50 ticks were spent on asking again");
    limit(limits.current);
    waiting.set_read_timeout(None).unwrap();
    assert!(matches!(client::read_line(&waiting).unwrap(), Reply::State { started: true, .. }));
    drop(bench.connect(&Request::Signal { signal: 9, all: false }));
    assert_eq!(bench.end(&watch).exit_code, 137);
}

/// Hundredths of a second of processor time (proc_pid_stat(5), utime and stime).
fn processor_ticks(pid: Pid) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// The monitor of the last run may still be undoing it: the next one waits for it.
#[test]
fn a_second_monitor_waits_for_the_first_to_end() {
    let bench = Bench::shell("true");
    let first = bench.created();
    let second = std::thread::scope(|scope| {
        let second = scope.spawn(|| {
            let mut pending = client::spawn(Path::new(PROGRAM), &bench.request, None).unwrap();
            pending.wait_created().map(|_| pending)
        });
        // Without its go-ahead the first one undoes all and ends.
        drop(first);
        second.join().unwrap()
    });
    let watch = bench.connect(&Request::Watch);
    second.unwrap().go().unwrap();
    assert_eq!(bench.end(&watch).exit_code, 0);
}

#[test]
fn a_client_that_sends_and_leaves_is_heard() {
    let bench = Bench::shell("wc -c");
    let pending = bench.created();
    let watch = bench.connect(&Request::Watch);
    let mut attached = bench.connect(&Request::Attach { stdin: true, stdout: false, stderr: false, log: false });
    pending.go().unwrap();
    attached.write_all(&vec![b'x'; 1_000_000]).unwrap();
    drop(attached);
    assert_eq!(bench.end(&watch).exit_code, 0);
    assert_eq!(bench.log(), [("stdout".to_owned(), "1000000\n".to_owned())]);
}

/// What is in the log, then what comes over the stream: no byte is missing, and none is there twice.
#[test]
fn a_client_that_wants_the_log_goes_on_where_it_ends() {
    let bench = Bench::shell("echo one; printf tw; read line; echo o");
    let pending = bench.created();
    let watch = bench.connect(&Request::Watch);
    let mut first = bench.connect(&STREAMS);
    pending.go().unwrap();
    // Two frames or one.
    let mut seen = Vec::new();
    while !seen.ends_with(b"tw") {
        let mut byte = [0];
        first.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    let request = Request::Attach { stdin: false, stdout: true, stderr: true, log: true };
    let (attached, reply) = bench.try_connect(&request).unwrap();
    let log = std::fs::metadata(bench.request.data_directory.join("log.json")).unwrap();
    assert_eq!(reply, Reply::Attached(LogEnd { inode: log.ino(), size_bytes: log.len() }));
    assert_eq!(bench.log(), [("stdout".to_owned(), "one\n".to_owned())]);
    first.write_all(b"\n").unwrap();
    let [stdout, stderr] = unframe(&read_all(&attached));
    assert_eq!((stdout.as_slice(), stderr.as_slice()), (b"two\n".as_slice(), b"".as_slice()));
    assert_eq!(bench.end(&watch).exit_code, 0);
}

#[test]
fn a_slow_client_holds_the_output_up_and_loses_none_of_it() {
    let mut bench = Bench::shell("seq 1 300000; echo end >&2");
    bench.request.log.file.as_mut().unwrap().files.file_size_bytes = 1 << 30;
    let pending = bench.created();
    let watch = bench.connect(&Request::Watch);
    let attached = bench.connect(&STREAMS);
    pending.go().unwrap();
    // Once the log stands still, the client is full and the process waits.
    let mut before = u64::MAX;
    let mut probe = 0;
    while probe != before || probe == 0 {
        before = probe;
        // A round trip through the monitor's loop, which reads as much as it may on each.
        for _ in 0..200 {
            bench.connect(&Request::Watch);
        }
        probe = std::fs::metadata(bench.request.data_directory.join("log.json")).unwrap().len();
    }
    assert!(bench.log().len() < 300_000, "nothing held it up");
    let [stdout, stderr] = unframe(&read_all(&attached));
    let want: String = (1..=300_000).map(|number| format!("{number}\n")).collect();
    assert!(stdout == want.as_bytes(), "{} bytes of {}", stdout.len(), want.len());
    assert_eq!(stderr, b"end\n");
    assert_eq!(bench.end(&watch).exit_code, 0);
    assert_eq!(bench.log().len(), 300_001);
}

#[test]
fn a_client_that_never_reads_does_not_keep_the_container_from_ending() {
    let bench = Bench::shell("seq 1 20000; kill -9 $$");
    let pending = bench.created();
    let watch = bench.connect(&Request::Watch);
    let _stuck = bench.connect(&STREAMS);
    pending.go().unwrap();
    assert_eq!(bench.end(&watch).exit_code, 137);
    assert_eq!(bench.log().len(), 20_000);
}

#[test]
fn an_orphan_that_holds_the_output_does_not_keep_the_container_from_ending() {
    let bench = Bench::shell("exec 3<&0; setsid sh -c 'echo $$; exec sleep 1000' & read line <&3; exit 3");
    let pending = bench.created();
    let watch = bench.connect(&Request::Watch);
    let mut attached = bench.connect(&STREAMS);
    pending.go().unwrap();
    // It has left the session that the fake runtime kills.
    attached.read_exact(&mut [0; 9]).unwrap();
    attached.write_all(b"\n").unwrap();
    assert_eq!(bench.end(&watch).exit_code, 3);
    let orphan: i32 = bench.log()[0].1.trim().parse().unwrap();
    let orphan = rustix::process::Pid::from_raw(orphan).unwrap();
    rustix::process::kill_process(orphan, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn signals_arrive_and_the_monitor_ignores_its_own() {
    let bench = Bench::shell("trap 'exit 5' USR1; echo ready; while :; do read line; done");
    let pending = bench.created();
    let watch = bench.connect(&Request::Watch);
    let mut attached = bench.connect(&STREAMS);
    pending.go().unwrap();
    let mut ready = [0; 14];
    attached.read_exact(&mut ready).unwrap();
    let monitor = rustix::process::Pid::from_raw(client::process(&bench.request.run_directory).unwrap()).unwrap();
    rustix::process::kill_process(monitor, rustix::process::Signal::TERM).unwrap();
    rustix::process::kill_process(monitor, rustix::process::Signal::HUP).unwrap();
    assert!(bench.try_connect(&Request::Signal { signal: 99, all: false }).is_err());
    bench.connect(&Request::Signal { signal: 10, all: false });
    // Some shells look at their traps only when their read is over; another has ended by now.
    let _ = attached.write_all(b"\n");
    assert_eq!(bench.end(&watch).exit_code, 5);
}

#[test]
fn execs_have_streams_codes_and_events() {
    let bench = Bench::shell("read line");
    let pending = bench.created();
    let early = bench.try_connect(&Request::Exec(Box::new(exec(&["/bin/true"])))).unwrap_err();
    assert_eq!(early.kind, ErrorKind::Conflict);
    let watch = bench.connect(&Request::Watch);
    pending.go().unwrap();
    let mut client = bench.connect(&Request::Exec(Box::new(exec(&["/bin/sh", "-c", "cat; echo e >&2; exit 9"]))));
    assert!(matches!(client::read_line(&watch).unwrap(), Reply::ExecStarted { .. }));
    client.write_all(b"fed").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let [stdout, stderr] = unframe(&read_all(&client));
    assert_eq!((stdout.as_slice(), stderr.as_slice()), (b"fed".as_slice(), b"e\n".as_slice()));
    let exited = Reply::ExecExited { exec_id: "e1".to_owned(), exit_code: 9 };
    assert_eq!(client::read_line::<Reply>(&watch).unwrap(), exited);
    let (_, seen) = bench.try_connect(&Request::InspectExec { exec_id: "e1".to_owned() }).unwrap();
    assert_eq!(seen, exited);
    let missing = bench.try_connect(&Request::InspectExec { exec_id: "e2".to_owned() }).unwrap_err();
    assert_eq!(missing.kind, ErrorKind::NotFound);
    let broken = bench.try_connect(&Request::Exec(Box::new(exec(&["/no/such/program"])))).unwrap_err();
    assert!(broken.message.contains("No such file"), "{broken}");

    // One that still runs when the container ends.
    let detached = ExecRequest { stdin: false, stdout: false, stderr: false, ..exec(&["/bin/sleep", "1000"]) };
    bench.connect(&Request::Exec(Box::new(detached)));
    bench.connect(&STREAMS).write_all(b"\n").unwrap();
    assert!(matches!(client::read_line(&watch).unwrap(), Reply::ExecStarted { .. }));
    let exited = Reply::ExecExited { exec_id: "e1".to_owned(), exit_code: 137 };
    assert_eq!(client::read_line::<Reply>(&watch).unwrap(), exited);
    assert_eq!(bench.end(&watch).exit_code, 0);
}

#[test]
fn terminals_are_raw_and_resizable() {
    let mut bench = Bench::new(&[]);
    *bench.request.spec = spec(&["/bin/sh", "-c", "read line; stty size; read line"], true);
    let pending = bench.created();
    bench.connect(&Request::Resize(WindowSize { rows: 33, columns: 77 }));
    let watch = bench.connect(&Request::Watch);
    let mut attached = bench.connect(&STREAMS);
    pending.go().unwrap();
    attached.write_all(b"\n").unwrap();
    let mut text = Vec::new();
    while !text.ends_with(b"33 77\r\n") {
        let mut byte = [0];
        attached.read_exact(&mut byte).unwrap();
        text.push(byte[0]);
    }
    attached.write_all(b"\n").unwrap();
    assert_eq!(bench.end(&watch).exit_code, 0);
    assert!(bench.log().iter().any(|entry| entry.1 == "33 77\r\n"));
}

#[test]
fn what_cannot_start_leaves_nothing() {
    let bench = Bench::new(&["cannot-create"]);
    let mut pending = client::spawn(Path::new(PROGRAM), &bench.request, None).unwrap();
    let failure = pending.wait_created().unwrap_err();
    assert_eq!((failure.kind, failure.hint.as_deref()), (ErrorKind::Invalid, Some("do")));
    assert_gone(&bench, pending);

    let bench = Bench::new(&["cannot-start"]);
    let failure = bench.created().go().unwrap_err();
    assert_eq!((failure.kind, failure.message.as_str()), (ErrorKind::NotFound, "no such program"));
    assert!(!bench.request.run_directory.join("monitor.sock").exists());
    assert!(!client::is_alive(&bench.request.run_directory));
}

#[test]
fn an_engine_that_dies_before_its_go_ahead_leaves_nothing() {
    let bench = Bench::shell("true");
    let pending = bench.created();
    let watch = bench.connect(&Request::Watch);
    assert_gone(&bench, pending);
    assert_eq!(read_all(&watch), b"");
    assert_eq!(exit::read(&bench.request.data_directory).unwrap(), None);
}

/// A monitor that was stopped while it was asked, and by someone who did not wait for it.
#[test]
fn a_request_whose_asker_has_gone_is_not_acted_on() {
    use rustix::process::Signal;
    let bench = Bench::shell("read line");
    let pending = bench.created();
    let watch = bench.connect(&Request::Watch);
    pending.go().unwrap();
    let monitor = bench.monitor();
    rustix::process::kill_process(monitor, Signal::STOP).unwrap();
    let directory = std::fs::File::open(&bench.request.run_directory).unwrap();
    let mut asked = UnixStream::connect(format!("/proc/self/fd/{}/monitor.sock", directory.as_raw_fd())).unwrap();
    let mut line = serde_json::to_vec(&Request::Exec(Box::new(exec(&["/bin/true"])))).unwrap();
    line.push(b'\n');
    asked.write_all(&line).unwrap();
    drop(asked);
    rustix::process::kill_process(monitor, Signal::CONT).unwrap();
    // Asked after it, so answered after it.
    let (_, reply) = bench.try_connect(&Request::Signal { signal: 9, all: false }).unwrap();
    assert_eq!(reply, Reply::Done);
    let Reply::Exited(record) = client::read_line(&watch).unwrap() else { panic!("the exec was run") };
    assert_eq!(record.exit_code, 137);
}

#[test]
fn a_monitor_that_hangs_while_it_starts_is_given_up_and_killed() {
    let bench = Bench::shell("true");
    let pending = bench.created();
    rustix::process::kill_process(bench.monitor(), rustix::process::Signal::STOP).unwrap();
    pending.wait_at_most(Duration::from_millis(200)).unwrap();
    let failure = pending.go().unwrap_err();
    assert!(failure.message.contains("did not answer while it started"), "{failure}");
    assert!(!client::is_alive(&bench.request.run_directory));
    // The next one finds everything as it should be.
    let pending = bench.created();
    let watch = bench.connect(&Request::Watch);
    pending.go().unwrap();
    assert_eq!(bench.end(&watch).exit_code, 0);
}

/// What it needed for the start is given back, and what it needs to work comes again.
#[test]
fn a_monitor_at_rest_is_small() {
    let mut bench = Bench::shell("while read line; do echo got; done");
    bench.request.stdin_once = false;
    let pending = bench.created();
    let watch = bench.connect(&Request::Watch);
    pending.go().unwrap();
    let monitor = bench.monitor();
    for _ in 0..2 {
        let memory = || (kibibytes(monitor, "Anonymous"), kibibytes(monitor, "Rss"));
        let mut last = memory();
        let deadline = Instant::now() + Duration::from_secs(30);
        while last.0 > 128 || last.1 > 2560 {
            assert!(Instant::now() < deadline, "{last:?} KiB of its own, and in all");
            std::thread::yield_now();
            last = memory();
        }
        bench.connect(&STREAMS).write_all(b"line\n").unwrap();
        let client = bench.connect(&Request::Exec(Box::new(exec(&["/bin/echo", "out"]))));
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(unframe(&read_all(&client))[0], b"out\n");
    }
    drop(bench.connect(&Request::Signal { signal: 9, all: false }));
    while !matches!(client::read_line(&watch).unwrap(), Reply::Exited(_)) {}
}

/// A line of smaps_rollup (proc_pid_smaps(5)).
fn kibibytes(pid: Pid, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", pid.as_raw_nonzero())).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    value.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

fn assert_gone(bench: &Bench, pending: PendingStart) {
    let monitor = client::process(&bench.request.run_directory).and_then(rustix::process::Pid::from_raw);
    let handle = monitor.and_then(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok());
    drop(pending);
    if let Some(handle) = handle {
        let mut ended = [rustix::event::PollFd::new(&handle, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut ended, None).unwrap();
    }
    assert!(!client::is_alive(&bench.request.run_directory));
    assert!(!bench.request.run_directory.join("monitor.sock").exists());
}

#[test]
fn a_directory_has_one_monitor() {
    let bench = Bench::shell("true");
    let _pending = bench.created();
    let mut second = client::spawn(Path::new(PROGRAM), &bench.request, None).unwrap();
    assert!(second.wait_created().unwrap_err().message.contains("monitor.lock"));
    assert!(bench.try_connect(&Request::Watch).is_ok());
}

#[test]
fn who_stands_still_for_a_client_runs_when_it_is_gone_or_a_signal_comes() {
    let bench = Bench::shell("trap 'exit 7' USR1; while :; do read line; echo $line; done");
    let pending = bench.created();
    let refused = bench.try_connect(&Request::Hold).unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Conflict, "it does not run yet: {refused:?}");
    let (watch, state) = bench.try_connect(&Request::Watch).unwrap();
    let Reply::State { pid, .. } = state else { panic!("{state:?}") };
    let mut attached = bench.connect(&STREAMS);
    pending.go().unwrap();
    // The stand-in for a frozen cgroup is a stopped process.
    let stands = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") T ");
    let stop = || {
        rustix::process::kill_process(Pid::from_raw(pid).unwrap(), rustix::process::Signal::STOP).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while !stands() {
            assert!(Instant::now() < deadline, "it does not stop");
            std::thread::yield_now();
        }
    };
    let mut echo = move |word: &[u8; 3]| {
        attached.write_all(word).unwrap();
        let mut frame = [0; 11];
        attached.read_exact(&mut frame).unwrap();
        assert_eq!(frame[8..], word[..]);
    };
    echo(b"up\n");

    // The first of two goes, and nothing happens; then the last dies.
    let (first, last) = (bench.connect(&Request::Hold), bench.connect(&Request::Hold));
    stop();
    let held = bench.try_connect(&Request::Exec(Box::new(exec(&["/bin/true"])))).unwrap_err();
    assert_eq!((held.kind, held.message.contains("stands still")), (ErrorKind::Conflict, true), "{held:?}");
    first.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&first), b"");
    assert!(stands(), "for the other's sake");
    drop(last);
    echo(b"go\n");

    let hold = bench.connect(&Request::Hold);
    stop();
    bench.connect(&Request::Signal { signal: 10, all: false });
    assert_eq!(read_all(&hold), b"", "the holder is told");
    // Some shells look at their traps only when their read is over.
    if let Ok((mut attached, _)) = bench.try_connect(&STREAMS) {
        let _ = attached.write_all(b"\n");
    }
    assert_eq!(bench.end(&watch).exit_code, 7);
}

/// Whatever is said meanwhile is in the log, once, and in order.
#[test]
fn the_log_changes_while_somebody_speaks() {
    let bench = Bench::shell("cat; seq 1 20000");
    let pending = bench.created();
    let watch = bench.connect(&Request::Watch);
    pending.go().unwrap();
    let settings = |round: u64| {
        let mut file = log_file();
        file.files = LogFiles { file_size_bytes: 50_000 * (1 + round % 7), files: 1000, compress: false };
        file.attributes.insert("round".to_owned(), round.to_string());
        Request::ChangeLog(Box::new(LogSettings { file: Some(file), remote: None }))
    };
    assert_eq!(bench.try_connect(&settings(0)).unwrap().1, Reply::Done);
    drop(bench.connect(&STREAMS));
    for round in 1.. {
        // It has ended.
        let Ok((_, reply)) = bench.try_connect(&settings(round)) else { break };
        assert_eq!(reply, Reply::Done);
    }
    assert_eq!(bench.end(&watch).exit_code, 0);
    let path = bench.request.data_directory.join("log.json");
    let newest = std::fs::read_to_string(&path).unwrap();
    let older = (1..).map_while(|number| std::fs::read_to_string(path.with_extension(format!("json.{number}"))).ok());
    let mut files: Vec<String> = std::iter::once(newest).chain(older).collect();
    files.reverse();
    let all = files.concat();
    assert_eq!(all.lines().count(), 20_000);
    for (line, number) in all.lines().zip(1..) {
        assert!(line.starts_with(&format!(r#"{{"log":"{number}\n""#)), "{number}: {line}");
        assert!(line.contains(r#""attrs":{"round":""#), "{line}");
    }
}

#[test]
fn another_driver_is_refused_and_the_log_goes_on() {
    let bench = Bench::shell("cat");
    let pending = bench.created();
    let watch = bench.connect(&Request::Watch);
    pending.go().unwrap();
    let mut file = log_file();
    file.format = LogFormat::Compact;
    let other = Request::ChangeLog(Box::new(LogSettings { file: Some(file), remote: None }));
    let refused = bench.try_connect(&other).unwrap_err();
    // An older monitor says so of what it does not know.
    assert!(refused.kind != ErrorKind::Invalid && refused.message.contains("cannot be changed"), "{refused}");
    let mut attached = bench.connect(&STREAMS);
    attached.write_all(b"here\n").unwrap();
    attached.shutdown(Shutdown::Write).unwrap();
    assert_eq!(bench.end(&watch).exit_code, 0);
    assert_eq!(bench.log(), [("stdout".to_owned(), "here\n".to_owned())]);
}
