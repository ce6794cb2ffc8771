//! Images: load, list, inspect, tag, history, save, commit, remove.

use bollard::models::{ContainerConfig, ImageManifestSummaryKindEnum};
use bollard::query_parameters::{
    CommitContainerOptions, ImportImageOptions, ListImagesOptions, RemoveImageOptions, TagImageOptions,
};
use bollard::{Docker, body_full};
use bytes::Bytes;
use dozen_testbox::{Machine, image_archive};
use futures_util::TryStreamExt;

use super::{both, connect, filters, refusal, run, shell, wait, with_busybox};

async fn tags(docker: &Docker, pairs: &[(&str, &str)]) -> Vec<String> {
    let options = ListImagesOptions { filters: filters(pairs), ..ListImagesOptions::default() };
    let mut all: Vec<String> =
        docker.list_images(Some(options)).await.unwrap().into_iter().flat_map(|image| image.repo_tags).collect();
    all.sort();
    all
}

async fn load(docker: &Docker, archive: Vec<u8>) -> String {
    let options = ImportImageOptions { quiet: true, ..ImportImageOptions::default() };
    let said: Vec<_> = docker.import_image(options, body_full(Bytes::from(archive)), None).try_collect().await.unwrap();
    said.into_iter().filter_map(|line| line.stream).collect()
}

#[tokio::test]
async fn an_images_life() {
    let machine = Machine::new();
    let _engine = machine.engine();
    let docker = connect(&machine);
    let said = load(&docker, std::fs::read(image_archive("busybox")).unwrap()).await;
    assert_eq!(said, "Loaded image: busybox:latest\n");
    assert_eq!(tags(&docker, &[]).await, ["busybox:latest"]);

    let found = docker.inspect_image("busybox").await.unwrap();
    assert_eq!(found.config.as_ref().unwrap().cmd.as_deref(), Some(&["sh".to_owned()][..]));
    assert_eq!(found.os.as_deref(), Some("linux"));
    let id = found.id.unwrap();
    let history = docker.image_history("busybox").await.unwrap();
    assert_eq!((history[0].id.as_str(), history[0].tags.clone()), (id.as_str(), vec!["busybox:latest".to_owned()]));

    let tag = |repo: &str, tag: &str| Some(TagImageOptions { repo: Some(repo.into()), tag: Some(tag.into()) });
    docker.tag_image("busybox", tag("localhost:5000/mine/box", "v1")).await.unwrap();
    assert_eq!(tags(&docker, &[]).await, ["busybox:latest", "localhost:5000/mine/box:v1"]);
    assert_eq!(tags(&docker, &[("reference", "busy*")]).await.first().map(String::as_str), Some("busybox:latest"));
    assert_eq!(docker.inspect_image("localhost:5000/mine/box:v1").await.unwrap().id, Some(id.clone()));

    let saved: Vec<Bytes> = docker.export_image("localhost:5000/mine/box:v1").try_collect().await.unwrap();
    let removed = docker.remove_image("busybox", None::<RemoveImageOptions>, None).await.unwrap();
    assert_eq!(removed[0].untagged.as_deref(), Some("busybox:latest"));
    let removed = docker.remove_image("localhost:5000/mine/box:v1", None::<RemoveImageOptions>, None).await.unwrap();
    assert!(removed.iter().any(|item| item.deleted.as_ref() == Some(&id)), "{removed:?}");
    let (status, message) = refusal(docker.inspect_image("busybox").await);
    assert!(status == 404 && message.contains("No such image: busybox"), "{status} {message}");

    assert_eq!(load(&docker, saved.concat()).await, "Loaded image: localhost:5000/mine/box:v1\n");
    assert_eq!(docker.inspect_image(&id).await.unwrap().id, Some(id));
}

#[tokio::test]
async fn a_container_becomes_an_image() {
    let machine = Machine::new();
    let (_engine, docker) = with_busybox(&machine);
    run(&docker, "maker", shell("echo made >/made")).await;
    wait(&docker, "maker").await;
    let options = CommitContainerOptions {
        container: Some("maker".into()),
        repo: Some("product".into()),
        tag: Some("1".into()),
        comment: Some("by hand".into()),
        author: Some("me".into()),
        changes: Some("CMD [\"cat\", \"/made\"]".into()),
        pause: true,
    };
    let id = docker.commit_container(options, ContainerConfig::default()).await.unwrap().id;
    let found = docker.inspect_image("product:1").await.unwrap();
    assert_eq!((found.id, found.author.as_deref()), (Some(id), Some("me")));
    let history = docker.image_history("product:1").await.unwrap();
    assert_eq!(history[0].comment, "by hand");
    assert!(history.len() > 1 && history[0].size > 0, "{history:?}");
    let mut body = shell("");
    (body.image, body.cmd) = (Some("product:1".into()), None);
    run(&docker, "user", body).await;
    wait(&docker, "user").await;
    let logs = bollard::query_parameters::LogsOptions { stdout: true, tail: "all".into(), ..Default::default() };
    assert_eq!(both(docker.logs("user", Some(logs))).await.0, "made\n");

    // An image that a container was made from stays, unless it is forced.
    let (status, message) = refusal(docker.remove_image("product:1", None::<RemoveImageOptions>, None).await);
    assert!(status == 409 && message.contains("unable to remove repository reference"), "{status} {message}");
}

#[tokio::test]
async fn manifests_are_listed() {
    let machine = Machine::new();
    let (_engine, docker) = with_busybox(&machine);
    let id = run(&docker, "user", shell("true")).await;
    let asked = ListImagesOptions { manifests: true, ..ListImagesOptions::default() };
    let listed = docker.list_images(Some(asked)).await.unwrap().remove(0).manifests.unwrap();
    let [manifest] = listed.as_slice() else { panic!("{listed:?}") };
    let data = manifest.image_data.as_ref().unwrap();
    assert_eq!(manifest.kind, Some(ImageManifestSummaryKindEnum::IMAGE));
    assert_eq!(data.platform.os.as_deref(), Some("linux"));
    assert_eq!(data.containers, [id]);
    assert!(manifest.available && data.size.unpacked > 0 && manifest.size.content > 0);
    assert_eq!(manifest.size.total, manifest.size.content + data.size.unpacked);
    assert_eq!(manifest.descriptor.digest.as_ref(), Some(&manifest.id));
    let plain = docker.list_images(None::<ListImagesOptions>).await.unwrap().remove(0);
    assert!(plain.manifests.is_none_or(|all| all.is_empty()));
}
