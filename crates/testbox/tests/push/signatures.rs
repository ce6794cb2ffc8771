//! What is signed as it is pushed, and a key to do it with. openssl says whether it is signed; our engine pulls nothing else.

use std::path::PathBuf;

use dozen_testbox::{Daemon, Machine, dozen_program};
use serde_json::{Value, json};

use crate::registry::Registry;
use crate::{HOST, raw};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn file(machine: &Machine, name: &str, text: &str) -> PathBuf {
    let path = machine.directory().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// The signatures of an image: where its digest says.
fn signatures(machine: &Machine, repository: &str, digest: &str) -> Vec<Value> {
    let tag = digest.replace(':', "-");
    let manifest: Value = serde_json::from_str(&raw(machine, &format!("{HOST}/{repository}:{tag}.sig"))).unwrap();
    manifest["layers"].as_array().unwrap().clone()
}

/// The digests that a push says it has signed.
fn signed(pushed: &str, tag: &str) -> Vec<String> {
    let head = format!("{tag}: signed: ");
    pushed.lines().filter_map(|line| Some(line.strip_prefix(&head)?.to_owned())).collect()
}

#[test]
fn what_is_pushed_is_signed_by_a_key_of_ones_own() {
    let machine = Machine::new();
    let _registry = Registry::start(&machine);
    let passphrase = file(&machine, "passphrase", "sesame\nnot this\n");
    let passphrase = passphrase.to_str().unwrap();
    let run = |arguments: &[&str]| machine.run(dozen_program(), arguments);
    let directory = machine.directory().to_str().unwrap();
    let generate = ["trust", "key", "generate", "--dir", directory, "--passphrase-file", passphrase, "team"];
    run(&generate).expect(0);
    run(&generate).refuses(1, &["refusing to overwrite", "team.key"]);
    let [key, public] = ["team.key", "team.pub"].map(|name| format!("{directory}/{name}"));
    let policy = json!({ "default": [{ "type": "sigstoreSigned", "keyPath": public }] });
    let policy = file(&machine, "policy.json", &policy.to_string());
    let daemon = Daemon::with_file(&machine, &json!({ "signature-policy": policy }).to_string());
    daemon.load("busybox");
    let name = format!("{HOST}/team/app:1");
    daemon.dozen(&["tag", "busybox", &name]).expect(0);

    // A key that does not open: nothing is pushed.
    let sign = ["push", "--sign-by-sigstore-private-key", &key];
    daemon.dozen(&[&sign[..], &[&name]].concat()).refuses(1, &["the passphrase is wrong", "--sign-passphrase-file"]);
    daemon.dozen(&["pull", &name]).refuses(1, &["not found"]);
    let refused = ["push", "--sign-passphrase-file", passphrase, &name];
    daemon.dozen(&refused).refuses(1, &["--sign-passphrase-file is for --sign-by-sigstore-private-key"]);

    daemon.dozen(&["push", &name]).expect(0);
    daemon.dozen(&["pull", &name]).refuses(1, &["A signature was required, but no signature exists"]);
    let sign = [&sign[..], &["--sign-passphrase-file", passphrase, &name]].concat();
    let digests = signed(&daemon.dozen(&sign).text(), "1");
    let [digest] = &digests[..] else { panic!("{digests:?}") };
    daemon.dozen(&["pull", &name]).expect(0);
    // Another name is another image's, whatever its digest.
    let other = format!("{HOST}/team/app:2");
    daemon.dozen(&["tag", "busybox", &other]).expect(0);
    daemon.dozen(&["push", &other]).expect(0);
    daemon.dozen(&["pull", &other]).refuses(1, &["is not accepted: wanted is 127.0.0.1:5000/team/app:2"]);

    // Somebody else verifies it.
    let found = signatures(&machine, "team/app", digest);
    let [one] = &found[..] else { panic!("{found:?}") };
    let url = format!("http://{HOST}/v2/team/app/blobs/{}", one["digest"].as_str().unwrap());
    let payload = machine.run("curl", &["-sSf", &url]).text();
    let said: Value = serde_json::from_str(&payload).unwrap();
    let want = json!({
        "identity": { "docker-reference": name }, "image": { "docker-manifest-digest": digest },
        "type": "cosign container image signature",
    });
    assert_eq!(said["critical"], want);
    let payload = file(&machine, "payload", &payload);
    let signature = one["annotations"]["dev.cosignproject.cosign/signature"].as_str().unwrap();
    let script = "printf %s $1 | base64 -d > $4.sig; openssl dgst -sha256 -verify $2 -signature $4.sig $3";
    let arguments = ["-c", script, "sh", signature, &public, payload.to_str().unwrap(), payload.to_str().unwrap()];
    assert_eq!(machine.run("sh", &arguments).text(), "Verified OK\n");

    // Again: it is signed already. By another name: beside the first.
    daemon.dozen(&sign).expect(0);
    assert_eq!(signatures(&machine, "team/app", digest), found);
    let repository = format!("{HOST}/team/app");
    let both = [&sign[..sign.len() - 1], &["-a", &repository]].concat();
    let all = daemon.dozen(&both).text();
    assert_eq!((signed(&all, "1"), signed(&all, "2")), (digests.clone(), digests.clone()), "{all}");
    assert_eq!(signatures(&machine, "team/app", digest).len(), 2);
    daemon.dozen(&["pull", &other]).expect(0);
    // Nobody has told the engine of the key.
    let secret = std::fs::read_to_string(&key).unwrap();
    assert!(!daemon.said().contains(secret.lines().nth(1).unwrap()) && !daemon.said().contains("sesame"));
}

#[test]
fn of_an_index_all_is_signed() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    registry.fill("busybox", "team/one:1");
    let platform = json!({ "os": "linux", "architecture": "amd64" });
    let own = raw(&machine, &format!("{HOST}/team/one:1"));
    let inspect = ["--insecure-policy", "inspect", "--tls-verify=false", "--format", "{{.Digest}}"];
    let own_name = format!("docker://{HOST}/team/one:1");
    let digest = machine.run("skopeo", &[&inspect[..], &[&own_name]].concat()).text().trim().to_owned();
    let kind = serde_json::from_str::<Value>(&own).unwrap()["mediaType"].clone();
    let entry = json!({ "mediaType": kind, "digest": digest, "size": own.len(), "platform": platform });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] });
    registry.put("team/one", "all", INDEX, &index.to_string());
    let engine = machine.engine();
    let [pulled, name] = ["one:all", "signed:all"].map(|name| format!("{HOST}/team/{name}"));
    engine.dozen(&["pull", &pulled]).expect(0);
    engine.dozen(&["tag", &pulled, &name]).expect(0);
    // A key of openssl's, which no passphrase protects.
    let key = file(&machine, "signer.key", include_str!("../pull/keys/signer.key"));
    let pushed = engine.dozen(&["push", "--sign-by-sigstore-private-key", key.to_str().unwrap(), &name]).text();
    let signed = signed(&pushed, "all");
    assert_eq!((signed.len(), &signed[0]), (2, &digest), "{pushed}");
    for digest in signed {
        assert_eq!(signatures(&machine, "team/signed", &digest).len(), 1);
    }
}

