//! The machine: namespaces held by a process, and commands that run inside.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

use crate::cgroup::Cgroups;
use crate::engine::Engine;
use crate::tools::Done;
use crate::wait::{patience, until};

/// The machine's address on the wire.
pub const MACHINE_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2));
/// Its neighbour's.
pub const NEIGHBOUR_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));

const HOLDER: &str = include_str!("holder.sh");

/// From where something on the network is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// A process on the machine itself, outside every container.
    Machine,
    /// Another machine on the same wire.
    Neighbour,
}

/// A machine in a box. Dropping it removes everything in it.
#[derive(Debug)]
pub struct Machine {
    directory: TempDir,
    cgroups: Cgroups,
    holder: Child,
    /// Closed, it ends the holder.
    lifeline: Option<ChildStdin>,
    machine_network: File,
    neighbour_network: File,
    engines: AtomicU32,
}

impl Machine {
    /// Sets one up. Needs root.
    #[allow(clippy::new_without_default, reason = "it is not a value: it starts processes")]
    pub fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "a machine in a box needs root: sudo, or cargo xtask vm");
        // Short: the path of a socket has no more than 107 bytes (unix(7)).
        let directory = tempfile::Builder::new().prefix("dozen-box-").tempdir().unwrap();
        let tag = directory.path().file_name().unwrap().to_str().unwrap().to_owned();
        let cgroups = Cgroups::create(&tag).unwrap();
        let mut command = Command::new("sh");
        command.args(["-ec", "for cgroup in $CGROUPS; do echo $$ >$cgroup/cgroup.procs; done; exec \"$@\"", "sh"]);
        command.env("CGROUPS", joined(&cgroups, ""));
        command.args([
            "unshare",
            "--net",
            "--mount",
            "--cgroup",
            "--propagation",
            "private",
            "sh",
            "-ec",
            HOLDER,
            "sh",
        ]);
        command.arg(directory.path());
        command
            .args(cgroups.hierarchies.iter().map(|h| format!("{}:{}:{}", h.kind, h.options, h.mount_point.display())));
        // A process group of its own: ^C reaches the test, and the closed pipe the holder.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lifeline = holder.stdin.take();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Some(neighbour) = line.trim().strip_prefix("ready ") else {
            let status = holder.wait().unwrap();
            cgroups.remove();
            panic!("the box could not be set up ({status}): its messages are above");
        };
        let network = |pid: &str| File::open(format!("/proc/{pid}/ns/net")).unwrap();
        let (machine_network, neighbour_network) = (network(&holder.id().to_string()), network(neighbour));
        for root in ["data", "run"] {
            std::fs::create_dir(directory.path().join(root)).unwrap();
        }
        Self { directory, cgroups, holder, lifeline, machine_network, neighbour_network, engines: AtomicU32::new(0) }
    }

    /// A directory of the box's own, on the host's disk.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A command that runs on the machine: its namespaces, its cgroup, its engine's address in the environment. The
    /// child's pid is the program's own.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("sh");
        let join = "for cgroup in $DOZEN_BOX; do echo $$ >$cgroup/cgroup.procs; done; unset DOZEN_BOX; exec \"$@\"";
        command.args(["-ec", join, "sh", "nsenter"]).env("DOZEN_BOX", joined(&self.cgroups, "/box"));
        for namespace in ["net", "mnt", "cgroup"] {
            let option = if namespace == "mnt" { "mount" } else { namespace };
            command.arg(format!("--{option}=/proc/{}/ns/{namespace}", self.holder.id()));
        }
        command.arg("--").arg(program);
        command.env("DOZEN_DATA_ROOT", self.directory().join("data"));
        command.env("DOZEN_RUN_ROOT", self.directory().join("run"));
        command.env_remove("DOZEN_HOST").env("DOCKER_HOST", format!("unix://{}", self.socket().display()));
        // A test's engines are its own: what it runs waits for one, and starts none in its place.
        command.env("DOZEN_AUTOSTART", "0");
        command.env("DOCKER_CONFIG", self.directory().join("docker-config"));
        command.current_dir(self.directory()).stdin(Stdio::null());
        command
    }

    /// Moves a process to the cgroup in which [`Self::command`] starts what it runs.
    pub fn move_to_commands(&self, pid: i32) {
        for directory in self.cgroups.directories() {
            std::fs::write(directory.join("box/cgroup.procs"), pid.to_string()).unwrap();
        }
    }

    /// Runs a program on the machine to its end.
    pub fn run(&self, program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Done {
        let line = format!("{} {}", program.as_ref().to_string_lossy(), arguments.join(" "));
        Done::new(line, self.command(program).args(arguments).output().unwrap())
    }

    /// The same, with something on its standard input, and further variables in its environment.
    pub fn run_with(
        &self,
        program: impl AsRef<std::ffi::OsStr>,
        arguments: &[&str],
        input: &[u8],
        variables: &[(&str, &str)],
    ) -> Done {
        let line = format!("{} {}", program.as_ref().to_string_lossy(), arguments.join(" "));
        let mut command = self.command(program);
        command.args(arguments).envs(variables.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            // A program that ends before it has read all is no failure of the one who writes.
            scope.spawn(move || stdin.write_all(input).ok());
            Done::new(line, child.wait_with_output().unwrap())
        })
    }

    /// Starts an engine and waits until it answers. One at a time.
    pub fn engine(&self) -> Engine<'_> {
        Engine::start(self, self.engines.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Where its engine listens.
    pub fn socket(&self) -> std::path::PathBuf {
        self.directory().join("run/dozen.sock")
    }

    /// Connects as a process on that side would.
    pub fn connect(&self, from: Side, address: SocketAddr) -> std::io::Result<TcpStream> {
        self.on(from, || TcpStream::connect_timeout(&address, patience(Duration::from_secs(3))))
    }

    /// Does something in that side's network namespace; a socket that was opened there stays there.
    pub fn on<T: Send>(&self, side: Side, act: impl FnOnce() -> std::io::Result<T> + Send) -> std::io::Result<T> {
        let network = match side {
            Side::Machine => &self.machine_network,
            Side::Neighbour => &self.neighbour_network,
        };
        // A thread of its own, because it stays in that namespace.
        std::thread::scope(|scope| {
            let visit = scope.spawn(|| {
                move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
                act()
            });
            visit.join().unwrap()
        })
    }

    /// Gets `/` from an HTTP server: the body of a 200, or why there is none.
    pub fn get(&self, from: Side, address: SocketAddr) -> Result<String, String> {
        let fetch = || -> std::io::Result<String> {
            let mut stream = self.connect(from, address)?;
            stream.set_read_timeout(Some(patience(Duration::from_secs(5))))?;
            stream.write_all(b"GET / HTTP/1.0\r\nHost: box\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = fetch().map_err(|error| error.to_string())?;
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.contains(" 200 ") => Ok(body.to_owned()),
            _ => Err(format!("answered: {answer}")),
        }
    }

    /// Sends a datagram from that side, again and again until one comes back.
    pub fn datagram(&self, from: Side, address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
        let ask = || -> std::io::Result<Vec<u8>> {
            let local = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = self.on(from, || UdpSocket::bind(local))?;
            socket.connect(address)?;
            socket.set_read_timeout(Some(Duration::from_millis(500)))?;
            socket.send(bytes)?;
            let mut answer = vec![0; 65536];
            let length = socket.recv(&mut answer)?;
            answer.truncate(length);
            Ok(answer)
        };
        until(&format!("a datagram from {address} for {from:?}"), || ask().ok())
    }

    /// Everything on the machine that an operation could leave behind, a line per thing: interfaces, firewall, cgroups,
    /// processes, files. Two of them are the same if nothing was left.
    pub fn snapshot(&self) -> BTreeSet<String> {
        let mut lines = BTreeSet::new();
        let lists: [(&str, &str, &[&str]); 3] = [
            ("interface", "ls", &["/sys/class/net"]),
            ("firewall", "nft", &["--stateless", "list", "ruleset"]),
            ("mount", "sh", &["-c", "cut -d' ' -f5 /proc/self/mountinfo"]),
        ];
        for (kind, program, arguments) in lists {
            lines.extend(self.run(program, arguments).text().lines().map(|line| format!("{kind} {}", line.trim())));
        }
        lines.extend(self.cgroups.below().into_iter().map(|path| format!("cgroup {path}")));
        for pid in self.cgroups.processes() {
            let raw = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if !raw.is_empty() {
                lines.insert(format!("process {pid} {}", String::from_utf8_lossy(&raw).replace('\0', " ")));
            }
        }
        for root in ["data/containers", "run/containers", "data/volumes"] {
            let entries = std::fs::read_dir(self.directory().join(root)).into_iter().flatten().flatten();
            lines.extend(entries.map(|entry| format!("file {root}/{}", entry.file_name().to_string_lossy())));
        }
        lines
    }

    fn tear_down(&mut self) -> Vec<String> {
        drop(self.lifeline.take());
        let mut problems = Vec::new();
        match self.holder.wait() {
            Ok(status) if status.success() => {}
            outcome => problems.push(format!("the box's first process: {outcome:?}")),
        }
        // Killed processes are collected by whoever has inherited them; until then their cgroup is not empty.
        let begun = std::time::Instant::now();
        while !self.cgroups.processes().is_empty() && begun.elapsed() < patience(Duration::from_secs(10)) {
            std::thread::sleep(Duration::from_millis(5));
        }
        problems.extend(self.cgroups.processes().into_iter().map(|pid| format!("process {pid}")));
        problems.extend(self.cgroups.remove());
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let inside = self.directory().display().to_string();
        problems.extend(mounts.lines().filter(|line| line.contains(&inside)).map(|line| format!("mount {line}")));
        problems
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for entry in std::fs::read_dir(self.directory()).into_iter().flatten().flatten() {
                if entry.path().extension().is_some_and(|ending| ending == "log") {
                    let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
                    eprintln!("-- {}\n{text}", entry.file_name().to_string_lossy());
                }
            }
        }
        let problems = self.tear_down();
        assert!(problems.is_empty() || std::thread::panicking(), "left of the box:\n{}", problems.join("\n"));
        if !problems.is_empty() {
            eprintln!("left of the box:\n{}", problems.join("\n"));
        }
    }
}

fn joined(cgroups: &Cgroups, below: &str) -> String {
    cgroups.directories().iter().map(|path| format!("{}{below}", path.display())).collect::<Vec<_>>().join(" ")
}

impl Machine {
    /// Asks until there is a page: a server needs a moment after its container has started.
    pub fn page(&self, from: Side, address: SocketAddr) -> String {
        until(&format!("a page from {address} for {from:?}"), || self.get(from, address).ok())
    }
}
