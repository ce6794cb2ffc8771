//! Ping, version, info, events.

use bollard::models::EventMessageTypeEnum;
use bollard::query_parameters::{EventsOptions, RemoveContainerOptions};
use dozen_testbox::Machine;
use futures_util::{StreamExt, TryStreamExt};

use super::{connect, create, filters, run, shell, wait, with_busybox};

#[tokio::test]
async fn ping_version_and_info() {
    let machine = Machine::new();
    let engine = machine.engine();
    let docker = connect(&machine).negotiate_version().await.unwrap();
    assert_eq!(docker.client_version().to_string(), "1.51");
    assert_eq!(docker.ping().await.unwrap(), "OK");
    let version = docker.version().await.unwrap();
    assert_eq!((version.api_version.as_deref(), version.min_api_version.as_deref()), (Some("1.51"), Some("1.24")));
    assert_eq!(version.os.as_deref(), Some("linux"));
    let info = docker.info().await.unwrap();
    assert_eq!((info.containers, info.images), (Some(0), Some(0)));
    assert_eq!(info.docker_root_dir.as_deref(), machine.directory().join("data").to_str());

    engine.load("busybox");
    run(&docker, "up", shell("sleep 1000")).await;
    create(&docker, "down", shell("true")).await;
    let info = docker.info().await.unwrap();
    assert_eq!((info.containers, info.containers_running, info.images), (Some(2), Some(1), Some(1)));
}

#[tokio::test]
async fn events_tell_a_containers_life() {
    let machine = Machine::new();
    let (_engine, docker) = with_busybox(&machine);
    let options = EventsOptions { filters: filters(&[("type", "container")]), ..EventsOptions::default() };
    let mut events = docker.events(Some(options));
    // The subscription stands once the head is there, which this client asks for with the first look at the stream.
    let first = tokio::spawn(async move {
        let mut seen = Vec::new();
        while let Some(event) = events.try_next().await.unwrap() {
            let actor = event.actor.unwrap();
            let attributes = actor.attributes.unwrap();
            let action = event.action.unwrap();
            let about = (action.clone(), attributes.get("name").cloned(), attributes.get("exitCode").cloned());
            assert_eq!(event.typ, Some(EventMessageTypeEnum::CONTAINER));
            assert!(event.time_nano.is_some_and(|time| time > 0));
            if attributes["name"] == "mortal" {
                seen.push(about);
            }
            if action == "destroy" && attributes["name"] == "mortal" {
                break;
            }
        }
        seen
    });
    // Other containers, until one of them is seen by a second subscriber that began later than the first.
    let mut second = docker.events(None::<EventsOptions>);
    let mut number = 0;
    loop {
        number += 1;
        create(&docker, &format!("probe-{number}"), shell("true")).await;
        let patience = std::time::Duration::from_millis(50);
        if tokio::time::timeout(patience, second.next()).await.is_ok() {
            break;
        }
    }
    run(&docker, "mortal", shell("exit 3")).await;
    assert_eq!(wait(&docker, "mortal").await, 3);
    docker.remove_container("mortal", None::<RemoveContainerOptions>).await.unwrap();
    let seen = first.await.unwrap();
    let actions: Vec<&str> = seen.iter().map(|(action, ..)| action.as_str()).collect();
    assert_eq!(actions, ["create", "start", "die", "destroy"]);
    assert_eq!(seen[2].2.as_deref(), Some("3"));
}

#[tokio::test]
async fn past_events_are_told_again_and_end() {
    let machine = Machine::new();
    let (_engine, docker) = with_busybox(&machine);
    run(&docker, "past", shell("true")).await;
    wait(&docker, "past").await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let options = EventsOptions {
        since: Some((now - 60).to_string()),
        until: Some((now + 1).to_string()),
        filters: filters(&[("container", "past"), ("event", "die"), ("event", "create")]),
    };
    let events: Vec<_> = docker.events(Some(options)).try_collect().await.unwrap();
    let actions: Vec<&str> = events.iter().filter_map(|event| event.action.as_deref()).collect();
    assert_eq!(actions, ["create", "die"]);
}
