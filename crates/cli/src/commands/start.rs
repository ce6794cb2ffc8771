//! `dozen start`.

use clap::{ArgMatches, Command};

use super::attach::{Attachment, Inspected, converse};
use super::run::detach_keys;
use super::{Context, container_path};
use crate::arguments::flags::{is_on, names, switch, texts, value, verb};
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::terminal;

pub fn command() -> Command {
    verb(
        "start",
        "Start one or more stopped containers",
        "start [OPTIONS] CONTAINER [CONTAINER...]",
        "dozen start web db\ndozen start -ai work",
    )
    .arg(switch("attach", 'a', "Attach STDOUT/STDERR and forward signals"))
    .arg(value("detach-keys", None, "string", "Override the key sequence for detaching a container"))
    .arg(switch("interactive", 'i', "Attach container's STDIN"))
    .arg(names("CONTAINER"))
}

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let names = texts(matches, "names");
    let is_interactive = is_on(matches, "interactive");
    if is_on(matches, "attach") || is_interactive {
        let [name] = names.as_slice() else {
            return Err(Failure::new("you cannot start and attach multiple containers at once"));
        };
        return attached(context, matches, name, is_interactive).await;
    }
    let mut failures = Vec::new();
    let mut failed = Vec::new();
    for name in names {
        match context.client.post_for_nothing(&container_path(name, "/start"), None).await {
            Ok(()) => output::print_line(name)?,
            Err(error) => {
                failures.push(Failure::from(error));
                failed.push(name);
            }
        }
    }
    if !failed.is_empty() {
        failures.push(Failure::new(format!("Error: failed to start containers: {}", failed.join(", "))));
    }
    Failure::all(failures)
}

async fn attached(context: &Context, matches: &ArgMatches, name: &str, is_interactive: bool) -> Outcome {
    let keys = detach_keys(matches)?;
    let container: Inspected = context.client.get(&container_path(name, "/json")).await?;
    let with_stdin = is_interactive && container.config.open_stdin;
    terminal::check_input(with_stdin, container.config.tty)?;
    let condition = if container.host_config.auto_remove { "removed" } else { "next-exit" };
    let attachment = Attachment { keys, with_stdin, is_proxied: true, condition };
    let begin = async {
        let started = context.client.post_for_nothing(&container_path(&container.id, "/start"), None).await;
        started.map_err(Failure::from)
    };
    converse(context, &container, attachment, begin).await
}
