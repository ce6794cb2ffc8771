//! That what the engine says is what is on the host: everything on the host belongs to a row, and every row has on
//! the host what it ought to have.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, TcpListener};

use crate::bench::{Bench, until_none};
use crate::scenario::{MEMORY, NETWORK, WIRE};
use crate::{innocent, scenario, soak};

/// Waits until they agree.
pub fn check(bench: &mut Bench) {
    until_none("rows and host do not agree", 15, || differences(bench));
}

struct Row {
    id: String,
    name: String,
    runs: bool,
    is_paused: bool,
}

impl Row {
    fn short(&self) -> String {
        self.id[..12].to_owned()
    }
}

fn differences(bench: &mut Bench) -> Vec<String> {
    compare(bench).unwrap_or_else(|changing| vec![changing])
}

/// A field of a container. An error: it has gone since it was listed, because an engine finishes what one before it had
/// begun.
fn inspect(bench: &mut Bench, row: &Row, format: &str) -> Result<String, String> {
    let shown = bench.dozen(&["inspect", "--format", format, &row.name]);
    if shown.code == 0 { Ok(shown.out) } else { Err(format!("{}: {}", row.name, shown.err)) }
}

fn compare(bench: &mut Bench) -> Result<Vec<String>, String> {
    let mut found = Differences::default();
    let listed = bench.dozen(&["ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Names}} {{.State}}"]).expect(0);
    let rows: Vec<Row> = listed
        .lines()
        .map(|line| {
            let [id, name, state] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("ps says: {line}") };
            found.check(["created", "running", "paused", "exited"].contains(&state), format!("{name} is {state}"));
            let is_paused = state == "paused";
            Row { id: id.to_owned(), name: name.to_owned(), runs: state == "running" || is_paused, is_paused }
        })
        .collect();
    let running: Vec<&Row> = rows.iter().filter(|row| row.runs).collect();
    let volumes = bench.dozen(&["volume", "ls", "-q"]).expect(0).lines().map(str::to_owned).collect();
    let (ids, shorts) = (rows.iter().map(|row| row.id.clone()), rows.iter().map(Row::short));
    let runs = bench.machine.directory().join("run");
    let data = bench.machine.directory().join("data");

    found.same("directories of containers", &names_in(&data.join("containers")), &ids.collect());
    found.same("directories of volumes", &names_in(&data.join("volumes")), &volumes);
    for volume in names_in(&data.join("volumes")) {
        let parts = names_in(&data.join("volumes").join(&volume));
        found.check(parts == BTreeSet::from(["_data".to_owned()]), format!("volume {volume} has {parts:?}"));
        let files = names_in(&data.join("volumes").join(&volume).join("_data"));
        // It is filled from the image's /bin.
        let whole = files.is_empty() || files.contains("busybox") && files.contains("zcat");
        found.check(whole, format!("volume {volume} has only {files:?}"));
    }
    let shorts: BTreeSet<String> = shorts.collect();
    for stray in names_in(&runs.join("c")).difference(&shorts) {
        found.add(format!("run/c/{stray} belongs to no container"));
    }

    let host = bench.machine.snapshot();
    let of_kind = |kind: &str| host.iter().filter_map(move |line| line.strip_prefix(kind)).collect::<Vec<_>>();
    let is_id = |name: &&str| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let cgroups = of_kind("cgroup ").into_iter().filter_map(|path| path.split('/').nth(1)).filter(is_id);
    let running_ids = running.iter().map(|row| row.id.clone()).collect();
    found.same("cgroups", &cgroups.map(str::to_owned).collect(), &running_ids);

    // Version 1's file and version 2's: nobody is committed any more, and who is paused stands still.
    let frozen = "find /sys/fs/cgroup -name freezer.state -o -name cgroup.freeze | xargs grep -lsx 'FR.*\\|1'";
    let frozen = bench.machine.run("sh", &["-c", frozen]).out;
    let frozen = frozen.lines().filter_map(|path| path.rsplit('/').find(is_id)).map(str::to_owned).collect();
    found.same(
        "who stands still",
        &frozen,
        &rows.iter().filter(|row| row.is_paused).map(|row| row.id.clone()).collect(),
    );

    // What is mounted for a volume is mounted for those who run with it.
    let place = format!("{}/volumes/", data.display());
    let mounted = of_kind("mount ").into_iter().filter_map(|path| path.strip_prefix(&place)?.strip_suffix("/_data"));
    let mounted = mounted.map(str::to_owned).collect();
    let mut used = BTreeSet::new();
    for row in &running {
        let names = inspect(bench, row, "{{range .Mounts}}{{.Name}} {{end}}")?;
        used.extend(names.split_whitespace().filter(|name| *name == MEMORY).map(str::to_owned));
    }
    found.same("mounts of volumes", &mounted, &used);

    // Of each running container, the networks that it is on.
    let mut networks = BTreeMap::new();
    for row in &running {
        let names = inspect(bench, row, "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}")?;
        let names = names.split_whitespace().filter(|name| !["none", "host", WIRE].contains(name));
        networks.insert(row.name.clone(), names.map(str::to_owned).collect::<Vec<_>>());
    }
    // A container can be taken from its last one; the host has no link of those that lie on its own interface.
    let connected: Vec<&&Row> = running.iter().filter(|row| !networks[&row.name].is_empty()).collect();
    let links = of_kind("interface ").into_iter().filter(|name| name.starts_with("dz") && !name.starts_with("dz-"));
    let links: Vec<String> = links.map(|name| name[2..8].to_owned()).collect();
    let begins = connected.iter().map(|row| row.id[..6].to_owned()).collect();
    found.same("links", &links.iter().cloned().collect(), &begins);
    let places: usize = networks.values().map(Vec::len).sum();
    found.check(links.len() == places, format!("{} links of {networks:?}", links.len()));

    let commands = || of_kind("process ").into_iter().filter_map(|line| line.split_once(' '));
    let keepers = commands().filter(|(_, command)| command.starts_with("dozen keeper /")).count();
    let monitors: Vec<&str> =
        commands().filter(|(_, command)| command.starts_with("dozen monitor /")).map(|(pid, _)| pid).collect();
    // What a monitor has forked compresses a log, or is about to become a container's process; with health checks there
    // is hardly a moment without one, and the next it is another.
    let is_own = |pid: &&&str| parent(pid).is_some_and(|parent| !monitors.contains(&parent.as_str()));
    let monitors: Vec<&&str> = monitors.iter().filter(is_own).collect();
    if monitors.len() != running.len() {
        let monitors: Vec<String> = monitors.iter().map(|pid| about(pid)).collect();
        found.add(format!("{} running containers, and monitors:\n{}", running.len(), monitors.join("\n")));
    }
    found.check(keepers == 1, format!("{keepers} keepers"));
    for row in &running {
        found.check(bench.monitor(&row.short()).is_some(), format!("nobody holds the lock of {}", row.name));
    }

    // What inspect shows is in force, however an update of it was cut short.
    for row in &running {
        let shown = inspect(bench, row, "{{.HostConfig.PidsLimit}}")?;
        let script = format!("cat $(find /sys/fs/cgroup -path '*/{}/pids.max')", row.id);
        let kernel = bench.machine.run("sh", &["-c", &script]).out;
        let limit = if shown.trim() == "<nil>" { "max" } else { shown.trim() };
        found.check(kernel.trim() == limit, format!("{}: pids.max is {kernel}, shown is {shown}", row.name));
    }

    let ports: BTreeSet<String> =
        connected.iter().filter_map(|row| port_of(&row.name)).map(|port| port.to_string()).collect();
    // elements = { tcp . 8080 : 172.17.0.2 . 80,
    //              tcp . 8081 : 172.17.0.3 . 80 }
    let after = |words: &'static str| of_kind("firewall ").into_iter().flat_map(move |line| line.split(words).skip(1));
    let is_of_map = |rest: &&str| rest.split_whitespace().nth(1) == Some(":");
    let opened = after("tcp . ").filter(is_of_map).filter_map(|rest| rest.split(' ').next());
    let opened: Vec<String> = opened.map(str::to_owned).collect();
    found.same("ports in the firewall", &opened.iter().cloned().collect(), &ports);
    for (name, port) in connected.iter().filter_map(|row| Some((&row.name, port_of(&row.name)?.to_string()))) {
        let count = opened.iter().filter(|opened| **opened == port).count();
        // A network of one's own has no IPv6 unless it is asked for; who is on both publishes by one of them.
        let is_right = if networks[name].iter().any(|network| network != "bridge") { 1..=2 } else { 2..=2 };
        found.check(is_right.contains(&count), format!("{name}: port {port} is {count} times in the firewall"));
    }
    // What is published as it is: elements = { fd00::2 . tcp . 80 }
    let is_of_set = |line: &&str| line.contains(" . tcp . ") && !line.contains(" : ");
    let direct = of_kind("firewall ").into_iter().filter(is_of_set).flat_map(|line| line.split(", "));
    let direct = direct.filter_map(|element| element.rsplit(['{', '=']).next()?.split(" . ").next());
    let shown = connected.iter().filter_map(|row| {
        let format = "{{json .NetworkSettings.Ports}} {{range $name, $place := .NetworkSettings.Networks}}\
                      {{$name}}={{$place.GlobalIPv6Address}} {{end}}";
        let shown = bench.dozen(&["inspect", "--format", format, &row.name]).expect(0);
        let (ports, places) = shown.trim().split_once(' ')?;
        let address = places.split(' ').find_map(|place| place.strip_prefix(NETWORK)?.strip_prefix('='))?;
        ports.contains("\"HostPort\":\"\"").then(|| address.to_owned())
    });
    found.same(
        "ports that are published as they are",
        &direct.map(|it| it.trim().to_owned()).collect(),
        &shown.collect(),
    );
    let snapshot = std::fs::read(runs.join("keeper.json")).unwrap_or_default();
    let snapshot: serde_json::Value = serde_json::from_slice(&snapshot).unwrap_or_default();
    let held = snapshot["ports"].as_array().into_iter().flatten().map(|port| port["host_port"].to_string());
    // Who has been taken from its last network keeps its ports for the next one.
    let mut kept = BTreeSet::new();
    for row in &running {
        let shown = inspect(bench, row, "{{range .NetworkSettings.Ports}}{{range .}}{{.HostPort}} {{end}}{{end}}")?;
        kept.extend(shown.split_whitespace().map(str::to_owned));
    }
    found.check(ports.is_subset(&kept), format!("ports {ports:?} are open, and inspect shows {kept:?}"));
    found.same("ports of the keeper", &held.collect(), &kept);
    for (name, port) in all_ports() {
        let free = bench.on_network(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok());
        let wanted = !kept.contains(&port.to_string());
        found.check(free == wanted, format!("port {port} of {name} is {}", if free { "free" } else { "taken" }));
    }
    Ok(found.0)
}

