//! The container that nobody touches. It serves a page on a published port and counts in its log; whatever is killed,
//! it must never notice.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dozen_testbox::{MACHINE_ADDRESS, Side, patience, until};

use crate::bench::{Bench, enter, until_none};

pub const PORT: u16 = 8080;
const SCRIPT: &str = "mkdir /www; echo served >/www/index.html; httpd -p 80 -h /www
    i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done";
/// Between two visits to its port.
const VISIT: Duration = Duration::from_millis(10);
/// A page takes a millisecond.
const SLOW: Duration = Duration::from_secs(3);

/// What is known of it.
pub struct Innocent {
    pub id: String,
    pid: String,
    /// /proc/PID/stat, field 22: a process id that is used again has another.
    begun: String,
    log: PathBuf,
    offset: u64,
    last_count: u64,
    visits: Arc<Visits>,
    visitor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Visits {
    enough: AtomicBool,
    answered: AtomicU64,
    failed: Mutex<Vec<String>>,
}

impl Innocent {
    /// Starts it, and someone who visits it all the time.
    pub fn new(bench: &mut Bench) -> Self {
        let publish = format!("{PORT}:80");
        let run = ["run", "-d", "--name", "innocent", "-p", &publish, "busybox", "sh", "-c", SCRIPT];
        let id = bench.dozen(&run).expect(0).trim().to_owned();
        let pid = inspect(bench);
        bench.machine.page(Side::Machine, local());
        let visits = Arc::new(Visits::default());
        let visitor = std::thread::spawn({
            let (network, visits) = (bench.network(), visits.clone());
            move || {
                enter(&network);
                visits.go();
            }
        });
        let log = bench.machine.directory().join("data/containers").join(&id).join("log.json");
        let begun = begun(&pid).expect("it runs");
        Self { id, pid, begun, log, offset: 0, last_count: 0, visits, visitor: Some(visitor) }
    }

    /// That it has not noticed anything, and goes on. Holds with and without an engine.
    pub fn check(&mut self, bench: &Bench) {
        assert_eq!(begun(&self.pid).as_ref(), Some(&self.begun), "the innocent container's process is another");
        let (count, answered) = (self.last_count, self.visits.answered.load(Ordering::Relaxed));
        until("the innocent container goes on counting in its log", || {
            self.read_log();
            (self.last_count > count + 1).then_some(())
        });
        until("the innocent container's port goes on answering", || {
            (self.visits.answered.load(Ordering::Relaxed) > answered).then_some(())
        });
        let failed = self.visits.failed.lock().unwrap();
        assert!(failed.is_empty(), "the innocent container's port did not answer: {failed:?}");
        drop(failed);
        let outside = SocketAddr::new(MACHINE_ADDRESS, PORT);
        assert_eq!(bench.machine.get(Side::Neighbour, outside).as_deref(), Ok("served\n"));
    }

    /// That the engine knows it as it is, and that its port on `[::1]`, which only the keeper answers, is back.
    pub fn check_engine(&self, bench: &mut Bench) {
        assert_eq!(inspect(bench), self.pid);
        let loopback = SocketAddr::from((Ipv6Addr::LOCALHOST, PORT));
        until_none("[::1] is forwarded again", 5, || match bench.machine.get(Side::Machine, loopback) {
            Ok(page) if page == "served\n" => Vec::new(),
            other => vec![format!("{other:?}")],
        });
    }

    /// Every number follows the one before it.
    fn read_log(&mut self) {
        let mut file = File::open(&self.log).unwrap();
        file.seek(SeekFrom::Start(self.offset)).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        self.offset += whole as u64;
        for line in text[..whole].lines() {
            let entry: serde_json::Value = serde_json::from_str(line).unwrap();
            let count: u64 = entry["log"].as_str().unwrap().trim().parse().unwrap();
            assert_eq!(count, self.last_count + 1, "a gap in the innocent container's log");
            self.last_count = count;
        }
    }

    /// Nobody visits it any more; it goes.
    pub fn remove(mut self, bench: &mut Bench) {
        self.say_goodbye();
        bench.dozen(&["rm", "-f", "innocent"]).expect(0);
    }

    fn say_goodbye(&mut self) {
        self.visits.enough.store(true, Ordering::Relaxed);
        if let Some(visitor) = self.visitor.take() {
            let _ = visitor.join();
        }
    }
}

impl Drop for Innocent {
    fn drop(&mut self) {
        self.say_goodbye();
    }
}

impl Visits {
    fn go(&self) {
        while !self.enough.load(Ordering::Relaxed) {
            let begun = Instant::now();
            match visit() {
                Ok(page) if page.ends_with("\r\n\r\nserved\n") => {
                    self.answered.fetch_add(1, Ordering::Relaxed);
                }
                other => self.failed.lock().unwrap().push(format!("{other:?} after {:?}", begun.elapsed())),
            }
            // Not to wait for anything: the container needs the processor, too.
            std::thread::sleep(patience(VISIT));
        }
    }
}

fn visit() -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&local(), patience(SLOW))?;
    stream.set_read_timeout(Some(patience(SLOW)))?;
    stream.write_all(b"GET / HTTP/1.0\r\nHost: box\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn local() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))
}

fn inspect(bench: &mut Bench) -> String {
    bench.dozen(&["inspect", "--format", "{{.State.Pid}}", "innocent"]).expect(0).trim().to_owned()
}

fn begun(pid: &str) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; state is field 3.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    (fields[0] != "Z").then(|| fields[19].to_owned())
}
