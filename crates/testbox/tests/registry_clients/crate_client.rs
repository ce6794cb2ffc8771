//! The crate `oci-client`: images and artifacts pushed in pieces and at once, pulled whole and in part, mounted, listed.

use std::collections::BTreeMap;

use dozen_testbox::{Machine, Side};
use futures_util::TryStreamExt;
use oci_client::client::{BlobResponse, ClientConfig, ClientProtocol, Config, ImageLayer};
use oci_client::manifest::{IMAGE_CONFIG_MEDIA_TYPE, IMAGE_LAYER_GZIP_MEDIA_TYPE, OciImageManifest};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};

use crate::server::{HOST, Server, check};
use crate::{manifest, passwords};

const KIND: &str = "application/vnd.example.notes";

fn name(name: &str) -> Reference {
    format!("{HOST}/{name}").parse().unwrap()
}

fn client(is_monolithic: bool) -> Client {
    let (protocol, use_monolithic_push) = (ClientProtocol::Http, is_monolithic);
    Client::new(ClientConfig { protocol, use_monolithic_push, ..ClientConfig::default() })
}

/// Does it on the machine, whose loopback the registry listens on.
fn there(machine: &Machine, act: impl AsyncFnOnce() + Send) {
    let run = || {
        // It asks for one even where it speaks without TLS; what matters is that there is one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(act());
        Ok(())
    };
    machine.on(Side::Machine, run).unwrap();
}

#[test]
fn it_pulls_images_and_pushes_them_elsewhere() {
    let machine = Machine::new();
    let server = Server::start(&machine, &[]);
    server.push("nginx:1.22", "team/web:1").expect(0);
    there(&machine, async || {
        for (is_monolithic, target) in [(false, "pieces/web:1"), (true, "whole/web:1")] {
            let (client, anonymous) = (client(is_monolithic), RegistryAuth::Anonymous);
            let pulled = client.pull(&name("team/web:1"), &anonymous, vec![IMAGE_LAYER_GZIP_MEDIA_TYPE]).await.unwrap();
            assert_eq!(pulled.config.media_type, IMAGE_CONFIG_MEDIA_TYPE);
            // It gives layers as they come, and takes them as the manifest has them.
            let (mut layers, manifest) = (pulled.layers, pulled.manifest.unwrap());
            let place = |layer: &ImageLayer| manifest.layers.iter().position(|it| it.digest == layer.sha256_digest());
            layers.sort_by_cached_key(place);
            client.push(&name(target), &layers, pulled.config, &anonymous, Some(manifest.clone())).await.unwrap();
            let tags = client.list_tags(&name(target), &anonymous, None, None).await.unwrap();
            assert_eq!(tags.tags, ["1"]);
        }
        let refused = client(false).pull(&name("team/web:2"), &RegistryAuth::Anonymous, vec![]).await;
        assert!(refused.err().unwrap().to_string().contains("manifest unknown"));
    });
    assert_eq!(manifest(&machine, "pieces/web:1"), manifest(&machine, "whole/web:1"));
    let engine = machine.engine();
    let pushed = format!("{HOST}/pieces/web:1");
    engine.dozen(&["run", "--rm", &pushed, "nginx", "-v"]).expect(0);
    // And what our engine pushes it pulls.
    let ours = format!("{HOST}/ours/web:1");
    engine.dozen(&["tag", &pushed, &ours]).expect(0);
    engine.dozen(&["push", &ours]).expect(0);
    there(&machine, async || {
        let accepted = vec![IMAGE_LAYER_GZIP_MEDIA_TYPE];
        let pulled = client(false).pull(&name("ours/web:1"), &RegistryAuth::Anonymous, accepted).await.unwrap();
        assert!(!pulled.layers.is_empty());
    });
    drop(server);
    check(&machine).expect(0);
}

