//! The run as text: the machine, the versions, the table, how far the values spread, and who could not take part.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::figures::{Outcome, Row, extremes, judge, shown, shown_ratio};
use super::work::Subject;
use super::{Measured, cgroups, table};
use crate::failure::{Attempt, Failure};
use crate::steps;

/// What the figures depend on.
pub struct Circumstances {
    lines: Vec<(String, String)>,
}

impl Circumstances {
    /// Looks.
    pub fn look(dozen: &Path, profile: &str) -> Result<Self, Failure> {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim_end().to_owned();
        let cpu = read("/proc/cpuinfo");
        let model =
            cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
        let cores = std::thread::available_parallelism().map_or(0, |cores| cores.get());
        let memory = read("/proc/meminfo");
        let memory = memory.lines().next().and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        let size = std::fs::metadata(dozen).attempting(format_args!("look at {}", dozen.display()))?.len();
        let version = steps::capture(Command::new(dozen).arg("--version"))?;
        let commit = steps::capture(
            Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(steps::workspace_root()),
        );
        let commit = commit.map(|commit| format!(", tree at {commit}")).unwrap_or_default();
        let lines = [
            ("kernel", read("/proc/sys/kernel/osrelease")),
            ("processor", format!("{cores} cores, {}", model.unwrap_or("unknown"))),
            ("memory", format!("{} MiB", memory.unwrap_or_default() >> 10)),
            (
                "in the cells",
                format!("{}, a network namespace each, overlayfs on ext4 with a journal", cgroups::described()?),
            ),
            ("dozen", format!("{version}, {profile}, {:.1} MiB{commit}", size as f64 / f64::from(1 << 20))),
        ];
        Ok(Self { lines: lines.map(|(name, value)| (name.to_owned(), value)).into() })
    }
}

/// What the words of the table mean where they do not say it themselves.
const NOTES: &str = "\
Memory is looked at once it has stood still for five seconds, of every subject alike. A running container is counted \
with the processes that it brings along (its monitor, shim or conmon), without those of its image; `--only growth` \
counts what all processes of the engine have grown by. The client of the traffic runs on the first processor and its \
server on the last, of every subject alike; what else carries it runs where the kernel puts it.\n\n";

/// The whole report.
pub fn render(date: &str, rounds: u32, circumstances: &Circumstances, measured: &Measured) -> String {
    let Measured { rows, absent, versions, others } = measured;
    let mut text = format!("# Bench of {date}\n\n");
    for (name, value) in &circumstances.lines {
        text += &format!("- {name}: {value}\n");
    }
    text += &format!("- used by others during the run: {:.0} % of the processors\n", others * 100.0);
    text += &format!("- peers, from Debian 13: {}\n", versions.join("; "));
    text += &format!(
        "\nMedians of up to {rounds} rounds after one that is not counted, the subjects in turn within each round. \
         A ratio says how many times better dozen is.\n\n"
    );
    text += NOTES;
    let (builds, rest): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.work.is_of_builds());
    let columns = [Subject::Dozen, Subject::Docker, Subject::Podman, Subject::Crun, Subject::Runc];
    text += &medians(&rest, &columns, &[Subject::Docker, Subject::Podman, Subject::Crun], rows);
    if !builds.is_empty() {
        let peers = [Subject::Buildkit, Subject::Classic, Subject::Buildah];
        let columns = [&[Subject::Dozen], &peers[..]].concat();
        text += "\n## Builds\n\n";
        text += &medians(&builds, &columns, &peers, rows);
    }
    text += "\n## Spread\n\n";
    text += &spread(rows);
    let failures: Vec<String> = rows
        .iter()
        .flat_map(|row| row.outcomes.iter().map(move |(subject, outcome)| (row, subject, outcome)))
        .filter_map(|(row, subject, outcome)| match outcome {
            Outcome::Failed(why) => Some(format!("- {}, {}: {why}\n", subject.name(), row.work.title)),
            Outcome::Values(_) => None,
        })
        .chain(absent.iter().map(|(name, why)| format!("- {name} takes no part: {why}\n")))
        .collect();
    if !failures.is_empty() {
        text += &format!("\n## Not measured\n\n{}", failures.concat());
    }
    text
}

