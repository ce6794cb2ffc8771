//! How much of the machine somebody else used meanwhile: times of a run beside other work say little, and a reader has
//! to know.

use std::time::{Duration, Instant};

use super::cgroups;
use crate::failure::{Attempt, Failure};

/// The machine as it was when the run began.
pub struct Watch {
    begun: Instant,
    busy: Duration,
}

impl Watch {
    /// Begins, before the cells do.
    pub fn start() -> Result<Self, Failure> {
        Ok(Self { begun: Instant::now(), busy: busy()? })
    }

    /// The part of the processors' time, of 1, that went to neither the cells of this prefix nor to idling.
    pub fn share(&self, prefix: &str) -> Result<f64, Failure> {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let whole = self.begun.elapsed().as_secs_f64() * cores as f64;
        let others = (busy()? - self.busy).saturating_sub(cgroups::processor_time_of(prefix)?);
        Ok(others.as_secs_f64() / whole)
    }
}

fn busy() -> Result<Duration, Failure> {
    let text = std::fs::read_to_string("/proc/stat").attempting("read /proc/stat")?;
    let ticks = busy_ticks(&text).ok_or_else(|| Failure::new("/proc/stat has no line of all processors"))?;
    Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal; guests' time is part of user's.
fn busy_ticks(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let idle = ticks.get(3)? + ticks.get(4)?;
    Some(ticks.iter().take(8).sum::<u64>() - idle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idling_and_guests_do_not_count() {
        assert_eq!(busy_ticks("cpu  10 20 30 4000 500 6 7 8 90 90\ncpu0 1 2 3 4 5 6 7 8 9 10\n"), Some(81));
        assert_eq!(busy_ticks("intr 1\n"), None);
        assert!(Watch::start().unwrap().busy > Duration::ZERO);
    }
}
