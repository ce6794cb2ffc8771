//! `dozen exec`.

use clap::{ArgMatches, Command};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::run::{detach_keys, exit_code_of, follow_size};
use super::{Context, container_path};
use crate::arguments::flags::{is_on, list, owned, switch, text, texts, value, verb, words};
use crate::arguments::key_values;
use crate::attach::{self, Ending, Streams};
use crate::client::ClientError;
use crate::failure::{ENGINE_FAILED, FAILED, Failure, Outcome};
use crate::signals::Signals;
use crate::terminal;

pub fn command() -> Command {
    verb(
        "exec",
        "Execute a command in a running container",
        "exec [OPTIONS] CONTAINER COMMAND [ARG...]",
        "dozen exec -it web sh\ndozen exec -e LEVEL=2 -u 1000 -w /srv web ls -l",
    )
    .arg(switch("detach", 'd', "Detached mode: run command in the background"))
    .arg(value("detach-keys", None, "string", "Override the key sequence for detaching a container"))
    .arg(list("env", 'e', "Set environment variables"))
    .arg(list("env-file", None, "Read in a file of environment variables"))
    .arg(switch("interactive", 'i', "Keep STDIN open even if not attached"))
    .arg(switch("privileged", None, "Give extended privileges to the command"))
    .arg(switch("tty", 't', "Allocate a pseudo-TTY"))
    .arg(value("user", 'u', "string", "Username or UID (format: \"<name|uid>[:<group|gid>]\")"))
    .arg(value("workdir", 'w', "string", "Working directory inside the container"))
    .arg(words("CONTAINER COMMAND [ARG...]", 2))
}

#[derive(Deserialize)]
struct Created {
    #[serde(rename = "Id")]
    id: String,
}

#[derive(Deserialize)]
struct State {
    #[serde(rename = "ExitCode")]
    exit_code: Option<i64>,
}

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let words = owned(matches, "words");
    let (name, command) = words.split_first().expect("clap refuses a command line without a container");
    let is_detached = is_on(matches, "detach");
    let is_tty = is_on(matches, "tty");
    let is_interactive = is_on(matches, "interactive") && !is_detached;
    terminal::check_input(is_interactive, is_tty && !is_detached)?;
    let keys = detach_keys(matches)?;
    // Before the size is read, or a new one of this moment would go unheard.
    let resizes = (is_tty && !is_detached).then(Signals::of_resize);
    let size = if is_tty { terminal::size() } else { None };
    let console = size.map(|size| json!([size.rows, size.columns]));

    let mut body = Map::new();
    body.insert("Cmd".to_owned(), command.into());
    body.insert("Tty".to_owned(), is_tty.into());
    body.insert("AttachStdin".to_owned(), is_interactive.into());
    body.insert("AttachStdout".to_owned(), (!is_detached).into());
    body.insert("AttachStderr".to_owned(), (!is_detached).into());
    if is_on(matches, "privileged") {
        body.insert("Privileged".to_owned(), true.into());
    }
    for (flag, key) in [("user", "User"), ("workdir", "WorkingDir")] {
        if let Some(value) = text(matches, flag) {
            body.insert(key.to_owned(), value.into());
        }
    }
    let environment = environment(matches)?;
    if !environment.is_empty() {
        body.insert("Env".to_owned(), environment.into());
    }
    if let Some(console) = &console {
        body.insert("ConsoleSize".to_owned(), console.clone());
    }
    let created: Created = context.client.post(&container_path(name, "/exec"), Some(&Value::Object(body))).await?;

    let mut start = json!({ "Detach": is_detached, "Tty": is_tty });
    if let Some(console) = console {
        start["ConsoleSize"] = console;
    }
    let path = format!("/exec/{}", created.id);
    if is_detached {
        context.client.post_for_nothing(&format!("{path}/start"), Some(&start)).await.map_err(failed)?;
        return Ok(0);
    }
    let (stream, _) = context.client.take_over(&format!("{path}/start"), Some(&start)).await.map_err(failed)?;
    let streams = Streams { stdin: is_interactive, is_tty, detach_keys: keys };
    let resize_path = format!("{path}/resize");
    let ending = tokio::select! {
        biased;
        ending = attach::connect(stream, &streams, true) => ending?,
        never = follow_size(context, &resize_path, resizes) => never,
    };
    match ending {
        Ending::Detached => Ok(0),
        Ending::Signalled(number) => Ok(u8::try_from(128 + number).unwrap_or(FAILED)),
        Ending::OutputEnded => {
            let state: State = context.client.get(&format!("{path}/json")).await?;
            Ok(state.exit_code.and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED))
        }
    }
}

/// Docker's rule for the exit code goes by the words, as that of `run`.
fn failed(error: ClientError) -> Failure {
    let exit_code = match exit_code_of(&error.to_string()) {
        ENGINE_FAILED => FAILED,
        other => other,
    };
    Failure::from(error).with_exit_code(exit_code)
}

fn environment(matches: &ArgMatches) -> Result<Vec<String>, Failure> {
    let ours = |name: &str| std::env::var(name).ok();
    let mut environment = Vec::new();
    for path in texts(matches, "env-file") {
        let bytes = super::read_file(path).map_err(Failure::new)?;
        environment.extend(key_values::environment_file(path, &bytes, &ours).map_err(Failure::new)?);
    }
    for entry in texts(matches, "env") {
        let parsed = key_values::environment_entry(entry, &ours);
        environment.extend(parsed.map_err(|why| crate::arguments::flags::invalid(entry, "env", why))?);
    }
    Ok(environment)
}
