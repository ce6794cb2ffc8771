//! What is said of an image beside it: `dozen build --provenance`, `--sbom`, `--attest`.

#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};

use dozen_testbox::{Done, Engine, Machine};
use serde_json::{Value, json};

/// Prints the descriptor that the archive's index leads to, and the statements about its image.
const READ: &str = r#"
import json, sys, tarfile
archive = tarfile.open(sys.argv[1])
read = lambda name: json.load(archive.extractfile(name))
blob = lambda descriptor: read("blobs/sha256/" + descriptor["digest"][7:])
top = read("index.json")["manifests"][0]
statements = []
if top["mediaType"].endswith("index.v1+json"):
    image, notes = blob(top)["manifests"]
    assert notes["annotations"]["vnd.docker.reference.digest"] == image["digest"]
    blob(blob(image)["config"])
    statements = [blob(layer) for layer in blob(notes)["layers"]]
    top = image
print(json.dumps([top, statements]))
"#;

fn directory(machine: &Machine, name: &str, dockerfile: &str) -> PathBuf {
    let at = machine.directory().join(name);
    std::fs::create_dir_all(&at).unwrap();
    std::fs::write(at.join("Dockerfile"), dockerfile).unwrap();
    std::fs::write(at.join("token"), "hunter2").unwrap();
    at
}

fn build(engine: &Engine<'_>, flags: &[&str], at: &Path) -> Done {
    engine.dozen(&[&["build"], flags, &[at.to_str().unwrap()]].concat())
}

/// The image's descriptor, and what is said of it by its type.
fn read(machine: &Machine, archive: &Path) -> (Value, Vec<Value>) {
    let text = machine.run("python3", &["-c", READ, archive.to_str().unwrap()]).text();
    let mut both: Vec<Value> = serde_json::from_str(&text).unwrap();
    let statements = both.pop().unwrap();
    (both.remove(0), statements.as_array().unwrap().clone())
}

fn packages(document: &Value) -> Vec<&str> {
    let urls = document["packages"].as_array().unwrap().iter();
    urls.filter_map(|package| package["externalRefs"][0]["referenceLocator"].as_str()).collect()
}

#[test]
fn an_image_carries_where_it_comes_from_and_what_is_in_it() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("debian:bookworm-slim");
    let dockerfile = "FROM debian:bookworm-slim AS first\nARG VERSION\nRUN --mount=type=secret,id=token mkdir -p \
        /srv/site-packages/Some_Thing-2.dist-info /srv/node_modules/@a/b && cd /srv && \
        printf 'Name: Some_Thing\\nVersion: 2\\n\\ntext\\n' >site-packages/Some_Thing-2.dist-info/METADATA && \
        printf '{\"name\":\"@a/b\",\"version\":\"1.0.0\",\"license\":\"MIT\"}' >node_modules/@a/b/package.json\n\
        FROM first\nLABEL a=b\n";
    let at = directory(&machine, "all", dockerfile);
    let token = format!("id=token,src={}", at.join("token").display());
    let all = ["--sbom=true", "--provenance", "mode=max,builder-id=https://example.org/b", "--secret", &token];
    let named = ["-t", "web:1", "-t", "host:5000/web:2", "--build-arg", "VERSION=seven"];
    build(&engine, &[&all[..], &named].concat(), &at).expect(0);
    let archive = machine.directory().join("web.tar");
    engine.dozen(&["save", "-o", archive.to_str().unwrap(), "web:1"]).expect(0);
    let (image, statements) = read(&machine, &archive);
    let [provenance, sbom] = statements.as_slice() else { panic!("{statements:?}") };
    let platform = format!("linux%2F{}", image["platform"]["architecture"].as_str().unwrap());
    for statement in [provenance, sbom] {
        assert_eq!(
            statement["subject"],
            json!([
                {
                    "name": format!("pkg:docker/web@1?platform={platform}"),
                    "digest": { "sha256": image["digest"].as_str().unwrap()[7..] },
                },
                {
                    "name": format!("pkg:docker/host:5000/web@2?platform={platform}"),
                    "digest": { "sha256": image["digest"].as_str().unwrap()[7..] },
                },
            ])
        );
    }
    assert_eq!(provenance["predicateType"], "https://slsa.dev/provenance/v1");
    let definition = &provenance["predicate"]["buildDefinition"];
    assert_eq!(definition["externalParameters"]["request"]["args"], json!({ "build-arg:VERSION": "seven" }));
    assert_eq!(definition["externalParameters"]["request"]["secrets"], json!([{ "id": "token" }]));
    let dependencies = definition["resolvedDependencies"].as_array().unwrap();
    assert_eq!(dependencies.len(), 1);
    assert_eq!(dependencies[0]["uri"], format!("pkg:docker/debian@bookworm-slim?platform={platform}"));
    assert_eq!(provenance["predicate"]["runDetails"]["builder"]["id"], "https://example.org/b");
    assert!(!provenance.to_string().contains("hunter2"));

    assert_eq!(sbom["predicateType"], "https://spdx.dev/Document");
    let document = &sbom["predicate"];
    assert_eq!((&document["spdxVersion"], &document["name"]), (&json!("SPDX-2.3"), &json!("web:1")));
    let found = packages(document);
    let has = |begin: &str| found.iter().any(|url| url.starts_with(begin));
    for begin in ["pkg:deb/debian/libc6@2.36", "pkg:deb/debian/bash@", "pkg:pypi/some-thing@2", "pkg:npm/%40a/b@1.0.0"]
    {
        assert!(has(begin), "{begin}: {found:?}");
    }
    let listed =
        engine.dozen(&["run", "--rm", "--network", "none", "web:1", "dpkg-query", "-W", "-f", "${Package}\\n"]);
    let installed = listed.text().lines().count();
    assert_eq!(found.iter().filter(|url| url.starts_with("pkg:deb/")).count(), installed);

    // What was carried is there after a load, and with an archive of the build's own.
    let id = engine.dozen(&["image", "inspect", "-f", "{{.Id}}", "web:1"]).text();
    engine.dozen(&["rmi", "web:1", "host:5000/web:2"]).expect(0);
    engine.dozen(&["load", "-i", archive.to_str().unwrap()]).expect(0);
    assert_eq!(engine.dozen(&["image", "inspect", "-f", "{{.Id}}", "web:1"]).text(), id);
    let again = machine.directory().join("again.tar");
    engine.dozen(&["save", "-o", again.to_str().unwrap(), "web:1"]).expect(0);
    assert_eq!(read(&machine, &again).1, statements);
    let oci = machine.directory().join("oci.tar");
    let flags = ["--attest", "type=sbom", "--attest", "type=provenance", "-o"];
    let output = format!("type=oci,dest={}", oci.display());
    build(&engine, &[&flags[..], &[&output, "--secret", &token]].concat(), &at).expect(0);
    let (_, statements) = read(&machine, &oci);
    assert_eq!(statements.len(), 2);
    // Nobody has given more than was asked for.
    assert!(statements[0]["predicate"]["buildDefinition"]["externalParameters"]["request"].get("args").is_none());
    assert_eq!(statements[0]["subject"][0]["name"], "_");
}

