//! The machine goes down while a database is written to, once in order and once without power, and comes up by itself with
//! everything that is to run, and nothing that is not.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use dozen_testbox::{dozen_program, image_archive, until};
use serde_json::Value;

use crate::boots::Boots;
use crate::installed::{dozen, run, said};
use crate::{page, turn};

const DATABASE_PORT: u16 = 18100;
const WEB_PORT: u16 = 18101;
/// So many more are acknowledged before the machine goes down.
const WRITES: usize = 20;
/// How long systemd would let everyone take who does not heed its SIGTERM (systemd-system.conf(5),
/// `DefaultTimeoutStopSec`): what is ended in order does not make it wait.
const OF_SYSTEMD_S: u64 = 90;

/// A database: what it has acknowledged is committed. Like others it takes its time to close, and wants SIGINT for that.
const DATABASE: &str = r#"
import signal, socketserver, sqlite3, sys, threading, time
base = sqlite3.connect("/data/base", isolation_level=None, check_same_thread=False)
base.execute("PRAGMA journal_mode = WAL")
base.execute("PRAGMA synchronous = FULL")
base.execute("CREATE TABLE IF NOT EXISTS numbers (number INTEGER PRIMARY KEY)")
print("opened", base.execute("PRAGMA integrity_check").fetchone()[0], flush=True)
turn = threading.Lock()
class Client(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            with turn:
                if line == b"all\n":
                    answer = " ".join(str(row[0]) for row in base.execute("SELECT number FROM numbers ORDER BY 1"))
                else:
                    base.execute("INSERT INTO numbers VALUES (?)", (int(line),))
                    answer = "ok"
            self.wfile.write(answer.encode() + b"\n")
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
server = Server(("", 5432), Client)
def close(*_):
    turn.acquire()
    time.sleep(2)
    base.close()
    print("closed in order", flush=True)
    sys.stdout.flush()
    import os; os._exit(0)
signal.signal(signal.SIGINT, close)
server.serve_forever()
"#;

/// Its client: writes numbers, one more than it was ever sent, and notes on disk which were acknowledged. It goes on through
/// everything, since nobody tells it to end before the last process of the machine ends.
const CLIENT: &str = r#"
import os, socket, sys, time
kept = sys.argv[1]
try: number = int(open(kept + "/sent").read())
except FileNotFoundError: number = 0
noted = open(kept + "/acknowledged", "a", buffering=1)
while True:
    try:
        connection = socket.create_connection(("127.0.0.1", int(sys.argv[2])), 5)
        stream = connection.makefile("rw")
        while True:
            number += 1
            with open(kept + "/sent.new", "w") as file:
                file.write(str(number)); file.flush(); os.fsync(file.fileno())
            os.rename(kept + "/sent.new", kept + "/sent")
            stream.write(f"{number}\n"); stream.flush()
            if stream.readline() != "ok\n": break
            noted.write(f"{number}\n"); os.fsync(noted.fileno())
    except OSError: pass
    time.sleep(0.1)
"#;

/// It lasts as long as nobody ends it, and then ends with this code.
fn lasting(code: u32) -> String {
    format!("echo up; trap 'exit {code}' TERM; while :; do sleep 0.1; done")
}

fn inspect(name: &str, format: &str) -> String {
    dozen(&["inspect", "--format", format, name])
}

/// What all of them are, by name: restart policy, what else is asked for, and what they run.
fn set_up() {
    said(&run(&dozen_program(), &["system", "install"]));
    dozen(&["load", "--input", image_archive("busybox").to_str().unwrap()]);
    dozen(&["network", "create", "back"]);
    dozen(&["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "fast"]);
    let background = |name: &str, policy: &str, options: &str, command: &[&str]| {
        let options = options.split_whitespace();
        let words: Vec<&str> = ["run", "-d", "--name", name, "--restart", policy].into_iter().chain(options).collect();
        dozen(&[&words, &["busybox"][..], command].concat());
    };
    let options = format!(
        "--network back -v data:/data -p 127.0.0.1:{DATABASE_PORT}:5432 --stop-signal INT --stop-timeout 60 --health-interval 1s"
    );
    // Of the machine itself: an emulated processor unpacks no image with a Python in less than a minute.
    let python = "-v /usr:/usr:ro -v /usr/lib:/lib:ro -v /usr/lib64:/lib64:ro";
    let options = format!("{options} --health-cmd true {python}");
    background("db", "always", &options, &["/usr/bin/python3", "-uc", DATABASE]);
    // Who is there before the name that it needs ends, and counts as restarted.
    let web = "ping -c 1 db || exit 1; mkdir /www; echo served >/www/index.html; httpd -p 80 -h /www; ".to_owned();
    let options = format!("--network back -v fast:/fast -p {WEB_PORT}:80");
    background("web", "unless-stopped", &options, &["sh", "-c", &(web + &lasting(0))]);
    background("beside", "always", "--network container:web", &["sh", "-c", &lasting(0)]);
    for (name, policy, code) in [
        ("stopped", "unless-stopped", 0),
        ("lately", "unless-stopped", 0),
        ("again", "always", 0),
        ("still", "unless-stopped", 0),
        ("done", "on-failure:1", 0),
        ("failing", "on-failure:1", 3),
        ("once", "no", 7),
    ] {
        background(name, policy, "", &["sh", "-c", &lasting(code)]);
    }
    dozen(&["stop", "stopped", "again"]);
    until("what is to be paused heeds signals", || dozen(&["logs", "still"]).contains("up").then_some(()));
    dozen(&["pause", "still"]);
}

/// Starts the client, and waits until it has written more.
fn write(boots: &Boots) {
    let unit = ["--unit", "dozen-test-client", "--property", "DefaultDependencies=no", "python3", "-c", CLIENT];
    let kept = boots.kept("");
    let started = Command::new("systemd-run").args(unit).arg(&kept).arg(DATABASE_PORT.to_string()).output().unwrap();
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    let before = acknowledged(boots).len();
    until("more is written", || (acknowledged(boots).len() >= before + WRITES).then_some(()));
}

/// Whole lines: the last may be torn.
fn acknowledged(boots: &Boots) -> BTreeSet<u64> {
    let text = std::fs::read_to_string(boots.kept("acknowledged")).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().filter_map(|line| line.parse().ok()).collect()
}

/// How each of them is, once all that is on its way up is there.
#[track_caller]
fn are(expected: &[(&str, &str)]) {
    until("nobody is on the way up", || {
        let states = dozen(&["ps", "-a", "--format", "{{.State}}"]);
        (!states.contains("restarting") && !states.contains("created")).then_some(())
    });
    let mut found = String::new();
    for (name, _) in expected {
        let told: Value = serde_json::from_str(&inspect(name, "{{json .}}")).unwrap();
        let state = &told["State"];
        let status = state["Status"].as_str().unwrap();
        let reason = state["RestartReason"].as_str().unwrap_or_default();
        writeln!(found, "{name}: {status} {} {} {reason}", state["ExitCode"], told["RestartCount"]).unwrap();
    }
    let wanted: String = expected.iter().map(|(name, how)| format!("{name}: {how}\n")).collect();
    assert_eq!(found, wanted, "{}", dozen(&["ps", "-a"]));
}

const RUNS: &str = "running 0 0 the machine went down";

/// Everything that has to be true after any boot.
fn check_all(boots: &Boots, running: usize) {
    // Those that another one needs had been started before it, and were so again.
    let moments = ["db", "web", "beside"].map(|name| nanoseconds(&inspect(name, "{{.State.StartedAt}}")));
    assert!(moments.is_sorted(), "{moments:?}");
    until("the database is well", || (inspect("db", "{{.State.Health.Status}}") == "healthy").then_some(()));
    // Names, networks, and ports, of the host's and of the firewall's.
    let rows = until("the database answers by its name", || {
        let asked = run(Path::new("/usr/local/bin/dozen"), &["exec", "web", "sh", "-c", "echo all | nc -w 5 db 5432"]);
        asked.status.success().then(|| String::from_utf8(asked.stdout).unwrap()).filter(|rows| !rows.is_empty())
    });
    assert_eq!(page(WEB_PORT).unwrap(), "served\n");
    assert_eq!(dozen(&["exec", "beside", "wget", "-qO-", "127.0.0.1"]), "served");
    let firewall = said(&Command::new("nft").args(["list", "ruleset"]).output().unwrap());
    assert!(firewall.contains(&WEB_PORT.to_string()), "{firewall}");
    // No write that was acknowledged is missing, and what was being written is there or not.
    let rows: BTreeSet<u64> = rows.split_whitespace().map(|number| number.parse().unwrap()).collect();
    let lost: Vec<u64> = acknowledged(boots).difference(&rows).copied().collect();
    assert!(lost.is_empty() && !rows.is_empty(), "of {} rows these are lost: {lost:?}", rows.len());
    // All boots' lines, whole.
    let said = dozen(&["logs", "db"]);
    assert_eq!(said.lines().filter(|line| *line == "opened ok").count(), boots.number() as usize, "{said}");
    assert_eq!(dozen(&["logs", "web"]).matches("up\n").count() + 1, boots.number() as usize);
    nothing_is_left(running);
}

/// On the host is what those have that run, and nothing of the boot before.
fn nothing_is_left(running: usize) {
    let ids: BTreeSet<String> = dozen(&["ps", "-q", "--no-trunc"]).lines().map(str::to_owned).collect();
    assert_eq!(ids.len(), running, "{}", dozen(&["ps"]));
    let inside = |directory: &str| -> BTreeSet<String> {
        let entries = std::fs::read_dir(directory).unwrap().flatten().filter(|entry| entry.path().is_dir());
        entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
    };
    let short: BTreeSet<String> = ids.iter().map(|id| id[..12].to_owned()).collect();
    assert_eq!(inside("/run/dozen/c"), short);
    let mut cgroups = inside("/sys/fs/cgroup/dozen");
    assert!(cgroups.remove("monitors"));
    assert_eq!(cgroups, ids);
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let ours: Vec<&str> = mounts.lines().filter(|line| line.contains("/var/lib/dozen")).collect();
    assert!(ours.len() == 1 && ours[0].contains("/volumes/fast/"), "{ours:#?}");
}

/// A moment as Docker writes it, whose fraction has as many digits as it needs, as a text that has its order.
fn nanoseconds(moment: &str) -> String {
    let (seconds, fraction) = moment.trim_end_matches('Z').split_once('.').unwrap_or((moment, ""));
    format!("{seconds}.{fraction:0<9}")
}

/// When this boot began, in seconds since 1970 (proc_stat(5)).
fn booted_s() -> u64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap();
    text.lines().find_map(|line| line.strip_prefix("btime ")).unwrap().parse().unwrap()
}

fn now_s() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

#[test]
#[ignore = "the machine goes down: cargo xtask vm"]
fn vm_only_reboot_in_order_and_by_a_power_cut_brings_back_what_is_to_run() {
    let _turn = turn();
    let boots = Boots::here();
    match boots.number() {
        1 => {
            set_up();
            write(&boots);
            are(&[("db", "running 0 0 "), ("web", "running 0 0 "), ("beside", "running 0 0 ")]);
            std::fs::write(boots.kept("asked"), now_s().to_string()).unwrap();
            boots.is_to_go_down().reboot()
        }
        2 => {
            are(&[
                ("db", RUNS),
                ("web", RUNS),
                ("beside", RUNS),
                ("stopped", "exited 0 0 "),
                ("again", "running 0 0 the engine started"),
                ("lately", RUNS),
                ("still", RUNS),
                ("done", "exited 0 0 "),
                ("failing", RUNS),
                ("once", "exited 7 0 "),
            ]);
            check_all(&boots, 7);
            assert_eq!(dozen(&["logs", "db"]).matches("closed in order").count(), 1);
            assert_eq!(inspect("once", "{{.State.Error}}"), "");
            let asked: u64 = std::fs::read_to_string(boots.kept("asked")).unwrap().parse().unwrap();
            let spent_s = booted_s().saturating_sub(asked);
            assert!(spent_s < OF_SYSTEMD_S, "it took {spent_s} s to go down");

            dozen(&["start", "once", "done"]);
            let down = boots.is_to_go_down();
            write(&boots);
            // What is answered is so after all that may come.
            dozen(&["stop", "lately"]);
            dozen(&["run", "-d", "--name", "late", "--restart", "always", "busybox", "sh", "-c", &lasting(0)]);
            down.cut_power()
        }
        3 => {
            are(&[
                ("db", RUNS),
                ("web", RUNS),
                ("beside", RUNS),
                ("stopped", "exited 0 0 "),
                ("again", RUNS),
                ("lately", "exited 0 0 the machine went down"),
                ("still", RUNS),
                ("done", RUNS),
                ("failing", RUNS),
                ("once", "exited 255 0 "),
                ("late", RUNS),
            ]);
            check_all(&boots, 8);
            assert_eq!(dozen(&["logs", "db"]).matches("closed in order").count(), 1);
            assert_eq!(inspect("once", "{{.State.Error}}"), "the machine went down");
        }
        other => panic!("boot {other} of three"),
    }
}
