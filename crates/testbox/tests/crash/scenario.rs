//! What people do with containers, from making one to removing the last trace of it.

use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;

use dozen_testbox::Side;

use crate::bench::Bench;

/// Names and published ports of the containers in the scenario.
pub const CONTAINERS: [(&str, u16); 3] = [("victim", 8081), ("passing", 8082), ("broken", 8083)];
pub const VOLUME: &str = "data";
/// One that is mounted while a container uses it.
pub const MEMORY: &str = "memory";
/// Ports are the host's of IPv4, and the container's own of IPv6.
const ROUTED: &str = "com.docker.network.bridge.gateway_mode_ipv6=routed";
/// A network of its own.
pub const NETWORK: &str = "back";
/// One on the host's own interface.
pub const WIRE: &str = "wire";
const ARTIFACT: &str = "notes:1";
const MOUNTED: &str = "type=artifact,src=notes:1,dst=/notes";
const IMAGES: [&str; 5] = ["product:1", "product:2", "twice:1", "alive:1", "built:1"];

const SERVE: &str = "mkdir /www; echo served >/www/index.html; httpd -p 80 -h /www
    trap 'exit 0' TERM; sleep 1000 & wait";

pub enum Step {
    /// A command and its exit code.
    Dozen(&'static [&'static str], i32),
    /// The victim's page, and a word to it, through the keeper.
    Visit,
    /// The disk loses what is kept of the layer of `twice.tar`.
    Damage,
}

/// Parts of the scenario: each leaves nothing that another needs, or minds.
pub const CHAPTERS: [&[Step]; 9] =
    [LIFE, PASSING, POLICIES, NETWORKS, VOLUMES, ARCHIVES, ARTIFACTS, BUILDS, COLLECTION];

/// A container that serves, with all that can be done to it.
const LIFE: &[Step] = &[
    Step::Dozen(
        &[
            "create",
            "--name",
            "victim",
            "-v",
            "data:/bin",
            "-p",
            "8081:80",
            "-p",
            "8081:80/udp",
            "busybox",
            "sh",
            "-c",
            SERVE,
        ],
        0,
    ),
    Step::Dozen(&["start", "victim"], 0),
    Step::Visit,
    // It serves, so it heeds SIGTERM by now.
    Step::Dozen(&["restart", "victim"], 0),
    Step::Visit,
    Step::Dozen(&["exec", "victim", "touch", "/bin/file", "/made"], 0),
    Step::Dozen(&["update", "--pids-limit", "100", "victim"], 0),
    Step::Dozen(&["update", "--log-opt", "max-size=10m", "victim"], 0),
    // It stands still for that, and goes on.
    Step::Dozen(&["commit", "victim", IMAGES[3]], 0),
    Step::Dozen(&["rmi", IMAGES[3]], 0),
    Step::Visit,
    Step::Dozen(&["stop", "victim"], 0),
    Step::Dozen(&["cp", "victim:/bin/file", "DIRECTORY/file"], 0),
    Step::Dozen(&["cp", "DIRECTORY/file", "victim:/copied"], 0),
    Step::Dozen(&["commit", "victim", IMAGES[0]], 0),
    Step::Dozen(&["rmi", IMAGES[0]], 0),
    Step::Dozen(&["rm", "victim"], 0),
    Step::Dozen(&["volume", "rm", VOLUME], 0),
];

/// Containers that are ended, that end by themselves, that stand still.
const PASSING: &[Step] = &[
    Step::Dozen(&["run", "--rm", "--name", "passing", "-p", "8082:80", "-p", "8082:80/udp", "busybox", "true"], 0),
    Step::Dozen(&["run", "-d", "--name", "passing", "-p", "8082:80", "busybox", "sleep", "1000"], 0),
    Step::Dozen(&["stop", "-t", "0", "passing"], 0),
    Step::Dozen(&["start", "passing"], 0),
    Step::Dozen(&["rm", "-f", "passing"], 0),
    // It stands still until someone says otherwise, whoever else dies.
    Step::Dozen(&["run", "-d", "--name", "passing", "-p", "8082:80", "busybox", "sleep", "1000"], 0),
    Step::Dozen(&["pause", "passing"], 0),
    Step::Dozen(&["unpause", "passing"], 0),
    Step::Dozen(&["pause", "passing"], 0),
    Step::Dozen(&["rm", "-f", "passing"], 0),
];

