//! Images that look otherwise than most: named by sha512, with layers that are elsewhere, or large ones, in parts.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dozen_testbox::{Daemon, MACHINE_ADDRESS, Machine, Side};
use serde_json::{Value, json};

use crate::HOST;
use crate::registry::{Between, Registry, reply};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// What a registry has there.
fn get(machine: &Machine, registry: &Registry<'_>, below: &str) -> Vec<u8> {
    let mut stream = machine.connect(Side::Machine, SocketAddr::from((Ipv4Addr::LOCALHOST, registry.port))).unwrap();
    write!(stream, "GET /v2/{below} HTTP/1.1\r\nHost: a\r\nAccept: {MANIFEST}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let body = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..body]));
    answer.split_off(body)
}

/// busybox, as docker-registry has it: its manifest, and its blobs by their digests.
fn busybox(machine: &Machine, registry: &Registry<'_>) -> (Value, BTreeMap<String, Vec<u8>>) {
    registry.fill("busybox", "box:1");
    let manifest: Value = serde_json::from_slice(&get(machine, registry, "box/manifests/1")).unwrap();
    let parts = manifest["layers"].as_array().unwrap().iter().chain([&manifest["config"]]);
    let digests = parts.map(|part| part["digest"].as_str().unwrap().to_owned());
    let blobs = digests.map(|digest| {
        let blob = get(machine, registry, &format!("box/blobs/{digest}"));
        (digest, blob)
    });
    let blobs = blobs.collect();
    (manifest, blobs)
}

fn sha512(machine: &Machine, bytes: &[u8]) -> String {
    format!("sha512:{}", &machine.run_with("sha512sum", &[], bytes, &[]).text()[..128])
}

#[test]
fn what_is_named_by_sha512_comes_and_goes() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    let (mut manifest, blobs) = busybox(&machine, &registry);
    let mut served = BTreeMap::new();
    for (digest, blob) in &blobs {
        let name = sha512(&machine, blob);
        manifest = serde_json::from_str(&manifest.to_string().replace(digest, &name)).unwrap();
        served.insert(name, blob.clone());
    }
    let manifest = manifest.to_string().into_bytes();
    let digest = sha512(&machine, &manifest);
    served.insert(digest.clone(), manifest);
    let root = digest.clone();
    let between = Between::start(&machine, registry.port, move |asked| {
        let name = asked.path.rsplit('/').next().unwrap();
        let name = if asked.path.ends_with("/manifests/1") { root.as_str() } else { name };
        let Some(bytes) = served.get(name) else { return reply("404 Not Found", &[], b"") };
        let fields = [("Content-Type", MANIFEST), ("Docker-Content-Digest", name)];
        match asked.method.as_str() {
            "HEAD" => reply("200 OK", &fields, b""),
            // Of another image, or damaged on the way: what stands below this path is never what it has to be.
            _ if asked.path.starts_with("/v2/lies/") && asked.is_blob() => {
                let mut bytes = bytes.clone();
                *bytes.last_mut().unwrap() ^= 1;
                reply("200 OK", &fields, &bytes)
            }
            _ => reply("200 OK", &fields, bytes),
        }
    });
    let engine = machine.engine();
    engine.dozen(&["pull", &format!("{}/lies:1", between.host)]).refuses(1, &["has the digest sha512:"]);
    crate::luck::check_nothing_is_left(&machine);
    let name = format!("{}/box:1", between.host);
    let pulled = engine.dozen(&["pull", &name]).text();
    assert!(pulled.contains(&format!("\nDigest: {digest}\n")), "{pulled}");
    let again = engine.dozen(&["pull", &format!("{}/box@{digest}", between.host)]).text();
    assert!(again.contains("Status: Image is up to date"), "{again}");
    assert_eq!(engine.dozen(&["run", "--rm", "--network", "none", &name, "echo", "here"]).text(), "here\n");
    let image = crate::inspect(&engine, &name);
    assert!(image["Id"].as_str().unwrap().starts_with("sha256:"), "{image}");
    // Built upon, saved, and pushed as it came. docker-registry knows manifests by sha256 alone, and says so.
    let file = format!("FROM {name}\nRUN echo built > /built\n");
    machine.run_with(dozen_testbox::dozen_program(), &["build", "-t", "made", "-"], file.as_bytes(), &[]).expect(0);
    engine.dozen(&["rmi", "made"]).expect(0);
    let pushed = format!("{HOST}/new/box:1");
    engine.dozen(&["tag", &name, &pushed]).expect(0);
    let told = engine.dozen(&["push", &pushed]).text();
    let known = told.lines().last().unwrap().strip_prefix("1: digest: ").unwrap().split(' ').next().unwrap().to_owned();
    let digests = crate::inspect(&engine, &pushed)["RepoDigests"].to_string();
    assert!(known.starts_with("sha256:") && digests.contains(&format!("new/box@{known}")), "{told} {digests}");
    assert!(engine.dozen(&["pull", &pushed]).text().contains("Status: Image is up to date"));
    let saved = machine.directory().join("saved.tar");
    engine.dozen(&["save", "-o", saved.to_str().unwrap(), &name]).expect(0);
    engine.dozen(&["builder", "prune", "-af"]).expect(0);
    engine.dozen(&["rmi", "-f", image["Id"].as_str().unwrap()]).expect(0);
    crate::luck::check_nothing_is_left(&machine);
    engine.dozen(&["load", "-i", saved.to_str().unwrap()]).expect(0);
    assert_eq!(crate::inspect(&engine, &name)["Id"], image["Id"]);
    engine.dozen(&["rmi", "-f", image["Id"].as_str().unwrap()]).expect(0);
    engine.dozen(&["pull", &pushed]).expect(0);
    assert_eq!(crate::inspect(&engine, &pushed)["Id"], image["Id"]);
    between.stop(&machine);
}

