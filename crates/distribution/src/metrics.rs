//! What a registry tells of itself in numbers: Prometheus' text format ("Exposition formats", version 0.0.4).
//!
//! Labels are what a request does and the status that it got, both of a few: no name of a repository and no word of a client's
//! becomes one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::refusal::Refusal;
use crate::store::Store;
use crate::webhook::{Told, Webhooks};

/// Upper ends of the histogram's buckets, in milliseconds.
const BUCKETS_MS: [u64; 12] = [2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 10_000, 60_000];
/// What is stored is counted no oftener: that is a look at each row.
const COUNTED: Duration = Duration::from_secs(60);

/// Counted since the server began.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
    times: Mutex<BTreeMap<&'static str, Times>>,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    connections: AtomicU64,
    collected_blobs: AtomicU64,
    collected_bytes: AtomicU64,
    released: AtomicU64,
    scrubbed_blobs: AtomicU64,
    scrubbed_bytes: AtomicU64,
    found_damaged: AtomicU64,
    scrubbed_at: AtomicU64,
    cached: Mutex<BTreeMap<(Kept, Cached), (u64, u64)>>,
    /// By the upstream's host.
    remaining_pulls: Mutex<BTreeMap<String, u64>>,
    stored: Mutex<Option<(Instant, Stored)>>,
}

/// What is kept of an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kept {
    Manifest,
    Blob,
    /// Of tags or referrers.
    List,
}

/// From where somebody was given it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cached {
    /// From here, without a question.
    Hit,
    /// From here: the upstream was asked, and has the same.
    Checked,
    /// From here: the upstream could not be asked.
    Stale,
    /// From the upstream.
    Miss,
    /// It was not given.
    Failed,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Times {
    /// Of each bucket alone; the last one has no end.
    counts: [u64; BUCKETS_MS.len() + 1],
    total: Duration,
}

/// What a store has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Stored {
    pub(crate) repositories: u64,
    pub(crate) manifests: u64,
    pub(crate) tags: u64,
    pub(crate) blobs: u64,
    pub(crate) bytes: u64,
    /// Files that were set aside.
    pub(crate) damaged: u64,
    /// Blobs that manifests name, and nobody has.
    pub(crate) lost: u64,
}