/// A table of some of the rows: a column for each of `columns`, and one for how many times better than each of `peers`.
fn medians(shown_rows: &[&Row], columns: &[Subject], peers: &[Subject], rows: &[Row]) -> String {
    let ratios: Vec<String> = peers.iter().map(|peer| format!("to {}", peer.name())).collect();
    let mut head = vec!["work"];
    head.extend(columns.iter().map(|subject| subject.name()));
    head.extend(ratios.iter().map(String::as_str).chain(["mark", "reached"]));
    let cells = shown_rows.iter().map(|row| {
        let mut cells = vec![format!("{} ({})", row.work.title, row.work.unit.name())];
        cells.extend(columns.iter().map(|subject| match row.outcomes.get(subject) {
            None => "–".to_owned(),
            Some(_) => row.median(*subject).map_or("failed".to_owned(), |value| shown(value, row.work.unit)),
        }));
        cells.extend(peers.iter().map(|peer| row.ratio(*peer).map_or("–".to_owned(), shown_ratio)));
        let (mark, reached) = judge(row, rows);
        cells.push(mark);
        cells.push(reached.map_or("", |reached| if reached { "yes" } else { "no" }).to_owned());
        cells
    });
    table::render(&head, &cells.collect::<Vec<_>>())
}

fn spread(rows: &[Row]) -> String {
    let mut lines = Vec::new();
    for row in rows {
        for (subject, outcome) in &row.outcomes {
            let Outcome::Values(values) = outcome else { continue };
            let (Some((least, most)), Some(median)) = (extremes(values), row.median(*subject)) else { continue };
            let mut line = vec![row.work.title.to_owned(), subject.name().to_owned(), values.len().to_string()];
            line.extend([least, median, most].map(|value| shown(value, row.work.unit)));
            lines.push(line);
        }
    }
    table::render(&["work", "subject", "rounds", "least", "median", "most"], &lines)
}

/// Writes the report into the tree.
pub fn write(date: &str, text: &str) -> Result<PathBuf, Failure> {
    let directory = steps::workspace_root().join("bench");
    std::fs::create_dir_all(&directory).attempting(format_args!("create {}", directory.display()))?;
    let path = directory.join(format!("{date}.md"));
    std::fs::write(&path, text).attempting(format_args!("write {}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::work::ALL;
    use super::*;

    #[test]
    fn a_report_says_what_was_measured_and_what_was_not() {
        let work = ALL.iter().find(|work| work.name == "run").unwrap();
        let outcomes = BTreeMap::from([
            (Subject::Dozen, Outcome::Values(vec![0.010, 0.012, 0.011])),
            (Subject::Docker, Outcome::Values(vec![0.2])),
            (Subject::Podman, Outcome::Failed("it says no".to_owned())),
        ]);
        let build = ALL.iter().find(|work| work.name == "build-cold").unwrap();
        let built = [(Subject::Dozen, 0.1), (Subject::Buildkit, 1.0), (Subject::Classic, 2.0)];
        let built = built.map(|(subject, value)| (subject, Outcome::Values(vec![value])));
        let circumstances = Circumstances { lines: vec![("kernel".to_owned(), "6.1".to_owned())] };
        let measured = Measured {
            rows: vec![Row { work, outcomes }, Row { work: build, outcomes: built.into() }],
            absent: vec![("runtimes".to_owned(), "no bundle".to_owned())],
            versions: vec!["crun version 1.21".to_owned()],
            others: 0.034,
        };
        let text = render("2026-01-02", 15, &circumstances, &measured);
        for expected in [
            "# Bench of 2026-01-02\n",
            "- kernel: 6.1\n- used by others during the run: 3 % of the processors\n- peers, from Debian 13: crun version 1.21\n",
            "| work                             | dozen | docker | podman | crun | runc | to docker | to podman | to crun |             mark | reached |\n",
            "| run --rm IMAGE true, bridge (ms) |  11.0 |    200 | failed |    – |    – |     18.2x |         – |       – | docker/10 = 20.0 |     yes |\n",
            "| run --rm IMAGE true, bridge |    dozen |      3 |  10.0 |   11.0 | 12.0 |\n",
            "| work                       | dozen | buildkit | classic | buildah | to buildkit | to classic | to buildah |             mark | reached |\n",
            "| 13 instructions, cold (ms) |   100 |     1000 |    2000 |       – |       10.0x |      20.0x |          – | buildkit/2 = 500 |     yes |\n",
            "- podman, run --rm IMAGE true, bridge: it says no\n",
            "- runtimes takes no part: no bundle\n",
        ] {
            assert!(text.contains(expected), "{expected}\nis not in\n{text}");
        }
    }
}
