//! Finds processes of an engine by what they run and what they were told, and ends them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::failure::{Attempt, Failure};

/// The processes of an engine's kind: pid and command line. Containers' own processes run other programs; they are
/// children of these.
pub fn of_dozen() -> BTreeMap<i32, String> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| {
        let program = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        let line = command_line(pid);
        is_dozen(&program, &line).then_some((pid, line))
    })
    .collect()
}

/// The program is named `dozen` (also one that was replaced since); keeper and monitors run it from a mount of its own,
/// whose root it is.
fn is_dozen(program: &Path, line: &str) -> bool {
    let name = program.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let mut words = line.split(' ');
    let from_descriptor = words.next().is_some_and(|word| word.starts_with("/proc/self/fd/"));
    name.strip_suffix(" (deleted)").unwrap_or(name) == "dozen"
        || program == Path::new("/") && from_descriptor && ["keeper", "monitor"].contains(&words.next().unwrap_or(""))
}

fn command_line(pid: i32) -> String {
    let raw = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&raw).replace('\0', " ").trim_end().to_owned()
}

/// Whether the process was started for this run root: by its command line or by its environment.
pub fn belongs_to(pid: i32, run_root: &str) -> bool {
    let mentions = |file: &str| {
        let raw = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        mentions_root(&raw, run_root)
    };
    mentions("cmdline") || mentions("environ")
}

/// Whether a word of these zero-ended strings is the path or lies below it, also as the value of `NAME=`.
fn mentions_root(raw: &[u8], root: &str) -> bool {
    raw.split(|byte| *byte == 0).any(|word| {
        let word = String::from_utf8_lossy(word);
        let value = word.split_once('=').map_or(word.as_ref(), |(_, value)| value);
        value.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// Asks a process to end, and after `patience` makes it. Only this process is meant: a pid that was given to another
/// one in between is not touched.
pub fn end(pid: i32, patience: Duration) -> Result<(), Failure> {
    let Some(process) = Pid::from_raw(pid) else { return Ok(()) };
    let Ok(descriptor) = pidfd_open(process, PidfdFlags::empty()) else { return Ok(()) };
    for (signal, patience) in [(Signal::TERM, patience), (Signal::KILL, Duration::from_secs(10))] {
        if pidfd_send_signal(&descriptor, signal).is_err() {
            return Ok(());
        }
        let timeout = Timespec::try_from(patience).attempting("express a timeout")?;
        let ended = poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&timeout));
        if ended.attempting(format_args!("wait for process {pid}"))? > 0 {
            return Ok(());
        }
    }
    Err(Failure::new(format!("process {pid} does not end")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_found_as_a_whole_path_only() {
        for (raw, expected) in [
            (&b"dozen\0daemon\0--run-root\0/run/x\0"[..], true),
            (b"dozen\0keeper\0/run/x/keeper\0", true),
            (b"DOZEN_RUN_ROOT=/run/x\0", true),
            (b"dozen\0--run-root=/run/x-other\0", false),
            (b"dozen\0", false),
        ] {
            assert_eq!(mentions_root(raw, "/run/x"), expected, "{raw:?}");
        }
    }

    #[test]
    fn dozen_is_known_in_each_of_its_modes() {
        for (program, line, expected) in [
            ("/usr/bin/dozen", "dozen daemon", true),
            ("/usr/bin/dozen (deleted)", "dozen daemon", true),
            ("/", "/proc/self/fd/11 keeper /run/dozen", true),
            ("/", "/proc/self/fd/11 monitor", true),
            ("/", "/proc/self/fd/11 other", false),
            ("/usr/bin/python3.11", "python3 dozen keeper", false),
        ] {
            assert_eq!(is_dozen(Path::new(program), line), expected, "{program} {line}");
        }
    }

    #[test]
    fn a_process_that_heeds_nothing_is_ended_all_the_same() {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "trap '' TERM; echo; exec sleep 1000"]).stdout(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        std::io::Read::read_exact(&mut child.stdout.take().unwrap(), &mut [0]).unwrap();
        end(child.id() as i32, Duration::from_millis(1)).unwrap();
        assert!(!child.wait().unwrap().success());
    }
}
