//! Other options for the log of a container that runs: its monitor is told.

use dozen_model::{ContainerSpec, ErrorKind};
use dozen_monitor::client;
use dozen_monitor::protocol::Request;

use super::settings::settings_of;
use crate::EngineError;
use crate::container::change::Whose;
use crate::monitor_link::MonitorLink;
use crate::shared::Shared;

/// Has the monitor write on as this spec says. Answers what is for the next start. Blocks, within a runtime.
pub(crate) fn change(shared: &Shared, whose: Whose<'_>, spec: &ContainerSpec) -> Result<Option<String>, EngineError> {
    let settings = settings_of(whose.id, whose.name, whose.created, spec)?;
    let directory = shared.run_directory(whose.id);
    let request = Request::ChangeLog(Box::new(settings));
    let answer = tokio::runtime::Handle::current().block_on(MonitorLink::request(&directory, &request));
    outcome(answer.map(drop), || client::is_alive(&directory))
}

/// Whoever has ended meanwhile writes nothing any more: what was asked is for its next start, and nobody need be told.
fn outcome(answer: Result<(), EngineError>, is_alive: impl FnOnce() -> bool) -> Result<Option<String>, EngineError> {
    match answer {
        Ok(()) => Ok(None),
        Err(EngineError::Monitor(failure)) if failure.kind == ErrorKind::Invalid => {
            let words = "Its monitor is of an earlier version of dozen: the log options take effect at the next start";
            Ok(Some(words.to_owned()))
        }
        Err(error @ EngineError::Monitor(_)) => Err(error),
        Err(_) if !is_alive() => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use dozen_monitor::protocol::Failure;

    use super::*;

    #[test]
    fn what_a_monitor_answers_decides_when_a_change_holds() {
        let refused = |kind| Err(Failure { kind, message: "no".to_owned(), hint: None }.into());
        let lost =
            || Err(EngineError::System { action: "ask".to_owned(), source: std::io::ErrorKind::NotFound.into() });
        let hangs = || Err(EngineError::MonitorHangs { pid: None, patience_s: 10 });
        assert_eq!(outcome(Ok(()), || true).unwrap(), None);
        let later = outcome(refused(ErrorKind::Invalid), || true).unwrap().unwrap();
        assert!(later.contains("at the next start"));
        assert!(outcome(refused(ErrorKind::Exhausted), || true).is_err());
        assert_eq!(outcome(lost(), || false).unwrap(), None);
        assert!(outcome(lost(), || true).is_err());
        assert!(outcome(hangs(), || true).is_err());
    }
}
