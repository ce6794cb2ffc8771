//! The registry that an engine serves itself: whoever may use the engine pushes and pulls without a login, and nobody else gets
//! in, though everyone on the machine reaches it.

#![allow(clippy::unwrap_used, missing_docs)]

use std::path::PathBuf;

use dozen_testbox::{Daemon, Machine, Side, dozen_program, image_archive};
use rustix::process::Signal;
use serde_json::Value;

const HOST: &str = "localhost:12012";

fn root(machine: &Machine) -> PathBuf {
    machine.directory().join("data/registry")
}

fn curl(machine: &Machine, credentials: Option<&str>, path: &str) -> String {
    let url = format!("http://127.0.0.1:12012{path}");
    let login: Vec<&str> = credentials.iter().flat_map(|credentials| ["--user", *credentials]).collect();
    let line = [&["--silent", "--write-out", "%{http_code}", "--output", "/dev/null"][..], &login, &[&url]].concat();
    // Where nobody listens it is 000, and curl fails.
    machine.run("curl", &line).out
}

fn info(told: &str) -> Value {
    serde_json::from_str(told).unwrap()
}

#[test]
fn who_may_use_the_engine_needs_no_login() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    engine.load("busybox");
    let own = info(&engine.dozen(&["info", "--format", "{{json .OwnRegistry}}"]).text());
    assert_eq!(own, serde_json::json!({ "Address": "127.0.0.1:12012", "Error": "" }));
    assert!(engine.dozen(&["info"]).text().contains("\n Own Registry: 127.0.0.1:12012\n"));
    // Until somebody comes who may, there is nothing but the password.
    assert_eq!(curl(&machine, None, "/v2/"), "401");
    assert_eq!(std::fs::read_dir(root(&machine)).unwrap().count(), 1);
    assert!(!engine.dozen(&["system", "df"]).text().contains("Registry"));
    let name = format!("{HOST}/team/web:1");
    engine.dozen(&["tag", "busybox", &name]).expect(0);
    let pushed = engine.dozen(&["push", &name]).text();
    assert!(pushed.contains("\n1: digest: sha256:"), "{pushed}");
    assert!(engine.dozen(&["system", "df", "--format", "{{.Type}}"]).text().contains("Registry\n"));
    let raw = engine.dozen(&["manifest", "inspect", &name]).text();
    engine.dozen(&["rmi", &name, "busybox"]).expect(0);
    // By its other name, after an engine that was killed, and by Docker's client.
    engine.kill();
    engine.restart();
    let by_address = "127.0.0.1:12012/team/web:1";
    assert_eq!(engine.dozen(&["run", "--rm", "--network", "none", by_address, "echo", "hello"]).text(), "hello\n");
    assert_eq!(engine.dozen(&["manifest", "inspect", &name]).text(), raw);
    engine.docker(&["pull", &name]).expect(0);
    engine.docker(&["tag", &name, &format!("{HOST}/team/web:2")]).expect(0);
    engine.docker(&["push", &format!("{HOST}/team/web:2")]).expect(0);
    // What the host says of localhost counts for nothing: nobody else is told the password.
    let elsewhere = "echo 192.0.2.1 localhost > hosts && mount --bind hosts /etc/hosts";
    machine.run("sh", &["-ec", elsewhere]).expect(0);
    let context = machine.directory().join("context");
    std::fs::create_dir_all(&context).unwrap();
    std::fs::write(context.join("Dockerfile"), format!("FROM {HOST}/team/web:2\nRUN echo built > /it\n")).unwrap();
    engine.dozen(&["rmi", "-f", &name, &format!("{HOST}/team/web:2"), by_address]).expect(0);
    let built = format!("{HOST}/team/built");
    engine.dozen(&["build", "-q", "--network", "none", "-t", &built, context.to_str().unwrap()]).expect(0);
    engine.dozen(&["push", "-q", &built]).expect(0);
    // Its owner asks it while it is served.
    let rules = machine.directory().join("rules.toml");
    std::fs::write(&rules, "[[rule]]\nrepositories = [\"**\"]\nkeep-newest = 1\n").unwrap();
    let (registry, rules) = (root(&machine), rules.to_str().unwrap().to_owned());
    let line =
        ["registry", "retention", "--dry-run", "--root", registry.to_str().unwrap(), "--retention", rules.as_str()];
    let told = machine.run(dozen_program(), &line).expect(0);
    assert!(told.out.contains("team/web:1: "), "{told:?}");
}

