use std::sync::Arc;

use dozen_engine::{ExitStatus, Restarts, Run, StartFailure, Waiting};
use dozen_model::{ContainerId, Digest, ImageId};
use jiff::Timestamp;

use super::*;
use crate::convert::{create, fields, request};

/// A container made from a request, in some phase.
pub(crate) fn snapshot(body: Value, phase: Phase) -> Snapshot {
    let request: request::Create = request::read(body, fields::CREATE).unwrap();
    let image = ImageId::new(Digest::from_sha256([7; 32]));
    let (spec, _) = create::spec(&request, image, &create::ImageDefaults::default(), &|_| unreachable!()).unwrap();
    Snapshot {
        id: ContainerId::random(),
        name: "web".parse().unwrap(),
        spec: Arc::new(spec),
        created: at(1_700_000_000),
        phase,
        restarts: Restarts::default(),
        health: None,
        last_exit: None,
        exits: 0,
        is_restarting: false,
        directory: "/data/containers/x".into(),
    }
}

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

pub(crate) fn running() -> Phase {
    let started = at(1_700_000_001);
    Phase::Running(Run {
        pid: 42,
        started,
        boot: None,
        endpoints: vec![],
        ports: vec![],
        is_paused: false,
        oom_kills: 0,
    })
}

pub(crate) fn exited(exit_code: i32) -> Phase {
    let exit = ExitStatus {
        exit_code,
        started: at(1_700_000_001),
        finished: at(1_700_000_009),
        out_of_memory: false,
        error: None,
    };
    Phase::Exited(exit)
}

#[test]
fn states_are_dockers() {
    #[track_caller]
    fn check(phase: Phase, status: &str, running: bool, pid: i32, code: i32, finished: &str) {
        let value = state(&snapshot(json!({"Image": "x", "Cmd": ["c"]}), phase));
        assert_eq!(
            (&value["Status"], &value["Running"], &value["Pid"], &value["ExitCode"], &value["FinishedAt"]),
            (&json!(status), &json!(running), &json!(pid), &json!(code), &json!(finished))
        );
    }
    check(Phase::Created { last_failure: None }, "created", false, 0, 0, NEVER);
    check(running(), "running", true, 42, 0, NEVER);
    check(exited(3), "exited", false, 0, 3, "2023-11-14T22:13:29Z");
    let Phase::Exited(exit) = exited(3) else { unreachable!() };
    let waiting = Phase::Waiting(Waiting { exit, failure: None, pause_ms: 100 });
    check(waiting, "restarting", true, 0, 3, "2023-11-14T22:13:29Z");
    let Phase::Running(run) = running() else { unreachable!() };
    check(Phase::Running(Run { is_paused: true, ..run }), "paused", true, 42, 0, NEVER);
    let failure = StartFailure { exit_code: 127, message: "no such file".into() };
    check(Phase::Created { last_failure: Some(failure) }, "created", false, 0, 127, NEVER);
}

#[test]
fn what_was_asked_is_rendered_back() {
    let body = json!({
        "Image": "x:1", "Cmd": ["c", "d"], "Entrypoint": ["e"], "Tty": true, "StopSignal": "INT", "StopTimeout": 5,
        "ExposedPorts": {"90/udp": {}},
        "HostConfig": {
            "Binds": ["/a:/b:ro,rshared", "data:/c", "/anonymous"], "CapAdd": ["net_admin"], "CapDrop": ["ALL"],
            "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080-8090"}]}, "Tmpfs": {"/t": "size=1m,ro"},
            "ExtraHosts": ["a:1.2.3.4", "b:host-gateway"], "SecurityOpt": ["no-new-privileges"], "Init": true,
            "NetworkMode": "default",
        },
    });
    let snapshot = snapshot(body, running());
    let value = inspect(&snapshot, &[], &|name| Some(format!("/volumes/{name}")));
    let host = &value["HostConfig"];
    assert_eq!(host["Binds"], json!(["/a:/b:ro,rshared", "data:/c"]));
    assert_eq!((&host["CapAdd"], &host["CapDrop"]), (&json!(["CAP_NET_ADMIN"]), &json!(["ALL"])));
    assert_eq!(host["PortBindings"], json!({"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080-8090"}]}));
    assert_eq!(host["Tmpfs"], json!({"/t": "size=1048576,ro"}));
    assert_eq!(host["ExtraHosts"], json!(["a:1.2.3.4", "b:host-gateway"]));
    assert_eq!(
        (&host["SecurityOpt"], &host["Init"], &host["NetworkMode"]),
        (&json!(["no-new-privileges"]), &json!(true), &json!("bridge"))
    );
    assert_eq!((&value["Path"], &value["Args"], &value["Name"]), (&json!("e"), &json!(["c", "d"]), &json!("/web")));
    let config = &value["Config"];
    assert_eq!(
        (&config["StopSignal"], &config["StopTimeout"], &config["Tty"]),
        (&json!("SIGINT"), &json!(5), &json!(true))
    );
    assert_eq!(config["ExposedPorts"], json!({"80/tcp": {}, "90/udp": {}}));
    assert_eq!(config["Hostname"], json!(snapshot.id.short()));
    assert_eq!(value["Mounts"][1]["Source"], "/volumes/data");
    assert_eq!(value["Mounts"].as_array().unwrap().len(), 3);
    assert_eq!(value["NetworkSettings"]["Ports"], json!({"80/tcp": null, "90/udp": null}));
    assert!(value["NetworkSettings"]["Networks"]["bridge"].is_object());
}

#[test]
fn what_inspect_shows_can_be_asked_for_again() {
    let body = json!({"Image": "x", "Cmd": ["c"], "HostConfig": {"Binds": ["/a:/b"], "ShmSize": 5}});
    let shown = inspect(&snapshot(body, running()), &[], &|_| None);
    let mut again = shown["Config"].clone();
    again["HostConfig"] = shown["HostConfig"].clone();
    // The runtime's name is ours; clients that copy a container leave it in.
    let request: Result<request::Create, _> = request::read(again, fields::CREATE);
    assert_eq!(request.unwrap().host_config.shm_size, 5);
}