impl Metrics {
    /// A request was answered. `route` is one of those that [`crate::route::Action`] has, or `unknown`.
    pub(crate) fn answered(&self, route: &'static str, status: u16, after: Duration) {
        *lock(&self.requests).entry((route, status)).or_default() += 1;
        let mut times = lock(&self.times);
        let times = times.entry(route).or_default();
        let ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_MS.iter().position(|end| ms < *end).unwrap_or(BUCKETS_MS.len());
        times.counts[bucket] += 1;
        times.total = times.total.saturating_add(after);
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Somebody is connected until this is dropped.
    pub(crate) fn connected(self: &Arc<Self>) -> Connected {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Connected(self.clone())
    }

    /// What a collection has taken away.
    pub fn collected(&self, blobs: usize, bytes: u64) {
        self.collected_blobs.fetch_add(blobs as u64, Ordering::Relaxed);
        self.collected_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Tags and manifests that rules of retention have let go.
    pub fn released(&self, count: usize) {
        self.released.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Somebody was given so much of what is kept of an upstream, or was not.
    pub(crate) fn cached(&self, what: Kept, how: Cached, bytes: u64) {
        let mut all = lock(&self.cached);
        let (count, total) = all.entry((what, how)).or_default();
        *count += 1;
        *total = total.saturating_add(bytes);
    }

    /// An upstream has said how many pulls it still gives.
    pub(crate) fn remaining_pulls(&self, host: &str, pulls: u64) {
        lock(&self.remaining_pulls).insert(host.to_owned(), pulls);
    }

    /// A scrub has read a blob.
    pub(crate) fn scrubbed(&self, bytes: u64, is_damaged: bool) {
        self.scrubbed_blobs.fetch_add(1, Ordering::Relaxed);
        self.scrubbed_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.found_damaged.fetch_add(u64::from(is_damaged), Ordering::Relaxed);
    }

    /// Blobs that were read since the server began.
    pub fn scrubbed_blobs(&self) -> u64 {
        self.scrubbed_blobs.load(Ordering::Relaxed)
    }

    /// It had read them all, at this second since 1970.
    pub(crate) fn scrubbed_all(&self, at: u64) {
        self.scrubbed_at.store(at, Ordering::Relaxed);
    }

    /// What has gone over the network so far.
    pub(crate) fn moved_bytes(&self) -> u64 {
        self.received_bytes.load(Ordering::Relaxed).wrapping_add(self.sent_bytes.load(Ordering::Relaxed))
    }

    /// All of them, of now.
    pub(crate) async fn text(&self, store: &Store, webhooks: Option<&Webhooks>) -> Result<String, Refusal> {
        let known = *lock(&self.stored);
        let stored = match known.filter(|(at, _)| at.elapsed() < COUNTED) {
            Some((_, stored)) => stored,
            None => {
                let stored = store.index.stored().await?;
                *lock(&self.stored) = Some((Instant::now(), stored));
                stored
            }
        };
        let mut text = self.render(stored, store.open_uploads());
        if let Some(webhooks) = webhooks {
            render_webhooks(&mut text, &webhooks.told().collect::<Vec<_>>());
        }
        Ok(text)
    }

    fn render(&self, stored: Stored, uploads: usize) -> String {
        let mut text = String::new();
        family(&mut text, "http_requests_total", "counter", "Requests that were answered.");
        for ((route, status), count) in &*lock(&self.requests) {
            _ = writeln!(text, "dozen_registry_http_requests_total{{route=\"{route}\",code=\"{status}\"}} {count}");
        }
        family(
            &mut text,
            "http_request_duration_seconds",
            "histogram",
            "From the head of a request to the head of its answer; what is pushed comes in between.",
        );
        for (route, times) in &*lock(&self.times) {
            let mut sum = 0;
            let name = "dozen_registry_http_request_duration_seconds";
            for (end, count) in BUCKETS_MS.iter().zip(times.counts) {
                sum += count;
                let end = Duration::from_millis(*end).as_secs_f64();
                _ = writeln!(text, "{name}_bucket{{route=\"{route}\",le=\"{end}\"}} {sum}");
            }
            sum += times.counts[BUCKETS_MS.len()];
            _ = writeln!(text, "{name}_bucket{{route=\"{route}\",le=\"+Inf\"}} {sum}");
            _ = writeln!(text, "{name}_sum{{route=\"{route}\"}} {}", times.total.as_secs_f64());
            _ = writeln!(text, "{name}_count{{route=\"{route}\"}} {sum}");
        }
        let cached = lock(&self.cached).clone();
        let help = "Manifests, blobs and lists of upstreams that were asked for, by where they came from.";
        family(&mut text, "cache_requests_total", "counter", help);
        for ((what, how), (count, _)) in &cached {
            _ = writeln!(text, "dozen_registry_cache_requests_total{{{}}} {count}", labels(*what, *how));
        }
        family(&mut text, "cache_bytes_total", "counter", "Their lengths.");
        for ((what, how), (_, bytes)) in &cached {
            _ = writeln!(text, "dozen_registry_cache_bytes_total{{{}}} {bytes}", labels(*what, *how));
        }
        let help = "How many pulls an upstream still gives, as it last said.";
        family(&mut text, "upstream_remaining_pulls", "gauge", help);
        for (host, pulls) in &*lock(&self.remaining_pulls) {
            // A host of the configuration's: letters, digits and what a label may have.
            _ = writeln!(text, "dozen_registry_upstream_remaining_pulls{{upstream=\"{host}\"}} {pulls}");
        }
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        for (name, kind, help, value) in [
            ("received_bytes_total", "counter", "Bytes that clients sent, heads included.", now(&self.received_bytes)),
            ("sent_bytes_total", "counter", "Bytes that clients were sent, heads included.", now(&self.sent_bytes)),
            ("connections", "gauge", "Clients that are connected.", now(&self.connections)),
            ("uploads_open", "gauge", "Uploads that are not finished.", uploads as u64),
            ("repositories", "gauge", "Repositories; up to a minute old, as what follows.", stored.repositories),
            ("manifests", "gauge", "Manifests.", stored.manifests),
            ("tags", "gauge", "Tags.", stored.tags),
            ("blobs", "gauge", "Blobs, each once.", stored.blobs),
            ("stored_bytes", "gauge", "Their bytes.", stored.bytes),
            ("lost_blobs", "gauge", "Blobs that manifests name and that are not there: push them again.", stored.lost),
            ("damaged_files", "gauge", "Files that a scrub has set aside.", stored.damaged),
            ("collected_blobs_total", "counter", "Blobs that nothing named.", now(&self.collected_blobs)),
            ("collected_bytes_total", "counter", "Their bytes.", now(&self.collected_bytes)),
            ("released_total", "counter", "Tags and manifests that rules of retention let go.", now(&self.released)),
            ("scrubbed_blobs_total", "counter", "Blobs that a scrub has read.", now(&self.scrubbed_blobs)),
            ("scrubbed_bytes_total", "counter", "Their bytes.", now(&self.scrubbed_bytes)),
            ("scrub_damaged_total", "counter", "Those of them that were damaged or lost.", now(&self.found_damaged)),
            (
                "scrub_finished_timestamp_seconds",
                "gauge",
                "When a scrub had last read all blobs; 0: not since the server began.",
                now(&self.scrubbed_at),
            ),
        ] {
            family(&mut text, name, kind, help);
            _ = writeln!(text, "dozen_registry_{name} {value}");
        }
        text
    }
}

fn labels(what: Kept, how: Cached) -> String {
    let what = match what {
        Kept::Manifest => "manifest",
        Kept::Blob => "blob",
        Kept::List => "list",
    };
    let how = match how {
        Cached::Hit => "hit",
        Cached::Checked => "checked",
        Cached::Stale => "stale",
        Cached::Miss => "miss",
        Cached::Failed => "failed",
    };
    format!("what=\"{what}\",result=\"{how}\"")
}

/// Endpoints have names of the configuration's.
fn render_webhooks(text: &mut String, all: &[Told<'_>]) {
    type Of = fn(&Told<'_>) -> u64;
    let families: [(&str, &str, &str, Of); 4] = [
        ("webhook_waiting", "gauge", "Events that wait for an endpoint.", |told| told.waiting),
        ("webhook_delivered_total", "counter", "Events that it took.", |told| told.delivered),
        ("webhook_failures_total", "counter", "Deliveries that it did not take.", |told| told.failures),
        ("webhook_lost_total", "counter", "Events that it was never told of.", |told| told.lost),
    ];
    for (name, kind, help, of) in families {
        family(text, name, kind, help);
        for told in all {
            _ = writeln!(text, "dozen_registry_{name}{{endpoint=\"{}\"}} {}", told.endpoint, of(told));
        }
    }
}

fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    _ = writeln!(text, "# HELP dozen_registry_{name} {help}\n# TYPE dozen_registry_{name} {kind}");
}

/// See [`Metrics::connected`].
#[derive(Debug)]
pub(crate) struct Connected(Arc<Metrics>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_in_prometheus_form() {
        let metrics = Arc::new(Metrics::default());
        metrics.answered("blob_get", 200, Duration::from_millis(1));
        metrics.answered("blob_get", 200, Duration::from_millis(30));
        metrics.answered("blob_get", 404, Duration::from_secs(3600));
        metrics.answered("base", 401, Duration::ZERO);
        metrics.received(10);
        metrics.sent(20);
        metrics.collected(2, 300);
        metrics.released(4);
        let connected = metrics.connected();
        let stored = Stored { repositories: 1, manifests: 2, tags: 3, blobs: 4, bytes: 500, damaged: 6, lost: 8 };
        metrics.cached(Kept::Blob, Cached::Hit, 30);
        metrics.cached(Kept::Blob, Cached::Hit, 12);
        metrics.cached(Kept::Manifest, Cached::Failed, 0);
        metrics.scrubbed(70, false);
        metrics.scrubbed(20, true);
        let text = metrics.render(stored, 7);
        for line in [
            "dozen_registry_http_requests_total{route=\"blob_get\",code=\"200\"} 2",
            "dozen_registry_http_requests_total{route=\"blob_get\",code=\"404\"} 1",
            "dozen_registry_http_requests_total{route=\"base\",code=\"401\"} 1",
            "# TYPE dozen_registry_http_request_duration_seconds histogram",
            "dozen_registry_http_request_duration_seconds_bucket{route=\"blob_get\",le=\"0.002\"} 1",
            "dozen_registry_http_request_duration_seconds_bucket{route=\"blob_get\",le=\"0.025\"} 1",
            "dozen_registry_http_request_duration_seconds_bucket{route=\"blob_get\",le=\"0.05\"} 2",
            "dozen_registry_http_request_duration_seconds_bucket{route=\"blob_get\",le=\"60\"} 2",
            "dozen_registry_http_request_duration_seconds_bucket{route=\"blob_get\",le=\"+Inf\"} 3",
            "dozen_registry_http_request_duration_seconds_sum{route=\"blob_get\"} 3600.031",
            "dozen_registry_http_request_duration_seconds_count{route=\"blob_get\"} 3",
            "dozen_registry_received_bytes_total 10",
            "dozen_registry_sent_bytes_total 20",
            "dozen_registry_connections 1",
            "dozen_registry_uploads_open 7",
            "dozen_registry_stored_bytes 500",
            "dozen_registry_collected_bytes_total 300",
            "dozen_registry_released_total 4",
            "dozen_registry_cache_requests_total{what=\"blob\",result=\"hit\"} 2",
            "dozen_registry_cache_bytes_total{what=\"blob\",result=\"hit\"} 42",
            "dozen_registry_cache_requests_total{what=\"manifest\",result=\"failed\"} 1",
            "dozen_registry_lost_blobs 8",
            "dozen_registry_damaged_files 6",
            "dozen_registry_scrubbed_blobs_total 2",
            "dozen_registry_scrubbed_bytes_total 90",
            "dozen_registry_scrub_damaged_total 1",
        ] {
            assert!(text.lines().any(|known| known == line), "{line}\nin\n{text}");
        }
        let mut of_webhooks = String::new();
        let told = Told { endpoint: "ci", waiting: 1, delivered: 2, failures: 3, lost: 4 };
        render_webhooks(&mut of_webhooks, &[told]);
        assert!(of_webhooks.contains("\ndozen_registry_webhook_failures_total{endpoint=\"ci\"} 3\n"), "{of_webhooks}");
        drop(connected);
        assert!(metrics.render(stored, 0).contains("dozen_registry_connections 0\n"));
        // Each family is declared once, before its samples.
        let mut seen = std::collections::HashSet::new();
        for name in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            assert!(seen.insert(name.to_owned()), "{name}");
        }
    }
}