/// Containers that the engine itself starts again or ends.
const POLICIES: &[Step] = &[
    // Its memory runs out.
    Step::Dozen(
        &[
            "run",
            "--rm",
            "--name",
            "passing",
            "--network",
            "none",
            "-m",
            "16m",
            "busybox",
            "sh",
            "-c",
            "tail /dev/zero",
        ],
        137,
    ),
    // It fails, is started again, and fails for good: the second wait is for that.
    Step::Dozen(
        &[
            "run",
            "-d",
            "--name",
            "passing",
            "--restart",
            "on-failure:1",
            "-p",
            "8082:80",
            "busybox",
            "sh",
            "-c",
            "exit 3",
        ],
        0,
    ),
    Step::Dozen(&["wait", "passing"], 0),
    Step::Dozen(&["wait", "passing"], 0),
    Step::Dozen(&["rm", "passing"], 0),
    // It is found to be unwell, and killed for that.
    Step::Dozen(
        &[
            "run",
            "-d",
            "--name",
            "passing",
            "--health-cmd",
            "false",
            "--health-interval",
            "20ms",
            "--health-retries",
            "2",
            "--on-unhealthy",
            "kill",
            "busybox",
            "sleep",
            "1000",
        ],
        0,
    ),
    Step::Dozen(&["wait", "passing"], 0),
    Step::Dozen(&["rm", "passing"], 0),
];

/// A network of its own, with names.
const NETWORKS: &[Step] = &[
    Step::Dozen(&["network", "create", "--ipv6", "-o", ROUTED, NETWORK], 0),
    Step::Dozen(
        &["run", "-d", "--name", "passing", "--network", NETWORK, "-p", "8082:80", "busybox", "sleep", "1000"],
        0,
    ),
    Step::Dozen(&["exec", "passing", "nslookup", "-type=a", "passing"], 0),
    // Nobody answers.
    Step::Dozen(&["exec", "passing", "nslookup", "-type=a", "example.org"], 1),
    Step::Dozen(&["network", "connect", "bridge", "passing"], 0),
    // Its ports go another way now.
    Step::Dozen(&["network", "disconnect", "bridge", "passing"], 0),
    Step::Dozen(&["rm", "-f", "passing"], 0),
    Step::Dozen(&["network", "rm", NETWORK], 0),
    // Past the host's own network.
    Step::Dozen(&["network", "create", "-d", "macvlan", "-o", "parent=eth0", "--subnet", "198.51.100.0/24", WIRE], 0),
    Step::Dozen(&["run", "--rm", "--name", "passing", "--network", WIRE, "busybox", "true"], 0),
    Step::Dozen(&["network", "rm", WIRE], 0),
    Step::Dozen(&["system", "firewall", "allow"], 0),
    Step::Dozen(&["system", "firewall", "forget"], 0),
];

/// A container that cannot start, and volumes.
const VOLUMES: &[Step] = &[
    Step::Dozen(&["create", "--name", "broken", "-p", "8083:80", "busybox", "no-such-program"], 0),
    Step::Dozen(&["start", "broken"], 1),
    Step::Dozen(&["rename", "broken", "victim"], 0),
    Step::Dozen(&["rm", "victim"], 0),
    Step::Dozen(&["volume", "create", VOLUME], 0),
    // The volume is there and empty: it is filled.
    Step::Dozen(&["create", "--name", "victim", "-v", "data:/bin", "busybox", "true"], 0),
    Step::Dozen(&["rm", "victim"], 0),
    Step::Dozen(&["volume", "rm", VOLUME], 0),
    Step::Dozen(&["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", MEMORY], 0),
    Step::Dozen(
        &["run", "-d", "--name", "passing", "--network", "none", "-v", "memory:/m", "busybox", "sleep", "1000"],
        0,
    ),
    Step::Dozen(&["stop", "-t", "0", "passing"], 0),
    Step::Dozen(&["cp", "passing:/m", "DIRECTORY/memory"], 0),
    Step::Dozen(&["rm", "passing"], 0),
    Step::Dozen(&["volume", "rm", MEMORY], 0),
];

