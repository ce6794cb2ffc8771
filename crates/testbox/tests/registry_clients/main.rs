//! A registry of our own and other people's clients, as their users have them: docker's command line with our engine, the
//! crate `oci-client`; and docker's own engine, podman and buildah, which lie in a root of their own and are `#[ignore]`d for
//! its size. Those of skopeo are in `registry_server`.

#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

mod crate_client;
mod docker_cli;
mod others;
mod peers;
#[path = "../registry_server/server.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod server;
mod signatures;

use dozen_testbox::Machine;
use serde_json::Value;

use server::HOST;

/// A manifest as the registry has it.
fn manifest(machine: &Machine, name: &str) -> Value {
    let source = format!("docker://{HOST}/{name}");
    let raw = machine.run("skopeo", &["--insecure-policy", "inspect", "--raw", "--tls-verify=false", &source]).text();
    serde_json::from_str(&raw).unwrap()
}

/// By which every engine knows it.
fn id(machine: &Machine, name: &str) -> String {
    manifest(machine, name)["config"]["digest"].as_str().unwrap().to_owned()
}

/// `htpasswd -nbB -C 4 ann secret`
const PASSWORDS: &str = "ann:$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n";

fn passwords(machine: &Machine) -> String {
    let path = machine.directory().join("passwords");
    std::fs::write(&path, PASSWORDS).unwrap();
    path.to_str().unwrap().to_owned()
}
