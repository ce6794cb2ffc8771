//! docker's own engine, podman and buildah push to our registry and pull from it; what they push our engine runs.

use dozen_testbox::{Engine, Machine};
use rcgen::{CertificateParams, KeyPair};

use crate::peers::Peers;
use crate::server::{HOST, Server, check};
use crate::{id, manifest, passwords};

/// An image of several layers and a small one.
fn fill(server: &Server<'_>) {
    server.push("nginx:1.22", "team/web:1").expect(0);
    server.push("busybox", "team/box:1").expect(0);
}

fn runs(engine: &Engine<'_>, name: &str, command: &[&str]) -> String {
    let name = format!("{HOST}/{name}");
    engine.dozen(&[&["run", "--rm", &name][..], command].concat()).expect(0).out
}

#[test]
#[ignore = "needs the other engines: cargo xtask clients peers"]
fn dockers_own_engine_pushes_and_pulls() {
    let machine = Machine::new();
    let server = Server::start(&machine, &[]);
    fill(&server);
    let peers = Peers::with_dockerd(&machine);
    let [web, own, again] = ["team/web:1", "docker/web:1", "docker/again:1"].map(|name| format!("{HOST}/{name}"));
    peers.run("docker", &["pull", &web]).expect(0);
    let shown = peers.run("docker", &["inspect", "--format", "{{.Id}}", &web]).text();
    assert_eq!(shown.trim(), id(&machine, "team/web:1"));
    // It knows where it had the layers from, and has them mounted.
    peers.run("docker", &["tag", &web, &own]).expect(0);
    let pushed = peers.run("docker", &["push", &own]).text();
    assert!(pushed.contains(": Mounted from team/web\n"), "{pushed}");
    let pushed = peers.run("docker", &["push", &own]).text();
    assert!(pushed.contains(": Layer already exists\n"), "{pushed}");
    // Of a loaded image it knows nothing: it is packed and sent.
    peers.run("docker", &["save", "-o", "/tmp/web.tar", &web]).expect(0);
    peers.run("docker", &["system", "prune", "--all", "--force"]).expect(0);
    peers.run("docker", &["load", "-i", "/tmp/web.tar"]).expect(0);
    peers.run("docker", &["tag", &web, &again]).expect(0);
    let pushed = peers.run("docker", &["push", &again]).text();
    assert!(pushed.contains("1: digest: sha256:"), "{pushed}");
    let engine = machine.engine();
    for name in ["docker/web:1", "docker/again:1"] {
        assert_eq!(id(&machine, name), id(&machine, "team/web:1"), "{name}");
        runs(&engine, name, &["nginx", "-v"]);
    }
    // And the other way round.
    let ours = format!("{HOST}/ours/box:1");
    engine.load("busybox");
    engine.dozen(&["tag", "busybox", &ours]).expect(0);
    engine.dozen(&["push", &ours]).expect(0);
    peers.run("docker", &["pull", &ours]).expect(0);
    let theirs = peers.run("docker", &["inspect", "--format", "{{.Id}}", &ours]).text();
    assert_eq!(theirs, engine.dozen(&["inspect", "--format", "{{.Id}}", &ours]).text());
    peers.run("docker", &["pull", &format!("{HOST}/team/web:2")]).refuses(1, &["manifest unknown"]);
    drop(server);
    check(&machine).expect(0);
}

/// What podman and buildah, being of one library, both do.
fn pushes_and_pulls(machine: &Machine, peers: &Peers<'_>, engine: &Engine<'_>, program: &str) {
    let run = |arguments: &[&str]| peers.run(program, arguments).expect(0);
    let plain = "--tls-verify=false";
    let [web, small] = ["team/web:1", "team/box:1"].map(|name| format!("{HOST}/{name}"));
    run(&["pull", plain, &web]);
    run(&["pull", plain, &small]);
    let shown = run(&[
        "inspect",
        "--type",
        "image",
        "--format",
        if program == "podman" { "{{.Id}}" } else { "{{.FromImageID}}" },
        &web,
    ]);
    assert_eq!(format!("sha256:{}", shown.out.trim()), id(machine, "team/web:1"));
    let target = format!("docker://{HOST}/{program}/web:1");
    run(&["push", plain, &web, &target]);
    assert_eq!(id(machine, &format!("{program}/web:1")), id(machine, "team/web:1"));
    runs(engine, &format!("{program}/web:1"), &["nginx", "-v"]);
    // Layers of another kind, packed by it.
    let target = format!("docker://{HOST}/{program}/zstd:1");
    run(&["push", plain, "--compression-format", "zstd", "--force-compression", &small, &target]);
    let kind = manifest(machine, &format!("{program}/zstd:1"))["layers"][0]["mediaType"].clone();
    assert_eq!(kind, "application/vnd.oci.image.layer.v1.tar+zstd");
    assert_eq!(runs(engine, &format!("{program}/zstd:1"), &["echo", "hello"]), "hello\n");
    // Docker's manifests, too.
    let target = format!("docker://{HOST}/{program}/schema2:1");
    run(&["push", plain, "--format", "v2s2", &small, &target]);
    let kind = manifest(machine, &format!("{program}/schema2:1"))["mediaType"].clone();
    assert_eq!(kind, "application/vnd.docker.distribution.manifest.v2+json");
    assert_eq!(runs(engine, &format!("{program}/schema2:1"), &["echo", "hello"]), "hello\n");
    // A list of both.
    run(&["manifest", "create", "all"]);
    run(&["manifest", "add", plain, "all", &format!("docker://{small}")]);
    run(&["manifest", "add", plain, "--arch", "arm64", "all", &format!("docker://{web}")]);
    run(&["manifest", "push", plain, "--all", "all", &format!("docker://{HOST}/{program}/all:1")]);
    assert_eq!(manifest(machine, &format!("{program}/all:1"))["manifests"].as_array().unwrap().len(), 2);
    assert_eq!(runs(engine, &format!("{program}/all:1"), &["echo", "hello"]), "hello\n");
    let missing = peers.run(program, &["pull", plain, &format!("{HOST}/team/web:2")]);
    assert!(missing.code != 0 && missing.err.contains("manifest unknown"), "{missing:?}");
}

