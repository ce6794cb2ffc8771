//! The floor under the times: how many system calls a command costs in its own process and in the engine's, and how
//! many processes and threads they start. Counted by strace, which slows everything: never timed.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::memory;
use crate::failure::{Attempt, Failure};

/// What was counted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub calls: u64,
    /// clone, clone3, fork, vfork.
    pub forks: u64,
}

/// Runs a command once and counts, for itself and for everything that stands in the cell.
pub fn count(command: &Command) -> Result<Count, Failure> {
    let pids: Vec<i32> = memory::processes().into_keys().collect();
    let engine = attach(&pids)?;
    let own = own(command);
    let Some(mut engine) = engine else { return own };
    let pid = Pid::from_raw(engine.id() as i32).expect("a child has a pid");
    kill_process(pid, Signal::INT).attempting("end strace")?;
    engine.wait().attempting("wait for strace")?;
    let (own, engine) = (own?, read("/tmp/strace.engine")?);
    Ok(Count { calls: own.calls + engine.calls, forks: own.forks + engine.forks })
}

/// The same of a command alone.
pub fn own(command: &Command) -> Result<Count, Failure> {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-c", "-o", "/tmp/strace.own", "--"]).arg(command.get_program()).args(command.get_args());
    super::quietly(&mut strace)?;
    read("/tmp/strace.own")
}

/// Follows these processes and whatever they start; nobody where there are none.
fn attach(pids: &[i32]) -> Result<Option<std::process::Child>, Failure> {
    if pids.is_empty() {
        return Ok(None);
    }
    let mut strace = Command::new("strace");
    strace.args(["-f", "-c", "-o", "/tmp/strace.engine"]);
    strace.args(pids.iter().map(|pid| format!("--attach={pid}")));
    let mut child = strace.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().attempting("run strace")?;
    let mut talk = BufReader::new(child.stderr.take().expect("it was piped")).lines().map_while(Result::ok);
    // It says one line for each process as soon as it has all of that process's threads.
    let attached = talk.by_ref().filter(|line| line.contains("attached")).take(pids.len()).count();
    if attached < pids.len() {
        return Err(Failure::new("strace could not attach to the engine"));
    }
    std::thread::spawn(move || talk.for_each(drop));
    Ok(Some(child))
}

fn read(path: &str) -> Result<Count, Failure> {
    let text = std::fs::read_to_string(path).attempting(format_args!("read {path}"))?;
    parse(&text).ok_or_else(|| Failure::new(format!("{path} is no table of strace's")))
}

/// The table of `strace -c`: time, seconds, usecs/call, calls, errors (or nothing), name.
fn parse(table: &str) -> Option<Count> {
    let mut count = Count::default();
    let mut total = false;
    for line in table.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (Some(name), Some(calls)) = (words.last(), words.get(3).and_then(|word| word.parse::<u64>().ok())) else {
            continue;
        };
        match *name {
            "total" => (count.calls, total) = (calls, true),
            "clone" | "clone3" | "fork" | "vfork" => count.forks += calls,
            _ => {}
        }
    }
    total.then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_straces_is_read() {
        let table = "% time     seconds  usecs/call     calls    errors syscall\n\
                     ------ ----------- ----------- --------- --------- ----------------\n\
                     60.00    0.000600         100         6           clone3\n\
                     20.00    0.000200         100         2         1 vfork\n\
                     20.00    0.000200          10        20         4 openat\n\
                     ------ ----------- ----------- --------- --------- ----------------\n\
                     100.00    0.001000          35        28         5 total\n";
        assert_eq!(parse(table), Some(Count { calls: 28, forks: 8 }));
        assert_eq!(parse("strace: nothing\n"), None);
    }
}
