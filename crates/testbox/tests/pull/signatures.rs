//! A policy for signatures: what comes and what does not. openssl signs, and skopeo brings it there.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use dozen_testbox::{Daemon, Machine, docker_program};
use serde_json::{Value, json};

use crate::HOST;
use crate::certificates::{certs, put};
use crate::registry::{Between, Registry, reply};

pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Made with `openssl genpkey`.
pub const KEY: &str = include_str!("keys/signer.key");
pub const PUBLIC: &str = include_str!("keys/signer.pub");
pub const OTHER: &str = include_str!("keys/other.pub");

pub fn file(machine: &Machine, name: &str, text: &str) -> PathBuf {
    let path = machine.directory().join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    path
}

/// A policy whose rules for registries are these.
pub fn policy(machine: &Machine, rules: &Value) -> PathBuf {
    let policy = json!({ "default": [{ "type": "insecureAcceptAnything" }], "transports": { "docker": rules } });
    file(machine, "policy.json", &policy.to_string())
}

pub fn configuration(policy: &Path) -> String {
    json!({ "signature-policy": policy }).to_string()
}

fn signed(key: &Path) -> Value {
    json!([{ "type": "sigstoreSigned", "keyPath": key }])
}

/// Brings an image there and signs it, by another name if one is said: `openssl` makes the signature, and `skopeo` brings the
/// manifest that cosign would make of it (its specs/SIGNATURE_SPEC.md).
fn sign(machine: &Machine, registry: &Registry<'_>, image: &str, name: &str, identity: Option<&str>) {
    registry.fill(image, name);
    attach(machine, name, identity);
}

/// Signs what is there.
pub fn attach(machine: &Machine, name: &str, identity: Option<&str>) {
    let own = format!("{HOST}/{name}");
    let digest = digest(machine, name);
    let payload = json!({
        "critical": {
            "identity": { "docker-reference": identity.unwrap_or(&own) },
            "image": { "docker-manifest-digest": digest },
            "type": "cosign container image signature",
        },
        "optional": null,
    });
    let key = file(machine, "signer.key", KEY);
    let payload = file(machine, "signature/payload", &payload.to_string());
    let [payload, key] = [&payload, &key].map(|path| path.to_str().unwrap());
    let signed =
        machine.run("sh", &["-c", "openssl dgst -sha256 -sign $1 $2 | base64 -w 0", "sh", key, payload]).text();
    let config = file(
        machine,
        "signature/config",
        r#"{"architecture":"","os":"","config":{},"rootfs":{"type":"layers","diff_ids":[]}}"#,
    );
    let blob = |path: &str| {
        let hex = machine.run("sha256sum", &[path]).text().split(' ').next().unwrap().to_owned();
        std::fs::copy(path, machine.directory().join("signature").join(&hex)).unwrap();
        (format!("sha256:{hex}"), std::fs::metadata(path).unwrap().len())
    };
    let ((config, config_size), (payload, payload_size)) = (blob(config.to_str().unwrap()), blob(payload));
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": config_size },
        "layers": [{
            "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
            "digest": payload,
            "size": payload_size,
            "annotations": { "dev.cosignproject.cosign/signature": signed },
        }],
    });
    file(machine, "signature/manifest.json", &manifest.to_string());
    file(machine, "signature/version", "Directory Transport Version: 1.1\n");
    let source = format!("dir:{}", machine.directory().join("signature").display());
    let repository = name.split(':').next().unwrap();
    let target = format!("docker://{HOST}/{repository}:{}", tag(&digest));
    machine.run("skopeo", &["--insecure-policy", "copy", "-q", "--dest-tls-verify=false", &source, &target]).expect(0);
}

/// At which an image's signatures are.
fn tag(digest: &str) -> String {
    format!("{}.sig", digest.replace(':', "-"))
}

pub fn digest(machine: &Machine, name: &str) -> String {
    let raw = "skopeo --insecure-policy inspect --tls-verify=false --raw \"docker://$1\" | sha256sum";
    let sum = machine.run("sh", &["-c", raw, "sh", &format!("{HOST}/{name}")]).text();
    format!("sha256:{}", sum.split(' ').next().unwrap())
}

