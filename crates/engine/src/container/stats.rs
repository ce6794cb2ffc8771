//! What a container uses, from second to second.
//!
//! One sampler for each container that somebody watches, however many do: it begins with the first of them, and ends with
//! the last, or with the container's run. Nobody waits for a slow watcher: who comes late misses samples.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dozen_model::{ContainerId, NetworkMode, error_chain};
use dozen_runtime::{Cgroup, CgroupStats};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::EngineError;
use crate::container::Container;
use crate::container::snapshot::{Run, Snapshot};

/// Between two samples.
const INTERVAL: Duration = Duration::from_secs(1);

/// What a container has used until a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatsSample {
    /// When.
    pub time: Timestamp,
    /// Processors, memory, processes, block devices.
    pub cgroup: CgroupStats,
    /// Time that all processors of the machine have had, busy or not, in nanoseconds.
    pub machine_cpu_ns: u64,
    /// Processors of the machine that are switched on.
    pub processors: u32,
    /// By interface, but for the loopback; none on the host's network.
    pub networks: BTreeMap<String, InterfaceStats>,
}

/// What went through a network interface (proc_pid_net(5), "/proc/pid/net/dev").
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the kernel's own words")]
pub struct InterfaceStats {
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}

/// Samples of one run, a second apart.
#[derive(Debug)]
pub struct StatsStream(watch::Receiver<Option<Arc<StatsSample>>>);

impl StatsStream {
    /// The next one; `None`: the run has ended.
    pub async fn next(&mut self) -> Option<Arc<StatsSample>> {
        self.0.changed().await.ok()?;
        self.0.borrow_and_update().clone()
    }
}

/// The samplers at work.
#[derive(Debug, Default)]
pub(crate) struct Samplers(Mutex<HashMap<ContainerId, watch::Sender<Option<Arc<StatsSample>>>>>);

impl Samplers {
    fn lock(&self) -> MutexGuard<'_, HashMap<ContainerId, watch::Sender<Option<Arc<StatsSample>>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place among those who watch; `true`: there was nobody, and the caller is to see to a sampler.
    fn join(&self, id: &ContainerId) -> (StatsStream, bool) {
        let mut samplers = self.lock();
        match samplers.get(id) {
            Some(sender) => (StatsStream(sender.subscribe()), false),
            None => {
                let (sender, receiver) = watch::channel(None);
                samplers.insert(id.clone(), sender);
                (StatsStream(receiver), true)
            }
        }
    }

    /// Gives a sample to all who watch; `false`: nobody does any more, and the sampler is to end.
    fn give(&self, id: &ContainerId, sample: Arc<StatsSample>) -> bool {
        let mut samplers = self.lock();
        let watched = samplers.get(id).is_some_and(|sender| sender.send(Some(sample)).is_ok());
        if !watched {
            samplers.remove(id);
        }
        watched
    }

    /// For those who watch it is the end.
    fn end(&self, id: &ContainerId) {
        self.lock().remove(id);
    }
}

impl Container {
    /// One sample, now; `None`: it does not run.
    pub async fn stats_once(&self) -> Result<Option<StatsSample>, EngineError> {
        let snapshot = self.snapshot();
        if snapshot.phase.run().is_none() {
            return Ok(None);
        }
        let cgroup = self.shared.container_cgroup(&self.id, &self.snapshot().spec);
        self.shared.blocking(move || sample(&cgroup, &snapshot)).await
    }

    /// Samples until its run ends, the first at once; `None`: it does not run.
    pub fn stats(&self) -> Option<StatsStream> {
        let started = self.snapshot().phase.run()?.started;
        let (stream, is_first) = self.shared.samplers.join(&self.id);
        if is_first {
            let container = self.clone();
            tokio::spawn(async move {
                let is_over = |snapshot: &Arc<Snapshot>| snapshot.phase.run().is_none_or(|run| run.started != started);
                let mut snapshots = container.entry.snapshots.clone();
                tokio::select! {
                    // An error means that it was removed.
                    _ = snapshots.wait_for(is_over) => {}
                    () = container.sample_again_and_again() => {}
                }
                container.shared.samplers.end(&container.id);
            });
        }
        Some(stream)
    }

    async fn sample_again_and_again(&self) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.stats_once().await {
                Ok(Some(sample)) => {
                    if !self.shared.samplers.give(&self.id, Arc::new(sample)) {
                        return;
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(container = self.id.short(), error = error_chain(&error), "no statistics");
                    return;
                }
            }
        }
    }
}

