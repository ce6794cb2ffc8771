//! What a step sees of an agent: a socket of its own, for as long as it runs.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dozen_model::agent;
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{AbortHandle, JoinSet};

use super::{SshAgent, read};

/// So many talk with it at once; others wait in the socket.
const CONNECTIONS: usize = 32;
/// The pause where nobody can be taken in (accept(2): descriptors may be wanting).
const PAUSE: Duration = Duration::from_millis(100);

/// Dropped, nobody listens there any more, and the file is gone.
#[derive(Debug)]
pub(in crate::build) struct AgentSocket {
    path: PathBuf,
    listening: AbortHandle,
}

impl AgentSocket {
    /// A socket `name` in a directory that nobody else enters.
    pub(in crate::build) fn new(
        directory: &Path,
        name: &str,
        agent: SshAgent,
        (user, group): (u32, u32),
        mode: u32,
    ) -> io::Result<Self> {
        // By descriptor: the path may be longer than the 108 bytes of an address (unix(7)).
        let held = std::fs::File::open(directory)?;
        let listener = UnixListener::bind(format!("/proc/self/fd/{}/{name}", held.as_raw_fd()))?;
        let path = directory.join(name);
        let listening = tokio::spawn(listen(listener, agent)).abort_handle();
        let socket = Self { path, listening };
        std::os::unix::fs::lchown(&socket.path, Some(user), Some(group))?;
        std::fs::set_permissions(&socket.path, std::fs::Permissions::from_mode(mode))?;
        Ok(socket)
    }

    pub(in crate::build) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for AgentSocket {
    fn drop(&mut self) {
        self.listening.abort();
        // What is left goes with the build.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn listen(listener: UnixListener, agent: SshAgent) {
    let mut conversations = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if conversations.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    conversations.spawn(converse(stream, agent.clone()));
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            },
            Some(_) = conversations.join_next() => {}
        }
    }
}

/// Until the other side goes, sends what is no message, or the agent is gone.
async fn converse(mut stream: UnixStream, agent: SshAgent) {
    while let Some(message) = read(&mut stream).await {
        let answer = match agent::only_uses_keys(&message) {
            true => agent.ask(message).await.as_deref().and_then(agent::framed),
            false => Some(agent::REFUSED.to_vec()),
        };
        let Some(answer) = answer else { return };
        if stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::sync::mpsc;

    use super::*;
    use crate::build::agents::Question;

    #[tokio::test]
    async fn a_step_uses_keys_and_no_more_for_as_long_as_there_is_a_socket() {
        let directory = tempfile::tempdir().unwrap();
        let (sender, mut questions) = mpsc::channel(1);
        let answering = tokio::spawn(async move {
            let mut asked = Vec::new();
            while let Some(Question { message, reply }) = questions.recv().await {
                asked.push(message.clone());
                let _ = reply.send([&[12], &message[..]].concat());
            }
            asked
        });
        let socket = AgentSocket::new(directory.path(), "agent", SshAgent(sender), (0, 0), 0o600).unwrap();
        let path = socket.path().to_owned();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut stream = UnixStream::connect(&path).await.unwrap();
        // SSH_AGENTC_REMOVE_ALL_IDENTITIES, SSH_AGENTC_ADD_IDENTITY, an extension, and then the list.
        for kind in [19, 17, 27] {
            stream.write_all(&agent::framed(&[kind, 1]).unwrap()).await.unwrap();
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, agent::REFUSED);
        }
        stream.write_all(&agent::framed(&[11]).unwrap()).await.unwrap();
        assert_eq!(read(&mut stream).await.unwrap(), [12, 11]);
        // One that says what is no message is not listened to, and others are.
        let mut other = UnixStream::connect(&path).await.unwrap();
        other.write_all(&[255; 4]).await.unwrap();
        assert_eq!(other.read(&mut [0]).await.unwrap(), 0);
        drop(socket);
        assert_eq!(answering.await.unwrap(), [[11]]);
        assert!(!path.exists() && stream.read(&mut [0]).await.unwrap() == 0);
        assert!(UnixStream::connect(&path).await.is_err());
    }
}
