//! A policy for signatures and bundles as cosign 3 makes them, at a registry that lists what refers to an image, and at one
//! for which clients keep that list under a tag. openssl signs, and curl brings it there.

use std::path::Path;
use std::sync::{Arc, Mutex};

use dozen_testbox::{Daemon, Machine};
use serde_json::{Value, json};

use crate::registry::{Between, Registry, reply};
use crate::server::Server;
use crate::signatures::{INDEX, KEY, OTHER, PUBLIC, attach, configuration, copy, digest, entry, file, index, policy};
use crate::{HOST, certificates};

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const SIGN: &str = "https://sigstore.dev/cosign/sign/v1";
const PROVENANCE: &str = "https://slsa.dev/provenance/v1";
const NONE_TAKEN: &str = "there is a bundle as cosign 3 makes it, which names no repository, and the rule takes none";

/// What a bundle is of, and what it states.
struct Bundle<'a> {
    image: &'a str,
    states: &'a str,
}

/// As cosign makes it of a key (its specs/BUNDLE_SPEC.md): DSSE's text is what openssl signs.
fn bundle(machine: &Machine, bundle: &Bundle<'_>) -> String {
    let (_, hex) = bundle.image.split_once(':').unwrap();
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "digest": { "sha256": hex }, "annotations": {} }],
        "predicateType": bundle.states,
        "predicate": {},
    });
    let statement = statement.to_string();
    let signed = format!("DSSEv1 28 application/vnd.in-toto+json {} {statement}", statement.len());
    let [key, signed, statement] = [("signer.key", KEY), ("signed", &signed), ("statement", &statement)]
        .map(|(name, text)| file(machine, name, text).to_str().unwrap().to_owned());
    let text = |script: &str, arguments: &[&str]| {
        machine.run("sh", &[&["-c", script, "sh"], arguments].concat()).text().trim().to_owned()
    };
    let signature = text("openssl dgst -sha256 -sign $1 $2 | base64 -w 0", &[&key, &signed]);
    let payload = text("base64 -w 0 $1", &[&statement]);
    json!({
        "mediaType": BUNDLE,
        "verificationMaterial": { "publicKey": { "hint": "AoWjDtY9" }, "tlogEntries": [] },
        "dsseEnvelope": {
            "payload": payload,
            "payloadType": "application/vnd.in-toto+json",
            "signatures": [{ "sig": signature }],
        },
    })
    .to_string()
}

fn sha256(machine: &Machine, path: &str) -> String {
    format!("sha256:{}", machine.run("sha256sum", &[path]).text().split(' ').next().unwrap())
}

/// Puts something at an address, and gives the headers of the answer.
fn put(machine: &Machine, url: &str, kind: &str, path: &str) -> String {
    let arguments = ["-sSf", "-D", "-", "-o", "/dev/null", "-X", "PUT", "-H"];
    let (kind, data) = (format!("Content-Type: {kind}"), format!("@{path}"));
    machine.run("curl", &[&arguments[..], &[&kind, "--data-binary", &data, url]].concat()).text()
}

fn blob(machine: &Machine, repository: &str, path: &str) -> String {
    let digest = sha256(machine, path);
    let begin = format!("http://{HOST}/v2/{repository}/blobs/uploads/");
    let arguments = ["-sSf", "-D", "-", "-o", "/dev/null", "-X", "POST", "-H", "Content-Length: 0", &begin];
    let answer = machine.run("curl", &arguments).text();
    let location = answer.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("location").then(|| value.trim().to_owned())
    });
    let location = location.unwrap();
    let location = if location.starts_with('/') { format!("http://{HOST}{location}") } else { location };
    let between = if location.contains('?') { '&' } else { '?' };
    put(machine, &format!("{location}{between}digest={digest}"), "application/octet-stream", path);
    digest
}

