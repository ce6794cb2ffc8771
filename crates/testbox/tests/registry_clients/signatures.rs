//! podman's signatures are ours, and ours are podman's: each signs, and the other's policy lets it in and nothing else.

use dozen_testbox::{Daemon, Machine};
use serde_json::json;

use crate::peers::Peers;
use crate::server::{HOST, Server};

/// Where podman has its own.
const POLICY: &str = "/etc/containers/policy.json";

#[test]
#[ignore = "needs the other engines: cargo xtask clients peers"]
fn podman_and_we_sign_for_each_other() {
    let machine = Machine::new();
    let server = Server::start(&machine, &[]);
    server.push("busybox", "team/box:1").expect(0);
    let peers = Peers::enter(&machine);
    let directory = machine.directory().to_str().unwrap();
    let passphrase = format!("{directory}/passphrase");
    std::fs::write(&passphrase, "sesame\n").unwrap();
    let generate = ["trust", "key", "generate", "--dir", directory, "--passphrase-file", &passphrase, "team"];
    machine.run(dozen_testbox::dozen_program(), &generate).expect(0);
    let [key, public] = ["key", "pub"].map(|end| format!("{directory}/team.{end}"));
    for path in [&key, &public, &passphrase] {
        let name = path.rsplit('/').next().unwrap();
        peers.write(&format!("/keys/{name}"), &std::fs::read_to_string(path).unwrap());
    }
    peers.write(
        "/etc/containers/registries.d/own.yaml",
        &format!("docker: {{ '{HOST}': {{ use-sigstore-attachments: true }} }}\n"),
    );
    let rules = |key: &str| {
        let signed = json!([{ "type": "sigstoreSigned", "keyPath": key }]);
        json!({ "default": [{ "type": "insecureAcceptAnything" }], "transports": { "docker": { HOST: signed } } })
            .to_string()
    };

    // podman signs with our key, and we take it.
    let [bare, theirs, ours] = ["team/box:1", "podman/box:1", "dozen/box:1"].map(|name| format!("{HOST}/{name}"));
    peers.run("podman", &["pull", "--tls-verify=false", &bare]).expect(0);
    let sign = ["push", "--tls-verify=false", "--sign-by-sigstore-private-key", "/keys/team.key"];
    let sign = [&sign[..], &["--sign-passphrase-file", "/keys/passphrase", &bare, &theirs]].concat();
    peers.run("podman", &sign).expect(0);
    let policy = format!("{directory}/policy.json");
    std::fs::write(&policy, rules(&public)).unwrap();
    let daemon = Daemon::with_file(&machine, &json!({ "signature-policy": policy }).to_string());
    daemon.dozen(&["pull", &theirs]).expect(0);
    daemon.dozen(&["pull", &bare]).refuses(1, &["A signature was required, but no signature exists"]);

    // We sign, and podman takes it.
    daemon.dozen(&["tag", &theirs, &ours]).expect(0);
    let sign = ["push", "--sign-by-sigstore-private-key", &key, "--sign-passphrase-file", &passphrase, &ours];
    daemon.dozen(&sign).expect(0);
    peers.write(POLICY, &rules("/keys/team.pub"));
    peers.run("podman", &["pull", "--tls-verify=false", &ours]).expect(0);
    let refused = peers.run("podman", &["pull", "--tls-verify=false", &bare]);
    assert!(
        refused.code != 0 && refused.err.contains("A signature was required, but no signature exists"),
        "{refused:?}"
    );
}
