//! `dozen run`.
//!
//! In the foreground: create, then attach and wait at once, each on a connection of its own, and only when the engine
//! has taken note of both, start. So no output and no exit is missed, however short the container lives.

use std::time::Duration;

use clap::{ArgMatches, Command};
use serde::Deserialize;

use super::create;
use super::{Context, container_path};
use crate::arguments::container::{self, CreateRequest};
use crate::arguments::detach_keys::DetachKeys;
use crate::arguments::flags::{is_on, switch, switch_value, text, value, verb};
use crate::attach::{self, Ending, Streams};
use crate::client::{ClientError, Query};
use crate::failure::{ENGINE_FAILED, Failure, NOT_EXECUTABLE, NOT_FOUND, Outcome};
use crate::output;
use crate::signals::Signals;
use crate::terminal;

/// How long a container that never started may take to remove itself.
const REMOVAL: Duration = Duration::from_secs(5);

pub fn command() -> Command {
    container::with_flags(verb(
        "run",
        "Create and run a new container from an image",
        "run [OPTIONS] IMAGE [COMMAND] [ARG...]",
        "dozen run --rm -it debian:bookworm-slim bash\n\
         dozen run -d --name web -p 8080:80 -e MODE=fast my-app\n\
         dozen run --rm -v \"$PWD\":/src:ro -w /src python:3.11-slim python test.py\n\
         dozen run --rm --network none busybox true",
    ))
    .arg(switch("detach", 'd', "Run container in background and print container ID"))
    .arg(value("detach-keys", None, "string", "Override the key sequence for detaching a container"))
    .arg(switch("sig-proxy", None, "Proxy received signals to the process (default true)"))
}

pub async fn execute(context: &Context, matches: &ArgMatches, called: &str) -> Outcome {
    let is_detached = is_on(matches, "detach");
    let keys = detach_keys(matches)?;
    let request = create::request(matches, is_detached)?;
    if !is_detached {
        terminal::check_input(request.attached.stdin, request.is_tty)?;
    }
    let id = create::create(context, matches, &request, called).await?;
    if is_detached {
        // Also of a container that then fails to start: it is there. That nobody reads it is no reason not to start.
        let shown = output::print_line(&id);
        start(context, &id).await.map_err(|error| start_failure(error, called))?;
        shown?;
        return Ok(0);
    }
    let is_proxied = switch_value(matches, "sig-proxy").unwrap_or(true);
    foreground(context, &id, &request, keys, is_proxied, called).await
}

/// `--detach-keys`, or the usual ones.
pub fn detach_keys(matches: &ArgMatches) -> Result<DetachKeys, Failure> {
    match text(matches, "detach-keys") {
        None | Some("") => Ok(DetachKeys::default()),
        Some(keys) => keys
            .parse()
            .map_err(|why| Failure::new(format!("invalid detach keys ({keys}): {why}")).with_exit_code(ENGINE_FAILED)),
    }
}

/// The answer to `wait`.
#[derive(Debug, Deserialize)]
pub struct Waited {
    /// The process's exit code.
    #[serde(rename = "StatusCode")]
    pub status_code: i64,
    /// What went wrong besides.
    #[serde(rename = "Error", default)]
    pub error: Option<WaitError>,
}

/// The engine's words on why a container ended badly.
#[derive(Debug, Deserialize)]
pub struct WaitError {
    /// The words.
    #[serde(rename = "Message", default)]
    pub message: String,
}

impl Waited {
    /// Our exit code.
    pub fn exit_code(&self) -> u8 {
        // Exit codes are 0 to 255; what is none of them is the engine's failure.
        u8::try_from(self.status_code).unwrap_or(ENGINE_FAILED)
    }
}

