//! Images from registries: Debian's docker-registry, with and without passwords and tokens, and such as mean ill.

#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

mod builds;
mod bundles;
mod certificates;
mod forms;
mod hosts;
mod luck;
mod manifests;
mod registry;
mod search;
mod secrets;
#[path = "../registry_server/server.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod server;
mod signatures;
mod told;

use dozen_testbox::{Daemon, MACHINE_ADDRESS, Machine, Side};
use registry::Registry;
use serde_json::Value;

const HOST: &str = "127.0.0.1:5000";

fn inspect(engine: &dozen_testbox::Engine<'_>, name: &str) -> Value {
    let text = engine.dozen(&["image", "inspect", name]).text();
    serde_json::from_str::<Value>(&text).unwrap()[0].clone()
}

#[test]
fn an_image_is_pulled_and_runs() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    registry.fill("nginx:1.22", "team/web:1");
    registry.fill("busybox", "team/web:2");
    let engine = machine.engine();
    let web = format!("{HOST}/team/web");
    let pulled = engine.dozen(&["pull", &format!("{web}:1")]).text();
    let lines: Vec<&str> = pulled.lines().collect();
    assert_eq!(lines[0], "1: Pulling from team/web");
    for step in ["Pulling fs layer", "Verifying Checksum", "Download complete", "Pull complete"] {
        assert!(pulled.contains(&format!(": {step}\n")), "{step}: {pulled}");
    }
    let [digest, status, full] = lines[lines.len() - 3..] else { panic!("{pulled}") };
    let digest = digest.strip_prefix("Digest: ").unwrap();
    assert_eq!(status, format!("Status: Downloaded newer image for {web}:1"));
    assert_eq!(full, format!("{web}:1"));
    let image = inspect(&engine, &format!("{web}:1"));
    assert_eq!(image["RepoDigests"], serde_json::json!([format!("{web}@{digest}")]));
    assert_eq!(image["RepoTags"], serde_json::json!([format!("{web}:1")]));
    engine.dozen(&["run", "--rm", "--pull", "never", &format!("{web}:1"), "nginx", "-v"]).expect(0);

    // Again: one question, and nothing else.
    let again = engine.dozen(&["pull", &format!("{web}:1")]).text();
    let want =
        format!("1: Pulling from team/web\nDigest: {digest}\nStatus: Image is up to date for {web}:1\n{web}:1\n");
    assert_eq!(again, want);
    // By its digest: what is here already needs no registry.
    let by_digest = format!("{web}@{digest}");
    assert_eq!(engine.dozen(&["pull", "-q", &by_digest]).text(), format!("{by_digest}\n"));
    // Another tag of the same layers.
    registry.fill("nginx:1.22", "team/other:latest");
    let other = engine.dozen(&["pull", &format!("{HOST}/team/other")]).text();
    assert!(other.starts_with("Using default tag: latest\nlatest: Pulling from team/other\n"), "{other}");
    assert!(other.contains(": Already exists\n") && other.contains("Status: Image is up to date"), "{other}");

    // All tags at once.
    let all = engine.dozen(&["pull", "-a", &web]).text();
    assert!(all.contains(&format!("Status: Downloaded newer image for {web}:2\n")), "{all}");
    assert!(all.ends_with(&format!("\n{web}\n")), "{all}");
    engine.dozen(&["pull", "-a", &format!("{web}:1")]).refuses(1, &["tag can't be used with --all-tags/-a"]);

    let missing = format!("Error response from daemon: manifest for {web}:nope not found: manifest unknown");
    let missing = missing.strip_prefix("Error response from daemon: ").unwrap();
    engine.dozen(&["pull", &format!("{web}:nope")]).refuses(1, &[missing]);
    engine.dozen(&["pull", &format!("{HOST}/no/thing")]).refuses(1, &["not found"]);
    engine.dozen(&["pull", "127.0.0.1:1/a"]).refuses(1, &["cannot reach the registry 127.0.0.1:1"]);

    // What came is given back byte for byte.
    let saved = machine.directory().join("saved.tar");
    engine.dozen(&["save", "-o", saved.to_str().unwrap(), &format!("{web}:1")]).expect(0);
    let source = format!("oci-archive:{}", saved.display());
    let raw = machine.run("skopeo", &["--insecure-policy", "inspect", "--raw", &source]).text();
    let direct = ["--insecure-policy", "inspect", "--raw", "--tls-verify=false", &format!("docker://{web}:1")];
    assert_eq!(raw, machine.run("skopeo", &direct).text());

    // Its layers are there, and its blobs, and nothing else.
    for name in ["team/web:1", "team/web:2", "team/other:latest"] {
        engine.dozen(&["rmi", "-f", &format!("{HOST}/{name}")]).expect(0);
    }
    engine.dozen(&["image", "prune", "-af"]).expect(0);
    luck::check_nothing_is_left(&machine);
}

