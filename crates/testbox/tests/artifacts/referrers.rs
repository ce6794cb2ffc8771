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