#[test]
fn a_foreign_layer_comes_from_elsewhere() {
    let machine = Machine::new();
    let registry = Registry::with(&machine, 5000, "validation: { manifests: { urls: { allow: ['^http://'] } } }");
    let (mut manifest, blobs) = busybox(&machine, &registry);
    let digest = manifest["layers"][0]["digest"].as_str().unwrap().to_owned();
    let layer = blobs[&digest].clone();
    let elsewhere = Between::start(&machine, registry.port, move |asked| match asked.path.as_str() {
        "/layer" => reply("200 OK", &[], &layer),
        _ => reply("404 Not Found", &[], b""),
    });
    manifest["layers"][0]["mediaType"] = json!("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip");
    // A repository that has not got the layer.
    let config = manifest["config"]["digest"].as_str().unwrap().to_owned();
    registry.mount("far", &config, "box");
    for (tag, urls) in [("here", &["/gone", "/layer"][..]), ("gone", &["/gone"])] {
        let urls: Vec<String> = urls.iter().map(|path| format!("http://{}{path}", elsewhere.host)).collect();
        manifest["layers"][0]["urls"] = json!(urls);
        registry.put("far", tag, MANIFEST, &manifest.to_string());
    }
    let (near, far) = (format!("{HOST}/far"), format!("{MACHINE_ADDRESS}:5000/far"));
    let daemon = Daemon::with_file(&machine, &format!(r#"{{ "insecure-registries": ["{MACHINE_ADDRESS}:5000"] }}"#));
    daemon.dozen(&["pull", &format!("{near}:gone")]).refuses(1, &["it answers 404 Not Found"]);
    // A registry elsewhere does not send us to this host's own servers.
    daemon.dozen(&["pull", &format!("{far}:here")]).refuses(1, &["127.0.0.1"]);
    assert_eq!(daemon.dozen(&["images", "-aq"]).text(), "");
    let name = format!("{near}:here");
    daemon.dozen(&["pull", &name]).expect(0);
    assert_eq!(daemon.dozen(&["run", "--rm", "--network", "none", &name, "echo", "here"]).text(), "here\n");
    // It goes as it is named, without the layer.
    let other = format!("{HOST}/other:1");
    daemon.dozen(&["tag", &name, &other]).expect(0);
    daemon.dozen(&["push", &other]).expect(0);
    let sent: Value = serde_json::from_slice(&get(&machine, &registry, "other/manifests/1")).unwrap();
    assert!(sent["layers"][0]["urls"][1].as_str().unwrap().ends_with("/layer"), "{sent}");
    elsewhere.stop(&machine);
}

#[test]
fn a_large_layer_comes_in_parts() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    registry.fill("nginx:1.22", "web:1");
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let between = Between::start(&machine, registry.port, move |asked| {
        count.fetch_add(usize::from(asked.field("range").is_some()), Ordering::SeqCst);
        asked.forward()
    });
    let engine = machine.engine();
    let name = format!("{}/web:1", between.host);
    engine.dozen(&["pull", &name]).expect(0);
    assert!(asked.load(Ordering::SeqCst) > 0, "its layers have more than 32 MiB");
    engine.dozen(&["run", "--rm", "--network", "none", &name, "nginx", "-v"]).expect(0);
    between.stop(&machine);
}
