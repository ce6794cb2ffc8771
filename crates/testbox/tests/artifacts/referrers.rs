//! What is about an image: found by a registry's own list, or by the one that clients keep under a tag.

use dozen_testbox::{Engine, Machine};
use serde_json::Value;

use crate::registry::Registry;
use crate::server::{HOST, Server};
use crate::{artifact, file};

const SBOM: &str = "application/vnd.example.sbom";
const NOTE: &str = "application/vnd.example.note";

fn listed(engine: &Engine<'_>, more: &[&str]) -> Vec<Value> {
    let image = format!("{HOST}/team/box:1");
    let text = artifact(engine, &[&["referrers", "--format", "json", "--no-trunc", &image], more].concat()).text();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn are_listed(machine: &Machine, engine: &Engine<'_>) {
    let image = format!("{HOST}/team/box:1");
    assert!(listed(engine, &[]).is_empty());
    let mut digests = Vec::new();
    for (tag, kind) in [("sbom", SBOM), ("note", NOTE)] {
        let (name, path) = (format!("{HOST}/team/box:{tag}"), file(machine, tag, tag.as_bytes()));
        let add = ["add", "--type", kind, "--subject", &image, &name, &path];
        digests.push(format!("sha256:{}", artifact(engine, &add).text().trim()));
        for _ in 0..2 {
            artifact(engine, &["push", &name]).expect(0);
        }
    }
    let found = listed(engine, &[]);
    let types: Vec<_> = found.iter().map(|it| it["ArtifactType"].as_str().unwrap()).collect();
    assert!(types.len() == 2 && types.contains(&SBOM) && types.contains(&NOTE), "{found:?}");
    let sboms = listed(engine, &["--artifact-type", SBOM]);
    assert_eq!(sboms.len(), 1);
    assert_eq!(sboms[0]["Digest"], digests[0].as_str());
    assert!(sboms[0]["Created"].as_str().unwrap().ends_with('Z'), "{sboms:?}");
    assert!(listed(engine, &["--artifact-type", "application/vnd.example.other"]).is_empty());
    let table = artifact(engine, &["discover", &image]).text();
    assert!(table.starts_with("DIGEST                ARTIFACT TYPE  "), "{table}");
    assert_eq!(
        artifact(engine, &["referrers", "-q", "--no-trunc", "--artifact-type", NOTE, &image]).text(),
        format!("{}\n", digests[1])
    );
    // It is pulled by what was listed.
    let name = sboms[0]["Reference"].as_str().unwrap();
    artifact(engine, &["pull", name]).expect(0);
    // Nobody would find it there.
    let elsewhere = ["add", "--subject", &image, &format!("{HOST}/other/box:note"), &file(machine, "x", b"x")];
    artifact(engine, &elsewhere).refuses(1, &["is in another repository"]);
    let missing = [
        "add",
        "--subject",
        &format!("{HOST}/team/box:none"),
        &format!("{HOST}/team/box:x"),
        &file(machine, "x", b"x"),
    ];
    artifact(engine, &missing).refuses(1, &["manifest unknown"]);
    artifact(engine, &["referrers", &format!("{HOST}/team/box:none")]).refuses(1, &["manifest unknown"]);
}

#[test]
fn a_registry_of_our_own_lists_them() {
    let machine = Machine::new();
    let server = Server::start(&machine, &[]);
    server.push("busybox", "team/box:1").expect(0);
    are_listed(&machine, &machine.engine());
    drop(server);
    crate::server::check(&machine).expect(0);
}

/// Debian's knows no such lists (its version is older than the specification): there is a tag.
#[test]
fn in_docker_registry_a_tag_lists_them() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    registry.fill("busybox", "team/box:1");
    are_listed(&machine, &machine.engine());
    let repository = format!("docker://{HOST}/team/box");
    let tags = machine.run("skopeo", &["list-tags", "--tls-verify=false", &repository]).text();
    let tags: Value = serde_json::from_str(&tags).unwrap();
    let tags: Vec<_> = tags["Tags"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let list = tags.iter().find(|tag| tag.starts_with("sha256-")).unwrap();
    let raw = ["--insecure-policy", "inspect", "--raw", "--tls-verify=false", &format!("{repository}:{list}")];
    let index: Value = serde_json::from_str(&machine.run("skopeo", &raw).text()).unwrap();
    assert_eq!(index["mediaType"], "application/vnd.oci.image.index.v1+json");
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
}

/// Notes about an image that lies elsewhere, and a cache before that: they are found and pulled through it, and then again
/// without what is behind it.
fn are_found_through_a_cache(machine: &Machine, there: impl Sized) {
    let engine = machine.engine();
    let image = "127.0.0.1:5001/team/box:1";
    for (tag, kind) in [("sbom", SBOM), ("note", NOTE)] {
        let (name, path) = (format!("127.0.0.1:5001/team/box:{tag}"), file(machine, tag, tag.as_bytes()));
        artifact(&engine, &["add", "--type", kind, "--subject", image, &name, &path]).expect(0);
        artifact(&engine, &["push", &name]).expect(0);
        artifact(&engine, &["rm", &name]).expect(0);
    }
    // Under the same name: who asks is not told which of the two it is.
    let upstream = "[[upstream]]\nrepositories = \"**\"\nurl = \"http://127.0.0.1:5001\"\nfresh = \"0s\"\n";
    let upstreams = file(machine, "upstreams.toml", upstream.as_bytes());
    let begin = || Server::start(machine, &["--upstreams", &upstreams]);
    let cache = begin();
    let found = listed(&engine, &[]);
    let types: Vec<_> = found.iter().map(|it| it["ArtifactType"].as_str().unwrap()).collect();
    assert!(types.len() == 2 && types.contains(&SBOM) && types.contains(&NOTE), "{found:?}");
    let sboms = listed(&engine, &["--artifact-type", SBOM]);
    assert_eq!(sboms.len(), 1);
    let name = sboms[0]["Reference"].as_str().unwrap();
    assert!(name.starts_with(HOST), "{name}");
    artifact(&engine, &["pull", name]).expect(0);
    let tags = || {
        let repository = format!("docker://{HOST}/team/box");
        let tags = machine.run("skopeo", &["list-tags", "--tls-verify=false", &repository]).text();
        let tags: Value = serde_json::from_str(&tags).unwrap();
        tags["Tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let all = tags();
    assert!(all.iter().any(|tag| tag == "1") && all.iter().any(|tag| tag == "note"), "{all:?}");
    drop(there);
    // What was known stays known; of what has come through it a server that has just begun knows, too.
    assert_eq!((tags(), listed(&engine, &[]).len()), (all, 2));
    drop(cache);
    let cache = begin();
    assert_eq!((tags(), listed(&engine, &[])), (vec!["1".to_owned()], sboms.clone()));
    artifact(&engine, &["rm", name]).expect(0);
    artifact(&engine, &["pull", name]).expect(0);
    drop(cache);
    crate::server::check(machine).expect(0);
}

#[test]
fn through_a_cache_they_are_found_by_the_list_of_a_registry() {
    let machine = Machine::new();
    let there = Server::beside(&machine, "there", &["--listen", "127.0.0.1:5001"]);
    crate::server::push_to(&machine, "127.0.0.1:5001", "busybox", "team/box:1").expect(0);
    are_found_through_a_cache(&machine, there);
}

#[test]
fn through_a_cache_they_are_found_by_the_tag_in_docker_registry() {
    let machine = Machine::new();
    let there = Registry::with(&machine, 5001, "");
    there.fill("busybox", "team/box:1");
    are_found_through_a_cache(&machine, there);
}
