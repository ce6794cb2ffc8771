//! Named volumes.

use bollard::models::{HostConfig, VolumeCreateRequest};
use bollard::query_parameters::{
    ListVolumesOptions, LogsOptions, PruneVolumesOptions, RemoveContainerOptions, RemoveVolumeOptions,
};
use dozen_testbox::Machine;

use super::{both, filters, refusal, run, shell, wait, with_busybox};

#[tokio::test]
async fn a_volumes_life() {
    let machine = Machine::new();
    let (_engine, docker) = with_busybox(&machine);
    let wanted = VolumeCreateRequest {
        name: Some("data".into()),
        labels: Some([("kind".to_owned(), "test".to_owned())].into()),
        ..VolumeCreateRequest::default()
    };
    let made = docker.create_volume(wanted.clone()).await.unwrap();
    assert_eq!((made.name.as_str(), made.driver.as_str(), made.labels["kind"].as_str()), ("data", "local", "test"));
    // The same again is the same.
    assert_eq!(docker.create_volume(wanted).await.unwrap().created_at, made.created_at);
    assert_eq!(docker.inspect_volume("data").await.unwrap().mountpoint, made.mountpoint);

    let with_volume = |script: &str| {
        let host = HostConfig {
            network_mode: Some("none".into()),
            binds: Some(vec!["data:/data".into()]),
            ..HostConfig::default()
        };
        bollard::models::ContainerCreateBody { host_config: Some(host), ..shell(script) }
    };
    run(&docker, "writer", with_volume("echo kept >/data/file")).await;
    assert_eq!(wait(&docker, "writer").await, 0);
    assert_eq!(std::fs::read_to_string(format!("{}/file", made.mountpoint)).unwrap(), "kept\n");
    let (status, message) = refusal(docker.remove_volume("data", None::<RemoveVolumeOptions>).await);
    assert!(status == 409 && message.contains("volume is in use"), "{status} {message}");
    docker.remove_container("writer", None::<RemoveContainerOptions>).await.unwrap();
    run(&docker, "reader", with_volume("cat /data/file")).await;
    wait(&docker, "reader").await;
    let logs = LogsOptions { stdout: true, tail: "all".into(), ..LogsOptions::default() };
    assert_eq!(both(docker.logs("reader", Some(logs))).await.0, "kept\n");
    // `v` takes anonymous volumes only.
    let with_volumes = RemoveContainerOptions { v: true, ..RemoveContainerOptions::default() };
    docker.remove_container("reader", Some(with_volumes)).await.unwrap();

    let unnamed = docker.create_volume(VolumeCreateRequest::default()).await.unwrap();
    let names = async |pairs: &[(&str, &str)]| {
        let options = ListVolumesOptions { filters: filters(pairs) };
        let mut volumes = docker.list_volumes(Some(options)).await.unwrap().volumes.unwrap_or_default();
        volumes.sort_by(|one, other| one.name.cmp(&other.name));
        volumes.into_iter().map(|volume| volume.name).collect::<Vec<_>>()
    };
    assert_eq!(names(&[("label", "kind=test")]).await, ["data"]);
    assert_eq!(names(&[("name", "dat")]).await, ["data"]);
    assert_eq!(names(&[]).await.len(), 2);
    let pruned = docker.prune_volumes(None::<PruneVolumesOptions>).await.unwrap();
    assert_eq!(pruned.volumes_deleted.unwrap(), [unnamed.name]);
    docker.remove_volume("data", None::<RemoveVolumeOptions>).await.unwrap();
    assert_eq!(refusal(docker.inspect_volume("data").await).0, 404);
    assert!(!std::path::Path::new(&made.mountpoint).exists());
}