/// Images that are made, written out, read, and lost.
const ARCHIVES: &[Step] = &[
    Step::Dozen(&["run", "--name", "passing", "busybox", "touch", "/made"], 0),
    Step::Dozen(&["commit", "passing", IMAGES[0]], 0),
    Step::Dozen(&["rm", "passing"], 0),
    Step::Dozen(&["tag", IMAGES[0], IMAGES[1]], 0),
    Step::Dozen(&["save", "--output", "DIRECTORY/image.tar", IMAGES[0], IMAGES[1]], 0),
    Step::Dozen(&["rmi", IMAGES[0]], 0),
    Step::Dozen(&["rmi", IMAGES[1]], 0),
    Step::Dozen(&["load", "--input", "DIRECTORY/image.tar"], 0),
    Step::Dozen(&["run", "--rm", "--name", "passing", IMAGES[1], "ls", "/made"], 0),
    Step::Dozen(&["rmi", "--force", IMAGES[0], IMAGES[1]], 0),
    // Its layer's blob is kept.
    Step::Dozen(&["load", "--input", "DIRECTORY/twice.tar"], 0),
    Step::Damage,
    Step::Dozen(&["save", "--output", "DIRECTORY/again.tar", IMAGES[2]], 1),
    // It is mended.
    Step::Dozen(&["load", "--input", "DIRECTORY/twice.tar"], 0),
    Step::Dozen(&["save", "--output", "DIRECTORY/again.tar", IMAGES[2]], 0),
    Step::Dozen(&["rmi", IMAGES[2]], 0),
];

/// Files that become an artifact, are added to it, come out again, and are what a container keeps.
const ARTIFACTS: &[Step] = &[
    Step::Dozen(&["artifact", "add", ARTIFACT, "DIRECTORY/site/file"], 0),
    Step::Dozen(&["artifact", "add", "--append", ARTIFACT, "DIRECTORY/site/token"], 0),
    Step::Dozen(&["artifact", "extract", ARTIFACT, "DIRECTORY/site"], 0),
    Step::Dozen(&["create", "--name", "passing", "--mount", MOUNTED, "busybox", "cat", "/notes/file"], 0),
    Step::Dozen(&["artifact", "rm", ARTIFACT], 0),
    Step::Dozen(&["start", "-a", "passing"], 0),
    Step::Dozen(&["rm", "passing"], 0),
];

/// An image that is built, and what the build keeps.
const BUILDS: &[Step] = &[
    Step::Dozen(BUILD, 0),
    Step::Dozen(&["run", "--rm", "--name", "passing", "--network", "none", IMAGES[4]], 0),
    Step::Dozen(&["rmi", IMAGES[4]], 0),
    Step::Dozen(&["builder", "prune", "-a", "-f"], 0),
];

/// What goes when the disk is full: all that can be had again, and no more.
const COLLECTION: &[Step] = &[
    Step::Dozen(&["run", "--name", "passing", "--network", "none", "busybox", "touch", "/made"], 0),
    Step::Dozen(&["commit", "passing", IMAGES[0]], 0),
    Step::Dozen(BUILD, 0),
    Step::Dozen(&["rmi", IMAGES[4]], 0),
    Step::Dozen(COLLECT, 0),
    Step::Dozen(&["start", "--attach", "passing"], 0),
    Step::Dozen(&["rm", "passing"], 0),
];
pub const COLLECT: &[&str] =
    &["system", "gc", "-f", "--free-space", "100%", "--images", "unused", "--unused-for", "0s"];