fn all_ports() -> impl Iterator<Item = (String, u16)> {
    let named = scenario::CONTAINERS.into_iter().chain([("innocent", innocent::PORT)]);
    named.map(|(name, port)| (name.to_owned(), port)).chain(soak::ports())
}

fn port_of(container: &str) -> Option<u16> {
    all_ports().find(|(name, _)| name == container).map(|(_, port)| port)
}

#[derive(Default)]
struct Differences(Vec<String>);

impl Differences {
    fn add(&mut self, difference: String) {
        self.0.push(difference);
    }

    fn check(&mut self, holds: bool, otherwise: String) {
        if !holds {
            self.add(otherwise);
        }
    }

    fn same(&mut self, what: &str, host: &BTreeSet<String>, rows: &BTreeSet<String>) {
        for stray in host.difference(rows) {
            self.add(format!("{what}: {stray} is on the host and belongs to no row"));
        }
        for missing in rows.difference(host) {
            self.add(format!("{what}: {missing} belongs to a row and is not on the host"));
        }
    }
}

fn parent(pid: &str) -> Option<String> {
    field_of(pid, "PPid:")
}

/// proc_pid_status(5). `None` if it has ended.
fn field_of(pid: &str, name: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(status.lines().find_map(|line| line.strip_prefix(name))?.trim().to_owned())
}

