//! Where clients come in: sockets of the file system, and connections that somebody else has taken in.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

/// All the ways in of one engine.
#[derive(Debug)]
pub struct ListeningSockets {
    sockets: Vec<UnixListener>,
    /// One end of a socket pair each; whoever holds the other one speaks with the client (over TLS).
    relayed: Option<mpsc::Receiver<UnixStream>>,
    /// Which is asked first: the others have their turn too while one is always ready.
    first: usize,
}

impl ListeningSockets {
    /// Takes in who connects to one of these.
    pub fn new(sockets: Vec<UnixListener>) -> Self {
        Self { sockets, relayed: None, first: 0 }
    }

    /// And these, each of them one end of a socket pair.
    pub fn with_relayed(self, relayed: mpsc::Receiver<UnixStream>) -> Self {
        Self { relayed: Some(relayed), ..self }
    }

    /// The next one who comes.
    pub(crate) async fn accept(&mut self) -> io::Result<UnixStream> {
        poll_fn(|context| self.poll_accept(context)).await
    }

    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<UnixStream>> {
        let ways = self.sockets.len() + 1;
        for offset in 0..ways {
            let way = (self.first + offset) % ways;
            let accepted = match self.sockets.get(way) {
                Some(socket) => socket.poll_accept(context).map_ok(|(stream, _)| stream),
                None => self.poll_relayed(context),
            };
            if accepted.is_ready() {
                self.first = way + 1;
                return accepted;
            }
        }
        Poll::Pending
    }

    fn poll_relayed(&mut self, context: &mut Context<'_>) -> Poll<io::Result<UnixStream>> {
        let Some(relayed) = &mut self.relayed else { return Poll::Pending };
        match relayed.poll_recv(context) {
            Poll::Ready(Some(stream)) => Poll::Ready(Ok(stream)),
            Poll::Ready(None) => {
                self.relayed = None;
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn everybody_has_a_turn() {
        let directory = tempfile::tempdir().unwrap();
        let paths = ["a", "b"].map(|name| directory.path().join(name));
        let listeners = paths.iter().map(|path| UnixListener::bind(path).unwrap()).collect();
        let (sender, relayed) = mpsc::channel(4);
        let mut sockets = ListeningSockets::new(listeners).with_relayed(relayed);
        let mut clients = Vec::new();
        for word in ["a", "a", "b", "r"] {
            let mut client = match paths.iter().find(|path| path.ends_with(word)) {
                Some(path) => UnixStream::connect(path).await.unwrap(),
                None => {
                    let (ours, theirs) = UnixStream::pair().unwrap();
                    sender.send(theirs).await.unwrap();
                    ours
                }
            };
            client.write_all(word.as_bytes()).await.unwrap();
            clients.push(client);
        }
        drop(sender);
        let mut order = String::new();
        for _ in 0..4 {
            order.push(char::from(sockets.accept().await.unwrap().read_u8().await.unwrap()));
        }
        assert_eq!(order, "abra");
    }
}