/// Puts a bundle beside an image of a repository, as go-containerregistry does it: where the registry keeps no list, it is
/// put under a tag, with the type of the configuration in place of the artifact's (cosign#4641).
fn refer(machine: &Machine, repository: &str, image: &str, bundle: &str, states: &str) {
    let path = file(machine, "bundle.json", bundle).to_str().unwrap().to_owned();
    let empty = file(machine, "empty.json", "{}").to_str().unwrap().to_owned();
    let [bundle_digest, empty_digest] = [&path, &empty].map(|path| blob(machine, repository, path));
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": BUNDLE,
        "config": { "mediaType": EMPTY, "digest": empty_digest, "size": 2 },
        "layers": [{ "mediaType": BUNDLE, "digest": bundle_digest, "size": bundle.len() }],
        "annotations": {
            "dev.sigstore.bundle.content": "dsse-envelope",
            "dev.sigstore.bundle.predicateType": states,
            "org.opencontainers.image.created": "2026-11-23T05:00:00Z",
        },
        "subject": { "mediaType": MANIFEST, "digest": image, "size": 1 },
    })
    .to_string();
    let path = file(machine, "referrer.json", &manifest).to_str().unwrap().to_owned();
    let own = sha256(machine, &path);
    let answer = put(machine, &format!("http://{HOST}/v2/{repository}/manifests/{own}"), MANIFEST, &path);
    if answer.to_ascii_lowercase().contains("oci-subject:") {
        return;
    }
    let tag = format!("http://{HOST}/v2/{repository}/manifests/{}", image.replace(':', "-"));
    let before = machine.run("curl", &["-sS", "-H", &format!("Accept: {INDEX}"), &tag]).text();
    let before: Value = serde_json::from_str(&before).unwrap_or_default();
    let mut entries = before["manifests"].as_array().cloned().unwrap_or_default();
    entries.push(json!({ "mediaType": MANIFEST, "digest": own, "size": manifest.len(), "artifactType": EMPTY }));
    let list = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries }).to_string();
    let path = file(machine, "list.json", &list).to_str().unwrap().to_owned();
    put(machine, &tag, INDEX, &path);
}

/// What `cosign sign --key` does.
fn sign(machine: &Machine, name: &str) {
    let image = digest(machine, name);
    let bundle = bundle(machine, &Bundle { image: &image, states: SIGN });
    refer(machine, name.split(':').next().unwrap(), &image, &bundle, SIGN);
}

fn rule(key: &Path, more: &Value) -> Value {
    let mut rule = json!({ "type": "sigstoreSigned", "keyPath": key });
    rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!([rule])
}

fn open() -> Value {
    json!({ "sigstoreBundles": "acceptWithoutIdentity" })
}

