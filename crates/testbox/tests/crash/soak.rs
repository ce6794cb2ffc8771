//! An hour of everything at once (`cargo xtask soak`): workers make, start, stop, change and remove containers, networks
//! and images while engine, keeper and monitors are killed; then the same with nobody killed. After every round rows and
//! host are compared, now and then all is removed, and whoever lives for long has as much memory and as many descriptors
//! at the end as in the beginning.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dozen_testbox::{Machine, Random, dozen_program, number, patience, seed};
use rustix::process::Pid;

use crate::bench::{kill, monitors, until_none};
use crate::{Ring, agree};

const MINUTES: u64 = 60;
/// How long the workers work before all is looked at.
const ROUND: Duration = Duration::from_secs(10);
/// After so many rounds everything is removed.
const CLEAN_AFTER: u64 = 3;
const WORKERS: u16 = 3;
/// Of each worker; nobody else touches them.
const CONTAINERS: u16 = 3;
/// Everybody's.
const NETWORKS: [&str; 2] = ["soak-a", "soak-b"];
const VOLUMES: [&str; 2] = ["soak-c", "soak-d"];
/// No command takes so long, even if there is no engine for a while.
const COMMAND: Duration = Duration::from_secs(60);
/// Longer than an engine waits before it rests.
const REST: Duration = Duration::from_secs(8);
/// Memory of the same process after the same work differs by so much, allocators being what they are.
const SLACK_KIB: u64 = 4096;

/// The containers' names and the ports that they publish.
pub fn ports() -> impl Iterator<Item = (String, u16)> {
    (0..WORKERS).flat_map(|worker| (0..CONTAINERS).map(move |number| (name(worker, number), port(worker, number))))
}

fn name(worker: u16, number: u16) -> String {
    format!("soak-{worker}-{number}")
}

fn port(worker: u16, number: u16) -> u16 {
    8100 + worker * 10 + number
}

#[test]
#[ignore = "an hour: cargo xtask soak"]
fn an_hour_of_everything_leaves_nothing() {
    let seed = seed();
    let length = Duration::from_secs(60 * number("DOZEN_TEST_SOAK_MINUTES").unwrap_or(MINUTES));
    println!("-- DOZEN_TEST_SEED={seed}");
    let mut ring = Ring::new();
    let begun = Instant::now();
    let mut quiet = Vec::new();
    let mut chance = Random::new(seed);
    for round in 1.. {
        if begun.elapsed() > length {
            break;
        }
        let kills = begun.elapsed() < length / 2;
        let commands = play(&mut ring, &mut chance, kills);
        ring.innocent.check(&ring.bench);
        ring.bench.revive();
        agree::check(&mut ring.bench);
        ring.innocent.check_engine(&mut ring.bench);
        ring.bench.no_panic();
        if round % CLEAN_AFTER == 0 {
            clear(&mut ring);
            ring.nothing_is_left();
            let figures = Figures::of(&ring);
            println!("-- {} s, {commands} commands, {figures:?}", begun.elapsed().as_secs());
            if !kills {
                quiet.push(figures);
            }
        }
    }
    clear(&mut ring);
    ring.nothing_is_left();
    flat(&quiet);
}

/// One round. How many commands there were.
fn play(ring: &mut Ring, chance: &mut Random, kills: bool) -> u64 {
    let enough = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let (machine, enough, chance) = (ring.bench.machine.clone(), enough.clone(), chance.split());
            std::thread::spawn(move || Worker { worker, machine, chance }.work(&enough))
        })
        .collect();
    let begun = Instant::now();
    let run = ring.bench.machine.directory().join("run");
    while begun.elapsed() < ROUND {
        // The random moment itself, not a wait for anything.
        std::thread::sleep(Duration::from_millis(200 + chance.below(2000)));
        if !kills {
            continue;
        }
        match chance.below(4) {
            0 => ring.bench.kill_engine(),
            1 => ring.bench.keeper().map_or((), kill),
            2 => {
                let others = monitors(&run).into_iter().filter(|(short, _)| !ring.innocent.id.starts_with(short));
                others.take(1).for_each(|(_, pid)| kill(pid));
            }
            _ => {}
        }
        ring.bench.revive();
    }
    enough.store(true, Ordering::Relaxed);
    workers.into_iter().map(|worker| worker.join().expect("a worker")).sum()
}

struct Worker {
    worker: u16,
    machine: Arc<Machine>,
    chance: Random,
}

impl Worker {
    fn work(mut self, enough: &AtomicBool) -> u64 {
        let mut commands = 0;
        while !enough.load(Ordering::Relaxed) {
            let line = self.line();
            let words: Vec<&str> = line.split(' ').collect();
            let mut command = self.machine.command(dozen_program());
            command.args(&words);
            finish(&line, command);
            commands += 1;
        }
        commands
    }

