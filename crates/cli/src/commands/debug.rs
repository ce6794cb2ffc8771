//! `dozen debug`: a shell with tools beside a container that has none.
//!
//! A container of its own, from an image with tools, among the processes and on the network of the other one, whose root
//! it reaches as `/proc/PID/root` (proc_pid_root(5)). Nothing is added to the other one, and nothing is left.

use std::io::IsTerminal;

use clap::{ArgMatches, Command};
use serde::Deserialize;

use super::{Context, container_path, run};
use crate::arguments::flags::{is_on, list, switch, text, texts, value, verb, words};
use crate::failure::{ENGINE_FAILED, Failure, Outcome};

const IMAGE: &str = "busybox";
/// Begins where the other container's root is; $0 says where.
const ENTER: &str = r#"cd "$0" && exec "$@""#;

pub fn command() -> Command {
    verb(
        "debug",
        "Open a shell with tools beside a running container, in its root directory",
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

impl Target {
    /// Its first process, as it is numbered among its own.
    fn first_process(&self, name: &str) -> Result<i32, Failure> {
        match self.host_config.pid_mode.as_str() {
            _ if !self.state.is_running => Err(Failure::new(format!("container {name} is not running"))
                .with_hint(format!("its files can be had all the same: dozen cp {name}:/path -"))),
            "" | "private" => Ok(1),
            "host" => Ok(self.state.pid),
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
    let first = target.first_process(name).map_err(of_verb)?;
    let line = line(&target.id, first, matches, command, std::io::stdin().is_terminal());
    let run = run::command().try_get_matches_from(line).map_err(|error| of_verb(Failure::new(error.to_string())))?;
    run::execute(context, &run, "debug").await
}

/// What is typed for `run`.
fn line(id: &str, first: i32, matches: &ArgMatches, command: &[&str], is_terminal: bool) -> Vec<String> {
    let of = format!("container:{id}");
    // ptrace(2), "Ptrace access mode checking": to see another's root, its capabilities have to be among one's own,
    // or this is.
    let mut line = vec!["run", "--rm", "--interactive", "--network", &of, "--pid", &of, "--cap-add", "SYS_PTRACE"];
    if is_terminal {
        line.push("--tty");
    }
    if is_on(matches, "privileged") {
        line.push("--privileged");
    }
    line.extend(texts(matches, "env").into_iter().flat_map(|variable| ["--env", variable]));
    let root = format!("/proc/{first}/root");
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
        line("1234", 1, &matches, &words[1..], is_terminal).join(" ")
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
    fn who_has_no_processes_of_its_own_is_refused() {
        let target = |is_running, pid_mode: &str| Target {
            id: "1234".to_owned(),
            state: State { is_running, pid: 77 },
            host_config: HostConfig { pid_mode: pid_mode.to_owned() },
        };
        assert_eq!(target(true, "").first_process("web").unwrap(), 1);
        assert_eq!(target(true, "host").first_process("web").unwrap(), 77);
        assert_eq!(target(false, "").first_process("web").unwrap_err().to_string(), "container web is not running");
        let words = target(true, "container:1").first_process("web").unwrap_err().to_string();
        assert_eq!(words, "container web lives among the processes of another one (container:1)");
    }
}
