//! The main job on real input: a Flask application, built from its Dockerfile, in a container, answering through a published
//! port.
//!
//! Everything is done with the commands that a person would type; each is printed before it runs. The engine has roots
//! of its own, so that a dozen of the machine's own is not touched.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

mod image;

pub use image::Way;

use crate::failure::{Attempt, Failure};
use crate::leftovers::Snapshot;
use crate::{host, images, packages, processes, steps};

const DATA_ROOT: &str = "/var/lib/dozen-demo";
const RUN_ROOT: &str = "/run/dozen-demo";
const IMAGE: &str = "hello-flask";
const CONTAINER: &str = "hello-flask";
const GREETING: &str = "Hello";
/// Tried in this order on 127.0.0.1.
const PORTS: std::ops::Range<u16> = 8000..8100;
/// From `run -d` to the first page: Python and Flask take a second or two.
const PATIENCE: Duration = Duration::from_secs(30);

/// `cargo xtask demo`.
pub fn up(way: Way) -> Result<(), Failure> {
    host::need_root("demo")?;
    packages::ensure("demo")?;
    let dozen = Dozen { program: steps::build_dozen()? };
    let base = images::ensure(&[way.base()], false)?.remove(0);

    steps::step(format_args!("starting an engine of the demo's own, with its roots {DATA_ROOT} and {RUN_ROOT}"));
    dozen.run(&["version", "--format", "{{.Server.Version}}"])?;
    steps::step(format_args!("loading {}", way.base()));
    dozen.run(&["load", "--quiet", "--input", &base.display().to_string()])?;
    dozen.remove_containers(&[CONTAINER])?;

    steps::step("building the application's image from its Dockerfile");
    let source = steps::workspace_root().join("examples/hello-flask");
    let scratch = tempfile::tempdir().attempting("make a scratch directory")?;
    let build = way.arguments(IMAGE, &source, &image::of_this_host(scratch.path())?);
    dozen.run(&build.iter().map(String::as_str).collect::<Vec<_>>())?;

    let port = free_port()?;
    steps::step(format_args!("running it, published on 127.0.0.1:{port}"));
    let greeting = format!("GREETING={GREETING}");
    let publish = format!("127.0.0.1:{port}:8000");
    dozen.run(&["run", "-d", "--name", CONTAINER, "-e", &greeting, "-p", &publish, IMAGE])?;

    let bridge = format!("dz-{}", tag(RUN_ROOT));
    if !Path::new("/sys/class/net").join(&bridge).exists() {
        return Err(Failure::new(format!("the engine's bridge is not {bridge}: `demo --down` would not find it")));
    }
    let url = format!("http://127.0.0.1:{port}/");
    steps::step(format_args!("fetching {url}"));
    let page = fetch(SocketAddr::from(([127, 0, 0, 1], port)), PATIENCE).map_err(|why| {
        let log = dozen.answer(&["logs", CONTAINER]).unwrap_or_else(|failure| failure.to_string());
        Failure::new(format!("{url} does not answer: {why}\nthe container's log:\n{log}"))
    })?;
    if !page.starts_with(GREETING) {
        return Err(Failure::new(format!("{url} answers something else than the application: {page}")));
    }
    eprintln!("    {}", page.trim_end());

    steps::step("done: a Flask application, isolated, behind a published port");
    eprintln!("    its log:       {} logs {CONTAINER}", dozen.shown());
    eprintln!("    a shell in it: {} exec -it {CONTAINER} bash", dozen.shown());
    eprintln!("    remove it all: cargo xtask demo --down");
    println!("{url}");
    Ok(())
}