#[test]
#[ignore = "needs the other engines: cargo xtask clients peers"]
fn podman_pushes_and_pulls() {
    let machine = Machine::new();
    let server = Server::start(&machine, &[]);
    fill(&server);
    let (peers, engine) = (Peers::enter(&machine), machine.engine());
    pushes_and_pulls(&machine, &peers, &engine, "podman");
    // Something that is no image.
    peers.write("/note", "a note");
    let note = format!("{HOST}/podman/note:1");
    peers.run("podman", &["artifact", "add", &note, "/note"]).expect(0);
    peers.run("podman", &["artifact", "push", "--tls-verify=false", &note]).expect(0);
    peers.run("podman", &["artifact", "rm", &note]).expect(0);
    peers.run("podman", &["artifact", "pull", "--tls-verify=false", &note]).expect(0);
    assert!(peers.run("podman", &["artifact", "inspect", &note]).text().contains("\"note\""));
    // What it has made we have as files, and what we have made it takes.
    let digest = |text: String| text.trim().to_owned();
    let pulled = digest(engine.dozen(&["artifact", "pull", &note]).text());
    let out = machine.directory().join("note");
    engine.dozen(&["artifact", "extract", &note, out.to_str().unwrap()]).expect(0);
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "a note");
    assert!(peers.run("podman", &["artifact", "ls", "--no-trunc"]).text().contains(&pulled));
    engine.dozen(&["artifact", "add", "--append", &note, "/etc/hostname"]).expect(0);
    engine.dozen(&["artifact", "push", &note]).expect(0);
    peers.run("podman", &["artifact", "rm", &note]).expect(0);
    peers.run("podman", &["artifact", "pull", "--tls-verify=false", &note]).expect(0);
    let theirs = peers.run("podman", &["artifact", "inspect", &note]).text();
    assert!(theirs.contains("\"note\"") && theirs.contains("\"hostname\""), "{theirs}");
    drop(server);
    check(&machine).expect(0);
}

#[test]
#[ignore = "needs the other engines: cargo xtask clients peers"]
fn buildah_pushes_and_pulls() {
    let machine = Machine::new();
    let server = Server::start(&machine, &[]);
    fill(&server);
    let (peers, engine) = (Peers::enter(&machine), machine.engine());
    pushes_and_pulls(&machine, &peers, &engine, "buildah");
    // What it has made goes, and the base's layers stay where they are.
    peers.write("/made", "made\n");
    let from = peers.run("buildah", &["from", "--tls-verify=false", &format!("{HOST}/team/box:1")]).text();
    peers.run("buildah", &["copy", from.trim(), "/made", "/made"]).expect(0);
    peers.run("buildah", &["commit", from.trim(), "made"]).expect(0);
    let target = format!("docker://{HOST}/buildah/made:1");
    peers.run("buildah", &["push", "--tls-verify=false", "made", &target]).expect(0);
    assert_eq!(runs(&engine, "buildah/made:1", &["cat", "/made"]), "made\n");
    drop(server);
    check(&machine).expect(0);
}

#[test]
#[ignore = "needs the other engines: cargo xtask clients peers"]
fn over_tls_they_log_in() {
    let machine = Machine::new();
    let key = KeyPair::generate().unwrap();
    let made = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    let [certificate, key_file] = ["cert.pem", "key.pem"].map(|name| machine.directory().join(name));
    std::fs::write(&certificate, made.pem()).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    let (certificate, key_file) = (certificate.to_str().unwrap(), key_file.to_str().unwrap());
    let tls = ["--htpasswd", &passwords(&machine), "--tls-cert", certificate, "--tls-key", key_file];
    let _server = Server::start(&machine, &tls);
    let peers = Peers::with_dockerd(&machine);
    for place in ["docker", "containers"] {
        peers.write(&format!("/etc/{place}/certs.d/{HOST}/ca.crt"), &made.pem());
    }
    // Somebody has to bring it the first image: what nobody has made is made by buildah.
    peers.write("/made", "made\n");
    let log_in = |program: &str, password: &str| {
        peers.run_with(program, &["login", "-u", "ann", "--password-stdin", HOST], password.as_bytes())
    };
    let image = format!("{HOST}/team/made:1");
    let from = peers.run("buildah", &["from", "scratch"]).text();
    peers.run("buildah", &["copy", from.trim(), "/made", "/made"]).expect(0);
    peers.run("buildah", &["commit", from.trim(), &image]).expect(0);
    for program in ["buildah", "podman", "docker"] {
        let (push, pull) = (["push", &image], ["pull", &image]);
        let refused = peers.run(program, if program == "buildah" { &push } else { &pull });
        assert!(refused.code != 0, "{refused:?}");
        assert!(log_in(program, "wrong").code != 0, "{program}");
        assert!(log_in(program, "secret").expect(0).out.contains("Login Succeeded"), "{program}");
        if program == "buildah" {
            peers.run(program, &push).expect(0);
        }
        peers.run(program, &pull).expect(0);
        peers.run(program, &push).expect(0);
        peers.run(program, &["logout", HOST]).expect(0);
    }
}
