//! `dozen debug`: a shell with tools beside a container that has none.
//!
//! A container of its own, from an image with tools, among the processes and on the network of the other one, whose root
//! it reaches as `/proc/PID/root` (proc_pid_root(5)). Nothing is added to the other one, and nothing is left.
//!
//! One that does not run has no processes and no network. Its files are shown as they are at that moment: an image is made of
//! them (its root is nobody's to mount twice), which the tools have read-only, and which goes with them. Its volumes are where
//! they are in the container itself, and can be written to as there.

use std::io::IsTerminal;

use clap::{ArgMatches, Command};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Context, container_path, image_path, run};
use crate::arguments::flags::{is_on, list, switch, text, texts, value, verb, words};
use crate::client::Query;
use crate::failure::{ENGINE_FAILED, Failure, Outcome};
use crate::output;

const IMAGE: &str = "busybox";
/// Where the files of one that does not run are.
const FILES: &str = "/target";
/// Begins where the other container's root is; $0 says where.
const ENTER: &str = r#"cd "$0" && exec "$@""#;

pub fn command() -> Command {
    verb(
        "debug",
        "Open a shell with tools beside a container, in its root directory",
        "debug [OPTIONS] CONTAINER [COMMAND] [ARG...]",
        "dozen debug web\ndozen debug web ls -l etc\ndozen debug --image debian:bookworm-slim web bash",
    )
    .arg(list("env", 'e', "Set environment variables"))
    .arg(value("image", None, "string", "Image that has the tools (default \"busybox\")"))
    .arg(switch("privileged", None, "Give extended privileges to the tools"))
    .arg(words("CONTAINER [COMMAND] [ARG...]", 1))
}

/// What has to be known of the other container.
#[derive(Debug, Deserialize)]
struct Target {
    #[serde(rename = "Id")]
    id: String,
    #[serde(rename = "State")]
    state: State,
    #[serde(rename = "HostConfig")]
    host_config: HostConfig,
}

#[derive(Debug, Deserialize)]
struct State {
    #[serde(rename = "Running")]
    is_running: bool,
    #[serde(rename = "Pid")]
    pid: i32,
}

#[derive(Debug, Deserialize)]
struct HostConfig {
    #[serde(rename = "PidMode", default)]
    pid_mode: String,
}

/// How the tools come to the other container's root.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Way {
    /// Beside its first process, as it is numbered among its own.
    Process(i32),
    /// By an image of its files.
    Files { image: String },
}

impl Target {
    /// `None`: it does not run.
    fn first_process(&self, name: &str) -> Result<Option<i32>, Failure> {
        match self.host_config.pid_mode.as_str() {
            _ if !self.state.is_running => Ok(None),
            "" | "private" => Ok(Some(1)),
            "host" => Ok(Some(self.state.pid)),
            other => Err(Failure::new(format!("container {name} lives among the processes of another one ({other})"))
                .with_hint("debug that one: its processes are there as well")),
        }
    }
}

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let words = texts(matches, "words");
    let (name, command) = words.split_first().expect("clap refuses a command line without a container");
    let of_verb = |failure: Failure| failure.with_exit_code(ENGINE_FAILED).of_verb("debug");
    let target: Target =
        context.client.get(&container_path(name, "/json")).await.map_err(|error| of_verb(error.into()))?;
    let way = match target.first_process(name).map_err(of_verb)? {
        Some(first) => Way::Process(first),
        None => Way::Files { image: image_of(context, &target.id).await.map_err(of_verb)? },
    };
    let line = line(&target.id, &way, matches, command, std::io::stdin().is_terminal());
    let run = run::command().try_get_matches_from(line).map_err(|error| of_verb(Failure::new(error.to_string())))?;
    let outcome = run::execute(context, &run, "debug").await;
    if let Way::Files { image } = &way
        && let Err(error) = context.client.delete(&image_path(image, "")).await
    {
        output::say(&format!("WARNING: the image {image} of the container's files is left: {error}"));
    }
    outcome
}

