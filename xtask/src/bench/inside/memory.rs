//! Memory of processes by their proportional share (PSS): what is shared is counted once among those who share it
//! (proc_pid_smaps(5)).

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::failure::{Attempt, Failure};

/// The processes of the cell but for its first, and ourselves: pid and executable. A process whose executable lies in no
/// mount of ours has a path all the same: the one that its own mount gives it.
pub fn processes() -> BTreeMap<i32, PathBuf> {
    let ourselves = std::process::id() as i32;
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| ![1, ourselves].contains(pid))
        .filter_map(|pid| {
            // One that has ended and is not reaped yet has no executable any more.
            Some((pid, std::fs::read_link(format!("/proc/{pid}/exe")).ok()?))
        })
        .collect()
}

/// The sum over these processes, in bytes. One that has ended is a mistake of ours: nothing else runs meanwhile.
pub fn share_of<'a>(pids: impl IntoIterator<Item = &'a i32>) -> Result<u64, Failure> {
    pids.into_iter().try_fold(0, |sum, pid| {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = std::fs::read_to_string(&path).attempting(format_args!("read {path}"))?;
        Ok(sum + share(&text).ok_or_else(|| Failure::new(format!("{path} has no Pss")))?)
    })
}

fn share(rollup: &str) -> Option<u64> {
    let value = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(value.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_read_in_bytes() {
        let text = "00400000-7ffd ---p 00000000 00:00 0 [rollup]\nRss:  1234 kB\nPss:   130 kB\nPss_Dirty: 5 kB\n";
        assert_eq!(share(text), Some(130 << 10));
        assert_eq!(share("Rss: 1 kB\n"), None);
        assert!(share_of(&[std::process::id() as i32]).unwrap() > 0);
    }
}