/// Blocks.
fn sample(cgroup: &str, snapshot: &Snapshot) -> Result<Option<StatsSample>, EngineError> {
    let (Some(run), Some(cgroup)) = (snapshot.phase.run(), Cgroup::open(cgroup)?) else { return Ok(None) };
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let networks = match snapshot.spec.network {
        NetworkMode::Host => BTreeMap::new(),
        _ => networks(run, &snapshot.id),
    };
    Ok(Some(StatsSample {
        time: Timestamp::now(),
        cgroup: cgroup.stats(),
        machine_cpu_ns: machine_cpu_ns(&stat),
        processors: processors(&stat),
        networks,
    }))
}

/// As the container's first process sees them. A process id that was given to someone else meanwhile is not believed.
fn networks(run: &Run, id: &ContainerId) -> BTreeMap<String, InterfaceStats> {
    let text = std::fs::read_to_string(format!("/proc/{}/net/dev", run.pid)).unwrap_or_default();
    let cgroups = std::fs::read_to_string(format!("/proc/{}/cgroup", run.pid)).unwrap_or_default();
    if cgroups.lines().any(|line| line.contains(id.as_str())) { interfaces(&text) } else { BTreeMap::new() }
}

/// The names are the container's own words: a colon may be in them, a blank may not.
fn interfaces(text: &str) -> BTreeMap<String, InterfaceStats> {
    let interface = |line: &str| {
        let (name, numbers) = line.rsplit_once(':')?;
        let numbers: Vec<u64> = numbers.split_whitespace().map_while(|number| number.parse().ok()).collect();
        let [rx_bytes, rx_packets, rx_errors, rx_dropped, _, _, _, _, tx_bytes, tx_packets, tx_errors, tx_dropped, ..] =
            numbers[..]
        else {
            return None;
        };
        let stats =
            InterfaceStats { rx_bytes, rx_packets, rx_errors, rx_dropped, tx_bytes, tx_packets, tx_errors, tx_dropped };
        Some((name.trim().to_owned(), stats)).filter(|(name, _)| name != "lo")
    };
    text.lines().filter_map(interface).collect()
}

/// User, nice, system, idle, waiting, interrupts, and those of software (proc_stat(5)): what is stolen and what guests
/// have is not counted, or counted already.
fn machine_cpu_ns(stat: &str) -> u64 {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
    let ticks: u64 = line.split_whitespace().take(7).filter_map(|number| number.parse::<u64>().ok()).sum();
    let tick_ns = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
    ticks.saturating_mul(tick_ns)
}

fn processors(stat: &str) -> u32 {
    let is_one =
        |line: &&str| line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    u32::try_from(stat.lines().filter(is_one).count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        let text = "Inter-|   Receive                                                |  Transmit\n\
             face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n\
             \x20   lo: 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9\n\
             \x20 eth0:    1096      12    1    2    0     0          0         0      866      10    3    4    0     0       0          0\n\
             \x20 a:b: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n\
             \x20 bad: 1 2\n";
        let read = interfaces(text);
        assert_eq!(read.keys().collect::<Vec<_>>(), ["a:b", "eth0"]);
        let InterfaceStats { rx_bytes, rx_dropped, tx_bytes, tx_errors, .. } = read["eth0"];
        assert_eq!((rx_bytes, rx_dropped, tx_bytes, tx_errors), (1096, 2, 866, 3));
        let stat = "cpu  10 20 30 40 50 60 70 1000 5 5\ncpu0 1 2\ncpu1 1 2\nintr 5\n";
        let tick_ns = 1_000_000_000 / rustix::param::clock_ticks_per_second();
        assert_eq!((machine_cpu_ns(stat), processors(stat)), (280 * tick_ns, 2));
    }

    #[tokio::test]
    async fn a_sampler_is_shared_and_ends_with_the_last_who_watches() {
        let samplers = Samplers::default();
        let id = ContainerId::random();
        let sample = || {
            Arc::new(StatsSample {
                time: Timestamp::now(),
                cgroup: CgroupStats::default(),
                machine_cpu_ns: 1,
                processors: 1,
                networks: BTreeMap::new(),
            })
        };
        let (mut one, first) = samplers.join(&id);
        let (mut two, second) = samplers.join(&id);
        assert!(first && !second);
        assert!(samplers.give(&id, sample()));
        assert!(one.next().await.is_some() && two.next().await.is_some());
        drop(one);
        assert!(samplers.give(&id, sample()));
        drop(two);
        assert!(!samplers.give(&id, sample()), "nobody watches");
        let (mut again, first) = samplers.join(&id);
        assert!(first);
        samplers.end(&id);
        assert_eq!(again.next().await, None, "the run has ended");
    }
}