/// `cargo xtask demo --down`.
pub fn down() -> Result<(), Failure> {
    host::need_root("demo --down")?;
    let there = !traces().is_empty();
    let mut problems = Vec::new();
    let ours = || processes::of_dozen().into_keys().filter(|pid| processes::belongs_to(*pid, RUN_ROOT));
    if [RUN_ROOT, DATA_ROOT].iter().any(|root| Path::new(root).exists()) {
        let dozen = Dozen { program: steps::build_dozen()? };
        // An engine that was killed has to come back: the containers are its own, and it gives back what it has changed
        // of the host's settings. While the keeper holds the socket, nobody would start one.
        if !ours().any(is_engine) {
            problems.extend(end(ours(), Duration::ZERO));
        }
        if let Err(failure) = dozen.remove_every_container() {
            problems.push(failure.to_string());
        }
    }
    steps::step("ending the demo's engine and what stands beside it");
    // The engine first: it would start the others again.
    problems.extend(end(ours().filter(|pid| is_engine(*pid)), Duration::from_secs(10)));
    // Keeper and monitors heed no polite signal: what they hold must not end with somebody's session.
    problems.extend(end(ours(), Duration::ZERO));
    problems.extend(end(members_of_cgroups().into_iter(), Duration::ZERO));
    for root in [RUN_ROOT, DATA_ROOT] {
        match std::fs::remove_dir_all(root) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                problems.push(format!("cannot remove {root}: {error}"))
            }
            _ => {}
        }
    }
    // An engine that was killed could not take its network down.
    problems.extend(remove_network());
    if !problems.is_empty() {
        return Err(Failure::new(format!("the demo is not wholly gone:\n    {}", problems.join("\n    "))));
    }
    let left = traces();
    if !left.is_empty() {
        return Err(Failure::new(format!("the demo left behind:\n    {}", left.join("\n    "))));
    }
    steps::step(match there {
        true => "nothing is left of the demo: no mount, interface, table, cgroup, process, directory",
        false => "the demo was not there",
    });
    Ok(())
}

/// What of the host's bears the demo's name; another engine's things do not.
pub fn traces() -> Vec<String> {
    Snapshot::take().lines().filter(|line| is_ours(line)).map(str::to_owned).collect()
}

fn is_ours(line: &str) -> bool {
    line.contains(&tag(RUN_ROOT)) || [DATA_ROOT, RUN_ROOT].iter().any(|root| line.contains(root))
}

/// What the demo's engine puts into the names of its bridge, table and cgroups: made from the run root as the engine
/// makes it (crates/engine/src/recover.rs, `instance`). [`up`] sees that they still agree.
fn tag(run_root: &str) -> String {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    let hash = run_root.bytes().fold(0xcbf2_9ce4_8422_2325, step);
    format!("{:08x}", (hash >> 32) as u32 ^ hash as u32)
}

/// Ends each of them; answers why one did not.
fn end(pids: impl Iterator<Item = i32>, patience: Duration) -> Vec<String> {
    pids.filter_map(|pid| processes::end(pid, patience).err()).map(|why| why.to_string()).collect()
}

/// Monitors and containers that no engine could be told to end.
fn members_of_cgroups() -> BTreeSet<i32> {
    fn visit(directory: &Path, found: &mut BTreeSet<i32>) {
        let text = std::fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                visit(&entry.path(), found);
            }
        }
    }
    let mut found = BTreeSet::new();
    for line in traces() {
        if let Some(directory) = line.strip_prefix("cgroup ") {
            visit(Path::new(directory), &mut found);
        }
    }
    found
}

fn remove_network() -> Vec<String> {
    let mut problems = Vec::new();
    for line in traces() {
        let (kind, name) = line.split_once(' ').unwrap_or((&line, ""));
        let outcome = match kind {
            "interface" => steps::run(Command::new("ip").args(["link", "delete", name])),
            "nftables" => {
                let table = name.strip_prefix("table ").unwrap_or(name);
                steps::run(Command::new("nft").args(["delete", "table"]).args(table.split(' ')))
            }
            "cgroup" => host::remove_cgroup(Path::new(name)).attempting(format_args!("remove cgroup {name}")),
            _ => Ok(()),
        };
        problems.extend(outcome.err().map(|failure| failure.to_string()));
    }
    problems
}

fn is_engine(pid: i32) -> bool {
    let raw = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    raw.split(|byte| *byte == 0).nth(1) == Some(b"daemon")
}

