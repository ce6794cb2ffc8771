//! `dozen stats`.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use clap::{ArgMatches, Command};
use serde::Deserialize;
use serde_json::Value;

use super::{Context, container_path};
use crate::arguments::flags::{format, is_on, switch, text, texts, verb};
use crate::client::{ClientError, Query};
use crate::failure::{Failure, Outcome};
use crate::output::listing::{self, Layout};
use crate::output::{self, short_id, size};
use crate::template::Row;

/// Between two looks at a stream.
const INTERVAL: Duration = Duration::from_secs(1);
/// Requests at one time.
const AT_ONCE: usize = 32;

pub fn command() -> Command {
    verb(
        "stats",
        "Display a live stream of container(s) resource usage statistics",
        "stats [OPTIONS] [CONTAINER...]",
        "dozen stats\ndozen stats --no-stream --format '{{.Name}}: {{.MemUsage}}' web",
    )
    .arg(switch("all", 'a', "Show all containers (default shows just running)"))
    .arg(format())
    .arg(switch("no-stream", None, "Disable streaming stats and only pull the first result"))
    .arg(switch("no-trunc", None, "Do not truncate output"))
    .arg(clap::Arg::new("names").value_name("CONTAINER").num_args(0..))
}

const LAYOUT: Layout = Layout {
    table: "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
    quiet: "ID",
    headings: &[
        ("Container", "CONTAINER"),
        ("ID", "CONTAINER ID"),
        ("Name", "NAME"),
        ("CPUPerc", "CPU %"),
        ("MemUsage", "MEM USAGE / LIMIT"),
        ("MemPerc", "MEM %"),
        ("NetIO", "NET I/O"),
        ("BlockIO", "BLOCK I/O"),
        ("PIDs", "PIDS"),
    ],
};

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let named: Vec<String> = texts(matches, "names").into_iter().map(str::to_owned).collect();
    let (all, once) = (is_on(matches, "all"), is_on(matches, "no-stream"));
    let mut before: HashMap<String, Processor> = HashMap::new();
    let mut is_first = true;
    loop {
        let names = if named.is_empty() { listed(context, all).await? } else { named.clone() };
        // The first look takes a second, and knows then what a processor has done in it.
        let (looks, failures) = look(context, &names, !is_first).await;
        if is_first && let Some(failure) = failures.into_iter().next() {
            return Err(failure);
        }
        let mut rows = Vec::new();
        for (name, look) in &looks {
            let last = look.is_running().then(|| before.insert(look.id.clone(), look.cpu_stats)).flatten();
            rows.push(row(name, look, last.unwrap_or(look.precpu_stats), is_on(matches, "no-trunc")));
        }
        let shown = listing::render(&LAYOUT, text(matches, "format"), false, rows)?;
        draw(&shown, !once)?;
        // Those that were asked for are all gone.
        if once || !named.is_empty() && looks.is_empty() {
            return Ok(0);
        }
        is_first = false;
        tokio::time::sleep(INTERVAL).await;
    }
}

/// In place of what was shown before, on a terminal.
fn draw(shown: &str, again: bool) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    if !(again && stdout.is_terminal()) {
        drop(stdout);
        return output::print(shown);
    }
    // Home, each line to its end, and what is below it (ECMA-48: CUP, EL, ED). A table's cells command nothing.
    let mut screen = "\x1b[H".to_owned();
    for line in shown.lines() {
        screen.push_str(&output::cell(line));
        screen.push_str("\x1b[K\n");
    }
    screen.push_str("\x1b[J");
    stdout.write_all(screen.as_bytes())?;
    stdout.flush()
}

async fn listed(context: &Context, all: bool) -> Result<Vec<String>, Failure> {
    let containers: Vec<Value> =
        context.client.get(&format!("/containers/json{}", Query::new().with_flag("all", all))).await?;
    let id = |container: &Value| container.get("Id").and_then(Value::as_str).map(|id| short_id(id).to_owned());
    Ok(containers.iter().filter_map(id).collect())
}

