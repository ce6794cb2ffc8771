//! Containers' life: create, start, stop, kill, wait, restart, remove, list, inspect, rename, top.

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, ContainerStateStatusEnum, ContainerSummaryStateEnum};
use bollard::query_parameters::{
    CreateContainerOptions, InspectContainerOptions, KillContainerOptions, ListContainersOptions,
    RemoveContainerOptions, RenameContainerOptions, RestartContainerOptions, StartContainerOptions,
    StopContainerOptions, TopOptions, WaitContainerOptions,
};
use dozen_testbox::Machine;
use futures_util::StreamExt;

use super::{WORKER, code, create, filters, refusal, remove, run, shell, wait, with_busybox};

async fn status(docker: &Docker, name: &str) -> (ContainerStateStatusEnum, i64) {
    let found = docker.inspect_container(name, None::<InspectContainerOptions>).await.unwrap();
    let state = found.state.unwrap();
    (state.status.unwrap(), state.exit_code.unwrap())
}

/// Its log says so once it has set its trap.
async fn is_up(docker: &Docker, name: &str, times: usize) {
    use bollard::query_parameters::LogsOptions;
    let options = LogsOptions { stdout: true, follow: true, tail: "all".into(), ..LogsOptions::default() };
    let mut log = docker.logs(name, Some(options));
    for _ in 0..times {
        assert_eq!(log.next().await.unwrap().unwrap().to_string(), "up\n");
    }
}

#[tokio::test]
async fn a_life_in_full() {
    let machine = Machine::new();
    let (_engine, docker) = with_busybox(&machine);
    let id = create(&docker, "worker", shell(WORKER)).await;
    assert_eq!(status(&docker, "worker").await, (ContainerStateStatusEnum::CREATED, 0));
    docker.start_container(&id[..12], None::<StartContainerOptions>).await.unwrap();
    // A second start changes nothing: 304, which bollard takes for done.
    docker.start_container("worker", None::<StartContainerOptions>).await.unwrap();
    is_up(&docker, "worker", 1).await;
    assert_eq!(status(&docker, "worker").await.0, ContainerStateStatusEnum::RUNNING);

    docker.restart_container("worker", None::<RestartContainerOptions>).await.unwrap();
    is_up(&docker, "worker", 2).await;
    docker.stop_container("worker", None::<StopContainerOptions>).await.unwrap();
    assert_eq!(status(&docker, "worker").await, (ContainerStateStatusEnum::EXITED, 4));
    docker.stop_container("worker", None::<StopContainerOptions>).await.unwrap();

    docker.start_container("worker", None::<StartContainerOptions>).await.unwrap();
    let kill = |signal: &str| Some(KillContainerOptions { signal: signal.into() });
    docker.kill_container("worker", kill("SIGKILL")).await.unwrap();
    assert_eq!(wait(&docker, "worker").await, 137);
    let (status, message) = refusal(docker.kill_container("worker", kill("SIGKILL")).await);
    assert!(status == 409 && message.contains("is not running"), "{status} {message}");

    docker.rename_container("worker", RenameContainerOptions { name: "veteran".into() }).await.unwrap();
    let found = docker.inspect_container("veteran", None::<InspectContainerOptions>).await.unwrap();
    assert_eq!((found.name.as_deref(), found.id.as_deref()), (Some("/veteran"), Some(id.as_str())));
    docker.remove_container("veteran", None::<RemoveContainerOptions>).await.unwrap();
    let (status, message) = refusal(docker.inspect_container(&id, None::<InspectContainerOptions>).await);
    assert_eq!((status, message), (404, format!("No such container: {id}")));
}

#[tokio::test]
async fn what_runs_is_removed_only_by_force_and_names_are_kept_apart() {
    let machine = Machine::new();
    let (_engine, docker) = with_busybox(&machine);
    let id = run(&docker, "busy", shell("sleep 1000")).await;
    let (status, message) = refusal(docker.remove_container("busy", None::<RemoveContainerOptions>).await);
    assert!(status == 409 && message.contains("container is running"), "{status} {message}");
    let again = CreateContainerOptions { name: Some("busy".into()), ..CreateContainerOptions::default() };
    let (status, message) = refusal(docker.create_container(Some(again), shell("true")).await);
    assert!(status == 409 && message.contains("is already in use by container") && message.contains(&id), "{message}");
    create(&docker, "other", shell("true")).await;
    let rename = docker.rename_container("other", RenameContainerOptions { name: "busy".into() }).await;
    assert_eq!(refusal(rename).0, 409);
    remove(&docker, "busy").await;
    let missing = ContainerCreateBody { image: Some("no-such-image".into()), ..ContainerCreateBody::default() };
    let (status, message) = refusal(docker.create_container(None::<CreateContainerOptions>, missing).await);
    assert!(status == 404 && message.contains("No such image: no-such-image"), "{status} {message}");
}

