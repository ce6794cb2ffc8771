//! Who is answered later: once the container has ended, runs again, or is gone.

use dozen_model::{Classified, error_chain};
use dozen_monitor::protocol::Failure;
use tokio::sync::oneshot;

use crate::EngineError;
use crate::container::attach::{AttachOptions, StdioStream};

/// Whether a request found something to do (Docker answers 304 when it did not).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "plain")]
pub enum Changed {
    Yes,
    Already,
}

pub(crate) type Reply = oneshot::Sender<Result<Changed, EngineError>>;

/// What for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Stop,
    Restart,
    Removal,
}

#[derive(Debug, Default)]
pub(super) struct Askers(Vec<(Asked, Reply)>);

impl Askers {
    pub(super) fn add(&mut self, asked: Asked, reply: Reply) {
        self.0.push((asked, reply));
    }

    /// Tells all who asked for it. Who went away in the meantime does not hear it.
    pub(super) fn answer(&mut self, about: Asked, outcome: &Result<(), Failure>) {
        for (_, reply) in self.0.extract_if(.., |(asked, _)| *asked == about) {
            drop(reply.send(outcome.clone().map(|()| Changed::Yes).map_err(EngineError::from)));
        }
    }

    /// Tells everyone that it came to nothing.
    pub(super) fn refuse_all(&mut self, why: &Failure) {
        for (_, reply) in self.0.drain(..) {
            drop(reply.send(Err(why.clone().into())));
        }
    }
}

/// An error, for more than one to hear.
pub(super) fn failure(error: &EngineError) -> Failure {
    Failure { kind: error.kind(), message: error_chain(error), hint: error.hint() }
}

pub(super) type AttachReply = oneshot::Sender<Result<StdioStream, EngineError>>;

/// Clients that came before the start.
#[derive(Debug, Default)]
pub(super) struct WaitingClients(Vec<(AttachOptions, AttachReply)>);

impl WaitingClients {
    /// Those who went away meanwhile leave no trace.
    pub(super) fn add(&mut self, options: AttachOptions, reply: AttachReply) {
        self.0.retain(|(_, reply)| !reply.is_closed());
        self.0.push((options, reply));
    }

    pub(super) fn take(&mut self) -> Vec<(AttachOptions, AttachReply)> {
        let mut clients = std::mem::take(&mut self.0);
        clients.retain(|(_, reply)| !reply.is_closed());
        clients
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_hears_of_what_they_asked_for_and_nothing_else() {
        let mut askers = Askers::default();
        let mut ask = |asked| {
            let (reply, answer) = oneshot::channel();
            askers.add(asked, reply);
            answer
        };
        let [mut first, mut second, mut other] = [ask(Asked::Stop), ask(Asked::Stop), ask(Asked::Restart)];
        askers.answer(Asked::Stop, &Ok(()));
        assert!(matches!(first.try_recv(), Ok(Ok(Changed::Yes))) && matches!(second.try_recv(), Ok(Ok(Changed::Yes))));
        assert!(other.try_recv().is_err());
        askers.refuse_all(&failure(&EngineError::ShuttingDown));
        assert!(matches!(other.try_recv(), Ok(Err(EngineError::Monitor(_)))));
    }

    #[test]
    fn clients_that_are_gone_are_forgotten() {
        let mut clients = WaitingClients::default();
        let (stays, _stream) = oneshot::channel();
        clients.add(AttachOptions::default(), stays);
        for _ in 0..100 {
            clients.add(AttachOptions::default(), oneshot::channel().0);
        }
        assert_eq!(clients.0.len(), 2, "the one who stays, and the last");
        assert_eq!(clients.take().len(), 1);
    }
}
