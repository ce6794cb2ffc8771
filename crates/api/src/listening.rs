//! Where clients come in: sockets of the file system, and connections that somebody else has taken in.

use std::io;
use std::task::{Context, Poll};

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

/// By which way a client has come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// A socket of the file system: who may, its permissions say.
    Local,
    /// TCP, with a certificate that the engine's authority has signed.
    Certified,
    /// TCP without anything: whoever reaches the address, be it loopback's or another.
    Bare {
        /// Only this machine reaches it.
        loopback: bool,
    },
}

/// All the ways in of one engine.
#[derive(Debug)]
pub struct ListeningSockets {
    sockets: Vec<UnixListener>,
    /// One end of a socket pair each; whoever holds the other one speaks with the client over TCP.
    relayed: Vec<(mpsc::Receiver<UnixStream>, Way)>,
    /// Which is asked first: the others have their turn too while one is always ready.
    first: usize,
}

impl ListeningSockets {
    /// Takes in who connects to one of these.
    pub fn new(sockets: Vec<UnixListener>) -> Self {
        Self { sockets, relayed: Vec::new(), first: 0 }
    }

    /// And these, each of them one end of a socket pair.
    pub fn with_relayed(mut self, relayed: mpsc::Receiver<UnixStream>, way: Way) -> Self {
        self.relayed.push((relayed, way));
        self
    }

    /// The next one who comes.
    pub(crate) fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<(UnixStream, Way)>> {
        let ways = self.sockets.len() + self.relayed.len();
        for offset in 0..ways {
            let way = (self.first + offset) % ways;
            let accepted = match self.sockets.get(way) {
                Some(socket) => socket.poll_accept(context).map_ok(|(stream, _)| (stream, Way::Local)),
                None => {
                    let (relayed, way) = &mut self.relayed[way - self.sockets.len()];
                    // Nobody listens there any more.
                    let Poll::Ready(Some(stream)) = relayed.poll_recv(context) else { continue };
                    Poll::Ready(Ok((stream, *way)))
                }
            };
            if accepted.is_ready() {
                self.first = way + 1;
                return accepted;
            }
        }
        Poll::Pending
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
        let mut sockets = ListeningSockets::new(listeners).with_relayed(relayed, Way::Certified);
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
            let (mut stream, way) = std::future::poll_fn(|context| sockets.poll_accept(context)).await.unwrap();
            let word = char::from(stream.read_u8().await.unwrap());
            assert_eq!(way, if word == 'r' { Way::Certified } else { Way::Local });
            order.push(word);
        }
        assert_eq!(order, "abra");
    }
}