/// With what is at both kinds of registries.
fn bundles_count_where_a_rule_takes_them(machine: &Machine, fill: &dyn Fn(&str, &str)) {
    let any_name = json!({ "signedIdentity": { "type": "matchRepository" } });
    let [public, other] = [("good.pub", PUBLIC), ("other.pub", OTHER)].map(|(name, text)| file(machine, name, text));
    let rules = json!({
        HOST: [{ "type": "reject" }],
        format!("{HOST}/team"): rule(&public, &open()),
        format!("{HOST}/named"): rule(&public, &any_name),
        format!("{HOST}/other"): rule(&other, &open()),
        format!("{HOST}/open"): [{ "type": "insecureAcceptAnything" }],
    });
    let policy = policy(machine, &rules);
    // For podman and skopeo the file is no policy: what they do not know lets nothing in.
    let [source, target] =
        [format!("docker://{HOST}/open/web:1"), format!("dir:{}/never", machine.directory().display())];
    let skopeo = machine.run("skopeo", &["--policy", policy.to_str().unwrap(), "copy", &source, &target]);
    assert!(skopeo.code != 0 && skopeo.err.contains("Unknown key"), "{skopeo:?}");
    let daemon = Daemon::with_file(machine, &configuration(&policy));
    let pull = |name: &str| daemon.dozen(&["pull", &format!("{HOST}/{name}")]);
    for name in ["team/web:1", "team/bare:1", "team/noted:1", "named/web:1", "other/web:1"] {
        let image = if name == "team/bare:1" { "nginx:1.22" } else { "busybox" };
        fill(image, name);
    }
    for name in ["team/web:1", "named/web:1", "other/web:1"] {
        sign(machine, name);
    }
    pull("team/web:1").expect(0);
    daemon.dozen(&["run", "--rm", "--pull", "always", &format!("{HOST}/team/web:1"), "true"]).expect(0);
    pull(&format!("team/web@{}", digest(machine, "team/web:1"))).expect(0);
    file(machine, "context/Dockerfile", &format!("FROM {HOST}/team/web:1\nRUN true\n"));
    let build = ["build", "-q", machine.directory().join("context").to_str().unwrap()].map(str::to_owned);
    daemon.dozen(&build.each_ref().map(String::as_str)).expect(0);

    // Without the word it is none, and what to do is said.
    let word = "\"sigstoreBundles\": \"acceptWithoutIdentity\"";
    let old = "cosign sign --key FILE --new-bundle-format=false --use-signing-config=false";
    pull("named/web:1").refuses(1, &["no signature exists", NONE_TAKEN, word, old, "policy.json"]);
    pull("other/web:1").refuses(1, &["it is of none of the rule's keys"]);
    // A signature beside it counts as ever.
    attach(machine, "named/web:1", None);
    pull("named/web:1").expect(0);

    pull("team/bare:1").refuses(1, &["but no signature exists"]);
    // Another image's, laid beside this one: by what it says itself, and by what the manifest says.
    let [web, bare] = ["team/web:1", "team/bare:1"].map(|name| digest(machine, name));
    let of_web = bundle(machine, &Bundle { image: &web, states: SIGN });
    refer(machine, "team/bare", &bare, &of_web, SIGN);
    pull("team/bare:1").refuses(1, &[&format!("it is for {web}, another image")]);
    // What says something else of it by the same key is no signature, whatever the list says of it.
    let noted = digest(machine, "team/noted:1");
    let provenance = bundle(machine, &Bundle { image: &noted, states: PROVENANCE });
    refer(machine, "team/noted", &noted, &provenance, SIGN);
    pull("team/noted:1").refuses(1, &["states \"https://slsa.dev/provenance/v1\", which is no signature"]);
    assert!(!daemon.dozen(&["images"]).text().contains("noted"), "nothing is kept of what was refused");
    // Beside which a good one counts.
    sign(machine, "team/noted:1");
    pull("team/noted:1").expect(0);
    // That is the price: what was signed comes by any name that the rule is for.
    copy(machine, "team/web:1", "team/elsewhere:1");
    pull("team/elsewhere:1").refuses(1, &["but no signature exists"]);
    refer(machine, "team/elsewhere", &web, &of_web, SIGN);
    pull("team/elsewhere:1").expect(0);

    // Artifacts, by the same rules.
    let notes = format!("{HOST}/team/notes:1");
    let path = file(machine, "notes", "read me");
    let artifact = |arguments: &[&str]| daemon.dozen(&[&["artifact"], arguments].concat());
    artifact(&["add", &notes, path.to_str().unwrap()]).expect(0);
    artifact(&["push", &notes]).expect(0);
    artifact(&["rm", &notes]).expect(0);
    artifact(&["pull", &notes]).refuses(1, &["but no signature exists"]);
    sign(machine, "team/notes:1");
    artifact(&["pull", &notes]).expect(0);

    // cosign signs an index, and nothing that it names.
    for repository in ["team/all", "named/all", "other/all"] {
        fill("busybox", &format!("{repository}:one"));
        let index = index(&[entry(machine, &format!("{repository}:one"), "amd64")], repository).to_string();
        let path = file(machine, "index.json", &index).to_str().unwrap().to_owned();
        put(machine, &format!("http://{HOST}/v2/{repository}/manifests/all"), INDEX, &path);
        sign(machine, &format!("{repository}:all"));
    }
    pull("team/all:all").expect(0);
    let root = digest(machine, "named/all:all");
    pull("named/all:all").refuses(1, &[&format!("({root})"), NONE_TAKEN]);
    let root = digest(machine, "other/all:all");
    pull("other/all:all").refuses(1, &[&format!("({root})"), "it is of none of the rule's keys"]);
}

#[test]
fn at_a_registry_that_lists_what_refers() {
    let machine = Machine::new();
    let server = Server::start(&machine, &[]);
    bundles_count_where_a_rule_takes_them(&machine, &|image, name| {
        server.push(image, name).expect(0);
    });
}

#[test]
fn at_a_registry_for_which_clients_keep_the_list() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    bundles_count_where_a_rule_takes_them(&machine, &|image, name| registry.fill(image, name));
}