#[test]
fn nobody_else_gets_in() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let name = format!("{HOST}/team/web:1");
    engine.dozen(&["tag", "busybox", &name]).expect(0);
    engine.dozen(&["push", "-q", &name]).expect(0);
    let password_file = root(&machine).join("password");
    let password_file = password_file.to_str().unwrap();
    let password = std::fs::read_to_string(password_file).unwrap().trim().to_owned();
    let manifest = "/v2/team/web/manifests/1";
    for refused in [None, Some("dozen:"), Some("dozen:dozen"), Some(&*format!("root:{password}"))] {
        for path in ["/v2/", "/v2/_catalog", manifest, "/v2/nowhere/tags/list"] {
            assert_eq!(curl(&machine, refused, path), "401", "{refused:?} {path}");
        }
    }
    let credentials = format!("dozen:{password}");
    assert_eq!(curl(&machine, Some(&credentials), manifest), "200");
    // Other people's clients log in with it.
    let source = format!("oci-archive:{}", image_archive("busybox").display());
    let copy = |login: &[&str]| {
        let target = format!("docker://{HOST}/team/other:1");
        let line = ["--insecure-policy", "copy", "-q", "--dest-tls-verify=false"];
        machine.run("skopeo", &[&line[..], login, &[&source, &target]].concat())
    };
    let refused = copy(&[]);
    assert!(refused.code != 0 && refused.err.contains("authentication required"), "{refused:?}");
    copy(&["--dest-creds", &credentials]).expect(0);
    // Another user of the machine cannot read it, and root in a container that has the host's network sees no file of the
    // host's.
    let other = machine.run("setpriv", &["--reuid=1234", "--regid=1234", "--clear-groups", "cat", password_file]);
    assert!(other.code != 0 && other.err.contains("Permission denied"), "{other:?}");
    let ask = "wget -q -O - http://127.0.0.1:12012/v2/_catalog";
    let inside = engine.dozen(&["run", "--rm", "--network", "host", "busybox", "sh", "-c", ask]);
    assert!(inside.code != 0 && inside.err.contains("401"), "{inside:?}");
    for shown in [engine.log(), engine.dozen(&["info", "--format", "{{json .}}"]).text()] {
        assert!(!shown.contains(&password), "{shown}");
    }
}

#[test]
fn what_the_engine_asks_goes_over_no_network() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    // Everyone on the machine may take all places there are on loopback, and who has the host's network may listen there.
    let idle = || (0..300).map(|_| std::net::TcpStream::connect("127.0.0.1:12012")).collect::<Result<Vec<_>, _>>();
    let held = machine.on(Side::Machine, idle).unwrap();
    let packets = || {
        let counts = machine.run("cat", &["/sys/class/net/lo/statistics/tx_packets"]).text();
        counts.trim().parse::<u64>().unwrap()
    };
    let before = packets();
    let name = format!("{HOST}/team/web:1");
    engine.dozen(&["tag", "busybox", &name]).expect(0);
    engine.dozen(&["push", "-q", &name]).expect(0);
    engine.dozen(&["rmi", &name, "busybox"]).expect(0);
    engine.dozen(&["pull", "-q", &name]).expect(0);
    assert_eq!(packets(), before, "on loopback nothing was said");
    drop(held);
}

#[test]
fn an_address_that_is_taken_keeps_no_engine_from_starting() {
    let machine = Machine::new();
    let taken = machine.on(Side::Machine, || std::net::TcpListener::bind("127.0.0.1:12012")).unwrap();
    let engine = machine.engine();
    engine.load("busybox");
    let own = info(&engine.dozen(&["info", "--format", "{{json .OwnRegistry}}"]).text());
    let why = own["Error"].as_str().unwrap();
    assert!(why.starts_with("cannot listen on 127.0.0.1:12012: ") && own["Address"] == "", "{own}");
    assert!(engine.log().contains("say registry-listen otherwise, or off"), "{}", engine.log());
    let shown = engine.dozen(&["info"]).expect(0);
    assert!(shown.err.contains("WARNING: the engine serves no registry of its own: cannot listen"), "{shown:?}");
    // Whoever has it now is not asked: any image could come from there under these names.
    for name in ["localhost:12012/team/web", "127.0.0.1:12012/team/web"] {
        let words =
            "cannot reach the registry 127.0.0.1:12012: it is the engine's own, which is not served: cannot listen";
        engine.dozen(&["pull", name]).refuses(1, &[words]);
        engine.dozen(&["tag", "busybox", name]).expect(0);
        engine.dozen(&["push", name]).refuses(1, &[words]);
    }
    taken.set_nonblocking(true).unwrap();
    assert_eq!(taken.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn settings_say_where_or_that_there_is_none() {
    let machine = Machine::new();
    let daemon = Daemon::with_file(&machine, r#"{ "registry-listen": "127.0.0.1:5000" }"#);
    daemon.load("busybox");
    daemon.dozen(&["tag", "busybox", "localhost:5000/box"]).expect(0);
    daemon.dozen(&["push", "-q", "localhost:5000/box"]).expect(0);
    assert_eq!(curl(&machine, None, "/v2/"), "000");
    daemon.reload(r#"{ "registry-listen": "off" }"#);
    daemon.says("registry-listen has changed: that takes effect when the engine is started again", 1);
    daemon.signal(Signal::TERM);
    drop(daemon);
    let daemon = Daemon::start(&machine, &["--registry-listen", "off"]);
    assert_eq!(daemon.dozen(&["info", "--format", "{{json .OwnRegistry}}"]).text(), "null\n");
    assert_eq!(curl(&machine, None, "/v2/"), "000");
    let pulled = daemon.dozen(&["pull", "localhost:5000/box"]);
    assert!(pulled.code != 0 && pulled.err.contains("cannot reach the registry"), "{pulled:?}");
    drop(daemon);
    let refused = machine.run(dozen_program(), &["daemon", "--validate", "--registry-listen", "0.0.0.0:5000"]);
    refused.refuses(1, &["is not on loopback"]);
}