/// Whose it may be, and what it may be waiting for.
fn about(pid: &str) -> String {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let open: Vec<String> = descriptors
        .filter_map(|entry| Some(std::fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned()))
        .collect();
    format!(
        "{pid}: {}, child of {}, in {} ({}), in {}; {open:?}",
        field_of(pid, "State:").unwrap_or_default(),
        parent(pid).unwrap_or_default(),
        read("wchan"),
        read("syscall").trim(),
        read("cgroup").trim().replace('\n', " "),
    )
}

fn names_in(directory: &std::path::Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Everything on the machine that an operation could leave behind, without what differs between two engines that do
/// the same: process ids, and what the innocent container does at the moment.
pub fn traces(bench: &Bench) -> BTreeSet<String> {
    let anonymous = |line: String| match line.strip_prefix("process ").and_then(|rest| rest.split_once(' ')) {
        Some((_, command)) => format!("process {command}"),
        None => line,
    };
    let passing = |line: &String| line.starts_with("process sleep 0.02") || line.starts_with("process sh -c mkdir");
    let data = bench.machine.directory().join("data");
    let run = bench.machine.directory().join("run/builds");
    let secrets = names_in(&run).into_iter().map(|name| format!("file run/builds/{name}"));
    let files = ["content/sha256", "layers", "tmp", "builds", "cache-mounts", "containers"]
        .into_iter()
        .flat_map(|place| names_in(&data.join(place)).into_iter().map(move |name| format!("file data/{place}/{name}")));
    bench
        .machine
        .snapshot()
        .into_iter()
        .map(anonymous)
        .filter(|line| !passing(line))
        .chain(files)
        .chain(secrets)
        .collect()
}
