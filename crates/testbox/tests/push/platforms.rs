//! Images for several platforms.

use dozen_testbox::Machine;
use serde_json::{Value, json};

use crate::registry::Registry;
use crate::{HOST, inspect, raw};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn descriptor(machine: &Machine, tag: &str, platform: &str) -> Value {
    let manifest = raw(machine, &format!("{HOST}/box:{tag}"));
    let digest = machine.run_with("sha256sum", &[], manifest.as_bytes(), &[]).text();
    let (os, architecture) = platform.split_once('/').unwrap();
    json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": format!("sha256:{}", &digest[..64]),
        "size": manifest.len(), "platform": { "os": os, "architecture": architecture },
    })
}

#[test]
fn an_index_goes_if_it_is_whole() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    registry.fill("busybox", "box:here");
    registry.fill("nginx:1.22", "box:there");
    let put = |tag: &str, manifests: &[Value]| {
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
        registry.put("box", tag, INDEX, &index.to_string());
        index.to_string()
    };
    let (here, there) = (descriptor(&machine, "here", "linux/amd64"), descriptor(&machine, "there", "linux/arm64"));
    let both = put("both", &[here.clone(), there]);
    let whole = put("whole", std::slice::from_ref(&here));
    let engine = machine.engine();
    for tag in ["both", "whole"] {
        engine.dozen(&["pull", &format!("{HOST}/box:{tag}")]).expect(0);
    }
    let tag = |from: &str, to: &str| {
        let [from, to] = [format!("{HOST}/{from}"), format!("{HOST}/{to}")];
        engine.dozen(&["tag", &from, &to]).expect(0);
        to
    };
    // All of it is here.
    let name = tag("box:whole", "new/whole:1");
    engine.dozen(&["push", &name]).expect(0);
    assert_eq!(raw(&machine, &name), whole);
    // What is not here the registry has.
    let name = tag("box:both", "box:again");
    engine.dozen(&["push", &name]).expect(0);
    assert_eq!(raw(&machine, &name), both);
    // Elsewhere it has not: the image that is here goes alone, and that is said.
    let name = tag("box:both", "new/half:1");
    let pushed = engine.dozen(&["push", &name]).text();
    assert!(pushed.contains("only the available single-platform image was pushed"), "{pushed}");
    let digest = here["digest"].as_str().unwrap();
    assert!(pushed.ends_with(&format!(" -> {digest}\n")), "{pushed}");
    assert_eq!(raw(&machine, &name), raw(&machine, &format!("{HOST}/box:here")));
    let digests = inspect(&engine, &name)["RepoDigests"].to_string();
    assert!(digests.contains(&format!("new/half@{digest}")), "{digests}");
    // One platform alone is asked for.
    let name = tag("box:whole", "new/one:1");
    engine.dozen(&["push", "--platform", "linux/amd64", &name]).expect(0);
    assert_eq!(raw(&machine, &name), raw(&machine, &format!("{HOST}/box:here")));
    let words = "does not provide the specified platform (linux/s390x)";
    engine.dozen(&["push", "--platform", "linux/s390x", &name]).refuses(1, &[words]);
}