#[test]
fn run_and_create_bring_what_is_missing() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    registry.fill("busybox", "box:1");
    let engine = machine.engine();
    let name = format!("{HOST}/box:1");
    engine.dozen(&["run", "--rm", "--pull", "never", &name, "true"]).refuses(125, &["No such image"]);
    let ran = engine.dozen(&["run", "--rm", &name, "echo", "hello"]).expect(0);
    assert_eq!(ran.out, "hello\n");
    assert!(
        ran.err.starts_with(&format!("Unable to find image '{name}' locally\n1: Pulling from box\n")),
        "{}",
        ran.err
    );
    // It is here.
    assert_eq!(engine.dozen(&["run", "--rm", &name, "true"]).expect(0).err, "");
    let always = engine.dozen(&["create", "--pull", "always", &name]).expect(0);
    assert!(always.err.contains("Status: Image is up to date"), "{}", always.err);
    assert_eq!(engine.dozen(&["run", "--rm", "--pull=always", "-q", &name, "true"]).expect(0).err, "");
    engine.dozen(&["run", "--rm", "--pull", "sometimes", &name]).refuses(125, &["invalid pull option: 'sometimes'"]);
    let nothing = engine.dozen(&["run", "--rm", &format!("{HOST}/nothing:1")]).expect(125);
    assert!(nothing.err.contains("not found"), "{}", nothing.err);
    // Of one that is not to be reached.
    let words =
        ["Unable to find image 'no-such-image:latest' locally", "cannot reach the registry registry-1.docker.io"];
    engine.dozen(&["run", "--rm", "no-such-image"]).refuses(125, &words);
    // The registry is gone: what is wanted anew is not to be had, what is here is.
    drop(registry);
    engine.dozen(&["run", "--rm", "--pull", "always", &name, "true"]).refuses(125, &["cannot reach the registry"]);
    engine.dozen(&["run", "--rm", &name, "true"]).expect(0);
}

#[test]
fn a_build_brings_what_it_begins_from() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    registry.fill("busybox", "box:1");
    registry.fill("busybox", "tools:1");
    let _engine = machine.engine();
    let build_with = |options: &[&str], file: &str| {
        let arguments = [&["build", "-t", "made"], options, &["-"]].concat();
        machine.run_with(dozen_testbox::dozen_program(), &arguments, file.as_bytes(), &[])
    };
    let build = |file: &str| build_with(&[], file);
    let file = format!("FROM {HOST}/box:1\nCOPY --from={HOST}/tools:1 /bin/busybox /tool\nRUN test -x /tool\n");
    build(&file).expect(0);
    let missing = format!("failed to resolve source metadata for {HOST}/nothing:1: ");
    build(&format!("FROM {HOST}/nothing:1\n")).refuses(1, &[&missing, "not found"]);
    // It is here now; another one of that name comes if it is asked for.
    registry.fill("nginx:1.22", "box:1");
    let file = format!("FROM {HOST}/box:1\nRUN nginx -v\n");
    build(&file).refuses(1, &["nginx: not found"]);
    build_with(&["--pull"], &file).expect(0);
    drop(registry);
    build(&file).expect(0);
    build_with(&["--pull"], &file).refuses(1, &["cannot reach the registry"]);
}

