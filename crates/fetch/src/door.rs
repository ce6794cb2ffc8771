//! A way to a server in this very process, without an address: nobody else reaches it, reads what goes over it, or stands in
//! its place. Whoever knocks makes two sockets, keeps one, and the server gets the other.

use std::io;
use std::sync::Arc;

use tokio::net::UnixStream;
use tokio::sync::mpsc;

/// Connections that the server has not taken yet.
const WAITING: usize = 64;

/// For who knocks. Clones lead to the same server.
#[derive(Debug, Clone)]
pub struct Door(Arc<mpsc::Sender<UnixStream>>);

/// For the server: who has knocked, one after the other.
pub type Visitors = mpsc::Receiver<UnixStream>;

impl Door {
    /// A door, and who comes by it.
    pub fn new() -> (Self, Visitors) {
        let (knocked, visitors) = mpsc::channel(WAITING);
        (Self(Arc::new(knocked)), visitors)
    }

    /// A connection.
    ///
    /// # Errors
    /// The server has ended, or no descriptors are left.
    pub(crate) async fn knock(&self) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        let ended = |_| io::Error::new(io::ErrorKind::ConnectionRefused, "it has ended");
        self.0.send(theirs).await.map_err(ended)?;
        Ok(ours)
    }

    /// Another door is another server.
    pub(crate) fn identity(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn who_knocks_is_let_in_until_the_server_ends() {
        let (door, mut visitors) = Door::new();
        let mut ours = door.clone().knock().await.unwrap();
        let mut theirs = visitors.recv().await.unwrap();
        theirs.write_all(b"hello").await.unwrap();
        let mut heard = [0; 5];
        ours.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"hello");
        drop(visitors);
        assert_eq!(door.knock().await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
