//! The life of a server's connections, whatever is spoken on them: clients are let in, each is served by a task, and once the
//! server ends nobody new is let in and those who are there have some time to finish.

use std::future::{Future, poll_fn};
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinError, JoinSet};

/// After a failed accept (no descriptors left, say): trying again at once would only burn the processor.
const PAUSE: Duration = Duration::from_millis(50);

/// How many, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Clients that may be connected at once; the next one waits in the kernel's queue. `None`: as many as come.
    pub most: Option<usize>,
    /// How long those who are there have to finish once the server ends; then they are cut off.
    pub grace: Duration,
}

/// Tells a connection's task that the server ends: what it is doing is the last that it does.
#[derive(Debug, Clone)]
pub struct Ending(watch::Receiver<bool>);

impl Ending {
    /// Comes true when the server ends.
    pub async fn begun(&mut self) {
        // A server that was dropped ends, too.
        let _ = self.0.wait_for(|ends| *ends).await;
    }
}

/// Serves whoever `accept` brings, by a task that `serve` gives, until `shutdown` ends; and all who are connected then to
/// their end, or to that of the grace. The listener that `accept` has is closed before they are waited for.
pub async fn serve<Client, Served>(
    mut accept: impl FnMut(&mut Context<'_>) -> Poll<io::Result<Client>>,
    mut serve: impl FnMut(Client, Ending) -> Served,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) where
    Served: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(limits.most.unwrap_or(Semaphore::MAX_PERMITS)));
    let (end, ending) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = async {
            let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
            io::Result::Ok((place, poll_fn(&mut accept).await?))
        };
        tokio::select! {
            () = &mut shutdown => break,
            accepted = accepted => match accepted {
                Ok((place, client)) => {
                    let served = serve(client, Ending(ending.clone()));
                    connections.spawn(async move {
                        served.await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Some(ended) = connections.join_next(), if !connections.is_empty() => report(ended),
        }
    }
    drop(accept);
    let _ = end.send(true);
    let finish = async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    };
    if tokio::time::timeout(limits.grace, finish).await.is_err() {
        connections.shutdown().await;
    }
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection's task panicked");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::{mpsc, oneshot};

    use super::*;

    const LIMITS: Limits = Limits { most: Some(2), grace: Duration::from_millis(100) };

    /// Whose clients are channels that say when they leave.
    struct Server {
        clients: mpsc::UnboundedSender<io::Result<oneshot::Receiver<()>>>,
        counts: Arc<Counts>,
        stop: oneshot::Sender<()>,
        over: tokio::task::JoinHandle<()>,
    }

    #[derive(Default)]
    struct Counts {
        connected: AtomicUsize,
        most: AtomicUsize,
        finished: AtomicUsize,
    }

    fn start() -> Server {
        let (clients, mut coming) = mpsc::unbounded_channel::<io::Result<oneshot::Receiver<()>>>();
        let (stop, stopped) = oneshot::channel::<()>();
        let counts = Arc::<Counts>::default();
        let counted = counts.clone();
        let over = tokio::spawn(async move {
            let accept = move |context: &mut Context<'_>| match coming.poll_recv(context) {
                Poll::Ready(Some(client)) => Poll::Ready(client),
                Poll::Ready(None) | Poll::Pending => Poll::Pending,
            };
            let serve = |leaves: oneshot::Receiver<()>, _| {
                let counts = counted.clone();
                async move {
                    let now = counts.connected.fetch_add(1, Ordering::SeqCst) + 1;
                    counts.most.fetch_max(now, Ordering::SeqCst);
                    let _ = leaves.await;
                    counts.connected.fetch_sub(1, Ordering::SeqCst);
                    counts.finished.fetch_add(1, Ordering::SeqCst);
                }
            };
            super::serve(accept, serve, LIMITS, async { drop(stopped.await) }).await;
        });
        Server { clients, counts, stop, over }
    }

    async fn reaches(counter: &AtomicUsize, count: usize) {
        while counter.load(Ordering::SeqCst) != count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn one_too_many_waits_for_a_place() {
        let server = start();
        let mut leaving = Vec::new();
        for _ in 0..3 {
            let (leave, leaves) = oneshot::channel();
            server.clients.send(Err(io::Error::other("no descriptors"))).unwrap();
            server.clients.send(Ok(leaves)).unwrap();
            leaving.push(leave);
        }
        reaches(&server.counts.connected, 2).await;
        drop(leaving);
        reaches(&server.counts.finished, 3).await;
        assert_eq!(server.counts.most.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn who_is_there_at_the_end_may_finish_or_is_cut_off() {
        for finishes in [true, false] {
            let server = start();
            let (leave, leaves) = oneshot::channel();
            server.clients.send(Ok(leaves)).unwrap();
            reaches(&server.counts.connected, 1).await;
            server.stop.send(()).unwrap();
            server.clients.closed().await;
            assert!(!server.over.is_finished());
            if finishes {
                leave.send(()).unwrap();
                server.over.await.unwrap();
            } else {
                server.over.await.unwrap();
                // Nobody waits for it any more.
                assert!(leave.send(()).is_err());
            }
            assert_eq!(server.counts.finished.load(Ordering::SeqCst), usize::from(finishes));
        }
    }
}
