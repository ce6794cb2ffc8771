//! `bollard`, the Rust client of Docker's API, does everything that the API offers.

#![allow(clippy::unwrap_used, missing_docs)]

mod containers;
mod execs;
mod images;
mod streams;
mod system;
mod volumes;

use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, ContainerWaitResponse, HostConfig};
use bollard::query_parameters::{
    CreateContainerOptions, RemoveContainerOptions, StartContainerOptions, WaitContainerOptions,
};
use bollard::{ClientVersion, Docker};
use dozen_testbox::{Engine, Machine};
use futures_util::{Stream, StreamExt, TryStreamExt};

/// Says that it is up, then lives until it is stopped, with this exit code.
const WORKER: &str = "trap 'exit 4' TERM; echo up; while :; do sleep 0.05; done";

fn connect(machine: &Machine) -> Docker {
    let newest = ClientVersion { major_version: 1, minor_version: 51 };
    Docker::connect_with_unix(machine.socket().to_str().unwrap(), 60, &newest).unwrap()
}

/// An engine that has the busybox image, and a client.
fn with_busybox(machine: &Machine) -> (Engine<'_>, Docker) {
    let engine = machine.engine();
    engine.load("busybox");
    (engine, connect(machine))
}

/// A container without a network, which most of these tests do not need.
fn busybox(command: &[&str]) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some("busybox".into()),
        cmd: Some(command.iter().map(ToString::to_string).collect()),
        host_config: Some(HostConfig { network_mode: Some("none".into()), ..HostConfig::default() }),
        ..ContainerCreateBody::default()
    }
}

fn shell(script: &str) -> ContainerCreateBody {
    busybox(&["sh", "-c", script])
}

async fn create(docker: &Docker, name: &str, body: ContainerCreateBody) -> String {
    let options = CreateContainerOptions { name: Some(name.into()), ..CreateContainerOptions::default() };
    let answer = docker.create_container(Some(options), body).await.unwrap();
    assert!(answer.warnings.is_empty(), "{:?}", answer.warnings);
    answer.id
}

async fn run(docker: &Docker, name: &str, body: ContainerCreateBody) -> String {
    let id = create(docker, name, body).await;
    docker.start_container(name, None::<StartContainerOptions>).await.unwrap();
    id
}

async fn remove(docker: &Docker, name: &str) {
    let options = RemoveContainerOptions { force: true, v: true, ..RemoveContainerOptions::default() };
    docker.remove_container(name, Some(options)).await.unwrap();
}

/// Until it does not run: its exit code. bollard makes an error of every other one than 0.
async fn wait(docker: &Docker, name: &str) -> i64 {
    code(docker.wait_container(name, None::<WaitContainerOptions>).next().await.unwrap())
}

fn code(answer: Result<ContainerWaitResponse, Error>) -> i64 {
    match answer {
        Ok(answer) => answer.status_code,
        Err(Error::DockerContainerWaitError { code, .. }) => code,
        Err(other) => panic!("{other:?}"),
    }
}

/// The status and the message of a request that was refused.
#[track_caller]
fn refusal<T>(result: Result<T, Error>) -> (u16, String) {
    match result.err().expect("it is not refused") {
        Error::DockerResponseServerError { status_code, message } => (status_code, message),
        other => panic!("{other:?}"),
    }
}

/// What a stream has said, the two of them apart: a terminal's counts as output.
async fn both(stream: impl Stream<Item = Result<LogOutput, Error>>) -> (String, String) {
    let (mut out, mut err) = (String::new(), String::new());
    for piece in stream.try_collect::<Vec<_>>().await.unwrap() {
        match &piece {
            LogOutput::StdErr { .. } => err += &piece.to_string(),
            _ => out += &piece.to_string(),
        }
    }
    (out, err)
}

/// The filters of a list, as bollard wants them.
fn filters(pairs: &[(&str, &str)]) -> Option<std::collections::HashMap<String, Vec<String>>> {
    let mut map = std::collections::HashMap::<String, Vec<String>>::new();
    for (key, value) in pairs {
        map.entry((*key).to_owned()).or_default().push((*value).to_owned());
    }
    Some(map)
}
