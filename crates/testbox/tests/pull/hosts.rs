//! `hosts.toml`: other servers with what a registry has.

use std::sync::{Arc, Mutex};

use dozen_testbox::Machine;
use serde_json::json;

use crate::certificates::{engine, put};
use crate::registry::{Between, Registry, reply};

/// The registry of the images, which nobody can reach.
const NOWHERE: &str = "registry.nowhere.example:5000";
/// RFC 7617, of `me` and `sesame-open`.
const PAIR: &str = "bWU6c2VzYW1lLW9wZW4=";

#[test]
fn others_are_asked_for_what_a_registry_has() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    registry.fill("busybox", "hub/box:1");
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = asked.clone();
    let between = Between::start(&machine, registry.port, move |asked| {
        let fields = ["authorization", "x-team"].map(|name| asked.field(name).unwrap_or("-").to_owned());
        heard.lock().unwrap().push(format!("{} {} {}", asked.path, fields[0], fields[1]));
        // One that wants a password gets none, since it is not who was logged in to.
        match asked.path.starts_with("/v2/hub/") {
            true => asked.forward(),
            false => reply("401 Unauthorized", &[("WWW-Authenticate", "Basic realm=\"r\"")], b""),
        }
    });
    let directory = machine.directory().join("docker-config");
    std::fs::create_dir_all(&directory).unwrap();
    let config = json!({ "auths": { NOWHERE: { "auth": PAIR } } });
    std::fs::write(directory.join("config.json"), config.to_string()).unwrap();
    let daemon = engine(&machine);
    let name = format!("{NOWHERE}/box:1");
    daemon.dozen(&["pull", &name]).refuses(1, &[&format!("cannot reach the registry {NOWHERE}")]);
    let host = &between.host;
    let hosts = format!(
        "[host.\"http://127.0.0.1:1\"]\n\
         [host.\"http://{host}/private\"]\n\
         [host.\"http://{host}/v2/hub\"]\noverride_path = true\n\
         [host.\"http://{host}/v2/hub\".header]\nx-team = \"blue\"\n"
    );
    put(&machine, NOWHERE, "hosts.toml", &hosts);
    let pulled = daemon.dozen(&["pull", &name]).text();
    assert!(pulled.ends_with(&format!("Status: Downloaded newer image for {name}\n{name}\n")), "{pulled}");
    daemon.dozen(&["run", "--rm", &name, "true"]).expect(0);
    let all = std::mem::take(&mut *asked.lock().unwrap());
    assert!(all[0].starts_with(&format!("/private/v2/box/manifests/1?ns={NOWHERE} - -")), "{all:#?}");
    for line in &all {
        let is_second = line.starts_with("/v2/hub/box/") && line.ends_with(&format!("?ns={NOWHERE} - blue"));
        assert!(is_second || line.starts_with("/private/") && line.ends_with(" - -"), "{line}");
    }

    // One that resolves nothing is not asked what a tag is, and one that is wrong keeps nobody from the others.
    put(&machine, NOWHERE, "hosts.toml", &format!("[host.\"http://{host}/v2/hub\"]\ncapabilities = [\"pull\"]\n"));
    daemon.dozen(&["pull", &name]).refuses(1, &[&format!("cannot reach the registry {NOWHERE}")]);
    assert!(asked.lock().unwrap().is_empty());
    put(&machine, NOWHERE, "hosts.toml", "[host.\"http://a\"]\nskip-verify = true\n");
    let words = "hosts.toml: unknown key \"skip-verify\" in [host.\"http://a\"]: there are capabilities, ca, client";
    daemon.dozen(&["pull", &name]).refuses(1, &[words]);

    // Of all registries that have no directory of their own.
    std::fs::remove_dir_all(crate::certificates::certs(&machine)).unwrap();
    put(&machine, "_default", "hosts.toml", &format!("[host.\"http://127.0.0.1:{}\"]\n", registry.port));
    daemon.dozen(&["pull", "elsewhere.example/hub/box:1"]).expect(0);
    daemon.dozen(&["pull", "hub/box:1"]).expect(0);
    between.stop(&machine);
}

#[test]
fn a_server_in_a_registrys_place_is_told_no_password() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    registry.fill("busybox", "box:1");
    let wants = Arc::new(Mutex::new(true));
    let wanted = wants.clone();
    let between = Between::start(&machine, registry.port, move |asked| {
        assert_eq!(asked.field("authorization"), None);
        match *wanted.lock().unwrap() {
            true => reply("401 Unauthorized", &[("WWW-Authenticate", "Basic realm=\"r\"")], b""),
            false => asked.forward(),
        }
    });
    let directory = machine.directory().join("docker-config");
    std::fs::create_dir_all(&directory).unwrap();
    let config = json!({ "auths": { NOWHERE: { "auth": PAIR } } });
    std::fs::write(directory.join("config.json"), config.to_string()).unwrap();
    let daemon = engine(&machine);
    put(&machine, NOWHERE, "hosts.toml", &format!("server = \"http://{}\"\n", between.host));
    let name = format!("{NOWHERE}/box:1");
    daemon.dozen(&["pull", &name]).refuses(1, &["no basic auth credentials"]);
    *wants.lock().unwrap() = false;
    daemon.dozen(&["pull", &name]).expect(0);
    // Nor is a password good because somebody else lets everybody in.
    let login = ["login", "-u", "me", "--password-stdin", NOWHERE];
    let refused = machine.run_with(dozen_testbox::dozen_program(), &login, b"wrong\n", &[]).expect(1);
    assert!(refused.err.contains(&format!("cannot reach the registry {NOWHERE}")), "{}", refused.err);
    between.stop(&machine);
}