async fn foreground(
    context: &Context,
    id: &str,
    request: &CreateRequest,
    keys: DetachKeys,
    is_proxied: bool,
    called: &str,
) -> Outcome {
    let failed = |error: ClientError| Failure::from(error).with_exit_code(ENGINE_FAILED).of_verb(called);
    let attached = request.attached;
    let query = Query::new()
        .with("stream", "1")
        .with_flag("stdin", attached.stdin)
        .with_flag("stdout", attached.stdout)
        .with_flag("stderr", attached.stderr);
    // Before anything runs, so that a signal from now on goes to the container.
    let signals = is_proxied.then(Signals::to_pass_on);
    let resizes = (request.is_tty && terminal::size().is_some()).then(Signals::of_resize);
    let condition = if request.removes_itself { "removed" } else { "next-exit" };
    let attach_path = container_path(id, &format!("/attach{query}"));
    let wait_path = container_path(id, &format!("/wait?condition={condition}"));
    let (taken, waiting) = tokio::try_join!(
        context.client.take_over(&attach_path, None),
        context.client.post_and_wait::<Waited>(&wait_path),
    )
    .map_err(failed)?;
    if let Err(error) = start(context, id).await {
        if request.removes_itself {
            let _ = tokio::time::timeout(REMOVAL, waiting).await;
        }
        return Err(start_failure(error, called));
    }
    let streams = Streams { stdin: attached.stdin, is_tty: request.is_tty, detach_keys: keys };
    let are_signals_ours = signals.is_none();
    let resize_path = container_path(id, "/resize");
    let conversation = async {
        match attach::connect(taken.0, &streams, are_signals_ours).await? {
            Ending::OutputEnded => {}
            Ending::Detached => return Ok(None),
            Ending::Signalled(number) => return Ok(Some(128 + i64::from(number))),
        }
        let waited = waiting.await.map_err(failed)?;
        if let Some(error) = waited.error.as_ref().filter(|error| !error.message.is_empty()) {
            output::say(&format!("dozen: {}", error.message));
        }
        Ok::<_, Failure>(Some(i64::from(waited.exit_code())))
    };
    let exit_code: Option<i64> = tokio::select! {
        biased;
        ended = conversation => ended?,
        never = pass_on(context, id, signals) => never,
        never = async {
            if request.is_tty {
                send_size(context, &resize_path).await;
            }
            follow_size(context, &resize_path, resizes).await
        } => never,
    };
    Ok(exit_code.map_or(0, |code| u8::try_from(code).unwrap_or(ENGINE_FAILED)))
}

async fn start(context: &Context, id: &str) -> Result<(), ClientError> {
    context.client.post_for_nothing(&container_path(id, "/start"), None).await
}

/// Passes signals on for ever.
pub async fn pass_on<T>(context: &Context, id: &str, signals: Option<Signals>) -> T {
    let Some(mut signals) = signals else { return std::future::pending().await };
    loop {
        let number = signals.next().await;
        let name =
            dozen_model::Signal::from_number(number).map_or_else(|| number.to_string(), |signal| signal.to_string());
        let query = Query::new().with("signal", &name);
        // A container that has ended in the meantime needs no signal.
        let _ = context.client.post_for_nothing(&container_path(id, &format!("/kill{query}")), None).await;
    }
}

/// Tells the engine each new size of our terminal, for ever.
pub async fn follow_size<T>(context: &Context, path: &str, resizes: Option<Signals>) -> T {
    let Some(mut resizes) = resizes else { return std::future::pending().await };
    loop {
        resizes.next().await;
        send_size(context, path).await;
    }
}

/// Tells the engine the size of our terminal. That it cannot be told is not worth a word.
pub async fn send_size(context: &Context, path: &str) {
    if let Some(size) = terminal::size() {
        let query = Query::new().with("h", &size.rows.to_string()).with("w", &size.columns.to_string());
        let _ = context.client.post_for_nothing(&format!("{path}{query}"), None).await;
    }
}

/// Docker's rule for the exit code of a start that failed: it goes by the words.
fn start_failure(error: ClientError, called: &str) -> Failure {
    let exit_code = exit_code_of(&error.to_string());
    Failure::from(error).with_exit_code(exit_code).of_verb(called)
}

/// 127: the command is not there; 126: it cannot be executed; 125: all else.
pub fn exit_code_of(message: &str) -> u8 {
    let message = message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|words| message.contains(words));
    if says(&["executable file not found", "no such file or directory", "system cannot find the file specified"]) {
        NOT_FOUND
    } else if says(&["permission denied", "is a directory"])
        // By execve(2), of a program whose file capabilities lie outside of the container's: that is the program's.
        || (says(&["exec: \""]) && says(&["operation not permitted"]))
    {
        NOT_EXECUTABLE
    } else {
        ENGINE_FAILED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_of_a_failed_start() {
        for (message, exit_code) in [
            ("exec: \"nope\": executable file not found in $PATH", 127),
            ("exec: \"/nope\": stat /nope: no such file or directory", 127),
            ("exec: \"/etc/passwd\": permission denied", 126),
            ("exec: \"/etc\": Is a directory", 126),
            ("exec: \"/bin/ping\": operation not permitted", 126),
            ("mount proc on /proc: operation not permitted", 125),
            ("driver failed programming external connectivity: port is already allocated", 125),
        ] {
            assert_eq!(exit_code_of(message), exit_code, "{message}");
        }
    }
}