#[test]
fn a_list_that_lies_gets_nothing_in() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    registry.fill("busybox", "team/web:1");
    sign(&machine, "team/web:1");
    let image = digest(&machine, "team/web:1");
    let lie: Arc<Mutex<&str>> = Arc::default();
    let told = lie.clone();
    let asked_for: Arc<Mutex<usize>> = Arc::default();
    let manifests = asked_for.clone();
    let between = Between::start(&machine, registry.port, move |asked| {
        let is_list = asked.path.contains("/referrers/");
        if asked.path.contains("/manifests/sha256:1111") {
            *manifests.lock().unwrap() += 1;
        }
        let entry = |number: usize, size: u64| {
            let digest = format!("sha256:1111{number:060x}");
            json!({ "mediaType": MANIFEST, "digest": digest, "size": size, "artifactType": BUNDLE })
        };
        let list = |entries: Vec<Value>| {
            let body = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries }).to_string();
            reply("200 OK", &[("Content-Type", INDEX)], body.as_bytes())
        };
        match *told.lock().unwrap() {
            "many" if is_list => list((0..9_000).map(|number| entry(number, 800)).collect()),
            "too many" if is_list => list((0..11_000).map(|number| entry(number, 800)).collect()),
            "large" if is_list => list(vec![entry(1, u64::MAX)]),
            "broken" if is_list => reply("200 OK", &[("Content-Type", INDEX)], b"{\"manifests\":[{}]}"),
            "error" if is_list => reply("500 Internal Server Error", &[], b""),
            _ => asked.forward(),
        }
    });
    let name = format!("{}/team/web:1", between.host);
    let rules = json!({ &between.host: rule(&file(&machine, "good.pub", PUBLIC), &open()) });
    let daemon = Daemon::with_file(&machine, &configuration(&policy(&machine, &rules)));
    for (how, words) in [
        ("many", "manifest unknown"),
        ("too many", "there are more than 10000"),
        ("large", "a manifest of more than 65536 bytes"),
        ("broken", "it is malformed"),
        ("error", "500"),
    ] {
        *lie.lock().unwrap() = how;
        daemon.dozen(&["pull", &name]).refuses(1, &[words]);
        assert_eq!(daemon.dozen(&["images", "-q"]).text(), "", "{how}");
    }
    assert_eq!(*asked_for.lock().unwrap(), 32, "of many so many are asked for");
    *lie.lock().unwrap() = "";
    daemon.dozen(&["pull", &name]).expect(0);
    assert!(daemon.dozen(&["pull", &name]).expect(0).out.contains(&image));
    between.stop(&machine);
}

/// A mirror has the image, and keeps no list; what refers to it is known to the registry itself.
#[test]
fn a_mirror_that_keeps_no_list_hides_none() {
    let machine = Machine::new();
    let server = Server::start(&machine, &[]);
    let _mirror = Registry::with(&machine, 5001, "");
    server.push("busybox", "team/web:1").expect(0);
    sign(&machine, "team/web:1");
    let [from, to] = [HOST, "127.0.0.1:5001"].map(|host| format!("docker://{host}/team/web:1"));
    let plain = ["--insecure-policy", "copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false"];
    machine.run("skopeo", &[&plain[..], &[&from, &to]].concat()).expect(0);
    let asked_for: Arc<Mutex<bool>> = Arc::default();
    let is_asked = asked_for.clone();
    let between = Between::start(&machine, 5001, move |asked| {
        *is_asked.lock().unwrap() |= asked.path.contains("/referrers/");
        asked.forward()
    });
    let hosts = format!("server = \"http://{HOST}\"\n[host.\"http://{}\"]\n", between.host);
    certificates::put(&machine, HOST, "hosts.toml", &hosts);
    let rules = json!({ HOST: rule(&file(&machine, "good.pub", PUBLIC), &open()) });
    let policy = policy(&machine, &rules);
    let configuration = json!({ "signature-policy": policy, "certs-dirs": [certificates::certs(&machine)] });
    let daemon = Daemon::with_file(&machine, &configuration.to_string());
    let name = format!("{HOST}/team/web:1");
    daemon.dozen(&["pull", &name]).expect(0);
    assert!(*asked_for.lock().unwrap(), "the mirror was asked first");
    let image = digest(&machine, "team/web:1");
    let listed = daemon.dozen(&["artifact", "referrers", "-q", "--no-trunc", &name]).text();
    assert_eq!(listed.lines().count(), 1, "{image}: {listed}");
    between.stop(&machine);
}