pub fn copy(machine: &Machine, from: &str, to: &str) {
    let [from, to] = [from, to].map(|name| format!("docker://{HOST}/{name}"));
    let plain = ["--insecure-policy", "copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false"];
    machine.run("skopeo", &[&plain[..], &[&from, &to]].concat()).expect(0);
}

#[test]
fn what_somebody_has_signed_comes_and_nothing_else() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    let [public, other] = [("good.pub", PUBLIC), ("other.pub", OTHER)].map(|(name, text)| file(&machine, name, text));
    sign(&machine, &registry, "busybox", "team/web:1", None);
    sign(&machine, &registry, "busybox", "team/elsewhere:1", Some("127.0.0.1:5000/team/web:1"));
    sign(&machine, &registry, "busybox", "other/web:1", None);
    sign(&machine, &registry, "busybox", "team/moved:1", None);
    registry.fill("nginx:1.22", "team/bare:1");
    registry.fill("busybox", "open/web:1");
    let rules = json!({
        HOST: [{ "type": "reject" }],
        "127.0.0.1:5000/team": signed(&public),
        "127.0.0.1:5000/other": signed(&other),
        "127.0.0.1:5000/open": [{ "type": "insecureAcceptAnything" }],
    });
    let daemon = Daemon::with_file(&machine, &configuration(&policy(&machine, &rules)));
    let pull = |name: &str| daemon.dozen(&["pull", &format!("{HOST}/{name}")]);
    pull("team/web:1").expect(0);
    pull("open/web:1").expect(0);
    // By its digest, too: of who asks so the repository is compared.
    let web = digest(&machine, "team/web:1");
    pull(&format!("team/web@{web}")).expect(0);
    daemon.dozen(&["run", "--rm", "--pull", "always", &format!("{HOST}/team/web:1"), "true"]).expect(0);

    let rejected = |name: &str, scope: &str, kind: &str, why: &str| {
        let head = format!(
            "Source image rejected: the rule for {scope} of the signature policy ({kind}) refuses {HOST}/{name}"
        );
        pull(name).refuses(1, &[&head, why]);
        daemon.dozen(&["image", "inspect", &format!("{HOST}/{name}")]).refuses(1, &["No such image"]);
    };
    let team = format!("{HOST}/team");
    rejected("team/bare:1", &team, "sigstoreSigned", "A signature was required, but no signature exists");
    let bare = digest(&machine, "team/bare:1");
    pull("team/bare:1").refuses(1, &[&format!("({bare})")]);
    let named =
        "Signature for identity 127.0.0.1:5000/team/web:1 is not accepted: wanted is 127.0.0.1:5000/team/elsewhere:1";
    rejected("team/elsewhere:1", &team, "sigstoreSigned", named);
    let stranger = "cryptographic signature verification failed";
    rejected("other/web:1", &format!("{HOST}/other"), "sigstoreSigned", stranger);
    rejected("no/web:1", HOST, "reject", "nothing may come from there");

    // A tag that leads elsewhere since, and another image's signature laid beside it.
    let moved = digest(&machine, "team/moved:1");
    copy(&machine, "team/bare:1", "team/moved:1");
    rejected("team/moved:1", &team, "sigstoreSigned", "no signature exists");
    copy(&machine, &format!("team/moved:{}", tag(&moved)), &format!("team/moved:{}", tag(&bare)));
    rejected("team/moved:1", &team, "sigstoreSigned", &format!("it is for {moved}, another image"));
    // Nothing of what was refused lies about.
    let layers = daemon.dozen(&["images", "--format", "{{.Repository}}"]).text();
    assert!(!layers.contains("bare") && !layers.contains("moved"), "{layers}");

    // Status and words of the API are those of a rule.
    let asked = ["-sS", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST", "--unix-socket"];
    let url = format!("http://d/images/create?fromImage={HOST}/team/bare&tag=1");
    let socket = machine.socket();
    let status = machine.run("curl", &[&asked[..], &[socket.to_str().unwrap(), &url]].concat()).text();
    assert_eq!(status, "403");
    // docker's own command line shows it.
    let name = format!("{HOST}/team/bare:1");
    let shown = machine.run(docker_program(), &["pull", &name]);
    assert!(shown.code == 1 && shown.err.contains("Source image rejected: the rule for"), "{shown:?}");
}

