//! Builds from registries that want to know who asks, and from what is there for another platform.

use dozen_testbox::{Done, Machine, dozen_program};
use serde_json::json;

use crate::HOST;
use crate::registry::{Between, Registry, reply};
use crate::secrets::{check_nobody_said_it, guarded, log_in};

/// RFC 7617, of the guarded registry's only user.
const PAIR: &str = "bWU6c2VzYW1lLW9wZW4=";

fn build(machine: &Machine, options: &[&str], file: &str) -> Done {
    let arguments = [&["build", "--progress", "plain", "-t", "made"], options, &["-"]].concat();
    machine.run_with(dozen_program(), &arguments, file.as_bytes(), &[])
}

#[test]
fn a_build_is_who_asks_for_it() {
    let machine = Machine::new();
    let registry = guarded(&machine);
    let engine = machine.engine();
    let host = format!("127.0.0.1:{}", registry.port);
    let file = format!("FROM {host}/box:1\nRUN echo hello\n");
    let refused = build(&machine, &[], &file);
    assert!(refused.err.contains("no basic auth credentials"), "{}", refused.err);
    assert!(refused.err.contains(&format!("dozen login {host}")), "{}", refused.err);
    log_in(&machine, &host, PAIR);
    let built = build(&machine, &[], &file).expect(0);
    // Docker's own client sends all that it knows.
    engine.dozen(&["rmi", "-f", "made", &format!("{host}/box:1")]).expect(0);
    let directory = machine.directory().join("context");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("Dockerfile"), &file).unwrap();
    let variables = [("DOCKER_BUILDKIT", "0")];
    let arguments = ["build", "-t", "made", directory.to_str().unwrap()];
    machine.run_with(dozen_testbox::docker_program(), &arguments, b"", &variables).expect(0);
    check_nobody_said_it(&engine, &[refused.err, built.err, built.out]);
    let history = engine.dozen(&["history", "--no-trunc", "made"]).text();
    let inspected = engine.dozen(&["image", "inspect", "made"]).text();
    check_nobody_said_it(&engine, &[history, inspected]);
}

#[test]
fn nobody_is_told_what_another_is_to_be_told() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    registry.fill("busybox", "box:1");
    let between = Between::start(&machine, registry.port, |asked| match asked.field("authorization") {
        None => reply("401 Unauthorized", &[("WWW-Authenticate", "Basic realm=\"r\"")], b""),
        Some(_) => reply("500 Internal Server Error", &[], b"somebody else's password has come"),
    });
    let _engine = machine.engine();
    log_in(&machine, HOST, PAIR);
    let file = format!("FROM {HOST}/box:1 AS a\nFROM {}/box:1\nCOPY --from=a /bin /bin\n", between.host);
    build(&machine, &[], &file).refuses(1, &["no basic auth credentials"]);
    between.stop(&machine);
}

#[test]
fn another_platform_comes_and_the_name_stays() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    registry.fill("busybox", "box:here");
    let engine = machine.engine();
    // One for another platform: the same files under its name.
    engine.load("busybox");
    let archive = machine.directory().join("root.tar").display().to_string();
    engine.dozen(&["create", "--name", "root", "busybox", "true"]).expect(0);
    engine.dozen(&["export", "-o", &archive, "root"]).expect(0);
    engine.dozen(&["rm", "root"]).expect(0);
    engine.dozen(&["import", "--platform", "linux/arm64", &archive, "foreign"]).expect(0);
    let saved = machine.directory().join("foreign.tar").display().to_string();
    engine.dozen(&["save", "-o", &saved, "foreign"]).expect(0);
    let target = format!("docker://{HOST}/box:far");
    let source = format!("oci-archive:{saved}");
    machine.run("skopeo", &["--insecure-policy", "copy", "--dest-tls-verify=false", "-q", &source, &target]).expect(0);
    engine.dozen(&["rmi", "-f", "foreign", "busybox"]).expect(0);
    let entry = |tag: &str, architecture: &str| {
        let shown = engine.dozen(&["manifest", "inspect", "-v", &format!("{HOST}/box:{tag}")]).text();
        let descriptor = serde_json::from_str::<serde_json::Value>(&shown).unwrap()["Descriptor"].clone();
        json!({
            "mediaType": descriptor["mediaType"], "digest": descriptor["digest"], "size": descriptor["size"],
            "platform": { "os": "linux", "architecture": architecture },
        })
    };
    let kind = "application/vnd.oci.image.index.v1+json";
    let index =
        json!({ "schemaVersion": 2, "mediaType": kind, "manifests": [entry("here", "amd64"), entry("far", "arm64")] });
    registry.put("box", "both", kind, &index.to_string());

    let name = format!("{HOST}/box:both");
    engine.dozen(&["pull", &name]).expect(0);
    let before = engine.dozen(&["image", "inspect", "-f", "{{.Id}} {{.Architecture}}", &name]).text();
    assert!(before.ends_with(" amd64\n"), "{before}");
    let file =
        format!("FROM {name} AS a\nRUN true\nFROM --platform=linux/arm64 {name}\nCOPY --from=a /bin/busybox /native\n");
    for options in [&[][..], &["--pull"]] {
        build(&machine, options, &file).expect(0);
        assert_eq!(engine.dozen(&["image", "inspect", "-f", "{{.Architecture}}", "made"]).text(), "arm64\n");
        assert_eq!(engine.dozen(&["image", "inspect", "-f", "{{.Id}} {{.Architecture}}", &name]).text(), before);
    }
    engine.dozen(&["run", "--rm", &name, "true"]).expect(0);
    // Again, of what is here by now; and of one that nobody has.
    build(&machine, &[], &file).expect(0);
    build(&machine, &[], &format!("FROM --platform=linux/s390x {name}\n"))
        .refuses(1, &["failed to resolve source metadata", "linux/s390x"]);
}