/// The CLI, told where the demo's engine is; it starts that engine when there is none.
struct Dozen {
    program: PathBuf,
}

impl Dozen {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--data-root", DATA_ROOT, "--run-root", RUN_ROOT]).args(arguments);
        command.env_remove("DOZEN_HOST").env_remove("DOCKER_HOST");
        command
    }

    fn run(&self, arguments: &[&str]) -> Result<(), Failure> {
        let mut command = self.command(arguments);
        eprintln!("    $ dozen {}", steps::shown(Command::new(arguments[0]).args(&arguments[1..])));
        // The commands' answers are talk here: the address alone is the demo's output.
        command.stdout(std::io::stderr());
        steps::run(&mut command)
    }

    fn answer(&self, arguments: &[&str]) -> Result<String, Failure> {
        steps::capture(&mut self.command(arguments))
    }

    fn remove_containers(&self, names: &[&str]) -> Result<(), Failure> {
        let present = self.answer(&["ps", "--all", "--format", "{{.Names}}"])?;
        for name in present.lines().filter(|name| names.contains(name)) {
            self.run(&["rm", "--force", name])?;
        }
        Ok(())
    }

    fn remove_every_container(&self) -> Result<(), Failure> {
        let present = self.answer(&["ps", "--all", "--quiet"])?;
        for id in present.lines() {
            self.run(&["rm", "--force", "--volumes", id])?;
        }
        Ok(())
    }

    fn shown(&self) -> String {
        format!("{} --run-root {RUN_ROOT}", self.program.display())
    }
}

fn free_port() -> Result<u16, Failure> {
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    PORTS.clone().find(free).ok_or_else(|| {
        Failure::new(format!("every port from {} to {} is in use on 127.0.0.1", PORTS.start, PORTS.end - 1))
    })
}

/// Gets `/`, again until it answers: a connection that is refused or cut means that the server is not there yet.
fn fetch(address: SocketAddr, patience: Duration) -> Result<String, String> {
    let deadline = Instant::now() + patience;
    loop {
        let why = match get(address) {
            Ok(answer) => match answer.split_once("\r\n\r\n") {
                Some((head, body)) if head.starts_with("HTTP/1.") && head.contains(" 200 ") => {
                    return Ok(body.to_owned());
                }
                _ => format!("it answered: {answer}"),
            },
            Err(error) => error.to_string(),
        };
        if Instant::now() > deadline {
            return Err(why);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn get(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(format!("GET / HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            // The first visitor finds a server that hangs up, as a published port does while the program starts.
            drop(listener.accept().unwrap());
            let (mut stream, _) = listener.accept().unwrap();
            // What is left unread would turn the end of the connection into a reset.
            let request = format!("GET / HTTP/1.0\r\nHost: {address}\r\n\r\n");
            stream.read_exact(&mut vec![0; request.len()]).unwrap();
            stream.write_all(b"HTTP/1.0 200 OK\r\nX: y\r\n\r\nHello\n").unwrap();
        });
        assert_eq!(fetch(address, Duration::from_secs(10)).unwrap(), "Hello\n");
        server.join().unwrap();
        assert!(fetch(address, Duration::ZERO).is_err());
    }

    #[test]
    fn only_what_bears_the_demos_name_is_taken_away() {
        let tag = tag(RUN_ROOT);
        for (line, expected) in [
            (format!("interface dz-{tag}"), true),
            (format!("nftables table ip dozen-{tag}"), true),
            (format!("cgroup /sys/fs/cgroup/memory/dozen-{tag}"), true),
            (format!("process 7 (dozen --data-root {DATA_ROOT} daemon)"), true),
            ("interface dozen0".to_owned(), false),
            ("nftables table ip dozen".to_owned(), false),
            ("process 8 (dozen daemon)".to_owned(), false),
            ("path /run/dozen".to_owned(), false),
        ] {
            assert_eq!(is_ours(&line), expected, "{line}");
        }
    }
}