/// An image without a name of a container's files as they are now.
async fn image_of(context: &Context, id: &str) -> Result<String, Failure> {
    let query = Query::new().with("container", id).with("comment", "dozen debug");
    let made: Value = context.client.post(&format!("/commit{query}"), Some(&json!({}))).await?;
    let id = made.get("Id").and_then(Value::as_str);
    id.map(str::to_owned).ok_or_else(|| Failure::new("the engine's answer has no Id"))
}

/// What is typed for `run`.
fn line(id: &str, way: &Way, matches: &ArgMatches, command: &[&str], is_terminal: bool) -> Vec<String> {
    let (of, mount, root);
    let mut line = vec!["run", "--rm", "--interactive"];
    match way {
        Way::Process(first) => {
            (of, root) = (format!("container:{id}"), format!("/proc/{first}/root"));
            // ptrace(2), "Ptrace access mode checking": to see another's root, its capabilities have to be among one's own,
            // or this is.
            line.extend(["--network", &of, "--pid", &of, "--cap-add", "SYS_PTRACE"]);
        }
        Way::Files { image } => {
            (mount, root) = (format!("type=image,src={image},dst={FILES}"), FILES.to_owned());
            line.extend(["--network", "none", "--volumes-from", id, "--mount", &mount]);
        }
    }
    if is_terminal {
        line.push("--tty");
    }
    if is_on(matches, "privileged") {
        line.push("--privileged");
    }
    line.extend(texts(matches, "env").into_iter().flat_map(|variable| ["--env", variable]));
    line.extend(["--entrypoint", "sh", text(matches, "image").unwrap_or(IMAGE), "-c", ENTER, &root]);
    line.extend(if command.is_empty() { &["sh"] } else { command });
    line.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line_of(words: &[&str], is_terminal: bool) -> String {
        let matches = command().try_get_matches_from([&["debug"], words].concat()).unwrap();
        let words = texts(&matches, "words");
        line("1234", &Way::Process(1), &matches, &words[1..], is_terminal).join(" ")
    }

    #[test]
    fn it_is_a_container_beside_the_other_one() {
        let beside = "--network container:1234 --pid container:1234 --cap-add SYS_PTRACE";
        assert_eq!(
            line_of(&["web"], true),
            format!("run --rm --interactive {beside} --tty --entrypoint sh busybox -c {ENTER} /proc/1/root sh")
        );
        assert_eq!(
            line_of(&["--image", "tools", "--privileged", "-e", "A=1", "web", "ls", "-l"], false),
            format!(
                "run --rm --interactive {beside} --privileged --env A=1 --entrypoint sh tools -c {ENTER} \
                 /proc/1/root ls -l"
            )
        );
        let words = line_of(&["web"], true);
        assert!(run::command().try_get_matches_from(words.split(' ')).is_ok());
    }

    #[test]
    fn one_that_does_not_run_is_shown_by_its_files() {
        let matches = command().try_get_matches_from(["debug", "web"]).unwrap();
        let line = line("1234", &Way::Files { image: "sha256:5".to_owned() }, &matches, &[], false);
        assert_eq!(
            line.join(" "),
            format!(
                "run --rm --interactive --network none --volumes-from 1234 --mount type=image,src=sha256:5,dst=/target \
                 --entrypoint sh busybox -c {ENTER} /target sh"
            )
        );
        assert!(run::command().try_get_matches_from(line).is_ok());
    }

    #[test]
    fn who_has_no_processes_of_its_own_is_refused() {
        let target = |is_running, pid_mode: &str| Target {
            id: "1234".to_owned(),
            state: State { is_running, pid: 77 },
            host_config: HostConfig { pid_mode: pid_mode.to_owned() },
        };
        assert_eq!(target(true, "").first_process("web").unwrap(), Some(1));
        assert_eq!(target(true, "host").first_process("web").unwrap(), Some(77));
        assert_eq!(target(false, "container:1").first_process("web").unwrap(), None);
        let words = target(true, "container:1").first_process("web").unwrap_err().to_string();
        assert_eq!(words, "container web lives among the processes of another one (container:1)");
    }
}