/// What there is to see of each; one that is gone is left out.
async fn look<'a>(context: &Context, names: &'a [String], at_once: bool) -> (Vec<(&'a str, Look)>, Vec<Failure>) {
    let query = Query::new().with("stream", "0").with_flag("one-shot", at_once);
    let (mut looks, mut failures) = (Vec::new(), Vec::new());
    for some in names.chunks(AT_ONCE) {
        let requests = some.iter().map(|name| {
            let path = container_path(name, &format!("/stats{query}"));
            async move { context.client.get::<Look>(&path).await }
        });
        for (name, answer) in some.iter().zip(futures_util::future::join_all(requests).await) {
            match answer {
                Ok(look) => looks.push((name.as_str(), look)),
                Err(error @ ClientError::Refused { .. }) => failures.push(Failure::from(error)),
                Err(error) => failures.push(Failure::from(error)),
            }
        }
    }
    (looks, failures)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Look {
    id: String,
    name: String,
    cpu_stats: Processor,
    precpu_stats: Processor,
    memory_stats: Memory,
    pids_stats: Pids,
    blkio_stats: BlockIo,
    networks: Option<HashMap<String, Interface>>,
}

#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(default)]
struct Processor {
    cpu_usage: Usage,
    system_cpu_usage: u64,
    online_cpus: u32,
}

#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(default)]
struct Usage {
    total_usage: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Memory {
    usage: u64,
    limit: u64,
    stats: HashMap<String, u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Pids {
    current: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct BlockIo {
    io_service_bytes_recursive: Option<Vec<Transfer>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Transfer {
    op: String,
    value: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Interface {
    rx_bytes: u64,
    tx_bytes: u64,
}

impl Look {
    /// One that does not run has nothing to tell.
    fn is_running(&self) -> bool {
        self.memory_stats.limit > 0 || self.cpu_stats.system_cpu_usage > 0
    }

    /// Without the page cache that can be dropped at once, as Docker counts.
    fn memory_used(&self) -> u64 {
        let Memory { usage, stats, .. } = &self.memory_stats;
        let inactive = stats.get("total_inactive_file").or_else(|| stats.get("inactive_file"));
        inactive.filter(|inactive| *inactive < usage).map_or(*usage, |inactive| usage - inactive)
    }
}

fn row(asked: &str, look: &Look, before: Processor, whole: bool) -> Row {
    let id = if whole { look.id.clone() } else { short_id(&look.id).to_owned() };
    let name = look.name.strip_prefix('/').unwrap_or(&look.name).to_owned();
    let figures = if look.is_running() { figures(look, before) } else { [(); 6].map(|()| "--".to_owned()) };
    let [cpu, memory_percent, memory, network, block, pids] = figures;
    let columns = vec![
        ("BlockIO", block),
        ("CPUPerc", cpu),
        ("Container", asked.to_owned()),
        ("ID", id),
        ("MemPerc", memory_percent),
        ("MemUsage", if memory == "--" { "-- / --".to_owned() } else { memory }),
        ("Name", name),
        ("NetIO", network),
        ("PIDs", pids),
    ];
    Row { columns, labels: None }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn figures(look: &Look, before: Processor) -> [String; 6] {
    let now = &look.cpu_stats;
    let used = now.cpu_usage.total_usage.saturating_sub(before.cpu_usage.total_usage) as f64;
    let machine = now.system_cpu_usage.saturating_sub(before.system_cpu_usage) as f64;
    let cpu = if machine > 0.0 { used / machine * f64::from(now.online_cpus.max(1)) * 100.0 } else { 0.0 };
    let (memory, limit) = (look.memory_used(), look.memory_stats.limit);
    let percent = if limit > 0 { memory as f64 / limit as f64 * 100.0 } else { 0.0 };
    let networks = look.networks.iter().flat_map(HashMap::values);
    let (received, sent) =
        networks.fold((0u64, 0u64), |(rx, tx), of| (rx.saturating_add(of.rx_bytes), tx.saturating_add(of.tx_bytes)));
    let transfers = look.blkio_stats.io_service_bytes_recursive.iter().flatten();
    let (mut read, mut written) = (0u64, 0u64);
    for transfer in transfers {
        match transfer.op.as_bytes().first() {
            Some(b'r' | b'R') => read = read.saturating_add(transfer.value),
            Some(b'w' | b'W') => written = written.saturating_add(transfer.value),
            _ => {}
        }
    }
    let decimal = |bytes: u64| size::of_image(i64::try_from(bytes).unwrap_or(i64::MAX));
    [
        format!("{cpu:.2}%"),
        format!("{percent:.2}%"),
        format!("{} / {}", binary(memory), binary(limit)),
        format!("{} / {}", decimal(received), decimal(sent)),
        format!("{} / {}", decimal(read), decimal(written)),
        look.pids_stats.current.to_string(),
    ]
}

/// "1.5MiB": powers of 1024, four digits.
#[expect(clippy::cast_precision_loss, reason = "for people")]
fn binary(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut size, mut unit) = (bytes as f64, 0);
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    let digits = match size {
        ..10.0 => 3,
        ..100.0 => 2,
        ..1000.0 => 1,
        _ => 0,
    };
    let text = format!("{size:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNING: &str = r#"{"id":"0123456789abcdef","name":"/web",
        "cpu_stats":{"cpu_usage":{"total_usage":2000},"system_cpu_usage":10000,"online_cpus":4},
        "precpu_stats":{"cpu_usage":{"total_usage":1000},"system_cpu_usage":6000,"online_cpus":4},
        "memory_stats":{"usage":3145728,"limit":67108864,"stats":{"inactive_file":1048576}},
        "pids_stats":{"current":3},"blkio_stats":{"io_service_bytes_recursive":[
            {"op":"Read","value":1500},{"op":"write","value":20},{"op":"Total","value":1520}]},
        "networks":{"eth0":{"rx_bytes":1000,"tx_bytes":5},"eth1":{"rx_bytes":96,"tx_bytes":0}}}"#;

    #[test]
    fn figures_are_as_docker_counts_them() {
        let look: Look = serde_json::from_str(RUNNING).unwrap();
        let rows = vec![row("web", &look, look.precpu_stats, false)];
        let shown = listing::render(&LAYOUT, None, false, rows).unwrap();
        assert_eq!(
            shown,
            "CONTAINER ID   NAME      CPU %     MEM USAGE / LIMIT   MEM %     NET I/O      BLOCK I/O     PIDS\n\
             0123456789ab   web       100.00%   2MiB / 64MiB        3.12%     1.1kB / 5B   1.5kB / 20B   3\n"
        );
        let none: Look = serde_json::from_str(r#"{"id":"0123456789abcdef","name":"/web","memory_stats":{}}"#).unwrap();
        let row = row("web", &none, Processor::default(), true);
        assert_eq!((row.get("CPUPerc"), row.get("MemUsage")), (Some("--"), Some("-- / --")));
        assert_eq!(row.get("ID"), Some("0123456789abcdef"));
    }

    #[test]
    fn powers_of_1024() {
        for (bytes, words) in
            [(0, "0B"), (1023, "1023B"), (1536, "1.5KiB"), (24 << 30, "24GiB"), (1_234_567, "1.177MiB")]
        {
            assert_eq!(binary(bytes), words);
        }
    }
}