#[test]
fn artifacts_come_by_the_same_rules() {
    let machine = Machine::new();
    let _registry = Registry::start(&machine);
    let public = file(&machine, "good.pub", PUBLIC);
    let rules = json!({ "127.0.0.1:5000/team": signed(&public), "127.0.0.1:5000/closed": [{ "type": "reject" }] });
    let daemon = Daemon::with_file(&machine, &configuration(&policy(&machine, &rules)));
    let notes = file(&machine, "notes", "read me");
    let name = format!("{HOST}/team/notes:1");
    let artifact = |arguments: &[&str]| daemon.dozen(&[&["artifact"], arguments].concat());
    artifact(&["add", &name, notes.to_str().unwrap()]).expect(0);
    artifact(&["push", &name]).expect(0);
    artifact(&["rm", &name]).expect(0);
    artifact(&["pull", &name]).refuses(1, &["Source image rejected", "no signature exists"]);
    artifact(&["pull", &format!("{HOST}/closed/notes:1")]).refuses(1, &["(reject)"]);
    assert_eq!(artifact(&["ls", "-q"]).text(), "", "nothing is kept of what was refused");
    attach(&machine, "team/notes:1", None);
    artifact(&["pull", &name]).expect(0);
}

#[test]
fn of_an_index_itself_or_what_is_taken_of_it_is_signed() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    let rules = json!({ HOST: signed(&file(&machine, "good.pub", PUBLIC)) });
    let daemon = Daemon::with_file(&machine, &configuration(&policy(&machine, &rules)));
    for (image, is_signed) in [("bare", [false, false]), ("podman", [false, true]), ("cosign", [true, false])] {
        let name = format!("{image}/web:1");
        registry.fill("busybox", &name);
        let index = index(&[entry(&machine, &name, "amd64")], image);
        if is_signed[1] {
            // Each by the name that the index has.
            attach(&machine, &name, Some(&format!("{HOST}/{image}/web:all")));
        }
        registry.put(&format!("{image}/web"), "all", INDEX, &index.to_string());
        if is_signed[0] {
            attach(&machine, &format!("{image}/web:all"), None);
        }
        let all = format!("{HOST}/{image}/web:all");
        let pulled = daemon.dozen(&["pull", &all]);
        if is_signed == [false, false] {
            pulled.refuses(1, &["but no signature exists"]);
            continue;
        }
        // Of what nobody vouches for nothing is kept: a push would sign it.
        let root = digest(&machine, &format!("{image}/web:all"));
        let kept = if is_signed[0] { &root } else { &digest(&machine, &name) };
        let told = pulled.expect(0).out;
        assert!(told.contains(&format!("Digest: {kept}\n")), "{told}");
        let digests = daemon.dozen(&["image", "inspect", "-f", "{{json .RepoDigests}}", &all]).text();
        let digests: Vec<String> = serde_json::from_str(&digests).unwrap();
        let own: Vec<_> = digests.iter().filter(|name| name.contains(&format!("/{image}/"))).collect();
        assert_eq!(own, [&format!("{HOST}/{image}/web@{kept}")]);
        // Who has asked for the index finds what was taken of it.
        daemon.dozen(&["run", "--rm", &format!("{HOST}/{image}/web@{root}"), "true"]).expect(0);
    }
}

/// Of an index: what is there by this name.
pub fn entry(machine: &Machine, name: &str, architecture: &str) -> Value {
    let raw = format!("docker://{HOST}/{name}");
    let raw = machine.run("skopeo", &["--insecure-policy", "inspect", "--raw", "--tls-verify=false", &raw]).text();
    let platform = json!({ "os": "linux", "architecture": architecture });
    let kind = serde_json::from_str::<Value>(&raw).unwrap()["mediaType"].clone();
    json!({ "mediaType": kind, "digest": digest(machine, name), "size": raw.len(), "platform": platform })
}

pub fn index(entries: &[Value], note: &str) -> Value {
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries, "annotations": { "note": note } })
}

