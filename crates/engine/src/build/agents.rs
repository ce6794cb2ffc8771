//! SSH agents of those who build (`--ssh`): their keys stay with them, and what a step asks travels there.
//!
//! A client opens a connection for each of its agents (`POST /build/agent`), tells its secret name, and then answers what
//! comes. With the request for the build it says the name again, and the build has the agent:
//!
//! ```text
//! step ──its own socket──▶ engine ──the client's connection──▶ client ──▶ its agent
//! ```
//!
//! What travels are the agent's own messages, one request and its answer after the other; a step that waits for an answer
//! and dies leaves nobody else's in disorder. `socket` is what a step sees.

mod socket;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dozen_model::agent;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

pub(super) use self::socket::AgentSocket;
use crate::{Engine, EngineError};

/// More of them do not wait for their build at once.
const WAITING: usize = 256;

/// An agent of a client that builds.
#[derive(Debug, Clone)]
pub struct SshAgent(mpsc::Sender<Question>);

/// A message, and where its answer goes.
#[derive(Debug)]
struct Question {
    message: Vec<u8>,
    reply: oneshot::Sender<Vec<u8>>,
}

/// Those that no build has taken yet, by their secret names.
#[derive(Debug, Default)]
pub(crate) struct Agents(Mutex<HashMap<String, SshAgent>>);

impl Agents {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, SshAgent>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client's agent before its connection is there. Dropped, it is forgotten.
#[derive(Debug)]
pub struct WaitingAgent {
    agents: Arc<Agents>,
    name: String,
    questions: mpsc::Receiver<Question>,
}

impl Engine {
    /// From now on a build may take this agent. The name is nobody's but the client's: 64 hexadecimal digits.
    pub fn expect_agent(&self, name: &str) -> Result<WaitingAgent, EngineError> {
        let invalid = |message: &str| EngineError::Invalid { message: message.into(), hint: None };
        if name.len() != 64 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(invalid("an agent's name has 64 hexadecimal digits"));
        }
        let agents = self.shared.agents.clone();
        let (sender, questions) = mpsc::channel(1);
        {
            let mut waiting = agents.lock();
            if waiting.len() >= WAITING {
                return Err(EngineError::Conflict {
                    message: "too many agents wait for builds".into(),
                    hint: Some("try again".into()),
                });
            }
            if waiting.contains_key(name) {
                return Err(invalid("an agent of this name waits already"));
            }
            waiting.insert(name.to_owned(), SshAgent(sender));
        }
        Ok(WaitingAgent { agents, name: name.to_owned(), questions })
    }

    /// The agent for a build of the client that knows its name. Nobody else gets it.
    pub fn take_agent(&self, name: &str) -> Option<SshAgent> {
        self.shared.agents.lock().remove(name)
    }
}

impl WaitingAgent {
    /// Puts what steps ask to the client, until that goes, or the build is over.
    pub async fn serve(mut self, mut client: UnixStream) {
        loop {
            let question = tokio::select! {
                question = self.questions.recv() => question,
                // It goes, or says something that nobody has asked for.
                _ = client.read_u8() => None,
            };
            let Some(Question { message, reply }) = question else { return };
            let Some(answer) = exchange(&mut client, &message).await else { return };
            // Who asked may be gone.
            let _ = reply.send(answer);
        }
    }
}

impl Drop for WaitingAgent {
    fn drop(&mut self) {
        self.agents.lock().remove(&self.name);
    }
}

impl SshAgent {
    /// The answer to a message; `None`: the agent is gone.
    async fn ask(&self, message: Vec<u8>) -> Option<Vec<u8>> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Question { message, reply }).await.ok()?;
        answer.await.ok()
    }
}

async fn exchange(client: &mut UnixStream, message: &[u8]) -> Option<Vec<u8>> {
    client.write_all(&agent::framed(message)?).await.ok()?;
    read(client).await
}

/// The next message, without its length; `None`: nobody sends any more, or what is none.
async fn read(from: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut prefix = [0; 4];
    from.read_exact(&mut prefix).await.ok()?;
    let length = agent::length(prefix)?;
    // Memory is taken for what has come, and not for what is promised.
    let mut message = Vec::new();
    from.take(length as u64).read_to_end(&mut message).await.ok()?;
    (message.len() == length).then_some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(agents: &Arc<Agents>, name: &str) -> WaitingAgent {
        let (sender, questions) = mpsc::channel(1);
        agents.lock().insert(name.to_owned(), SshAgent(sender));
        WaitingAgent { agents: agents.clone(), name: name.to_owned(), questions }
    }

    #[tokio::test]
    async fn who_gives_up_leaves_the_others_answers_where_they_belong() {
        let agents = Arc::new(Agents::default());
        let (ours, mut client) = UnixStream::pair().unwrap();
        tokio::spawn(waiting(&agents, "a").serve(ours));
        let agent = agents.lock().remove("a").unwrap();
        let (first, second) = (agent.clone(), agent.clone());
        let given_up = tokio::spawn(async move { first.ask(vec![11, 1]).await });
        assert_eq!(read(&mut client).await.unwrap(), [11, 1]);
        given_up.abort();
        assert!(given_up.await.is_err());
        let other = tokio::spawn(async move { second.ask(vec![11, 2]).await });
        client.write_all(&agent::framed(b"first").unwrap()).await.unwrap();
        assert_eq!(read(&mut client).await.unwrap(), [11, 2]);
        client.write_all(&agent::framed(b"second").unwrap()).await.unwrap();
        assert_eq!(other.await.unwrap().unwrap(), b"second");
        // What is no answer ends it, and so does an end.
        client.write_all(&[0; 4]).await.unwrap();
        assert!(agent.ask(vec![11]).await.is_none());
    }

    #[tokio::test]
    async fn an_agent_goes_with_its_client_and_with_its_build() {
        let agents = Arc::new(Agents::default());
        let (ours, client) = UnixStream::pair().unwrap();
        let serving = tokio::spawn(waiting(&agents, "a").serve(ours));
        drop(client);
        serving.await.unwrap();
        assert!(agents.lock().is_empty());
        let (ours, mut client) = UnixStream::pair().unwrap();
        let serving = tokio::spawn(waiting(&agents, "a").serve(ours));
        drop(agents.lock().remove("a"));
        serving.await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn nothing_is_read_that_is_too_long_or_not_whole() {
        for bytes in [&[][..], &[0, 0, 0], &[0, 0, 0, 0], &[0, 0, 0, 2, 11], &[0, 4, 0, 1, 11], &[255; 9]] {
            assert!(read(&mut &bytes[..]).await.is_none(), "{bytes:?}");
        }
        assert_eq!(read(&mut &[0, 0, 0, 2, 11, 7, 9][..]).await.unwrap(), [11, 7]);
    }
}
