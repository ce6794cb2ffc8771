//! Memory of processes by their proportional share (PSS): what is shared is counted once among those who share it
//! (proc_pid_smaps(5)).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::failure::{Attempt, Failure};

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// What has moved by no more than this part over so many pauses stands still: the longest that one of the subjects waits
/// before it gives memory back is well below that.
const STILL: (f64, usize) = (0.01, 5);
/// Who does not stand still by then is taken as it is.
const PATIENCE: Duration = Duration::from_secs(30);

/// A sum of memory once it stands still: every subject has the time that it takes to come to rest after work, be it
/// its allocator's, its garbage collector's or its own.
pub fn at_rest(mut look: impl FnMut() -> Result<u64, Failure>) -> Result<u64, Failure> {
    let deadline = Instant::now() + PATIENCE;
    let mut seen = Vec::new();
    loop {
        let sum = look();
        match &sum {
            Ok(sum) => seen.push(*sum),
            // Some helper was just ending.
            Err(_) => seen.clear(),
        }
        if stands_still(&seen) || Instant::now() > deadline {
            return sum;
        }
        std::thread::sleep(PAUSE);
    }
}

fn stands_still(seen: &[u64]) -> bool {
    let Some(begin) = seen.len().checked_sub(STILL.1 + 1) else { return false };
    let (least, most) =
        seen[begin..].iter().fold((u64::MAX, 0), |(least, most), sum| (least.min(*sum), most.max(*sum)));
    (most - least) as f64 <= most as f64 * STILL.0
}

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

/// Has the kernel measure the peaks of these processes anew (proc_pid_clear_refs(5), 5).
pub fn forget_peaks<'a>(pids: impl IntoIterator<Item = &'a i32>) -> Result<(), Failure> {
    pids.into_iter().try_for_each(|pid| {
        let path = format!("/proc/{pid}/clear_refs");
        std::fs::write(&path, "5").attempting(format_args!("write {path}"))
    })
}

/// The sum of the peaks of these processes since then, in bytes: resident memory, with what of it is shared.
pub fn peaks_of<'a>(pids: impl IntoIterator<Item = &'a i32>) -> Result<u64, Failure> {
    pids.into_iter().try_fold(0, |sum, pid| {
        let path = format!("/proc/{pid}/status");
        let text = std::fs::read_to_string(&path).attempting(format_args!("read {path}"))?;
        Ok(sum + peak(&text).ok_or_else(|| Failure::new(format!("{path} has no VmHWM")))?)
    })
}

fn peak(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(value.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

/// The sum over these processes, in bytes. One that has ended has none.
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
    fn what_has_not_moved_for_some_looks_stands_still() {
        for (seen, expected) in [
            (&[100; 5][..], false),
            (&[100; 6], true),
            (&[1000, 1004, 1000, 1010, 1000, 1003], true),
            (&[1000, 1004, 1000, 1020, 1000, 1003], false),
            (&[4000, 1000, 1000, 1000, 1000, 1000, 1000], true),
            (&[1000, 1000, 1000, 1000, 1000, 1000, 4000], false),
        ] {
            assert_eq!(stands_still(seen), expected, "{seen:?}");
        }
    }

    #[test]
    fn the_share_is_read_in_bytes() {
        let text = "00400000-7ffd ---p 00000000 00:00 0 [rollup]\nRss:  1234 kB\nPss:   130 kB\nPss_Dirty: 5 kB\n";
        assert_eq!(share(text), Some(130 << 10));
        assert_eq!(share("Rss: 1 kB\n"), None);
        assert_eq!(peak("Name:\tx\nVmHWM:\t   32812 kB\nVmRSS:\t 1 kB\n"), Some(32812 << 10));
        assert!(share_of(&[std::process::id() as i32]).unwrap() > 0);
    }
}
