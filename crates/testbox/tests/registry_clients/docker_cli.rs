//! docker's command line: with our engine, and by itself, where it speaks to registries (`manifest`).

use dozen_testbox::{Machine, docker_program};

use crate::server::{HOST, Server, check};
use crate::{id, manifest, passwords};

#[test]
fn it_pushes_and_pulls_with_our_engine() {
    let machine = Machine::new();
    let server = Server::start(&machine, &[]);
    let engine = machine.engine();
    engine.load("busybox");
    let name = format!("{HOST}/team/box:1");
    engine.docker(&["tag", "busybox", &name]).expect(0);
    let pushed = engine.docker(&["push", &name]).text();
    assert!(pushed.contains(": Pushed\n") && pushed.contains("\n1: digest: sha256:"), "{pushed}");
    let other = format!("{HOST}/other/box:1");
    engine.docker(&["tag", "busybox", &other]).expect(0);
    let pushed = engine.docker(&["push", &other]).text();
    assert!(pushed.contains(": Mounted from team/box\n"), "{pushed}");
    engine.docker(&["rmi", "-f", "busybox", &name, &other]).expect(0);
    assert_eq!(engine.docker(&["run", "--rm", &name, "echo", "hello"]).expect(0).out, "hello\n");
    let shown = engine.docker(&["inspect", "--format", "{{.Id}}", &name]).text();
    assert_eq!(shown.trim(), id(&machine, "team/box:1"));
    engine.docker(&["pull", &format!("{HOST}/team/box:2")]).refuses(1, &["manifest unknown"]);
    drop(server);
    check(&machine).expect(0);
}

#[test]
fn it_logs_in_and_out() {
    let machine = Machine::new();
    let _server = Server::start(&machine, &["--htpasswd", &passwords(&machine)]);
    let engine = machine.engine();
    engine.load("busybox");
    let name = format!("{HOST}/team/box:1");
    engine.docker(&["tag", "busybox", &name]).expect(0);
    let log_in = |password: &str| {
        let arguments = ["login", "-u", "ann", "--password-stdin", HOST];
        machine.run_with(docker_program(), &arguments, password.as_bytes(), &[])
    };
    assert!(engine.docker(&["push", &name]).code != 0);
    assert!(log_in("wrong").code != 0);
    assert!(engine.docker(&["push", &name]).code != 0);
    assert!(log_in("secret").expect(0).out.contains("Login Succeeded"));
    engine.docker(&["push", &name]).expect(0);
    engine.docker(&["rmi", "-f", "busybox", &name]).expect(0);
    engine.docker(&["pull", &name]).expect(0);
    engine.docker(&["logout", HOST]).expect(0);
    assert!(engine.docker(&["push", &name]).code != 0);
}

/// docker makes lists without an engine's help.
#[test]
fn its_lists_of_manifests_are_taken() {
    let machine = Machine::new();
    let server = Server::start(&machine, &[]);
    server.push("busybox", "team/box:amd64").expect(0);
    server.push("nginx:1.22", "team/box:arm64").expect(0);
    let docker = |arguments: &[&str]| machine.run(docker_program(), arguments);
    let [list, one, other] = ["all", "amd64", "arm64"].map(|tag| format!("{HOST}/team/box:{tag}"));
    docker(&["manifest", "create", "--insecure", &list, &one, &other]).expect(0);
    docker(&["manifest", "annotate", "--os", "linux", "--arch", "arm64", "--variant", "v8", &list, &other]).expect(0);
    let digest = docker(&["manifest", "push", "--insecure", "--purge", &list]).text();
    assert!(digest.contains("sha256:"), "{digest}");
    let index = manifest(&machine, "team/box:all");
    let platforms = index["manifests"].as_array().unwrap().iter().map(|entry| entry["platform"]["variant"].as_str());
    assert!(platforms.eq([None, Some("v8")]) || index["manifests"][0]["platform"]["variant"] == "v8", "{index}");
    let shown = docker(&["manifest", "inspect", "--insecure", &list]).text();
    assert_eq!(shown.matches("\"digest\"").count(), 2, "{shown}");
    let engine = machine.engine();
    assert_eq!(engine.dozen(&["run", "--rm", &list, "echo", "hello"]).expect(0).out, "hello\n");
}