#[test]
fn a_build_for_another_platform_asks_for_the_tags_signature() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    let name = format!("{HOST}/box:both");
    let public = file(&machine, "good.pub", PUBLIC);
    let rules = json!({ HOST: [{ "type": "reject" }], &name: signed(&public) });
    let daemon = Daemon::with_file(&machine, &configuration(&policy(&machine, &rules)));
    registry.fill("busybox", "box:here");
    let archive = machine.directory().join("root.tar").display().to_string();
    let public = public.file_name().unwrap().to_str().unwrap();
    machine.run("tar", &["-cf", &archive, "-C", machine.directory().to_str().unwrap(), public]).expect(0);
    let far = format!("{HOST}/box:far");
    daemon.dozen(&["import", "--platform", "linux/arm64", &archive, &far]).expect(0);
    daemon.dozen(&["push", &far]).expect(0);
    daemon.dozen(&["rmi", &far]).expect(0);
    let entries = [entry(&machine, "box:here", "amd64"), entry(&machine, "box:far", "arm64")];
    // As cosign does it: what the index names is not signed.
    registry.put("box", "both", INDEX, &index(&entries, "good").to_string());
    attach(&machine, "box:both", None);
    daemon.dozen(&["pull", &name]).expect(0);
    file(&machine, "context/Dockerfile", &format!("FROM --platform=linux/arm64 {name}\nLABEL a=b\n"));
    let context = machine.directory().join("context");
    let build = || daemon.dozen(&["build", "-q", context.to_str().unwrap()]);
    build().expect(0);
    assert_eq!(daemon.dozen(&["image", "inspect", "-f", "{{.Architecture}}", &name]).text(), "amd64\n");
    registry.put("box", "both", INDEX, &index(&entries, "bad").to_string());
    build().refuses(1, &["the rule for 127.0.0.1:5000/box:both", "but no signature exists"]);
}

#[test]
fn a_build_takes_nothing_that_nobody_signed() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    registry.fill("busybox", "team/bare:1");
    sign(&machine, &registry, "busybox", "team/box:1", None);
    let rules = json!({ HOST: signed(&file(&machine, "good.pub", PUBLIC)) });
    let daemon = Daemon::with_file(&machine, &configuration(&policy(&machine, &rules)));
    let context = machine.directory().join("context");
    let build = |text: &str, more: &[&str]| {
        file(&machine, "context/Dockerfile", text);
        daemon.dozen(&[&["build", "-q"], more, &[context.to_str().unwrap()]].concat())
    };
    let words = "A signature was required, but no signature exists";
    build(&format!("FROM {HOST}/team/bare:1\n"), &[]).refuses(1, &[words]);
    let copies = format!("FROM {HOST}/team/box:1\nCOPY --from={HOST}/team/bare:1 /bin/sh /sh\n");
    build(&copies, &[]).refuses(1, &[words]);
    build(&format!("FROM {HOST}/team/box:1\nRUN true\n"), &[]).expect(0);
    // A cache is files that somebody else made, and has no signature.
    let cache = format!("type=registry,ref={HOST}/team/cache:1");
    file(&machine, "context/Dockerfile", &format!("FROM {HOST}/team/box:1\nRUN true\n"));
    let built = daemon.dozen(&["build", "--progress", "plain", "--cache-from", &cache, context.to_str().unwrap()]);
    assert!(built.expect(0).err.contains("no cache is imported from"), "it says so");
}

#[test]
fn a_policy_is_read_again_and_a_wrong_one_changes_nothing() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    registry.fill("busybox", "team/bare:1");
    let name = format!("{HOST}/team/bare:1");
    let daemon = Daemon::with_file(&machine, "{}");
    daemon.dozen(&["pull", &name]).expect(0);
    // What is here stays, and is looked at when it is pulled again.
    let closed = configuration(&policy(&machine, &json!({ "*.0.0.1": [{ "type": "reject" }] })));
    daemon.reload(&closed);
    daemon.dozen(&["pull", &name]).refuses(1, &["the rule for *.0.0.1 of the signature policy (reject)"]);
    daemon.dozen(&["run", "--rm", "--pull", "never", &name, "true"]).expect(0);
    file(
        &machine,
        "policy.json",
        "{\n \"default\": [{\"type\": \"signedBy\", \"keyType\": \"GPGKeys\", \"keyPath\": \"/k\"}]\n}",
    );
    daemon.signal(rustix::process::Signal::HUP);
    daemon.says("signedBy is not built: signatures by GPG are not looked at; sigstoreSigned is at line 2", 1);
    daemon.dozen(&["pull", &name]).refuses(1, &["(reject)"]);
    daemon.reload("{}");
    daemon.dozen(&["pull", &name]).expect(0);
    drop(daemon);
    let path = file(&machine, "daemon.json", &closed);
    let arguments = ["daemon", "--validate", "--config-file", path.to_str().unwrap()];
    machine.run(dozen_testbox::dozen_program(), &arguments).refuses(1, &["signature-policy", "signedBy is not built"]);
}

