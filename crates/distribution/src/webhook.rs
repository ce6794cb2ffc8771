//! Webhooks: who pushes, pulls, mounts and deletes what is told to endpoints, in the form of docker-registry's notifications
//! (its "Work with notifications"), so that what listens to that listens to this.
//!
//! Each endpoint has a queue of its own, in memory and bounded, and one delivery at a time, in order. One that does not answer
//! is tried again with growing pauses; its queue fills, further events are counted and gone, and no request waits for it. What
//! is queued is lost with the server.

mod endpoints;
mod event;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

pub use endpoints::{Endpoint, WebhooksError, read_endpoints};
pub(crate) use event::{Event, Happened, What};

/// Events that wait for an endpoint.
const LONGEST_QUEUE: usize = 4096;
/// The pause after the first failure; each further one is twice as long, until the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// After so long an event is given up, and the next one has its turn.
const OLDEST: Duration = Duration::from_secs(60 * 60);
/// An endpoint that answers, and will not have an event, is asked so often.
const MOST_REFUSALS: u32 = 5;
/// What it is sent as.
pub const MEDIA_TYPE: &str = "application/vnd.docker.distribution.events.v2+json";

/// What becomes of a delivery: a status, or why there is none, in words without any secret.
pub type Delivery<'a> = Pin<Box<dyn Future<Output = Result<u16, String>> + Send + 'a>>;

/// Carries an envelope to an endpoint.
pub trait Deliver: Send + Sync + 'static {
    /// Once. No redirection is followed.
    fn deliver<'a>(&'a self, endpoint: &'a Endpoint, envelope: &'a str) -> Delivery<'a>;
}

/// See the module. Clones share it.
#[derive(Debug, Clone)]
pub struct Webhooks {
    queues: Arc<[Queue]>,
    /// Of this server, as events call it.
    source: Arc<event::Source>,
}

#[derive(Debug)]
struct Queue {
    endpoint: Endpoint,
    waiting: Mutex<VecDeque<(Instant, String)>>,
    more: Notify,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    delivered: AtomicU64,
    failures: AtomicU64,
    lost: AtomicU64,
}

/// How an endpoint does, for who watches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told<'a> {
    pub(crate) endpoint: &'a str,
    pub(crate) waiting: u64,
    pub(crate) delivered: u64,
    pub(crate) failures: u64,
    pub(crate) lost: u64,
}

impl Webhooks {
    /// For these endpoints; `address` is what the server is called by in events.
    pub fn new(endpoints: Vec<Endpoint>, address: impl Into<String>) -> Self {
        let queue =
            |endpoint| Queue { endpoint, waiting: Mutex::default(), more: Notify::new(), counts: Counts::default() };
        let source = Arc::new(event::Source::new(address.into()));
        Self { queues: endpoints.into_iter().map(queue).collect(), source }
    }

    /// Puts it into the queues of those who want it, and waits for nobody.
    pub(crate) fn tell(&self, event: &Event) {
        for queue in self.queues.iter().filter(|queue| queue.endpoint.wants(&event.happened)) {
            let envelope = event.envelope(&self.source).to_string();
            let mut waiting = queue.lock();
            if waiting.len() < LONGEST_QUEUE {
                waiting.push_back((Instant::now(), envelope));
                drop(waiting);
                queue.more.notify_one();
            } else {
                drop(waiting);
                // Once for the first, and then for each thousand: the log is not to grow with them.
                if queue.counts.lost.fetch_add(1, Ordering::Relaxed) % 1000 == 0 {
                    tracing::error!("the webhook {} does not take what happens: events are lost", queue.endpoint.name);
                }
            }
        }
    }

    /// Delivers for ever.
    pub async fn run(self, deliver: Arc<dyn Deliver>) {
        let mut tasks = tokio::task::JoinSet::new();
        for at in 0..self.queues.len() {
            let (queues, deliver) = (self.queues.clone(), deliver.clone());
            tasks.spawn(async move { queues[at].run(&*deliver).await });
        }
        while tasks.join_next().await.is_some() {}
    }

    pub(crate) fn told(&self) -> impl Iterator<Item = Told<'_>> {
        self.queues.iter().map(|queue| {
            let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            Told {
                endpoint: &queue.endpoint.name,
                waiting: queue.lock().len() as u64,
                delivered: count(&queue.counts.delivered),
                failures: count(&queue.counts.failures),
                lost: count(&queue.counts.lost),
            }
        })
    }
}

