//! `dozen attach`, and what `start -a` shares with it.

use clap::{ArgMatches, Command};
use serde::Deserialize;

use super::run::{Waited, detach_keys, follow_size, pass_on, send_size};
use super::{Context, container_path};
use crate::arguments::detach_keys::DetachKeys;
use crate::arguments::flags::{is_on, name, required, switch, switch_value, value, verb};
use crate::attach::{self, Ending, Streams};
use crate::client::Query;
use crate::failure::{FAILED, Failure, Outcome};
use crate::signals::Signals;
use crate::terminal;

pub fn command() -> Command {
    verb(
        "attach",
        "Attach local standard input, output, and error streams to a running container",
        "attach [OPTIONS] CONTAINER",
        "dozen attach web\ndozen attach --detach-keys ctrl-x web",
    )
    .arg(value("detach-keys", None, "string", "Override the key sequence for detaching a container"))
    .arg(switch("no-stdin", None, "Do not attach STDIN"))
    .arg(switch("sig-proxy", None, "Proxy all received signals to the process (default true)"))
    .arg(name("container", "CONTAINER"))
}

/// What attaching has to know of a container.
#[derive(Debug, Deserialize)]
pub struct Inspected {
    /// The full id.
    #[serde(rename = "Id")]
    pub id: String,
    #[serde(rename = "State")]
    state: State,
    /// How it was created.
    #[serde(rename = "Config")]
    pub config: Config,
    /// What concerns its host.
    #[serde(rename = "HostConfig")]
    pub host_config: HostConfig,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    running: bool,
    #[serde(default)]
    paused: bool,
    #[serde(default)]
    restarting: bool,
}

/// The part of `Config` that matters here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
pub struct Config {
    /// It has a terminal.
    pub tty: bool,
    /// It reads.
    pub open_stdin: bool,
}

/// The part of `HostConfig` that matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HostConfig {
    /// `--rm`.
    pub auto_remove: bool,
}

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let keys = detach_keys(matches)?;
    let container: Inspected = context.client.get(&container_path(required(matches, "container"), "/json")).await?;
    if !container.state.running {
        return Err(Failure::new("cannot attach to a stopped container, start it first")
            .with_hint(format!("dozen start -a {}", required(matches, "container"))));
    }
    if container.state.paused {
        return Err(Failure::new("cannot attach to a paused container, unpause it first"));
    }
    if container.state.restarting {
        return Err(Failure::new("cannot attach to a restarting container, wait until it is running"));
    }
    let with_stdin = !is_on(matches, "no-stdin") && container.config.open_stdin;
    terminal::check_input(with_stdin, container.config.tty)?;
    let is_proxied = switch_value(matches, "sig-proxy").unwrap_or(true);
    let attachment = Attachment { keys, with_stdin, is_proxied, condition: "not-running" };
    converse(context, &container, attachment, async { Ok(()) }).await
}

/// How to attach.
pub struct Attachment {
    /// The keys that end it.
    pub keys: DetachKeys,
    /// Our stdin is connected.
    pub with_stdin: bool,
    /// Signals are passed on.
    pub is_proxied: bool,
    /// What ends the wait.
    pub condition: &'static str,
}

/// Attaches and waits, then runs `begin` (which starts the container, if it does not run yet), and stays until the
/// end; the exit code is the container's.
pub async fn converse(
    context: &Context,
    container: &Inspected,
    attachment: Attachment,
    begin: impl Future<Output = Result<(), Failure>>,
) -> Outcome {
    let (id, is_tty) = (container.id.as_str(), container.config.tty);
    let query = Query::new()
        .with("stream", "1")
        .with_flag("stdin", attachment.with_stdin)
        .with("stdout", "1")
        .with("stderr", "1");
    let signals = (attachment.is_proxied && !is_tty).then(Signals::to_pass_on);
    let resizes = (is_tty && terminal::size().is_some()).then(Signals::of_resize);
    let attach_path = container_path(id, &format!("/attach{query}"));
    let wait_path = container_path(id, &format!("/wait?condition={}", attachment.condition));
    let (taken, waiting) = tokio::try_join!(
        context.client.take_over(&attach_path, None),
        context.client.post_and_wait::<Waited>(&wait_path),
    )?;
    begin.await?;
    let resize_path = container_path(id, "/resize");
    if resizes.is_some() {
        send_size(context, &resize_path).await;
    }
    let are_signals_ours = signals.is_none();
    let streams = Streams { stdin: attachment.with_stdin, is_tty, detach_keys: attachment.keys };
    let conversation = async {
        match attach::connect(taken.0, &streams, are_signals_ours).await? {
            Ending::OutputEnded => Ok(waiting.await.map_err(Failure::from)?.exit_code()),
            Ending::Detached => Ok(0),
            Ending::Signalled(number) => Ok(u8::try_from(128 + number).unwrap_or(FAILED)),
        }
    };
    tokio::select! {
        biased;
        ended = conversation => ended,
        never = pass_on(context, id, signals) => never,
        never = follow_size(context, &resize_path, resizes) => never,
    }
}