#[test]
fn dockers_command_line_pulls() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    registry.fill("busybox", "box:1");
    let engine = machine.engine();
    let name = format!("{HOST}/box:1");
    let pulled = engine.docker(&["pull", &name]).text();
    assert!(pulled.contains("1: Pulling from box\n") && pulled.contains(": Pull complete\n"), "{pulled}");
    assert!(pulled.contains(&format!("Status: Downloaded newer image for {name}\n{name}\n")), "{pulled}");
    let again = engine.docker(&["pull", &name]).text();
    assert!(again.contains(&format!("Status: Image is up to date for {name}\n")), "{again}");
    engine.docker(&["rmi", &name]).expect(0);
    assert_eq!(engine.docker(&["images", "-q"]).text(), "", "its digest was no name of its own");
    let ran = engine.docker(&["run", "--rm", &name, "echo", "hello"]).expect(0);
    assert_eq!(ran.out, "hello\n");
    engine
        .docker(&["pull", &format!("{HOST}/box:2")])
        .refuses(1, &["manifest for 127.0.0.1:5000/box:2 not found: manifest unknown"]);
}

#[test]
fn of_several_platforms_one_is_chosen() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    // The same image, said to be of two platforms.
    registry.fill("busybox", "box:here");
    let manifest = |tag: &str| {
        let name = format!("docker://{HOST}/box:{tag}");
        let raw = machine.run("skopeo", &["--insecure-policy", "inspect", "--raw", "--tls-verify=false", &name]).text();
        let length = raw.len();
        let digest = machine.run_with("sha256sum", &[], raw.as_bytes(), &[]).text();
        (format!("sha256:{}", &digest[..64]), length)
    };
    let (digest, length) = manifest("here");
    let kind = "application/vnd.oci.image.index.v1+json";
    let of = |platform: &str| {
        let (os, architecture) = platform.split_once('/').unwrap();
        serde_json::json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": length,
            "platform": { "os": os, "architecture": architecture },
        })
    };
    let put = |tag: &str, manifests: &[Value]| {
        let index = serde_json::json!({ "schemaVersion": 2, "mediaType": kind, "manifests": manifests });
        registry.put("box", tag, kind, &index.to_string());
    };
    put("both", &[of("linux/s390x"), of("linux/amd64")]);
    put("other", &[of("linux/s390x")]);
    let engine = machine.engine();
    engine.dozen(&["pull", &format!("{HOST}/box:both")]).expect(0);
    engine.dozen(&["run", "--rm", &format!("{HOST}/box:both"), "true"]).expect(0);
    let words = "no matching manifest for linux/arm64 in the manifest list entries: there are linux/s390x, linux/amd64";
    engine.dozen(&["pull", "--platform", "linux/arm64", &format!("{HOST}/box:both")]).refuses(1, &[words]);
    let words = "no matching manifest for linux/amd64 in the manifest list entries";
    engine.dozen(&["pull", &format!("{HOST}/box:other")]).refuses(1, &[words]);
}

#[test]
fn mirrors_and_registries_without_tls_are_the_settings() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    registry.fill("busybox", "library/busybox:1");
    let far = format!("{MACHINE_ADDRESS}:5000");
    let daemon = Daemon::with_file(&machine, "{}");
    daemon.dozen(&["pull", &format!("{far}/library/busybox:1")]).refuses(1, &["cannot reach the registry"]);
    daemon.reload(&format!(r#"{{ "insecure-registries": ["{far}"], "registry-mirrors": ["http://{far}"] }}"#));
    daemon.dozen(&["pull", &format!("{far}/library/busybox:1")]).expect(0);
    // Docker Hub's images, of the mirror.
    let pulled = daemon.dozen(&["pull", "busybox:1"]).text();
    assert!(pulled.starts_with("1: Pulling from library/busybox\n"), "{pulled}");
    assert!(pulled.ends_with("docker.io/library/busybox:1\n"), "{pulled}");
    daemon.dozen(&["run", "--rm", "busybox:1", "true"]).expect(0);
    assert!(machine.connect(Side::Machine, format!("{MACHINE_ADDRESS}:5000").parse().unwrap()).is_ok());
}