#[tokio::test]
async fn every_condition_of_wait() {
    let machine = Machine::new();
    let (_engine, docker) = with_busybox(&machine);
    create(&docker, "waited", shell("exit 5")).await;
    let on = |condition: &str| Some(WaitContainerOptions { condition: condition.into() });
    // A container that was never started does not run.
    assert_eq!(code(docker.wait_container("waited", on("not-running")).next().await.unwrap()), 0);
    let next = tokio::spawn({
        let (docker, options) = (docker.clone(), on("next-exit"));
        async move { docker.wait_container("waited", options).next().await.unwrap() }
    });
    let removed = tokio::spawn({
        let (docker, options) = (docker.clone(), on("removed"));
        async move { docker.wait_container("waited", options).next().await.unwrap() }
    });
    // Started again and again until the waiter has come in time to see one of the ends.
    while !next.is_finished() {
        docker.start_container("waited", None::<StartContainerOptions>).await.unwrap();
        assert_eq!(wait(&docker, "waited").await, 5);
        tokio::task::yield_now().await;
    }
    assert_eq!(code(next.await.unwrap()), 5);
    assert!(!removed.is_finished());
    docker.remove_container("waited", None::<RemoveContainerOptions>).await.unwrap();
    assert_eq!(code(removed.await.unwrap()), 5);
    let missing = docker.wait_container("waited", on("not-running")).next().await.unwrap();
    assert!(matches!(missing, Err(Error::DockerResponseServerError { status_code: 404, .. })), "{missing:?}");
}

#[tokio::test]
async fn lists_with_filters() {
    let machine = Machine::new();
    let (_engine, docker) = with_busybox(&machine);
    let labelled = |script: &str, colour: &str| ContainerCreateBody {
        labels: Some([("colour".to_owned(), colour.to_owned())].into()),
        ..shell(script)
    };
    let red = run(&docker, "red", labelled("sleep 1000", "red")).await;
    run(&docker, "green", labelled("exit 7", "green")).await;
    wait(&docker, "green").await;
    create(&docker, "plain", shell("true")).await;
    let listed = async |all: bool, limit: Option<i32>, pairs: &[(&str, &str)]| {
        let options = ListContainersOptions { all, limit, filters: filters(pairs), ..ListContainersOptions::default() };
        let list = docker.list_containers(Some(options)).await.unwrap();
        list.into_iter().map(|one| one.names.unwrap().remove(0)).collect::<Vec<_>>()
    };
    assert_eq!(listed(false, None, &[]).await, ["/red"]);
    assert_eq!(listed(true, None, &[]).await, ["/plain", "/green", "/red"]);
    assert_eq!(listed(true, Some(1), &[]).await, ["/plain"]);
    assert_eq!(listed(true, None, &[("label", "colour")]).await, ["/green", "/red"]);
    assert_eq!(listed(true, None, &[("label", "colour=green")]).await, ["/green"]);
    assert_eq!(listed(true, None, &[("status", "created"), ("status", "running")]).await, ["/plain", "/red"]);
    assert_eq!(listed(true, None, &[("exited", "7")]).await, ["/green"]);
    assert_eq!(listed(true, None, &[("name", "^/re")]).await, ["/red"]);
    assert_eq!(listed(true, None, &[("id", &red[..10])]).await, ["/red"]);
    assert_eq!(listed(true, None, &[("ancestor", "busybox")]).await.len(), 3);
    assert_eq!(listed(true, None, &[("before", "green")]).await, ["/red"]);
    assert_eq!(listed(true, None, &[("since", "green")]).await, ["/plain"]);
    assert_eq!(listed(true, None, &[("network", "none"), ("name", "red")]).await, ["/red"]);
    let bad = ListContainersOptions { filters: filters(&[("colour", "red")]), ..ListContainersOptions::default() };
    assert_eq!(refusal(docker.list_containers(Some(bad)).await).0, 400);
    let all = ListContainersOptions { all: true, ..ListContainersOptions::default() };
    let list = docker.list_containers(Some(all)).await.unwrap();
    assert_eq!(list[2].state, Some(ContainerSummaryStateEnum::RUNNING));
    assert_eq!(list[2].command.as_deref(), Some("sh -c 'sleep 1000'"));
    assert_eq!(list[1].status.as_deref().map(|text| text.starts_with("Exited (7)")), Some(true));
}

#[tokio::test]
async fn top_shows_the_processes() {
    let machine = Machine::new();
    let (_engine, docker) = with_busybox(&machine);
    run(&docker, "crowd", shell("sleep 1001 & sleep 1002 & wait")).await;
    let top = loop {
        let top = docker.top_processes("crowd", None::<TopOptions>).await.unwrap();
        if top.processes.as_ref().is_some_and(|rows| rows.len() >= 3) {
            break top;
        }
    };
    let titles = top.titles.unwrap();
    let column = titles.iter().position(|title| title == "CMD").unwrap();
    let commands: Vec<String> = top.processes.unwrap().into_iter().map(|mut row| row.remove(column)).collect();
    assert!(commands.iter().any(|command| command.contains("sleep 1002")), "{commands:?}");
    let chosen = docker.top_processes("crowd", Some(TopOptions { ps_args: "aux".into() })).await.unwrap();
    assert_eq!(chosen.titles.unwrap()[..3], ["USER", "PID", "%CPU"]);
    // A program may give itself its name some time after it was executed.
    loop {
        let chosen = TopOptions { ps_args: "axo pid,user,comm".into() };
        let chosen = docker.top_processes("crowd", Some(chosen)).await.unwrap();
        assert_eq!(chosen.titles.unwrap(), ["PID", "USER", "COMMAND"]);
        if chosen.processes.unwrap().iter().any(|row| row[1..] == ["root", "sleep"]) {
            break;
        }
    }
    for (ps_args, words) in [("-o pid,wchan", "column \"wchan\" is not built yet"), ("-o comm", "PID field")] {
        let (_, message) = refusal(docker.top_processes("crowd", Some(TopOptions { ps_args: ps_args.into() })).await);
        assert!(message.contains(words), "{message}");
    }
    docker.kill_container("crowd", None::<KillContainerOptions>).await.unwrap();
    wait(&docker, "crowd").await;
    assert_eq!(refusal(docker.top_processes("crowd", None::<TopOptions>).await).0, 409);
}