#[test]
fn files_have_it_beside_them_and_nobody_has_it_unasked() {
    let machine = Machine::new();
    let engine = machine.engine();
    let at = directory(&machine, "files", "FROM scratch\nCOPY token /\n");
    let out = machine.directory().join("out");
    let names = |at: &Path| {
        let mut names: Vec<String> =
            std::fs::read_dir(at).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let all = ["--sbom=1", "--provenance=true", "-o"];
    build(&engine, &[&all[..], &[out.to_str().unwrap()]].concat(), &at).expect(0);
    assert_eq!(names(&out), ["provenance.json", "sbom.spdx.json", "token"]);
    let read_file = |name: &str| serde_json::from_slice::<Value>(&std::fs::read(out.join(name)).unwrap()).unwrap();
    assert_eq!(read_file("provenance.json")["predicateType"], "https://slsa.dev/provenance/v1");
    assert_eq!(packages(&read_file("sbom.spdx.json")["predicate"]), [""; 0]);
    let tar = machine.directory().join("out.tar");
    let output = format!("type=tar,dest={}", tar.display());
    build(&engine, &[&all[..], &[&output]].concat(), &at).expect(0);
    let mut listed: Vec<String> =
        machine.run("tar", &["-tf", tar.to_str().unwrap()]).text().lines().map(str::to_owned).collect();
    listed.sort();
    assert_eq!(listed, ["provenance.json", "sbom.spdx.json", "token"]);

    let plain = machine.directory().join("plain");
    build(&engine, &["-t", "plain", "-o", plain.to_str().unwrap()], &at).expect(0);
    build(&engine, &["-t", "plain", "--sbom=false", "--provenance", "false"], &at).expect(0);
    assert_eq!(names(&plain), ["token"]);
    let archive = machine.directory().join("plain.tar");
    engine.dozen(&["save", "-o", archive.to_str().unwrap(), "plain"]).expect(0);
    let (descriptor, statements) = read(&machine, &archive);
    assert!(statements.is_empty() && descriptor["mediaType"].as_str().unwrap().ends_with("manifest.v1+json"));
    for (flags, words) in [
        (["--sbom", "generator=docker/buildkit-syft-scanner"], "generator=docker/buildkit-syft-scanner"),
        (["--provenance", "version=v0.2"], "version=v0.2 of an attestation is not built yet"),
        (["--attest", "type=vex"], "attestations of type \"vex\""),
        (["--provenance", "mode=most"], "neither min nor max"),
    ] {
        build(&engine, &flags, &at).refuses(1, &[words]);
    }
}
