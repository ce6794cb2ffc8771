//! What a registry has by a name, looked at without a pull: `manifest inspect`, and `/distribution` of the API.

use dozen_testbox::{MACHINE_ADDRESS, Machine};
use serde_json::{Value, json};

use crate::HOST;
use crate::registry::Registry;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn read(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn manifests_are_looked_at() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    registry.fill("busybox", "box:1");
    let engine = machine.engine();
    let name = format!("{HOST}/box:1");
    let direct = ["--insecure-policy", "inspect", "--raw", "--tls-verify=false", &format!("docker://{name}")];
    let raw = machine.run("skopeo", &direct).text();
    let shown = engine.dozen(&["manifest", "inspect", &name]).text();
    assert_eq!(read(&shown), read(&raw));
    assert!(shown.starts_with("{\n\t\""), "{shown}");
    let verbose = read(&engine.dozen(&["manifest", "inspect", "-v", &name]).text());
    assert_eq!((&verbose["Ref"], &verbose["OCIManifest"]), (&json!(name), &read(&raw)));
    let descriptor = &verbose["Descriptor"];
    assert_eq!((&descriptor["mediaType"], &descriptor["size"]), (&json!(MANIFEST), &json!(raw.len())));
    assert_eq!(descriptor["platform"], json!({ "architecture": "amd64", "os": "linux" }));
    let digest = descriptor["digest"].as_str().unwrap().to_owned();

    // The same of the API, as docker's SDK asks it.
    let program = format!("import docker; print(docker.from_env().images.get_registry_data('{name}').attrs)");
    let attributes = engine.python(&program).text();
    assert!(attributes.contains(&digest) && attributes.contains("'architecture': 'amd64'"), "{attributes}");
    assert_eq!(engine.dozen(&["images", "-q"]).text(), "", "nothing of it is here");

    // Of several platforms.
    let entry = |architecture: &str| {
        json!({
            "mediaType": MANIFEST, "digest": digest, "size": raw.len(),
            "platform": { "os": "linux", "architecture": architecture },
        })
    };
    let list = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry("amd64"), entry("s390x")] });
    registry.put("box", "both", INDEX, &list.to_string());
    let both = format!("{HOST}/box:both");
    let shown = engine.dozen(&["manifest", "inspect", &both]).text();
    let begins = format!(
        "{{\n   \"schemaVersion\": 2,\n   \"mediaType\": \"{INDEX}\",\n   \"manifests\": [\n      {{\n         \"mediaType\""
    );
    assert!(shown.starts_with(&begins), "{shown}");
    assert_eq!(read(&shown), list);
    let verbose = read(&engine.dozen(&["manifest", "inspect", "--verbose", &both]).text());
    assert_eq!(verbose.as_array().unwrap().len(), 2);
    assert_eq!(verbose[1]["Ref"], format!("{both}@{digest}"));
    assert_eq!(verbose[1]["Descriptor"]["platform"]["architecture"], "s390x");
    // As docker's own command line has it, which asks the registry itself.
    let dockers = engine.docker(&["manifest", "inspect", "--insecure", &both]);
    if dockers.code == 0 {
        assert_eq!(read(&dockers.out), read(&shown));
    }

    let far = format!("{MACHINE_ADDRESS}:5000/box:1");
    engine.dozen(&["manifest", "inspect", &far]).refuses(1, &["cannot reach the registry"]);
    assert_eq!(read(&engine.dozen(&["manifest", "inspect", "--insecure", &far]).text()), read(&raw));
    engine
        .dozen(&["manifest", "inspect", &format!("{HOST}/box:none")])
        .refuses(1, &["no such manifest: ", "not found: manifest unknown"]);
    // There is no list of that name here, so it is what the registry has.
    assert_eq!(read(&engine.dozen(&["manifest", "inspect", &name, &name]).text()), read(&raw));
}
