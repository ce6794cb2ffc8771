//! What a container says and is told: logs, attach, terminals.

use bollard::Docker;
use bollard::container::AttachContainerResults;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    AttachContainerOptions, LogsOptions, ResizeContainerTTYOptions, StartContainerOptions,
};
use dozen_testbox::Machine;
use futures_util::StreamExt;
use tokio::io::AsyncWriteExt;

use super::{both, create, run, shell, wait, with_busybox};

fn logs(tail: &str) -> LogsOptions {
    LogsOptions { stdout: true, stderr: true, tail: tail.into(), ..LogsOptions::default() }
}

#[tokio::test]
async fn logs_since_until_tail_and_timestamps() {
    let machine = Machine::new();
    let (_engine, docker) = with_busybox(&machine);
    // One stream, so that the lines have an order; a second apart, because that is what `since` counts.
    run(&docker, "talker", shell("echo one; echo two; sleep 2.1; echo three; echo oops >&2")).await;
    wait(&docker, "talker").await;
    let said = async |options: LogsOptions| both(docker.logs("talker", Some(options))).await;
    let pair = |out: &str, err: &str| (out.to_owned(), err.to_owned());
    assert_eq!(said(logs("all")).await, pair("one\ntwo\nthree\n", "oops\n"));
    assert_eq!(said(logs("2")).await, pair("three\n", "oops\n"));
    // The last lines of the log, of which those of one stream are shown.
    assert_eq!(said(LogsOptions { stderr: false, ..logs("2") }).await, pair("three\n", ""));
    assert_eq!(said(LogsOptions { stdout: false, ..logs("all") }).await, pair("", "oops\n"));
    assert_eq!(said(logs("0")).await, pair("", ""));
    // The follower of a container that has ended ends too.
    assert_eq!(said(LogsOptions { follow: true, ..logs("all") }).await, pair("one\ntwo\nthree\n", "oops\n"));

    let (stamped, _) = said(LogsOptions { timestamps: true, ..logs("all") }).await;
    let times: Vec<&str> = stamped.lines().map(|line| line.split_once(' ').unwrap().0).collect();
    assert!(stamped.lines().all(|line| line.len() > 30 && line.contains('T') && line.contains("Z ")), "{stamped}");
    let state = docker.inspect_container("talker", None::<bollard::query_parameters::InspectContainerOptions>).await;
    let started = state.unwrap().state.unwrap().started_at.unwrap();
    assert!(times[0] > started.as_str(), "{times:?} {started}");
    let second = seconds(times[0]) + 1;
    assert_eq!(said(LogsOptions { since: second, ..logs("all") }).await, pair("three\n", "oops\n"));
    assert_eq!(said(LogsOptions { until: second, ..logs("all") }).await, pair("one\ntwo\n", ""));
}

/// Of `2026-01-02T03:04:05.678Z`, since 1970: whole days by the calendar, so it is left to date(1).
fn seconds(time: &str) -> i32 {
    let output = std::process::Command::new("date").args(["-u", "-d", time, "+%s"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

#[tokio::test]
async fn a_follower_sees_lines_as_they_come() {
    let machine = Machine::new();
    let (_engine, docker) = with_busybox(&machine);
    let body =
        ContainerCreateBody { open_stdin: Some(true), ..shell("while read -r line; do echo \"got $line\"; done") };
    run(&docker, "echoer", body).await;
    let mut attached = attach(&docker, "echoer").await;
    let mut followed = docker.logs("echoer", Some(LogsOptions { follow: true, ..logs("all") }));
    for number in 0..3 {
        attached.input.write_all(format!("{number}\n").as_bytes()).await.unwrap();
        attached.input.flush().await.unwrap();
        assert_eq!(followed.next().await.unwrap().unwrap().to_string(), format!("got {number}\n"));
    }
    docker.kill_container("echoer", None::<bollard::query_parameters::KillContainerOptions>).await.unwrap();
    assert!(followed.next().await.is_none());
}

async fn attach(docker: &Docker, name: &str) -> AttachContainerResults {
    let options = AttachContainerOptions {
        stream: true,
        stdin: true,
        stdout: true,
        stderr: true,
        ..AttachContainerOptions::default()
    };
    docker.attach_container(name, Some(options)).await.unwrap()
}

/// Attached before the start, so that nothing is missed.
async fn attached(docker: &Docker, name: &str, body: ContainerCreateBody) -> AttachContainerResults {
    create(docker, name, body).await;
    let attached = attach(docker, name).await;
    docker.start_container(name, None::<StartContainerOptions>).await.unwrap();
    attached
}

#[tokio::test]
async fn attach_keeps_the_streams_apart_and_closes_half() {
    let machine = Machine::new();
    let (_engine, docker) = with_busybox(&machine);
    let body = ContainerCreateBody {
        open_stdin: Some(true),
        stdin_once: Some(true),
        attach_stdin: Some(true),
        ..shell("wc -c; echo problem >&2; exit 2")
    };
    let mut session = attached(&docker, "counter", body).await;
    // More than any buffer on the way holds.
    session.input.write_all(&vec![b'x'; 3_000_000]).await.unwrap();
    session.input.shutdown().await.unwrap();
    assert_eq!(both(session.output).await, ("3000000\n".into(), "problem\n".into()));
    assert_eq!(wait(&docker, "counter").await, 2);
}

#[tokio::test]
async fn attach_to_a_terminal_and_resize_it() {
    let machine = Machine::new();
    let (_engine, docker) = with_busybox(&machine);
    let script = "trap 'stty size' WINCH; stty size; until read -r line; do :; done; echo \"[$line]\"; exit 3";
    let body = ContainerCreateBody { tty: Some(true), open_stdin: Some(true), ..shell(script) };
    let mut session = attached(&docker, "screen", body).await;
    let mut seen = String::new();
    docker.resize_container_tty("screen", ResizeContainerTTYOptions { h: 33, w: 99 }).await.unwrap();
    while !seen.contains("33 99") {
        seen += &session.output.next().await.unwrap().unwrap().to_string();
        docker.resize_container_tty("screen", ResizeContainerTTYOptions { h: 33, w: 99 }).await.unwrap();
    }
    session.input.write_all(b"typed\r").await.unwrap();
    session.input.flush().await.unwrap();
    let (rest, _) = both(session.output).await;
    // The terminal echoes what is typed, and ends lines as terminals do.
    assert!(rest.contains("typed\r\n") && rest.ends_with("[typed]\r\n"), "{rest:?}");
    assert_eq!(wait(&docker, "screen").await, 3);
    let (log, _) = both(docker.logs("screen", Some(logs("all")))).await;
    assert!(log.ends_with("[typed]\r\n"), "{log:?}");
}