impl Queue {
    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<(Instant, String)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(&self, deliver: &dyn Deliver) {
        loop {
            // It waits where it is until it is delivered, so that it is counted as waiting.
            let Some((since, envelope)) = self.lock().front().cloned() else {
                self.more.notified().await;
                continue;
            };
            let mut failures = 0;
            let counter = loop {
                let answer = deliver.deliver(&self.endpoint, &envelope).await;
                let status = answer.as_ref().ok().copied();
                if status.is_some_and(|status| (200..400).contains(&status)) {
                    break &self.counts.delivered;
                }
                failures += 1;
                self.counts.failures.fetch_add(1, Ordering::Relaxed);
                let why = answer.map_or_else(|why| why, |status| format!("it answers {status}"));
                let name = &self.endpoint.name;
                match after_failure(failures, since.elapsed(), status, jitter()) {
                    Next::Again(pause) => {
                        tracing::warn!("the webhook {name} is tried again in {pause:.1?}: {why}");
                        tokio::time::sleep(pause).await;
                    }
                    Next::GiveUp => {
                        tracing::error!("the webhook {name} was not told of an event: {why}");
                        break &self.counts.lost;
                    }
                }
            };
            counter.fetch_add(1, Ordering::Relaxed);
            self.lock().pop_front();
        }
    }
}

/// What is done about an event that was not taken.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Next {
    Again(Duration),
    GiveUp,
}

/// `jitter`: from 0 to 1; pauses differ by half, so that those who were sent away together do not come back together.
fn after_failure(failures: u32, age: Duration, status: Option<u16>, jitter: f64) -> Next {
    // It is not the moment that is wrong.
    let is_refused = status.is_some_and(|status| (400..500).contains(&status) && !matches!(status, 408 | 425 | 429));
    if age >= OLDEST || (is_refused && failures >= MOST_REFUSALS) {
        return Next::GiveUp;
    }
    let pause = FIRST_PAUSE.saturating_mul(1 << (failures - 1).min(16)).min(LONGEST_PAUSE);
    Next::Again(pause.mul_f64(0.5 + jitter / 2.0))
}

fn jitter() -> f64 {
    let mut bytes = [0; 2];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes once it has booted");
    f64::from(u16::from_le_bytes(bytes)) / f64::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_taken_is_tried_again_for_an_hour() {
        let after = |failures, seconds, status| after_failure(failures, Duration::from_secs(seconds), status, 1.0);
        for (failures, seconds, status, next) in [
            (1, 0, None, Next::Again(Duration::from_secs(1))),
            (2, 1, Some(500), Next::Again(Duration::from_secs(2))),
            (5, 20, Some(503), Next::Again(Duration::from_secs(16))),
            (100, 3599, None, Next::Again(LONGEST_PAUSE)),
            (u32::MAX, 0, None, Next::Again(LONGEST_PAUSE)),
            (3, 3600, None, Next::GiveUp),
            (4, 9, Some(401), Next::Again(Duration::from_secs(8))),
            (5, 9, Some(401), Next::GiveUp),
            (9, 9, Some(429), Next::Again(LONGEST_PAUSE)),
        ] {
            assert_eq!(after(failures, seconds, status), next, "{failures} {seconds} {status:?}");
        }
        assert_eq!(after_failure(1, Duration::ZERO, None, 0.0), Next::Again(Duration::from_millis(500)));
    }

    /// Answers as it was told to, and then with 200.
    struct Recorder {
        answers: Mutex<Vec<Result<u16, String>>>,
        got: tokio::sync::mpsc::UnboundedSender<String>,
    }

    impl Deliver for Recorder {
        fn deliver<'a>(&'a self, _: &'a Endpoint, envelope: &'a str) -> Delivery<'a> {
            let answer = self.answers.lock().unwrap().pop().unwrap_or(Ok(200));
            let _ = self.got.send(envelope.to_owned());
            Box::pin(async move { answer })
        }
    }

    #[tokio::test]
    async fn an_event_comes_in_the_end_in_order_and_a_full_queue_loses_the_newest() {
        let webhooks = Webhooks::new(vec![Endpoint::of("url = \"http://a/\"\nactions = [\"push\"]")], "us");
        let (got, mut all) = tokio::sync::mpsc::unbounded_channel();
        let answers = Mutex::new(vec![Err("nobody is there".to_owned())]);
        webhooks.tell(&Event::of("pull", "nobody/wants"));
        for number in 0..=LONGEST_QUEUE {
            webhooks.tell(&Event::of("push", &format!("r{number}")));
        }
        let told = webhooks.told().next().unwrap();
        assert_eq!((told.waiting, told.lost), (LONGEST_QUEUE as u64, 1));
        let running = tokio::spawn(webhooks.clone().run(Arc::new(Recorder { answers, got })));
        let mut names = Vec::new();
        for _ in 0..=LONGEST_QUEUE {
            let envelope: serde_json::Value = serde_json::from_str(&all.recv().await.unwrap()).unwrap();
            names.push(envelope["events"][0]["target"]["repository"].as_str().unwrap().to_owned());
        }
        assert_eq!(names[..3], ["r0", "r0", "r1"]);
        assert_eq!(names.last().unwrap(), &format!("r{}", LONGEST_QUEUE - 1));
        while webhooks.told().any(|told| told.waiting > 0) {
            tokio::task::yield_now().await;
        }
        let told = webhooks.told().next().unwrap();
        assert_eq!((told.delivered, told.failures, told.lost), (LONGEST_QUEUE as u64, 1, 1));
        running.abort();
    }
}