pub const BUILD: &[&str] = &[
    "build",
    "-q",
    "--network",
    "none",
    "--build-arg",
    "SOURCE_DATE_EPOCH=1000000000",
    "--secret",
    "id=token,src=DIRECTORY/site/token",
    "-t",
    IMAGES[4],
    "DIRECTORY/site",
];

/// All of it, and each step succeeds.
pub fn run(bench: &mut Bench) {
    CHAPTERS.iter().for_each(|chapter| run_chapter(bench, chapter));
}

/// Each step of it succeeds.
pub fn run_chapter(bench: &mut Bench, chapter: &[Step]) {
    for step in chapter {
        match step {
            Step::Dozen(arguments, code) => drop(bench.dozen(&words(bench, arguments)).expect(*code)),
            Step::Visit => {
                drop(bench.machine.page(Side::Machine, page()));
                say(bench);
            }
            Step::Damage => std::fs::write(blob_of_twice(bench), "lost").unwrap(),
        }
    }
}

/// Its steps, whatever fails, until the engine is dead or it is enough. False: it went through to the end.
pub fn try_chapter(bench: &mut Bench, chapter: &[Step], is_enough: impl Fn(&Bench) -> bool) -> bool {
    for step in chapter {
        match step {
            Step::Dozen(arguments, _) => {
                if bench.try_dozen(&words(bench, arguments)).is_none() {
                    return true;
                }
            }
            Step::Visit => {
                drop(bench.machine.get(Side::Machine, page()));
                say(bench);
            }
            Step::Damage => drop(std::fs::write(blob_of_twice(bench), "lost")),
        }
        if is_enough(bench) {
            return true;
        }
    }
    false
}

/// All of it, whatever fails, until the engine is dead.
pub fn try_run(bench: &mut Bench) {
    CHAPTERS.iter().any(|chapter| try_chapter(bench, chapter, |_| false));
}

/// Removes what a scenario that was cut short has left behind, as a user would.
pub fn clear(bench: &mut Bench) {
    let names = bench.dozen(&["ps", "-a", "--format", "{{.Names}}"]).expect(0);
    for (name, _) in CONTAINERS.iter().filter(|(name, _)| names.lines().any(|line| line == *name)) {
        bench.dozen(&["rm", "-f", name]).expect(0);
    }
    let images = bench.dozen(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).expect(0);
    for image in IMAGES.iter().filter(|image| images.lines().any(|line| line == **image)) {
        bench.dozen(&["rmi", image]).expect(0);
    }
    bench.dozen(&["artifact", "rm", "--all"]).expect(0);
    bench.dozen(&["builder", "prune", "-a", "-f"]).expect(0);
    let networks = bench.dozen(&["network", "ls", "--format", "{{.Name}}"]).expect(0);
    for network in [NETWORK, WIRE] {
        if networks.lines().any(|line| line == network) {
            bench.dozen(&["network", "rm", network]).expect(0);
        }
    }
    let volumes = bench.dozen(&["volume", "ls", "-q"]).expect(0);
    for volume in [VOLUME, MEMORY] {
        if volumes.lines().any(|line| line == volume) {
            bench.dozen(&["volume", "rm", volume]).expect(0);
        }
    }
}

pub fn words(bench: &Bench, step: &[&str]) -> Vec<String> {
    let directory = bench.machine.directory().display().to_string();
    step.iter().map(|word| word.replace("DIRECTORY", &directory)).collect()
}

fn blob_of_twice(bench: &Bench) -> PathBuf {
    let directory = bench.machine.directory();
    let config = std::fs::read_to_string(directory.join("twice/config.json")).unwrap();
    let digest = config.split("sha256:").nth(1).and_then(|rest| rest.get(..64)).unwrap();
    directory.join("data/content/sha256").join(digest)
}

/// A datagram, which nobody answers.
fn say(bench: &Bench) {
    let word = || UdpSocket::bind("[::1]:0")?.send_to(b"word", page());
    drop(bench.machine.on(Side::Machine, word));
}

fn page() -> SocketAddr {
    SocketAddr::from((Ipv6Addr::LOCALHOST, CONTAINERS[0].1))
}