    fn one_of<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.chance.below(of.len() as u64) as usize]
    }

    /// The next command.
    fn line(&mut self) -> String {
        let number = self.chance.below(u64::from(CONTAINERS)) as u16;
        let (name, port) = (name(self.worker, number), port(self.worker, number));
        let (network, volume) = (self.one_of(&NETWORKS), self.one_of(&VOLUMES));
        match self.chance.below(26) {
            0..=5 => {
                let mut line = format!("run -d --name {name} -p {port}:80 --cpus 0.2");
                line += self.one_of(&["", " --restart on-failure:2", " --init", " --stop-signal KILL"]);
                line += &match self.chance.below(4) {
                    0 => format!(" --network {network} --network-alias alias"),
                    1 => format!(" -v {volume}:/bin"),
                    2 => " --health-cmd true --health-interval 50ms".to_owned(),
                    _ => " --memory 64m --pids-limit 50".to_owned(),
                };
                line + " busybox " + self.one_of(&["sleep 1000", "true", "false", "no-such-program", "yes", "ls -R /"])
            }
            6 | 7 => format!("rm -f {name}"),
            8 => format!("stop -t 0 {name}"),
            9 => format!("start {name}"),
            10 => format!("restart -t 0 {name}"),
            11 => format!("kill {name}"),
            12 => format!("pause {name}"),
            13 => format!("unpause {name}"),
            14 => format!("exec {name} ls /"),
            15 => format!("logs --tail 10 {name}"),
            16 => format!("update --pids-limit 60 {name}"),
            17 => format!("commit {name} {name}:1"),
            18 => format!("rmi {name}:1"),
            19 => format!("cp {name}:/etc/hosts -"),
            20 => format!("network create {network}"),
            21 => format!("network rm {network}"),
            22 => format!("network connect {network} {name}"),
            23 => format!("network disconnect {network} {name}"),
            24 => self.one_of(&["ps -a", "stats --no-stream", "system df", "network ls", "images"]).to_owned(),
            _ => format!("volume rm {volume}"),
        }
    }
}

/// It may fail: nearly everything is in somebody's way. It does not hang, and nobody panics.
fn finish(line: &str, mut command: Command) {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    until_none(&format!("'dozen {line}' hangs"), COMMAND.as_secs(), || {
        let ended = child.try_wait().unwrap().is_some() || begun.elapsed() > 2 * patience(COMMAND);
        if ended { Vec::new() } else { vec![format!("process {}", child.id())] }
    });
    let message = message(&mut child);
    assert!(!message.contains("panicked"), "dozen {line}: {message}");
}

fn message(child: &mut Child) -> String {
    child.stderr.take().map(|stream| std::io::read_to_string(stream).unwrap_or_default()).unwrap_or_default()
}

/// Removes what the workers have left, as a user would.
fn clear(ring: &mut Ring) {
    let bench = &mut ring.bench;
    for (name, _) in ports() {
        bench.dozen(&["rm", "-f", &name]);
        bench.dozen(&["rmi", "-f", &format!("{name}:1")]);
    }
    // Those whose name another commit has taken.
    bench.dozen(&["image", "prune", "--force"]).expect(0);
    for network in NETWORKS {
        let removed = bench.dozen(&["network", "rm", network]);
        assert!(removed.code == 0 || removed.err.contains("not found"), "{removed:?}");
    }
    for volume in VOLUMES {
        bench.dozen(&["volume", "rm", volume]);
    }
}

/// What a process has, with nothing but the innocent container to care for.
#[derive(Debug)]
struct Figures {
    engine: Holds,
    keeper: Holds,
    monitor: Holds,
}

#[derive(Debug, Clone, Copy)]
struct Holds {
    pid: i32,
    memory_kib: u64,
    descriptors: u64,
    #[allow(dead_code, reason = "it is printed")]
    threads: u64,
}

impl Figures {
    fn of(ring: &Ring) -> Self {
        let bench = &ring.bench;
        let monitor = bench.monitor(&ring.innocent.id[..12]);
        let [engine, keeper, monitor] =
            least([bench.engine_pid(), bench.keeper(), monitor].map(|pid| pid.expect("it runs")));
        Self { engine, keeper, monitor }
    }
}

/// The least of some seconds: who has nothing to do gives memory back after a while.
fn least<const COUNT: usize>(pids: [Pid; COUNT]) -> [Holds; COUNT] {
    let mut least = pids.map(|pid| Holds::now(pid.as_raw_pid()));
    let begun = Instant::now();
    while begun.elapsed() < REST {
        std::thread::sleep(REST / 20);
        for holds in &mut least {
            let now = Holds::now(holds.pid);
            holds.memory_kib = holds.memory_kib.min(now.memory_kib);
            holds.descriptors = holds.descriptors.min(now.descriptors);
        }
    }
    least
}

impl Holds {
    fn now(pid: i32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let field = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().next().unwrap().parse().unwrap()
        };
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64;
        // proc_pid_status(5): anonymous memory; what is mapped from files is everybody's.
        Self { pid, memory_kib: field("RssAnon:"), descriptors, threads: field("Threads:") }
    }
}

/// Whoever lived through all of it has no more at the end than in the beginning.
fn flat(figures: &[Figures]) {
    let quarter = figures.len() / 4;
    if quarter == 0 {
        println!("-- too short to say whether anything grows: {} figures", figures.len());
        return;
    }
    let (first, last) = (&figures[..quarter], &figures[figures.len() - quarter..]);
    for (who, of) in
        [("engine", (|f| f.engine) as fn(&Figures) -> Holds), ("keeper", |f| f.keeper), ("monitor", |f| f.monitor)]
    {
        let same: std::collections::BTreeSet<i32> = figures.iter().map(|figures| of(figures).pid).collect();
        assert_eq!(same.len(), 1, "the {who} was another one meanwhile");
        // The least of each: what passes is not what stays.
        let least = |part: &[Figures], what: fn(Holds) -> u64| part.iter().map(|f| what(of(f))).min().unwrap();
        let memory = [first, last].map(|part| least(part, |holds| holds.memory_kib));
        let descriptors = [first, last].map(|part| least(part, |holds| holds.descriptors));
        println!("{who}: {} -> {} KiB, {} -> {} descriptors", memory[0], memory[1], descriptors[0], descriptors[1]);
        assert!(memory[1] <= memory[0] + SLACK_KIB, "the {who}'s memory grows: {figures:#?}");
        assert!(descriptors[1] <= descriptors[0], "the {who}'s descriptors grow: {figures:#?}");
    }
}