#[test]
fn a_list_is_signed_with_all_that_it_names() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    registry.fill("busybox", "team/one:1");
    let engine = machine.engine();
    let [member, list] = ["one:1", "list:1"].map(|name| format!("{HOST}/team/{name}"));
    let key = file(&machine, "signer.key", include_str!("../pull/keys/signer.key"));
    let create = ["manifest", "create", &list, &member];
    engine.dozen(&create).expect(0);
    let push = |more: &[&str]| engine.dozen(&[&["manifest", "push", "--purge"], more, &[&list]].concat());
    let by_key = ["--insecure", "--sign-by-sigstore-private-key", key.to_str().unwrap()];
    // A key that is none: nothing goes.
    push(&["--sign-by-sigstore-private-key", "/etc/hostname"]).refuses(1, &["cannot sign with /etc/hostname"]);
    engine.dozen(&["manifest", "inspect", &format!("{HOST}/team/list:2")]).refuses(1, &["no such manifest"]);
    let pushed = push(&by_key).text();
    let signed = signed(&pushed, "1");
    assert_eq!(signed.len(), 2, "{pushed}");
    // The list's digest is still what is said last.
    assert_eq!(pushed.lines().last(), signed.last().map(String::as_str), "{pushed}");
    for digest in signed {
        assert_eq!(signatures(&machine, "team/list", &digest).len(), 1);
    }
}

#[test]
fn what_is_no_signature_goes_nowhere() {
    let machine = Machine::new();
    let _registry = Registry::start(&machine);
    let engine = machine.engine();
    let key = include_str!("../pull/keys/signer.pub");
    let body = json!({ "Payload": "e30=", "Signature": "e30=", "PublicKey": key }).to_string();
    let url = format!("http://d/distribution/{HOST}%2Fteam%2Fapp/signature");
    let socket = machine.socket();
    let arguments =
        ["-sS", "--unix-socket", socket.to_str().unwrap(), "-H", "Content-Type: application/json", "-d", &body];
    let answer = machine.run("curl", &[&arguments[..], &[&url]].concat()).text();
    assert!(answer.contains("cannot sign: the signature is not of this key and this payload"), "{answer}");
    drop(engine);
}