#[test]
fn whichever_mirror_answers_the_name_that_was_asked_for_counts() {
    const NOWHERE: &str = "registry.nowhere.example:5000";
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    registry.fill("busybox", "hub/box:1");
    attach(&machine, "hub/box:1", Some(&format!("{NOWHERE}/box:1")));
    registry.fill("nginx:1.22", "hub/web:1");
    attach(&machine, "hub/web:1", None);
    put(&machine, NOWHERE, "hosts.toml", &format!("[host.\"http://{HOST}/v2/hub\"]\noverride_path = true\n"));
    let rules = json!({ NOWHERE: signed(&file(&machine, "good.pub", PUBLIC)), HOST: [{ "type": "reject" }] });
    let policy = policy(&machine, &rules);
    let configuration = json!({ "signature-policy": policy, "certs-dirs": [certs(&machine)] }).to_string();
    let daemon = Daemon::with_file(&machine, &configuration);
    daemon.dozen(&["pull", &format!("{NOWHERE}/box:1")]).expect(0);
    // Signed by the name that the mirror has for it.
    let words = format!("Signature for identity {HOST}/hub/web:1 is not accepted: wanted is {NOWHERE}/web:1");
    daemon.dozen(&["pull", &format!("{NOWHERE}/web:1")]).refuses(1, &[&words]);
}

#[test]
fn a_registry_that_lies_gets_nothing_in() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    sign(&machine, &registry, "busybox", "team/web:1", None);
    let lie: Arc<Mutex<&str>> = Arc::default();
    let told = lie.clone();
    let between = Between::start(&machine, registry.port, move |asked| match *told.lock().unwrap() {
        _ if !asked.path.contains("/manifests/sha256-") => asked.forward(),
        "html" => reply("200 OK", &[("Content-Type", "text/html")], b"<html>"),
        "error" => reply("403 Forbidden", &[], b""),
        "many" => {
            let kind = "application/vnd.oci.image.manifest.v1+json";
            let layer = json!({
                "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
                "digest": format!("sha256:{}", "a".repeat(64)), "size": 9_000_000,
                "annotations": { "dev.cosignproject.cosign/signature": "AAAA" },
            });
            let layers = vec![layer; 2000];
            let manifest = json!({ "schemaVersion": 2, "mediaType": kind, "config": {}, "layers": layers });
            reply("200 OK", &[("Content-Type", kind)], manifest.to_string().as_bytes())
        }
        _ => asked.forward(),
    });
    let name = format!("{}/team/web:1", between.host);
    // It was signed by the name that the registry itself has.
    let identity = json!({ "type": "remapIdentity", "prefix": between.host, "signedPrefix": HOST });
    let public = file(&machine, "good.pub", PUBLIC);
    let rules = json!({ &between.host: [{ "type": "sigstoreSigned", "keyPath": public, "signedIdentity": identity }] });
    let daemon = Daemon::with_file(&machine, &configuration(&policy(&machine, &rules)));
    for (how, words) in [
        ("html", "what answers is a web page"),
        ("error", "the manifest sha256-"),
        ("many", "is larger than 65536 bytes"),
    ] {
        *lie.lock().unwrap() = how;
        daemon.dozen(&["pull", &name]).refuses(1, &[words]);
        assert_eq!(daemon.dozen(&["images", "-q"]).text(), "", "{how}");
    }
    *lie.lock().unwrap() = "";
    daemon.dozen(&["pull", &name]).expect(0);
    between.stop(&machine);
}