#[test]
fn it_keeps_artifacts_there() {
    let machine = Machine::new();
    let server = Server::start(&machine, &["--htpasswd", &passwords(&machine)]);
    there(&machine, async || {
        let client = client(false);
        let note = name("team/notes:1");
        let layer = || ImageLayer::new(b"a note".to_vec(), KIND.to_owned(), None);
        let config = || Config::new(b"{}".to_vec(), "application/vnd.oci.empty.v1+json".to_owned(), None);
        let refused = client.push(&note, &[layer()], config(), &RegistryAuth::Anonymous, None).await;
        assert!(refused.is_err());
        let ann = RegistryAuth::Basic("ann".to_owned(), "secret".to_owned());
        let client = self::client(false);
        client.push(&note, &[layer()], config(), &ann, None).await.unwrap();
        // What is said of it is found by it.
        let (subject, digest) = client.pull_image_manifest(&note, &ann).await.unwrap();
        let size = serde_json::to_vec(&subject).unwrap().len();
        let mut about = OciImageManifest::build(&[layer()], &config(), Some(BTreeMap::new()));
        about.artifact_type = Some(KIND.to_owned());
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        about.subject = serde_json::from_value(serde_json::json!({
            "mediaType": media_type, "digest": digest, "size": size,
        }))
        .unwrap();
        client.push(&name("team/notes:about"), &[layer()], config(), &ann, Some(about)).await.unwrap();
        let of_subject = note.clone_with_digest(digest);
        let found = client.pull_referrers(&of_subject, Some(KIND)).await.unwrap();
        assert_eq!(found.manifests.len(), 1);
        let others = client.pull_referrers(&of_subject, Some("application/vnd.example.other")).await.unwrap();
        assert!(others.manifests.is_empty());
        // A part of a blob, in a repository that has taken it over.
        let (copy, digest) = (name("copy/notes:1"), layer().sha256_digest());
        client.mount_blob(&copy, &note, &digest).await.unwrap();
        let BlobResponse::Partial(part) =
            client.pull_blob_stream_partial(&copy, digest.as_str(), 2, None).await.unwrap()
        else {
            panic!("all of it came")
        };
        let read: Vec<_> = part.stream.try_collect().await.unwrap();
        assert_eq!(read.concat(), b"note");
    });
    drop(server);
    check(&machine).expect(0);
}

/// What our engine has made, and what refers to it.
#[test]
fn it_takes_artifacts_of_our_engine() {
    let machine = Machine::new();
    let server = Server::start(&machine, &[]);
    server.push("busybox", "team/box:1").expect(0);
    let engine = machine.engine();
    let path = machine.directory().join("note");
    std::fs::write(&path, "a note").unwrap();
    let (image, note) = (format!("{HOST}/team/box:1"), format!("{HOST}/team/box:note"));
    let add = ["artifact", "add", "--type", KIND, "--subject", &image, &note, path.to_str().unwrap()];
    let made = format!("sha256:{}", engine.dozen(&add).text().trim());
    engine.dozen(&["artifact", "push", &note]).expect(0);
    there(&machine, async || {
        let (client, anonymous) = (client(false), RegistryAuth::Anonymous);
        let accepted = vec!["text/plain; charset=utf-8"];
        let pulled = client.pull(&name("team/box:note"), &anonymous, accepted).await.unwrap();
        assert_eq!(pulled.layers[0].data, b"a note".to_vec());
        assert_eq!(pulled.config.media_type, "application/vnd.oci.empty.v1+json");
        let manifest = pulled.manifest.unwrap();
        assert_eq!(manifest.artifact_type.as_deref(), Some(KIND));
        let subject = client.fetch_manifest_digest(&name("team/box:1"), &anonymous).await.unwrap();
        assert_eq!(manifest.subject.map(|subject| subject.digest), Some(subject.clone()));
        let found = client.pull_referrers(&name("team/box:1").clone_with_digest(subject), Some(KIND)).await.unwrap();
        assert_eq!(found.manifests.iter().map(|it| it.digest.as_str()).collect::<Vec<_>>(), [made.as_str()]);
    });
    drop(server);
    check(&machine).expect(0);
}
