//! How layers are compressed: while they go, once for all, and as was asked for.

use dozen_testbox::{Machine, dozen_program, until};
use serde_json::{Value, json};

use crate::luck::{check_tmp_is_empty, gated, pushing, tmp};
use crate::registry::Registry;
use crate::{HOST, inspect, raw, remove_all};

/// An image of one's own whose layer is large enough to go while it is compressed.
fn build(machine: &Machine, tag: &str) {
    let file =
        "FROM busybox\nRUN dd if=/dev/urandom of=/noise bs=1M count=9 && dd if=/dev/zero of=/zero bs=1M count=8\n";
    machine.run_with(dozen_program(), &["build", "-t", tag, "-"], file.as_bytes(), &[]).expect(0);
}

/// The layers of a name as somebody else takes them out of the registry: each its media type there and the digest of its plain
/// stream.
fn layers(machine: &Machine, name: &str) -> Vec<(String, String)> {
    let directory = machine.directory().join("taken");
    let (from, to) = (format!("docker://{name}"), format!("dir:{}", directory.display()));
    let copy = ["--insecure-policy", "copy", "-q", "--src-tls-verify=false", "--dest-decompress", &from, &to];
    machine.run("skopeo", &copy).expect(0);
    let of = |manifest: &str, field: &str| -> Vec<String> {
        let manifest: Value = serde_json::from_str(manifest).unwrap();
        let layers = manifest["layers"].as_array().unwrap().iter();
        layers.map(|layer| layer[field].as_str().unwrap().to_owned()).collect()
    };
    let taken = std::fs::read_to_string(directory.join("manifest.json")).unwrap();
    std::fs::remove_dir_all(directory).unwrap();
    of(&raw(machine, name), "mediaType").into_iter().zip(of(&taken, "digest")).collect()
}

#[test]
fn layers_are_compressed_as_was_asked_for() {
    let machine = Machine::new();
    let _registry = Registry::start(&machine);
    let engine = machine.engine();
    engine.load("busybox");
    let name = |tag: &str| format!("{HOST}/app:{tag}");
    build(&machine, &name("1"));
    let diff_ids = inspect(&engine, &name("1"))["RootFS"]["Layers"].clone();
    let check = |tag: &str, options: &[&str]| {
        if tag != "1" {
            engine.dozen(&["tag", &name("1"), &name(tag)]).expect(0);
        }
        engine.dozen(&[&["push"], options, &[name(tag).as_str()]].concat()).expect(0);
        let kind = if options.contains(&"zstd") { "zstd" } else { "gzip" };
        let found = layers(&machine, &name(tag));
        let media_type = format!("application/vnd.oci.image.layer.v1.tar+{kind}");
        assert!(found.iter().all(|(found, _)| *found == media_type), "{found:?}");
        assert_eq!(json!(found.iter().map(|(_, diff_id)| diff_id).collect::<Vec<_>>()), diff_ids, "{options:?}");
        raw(&machine, &name(tag))
    };
    let gzip = check("1", &[]);
    let zstd = check("2", &["--compression", "zstd"]);
    assert_ne!(gzip, zstd);
    assert_eq!(check("3", &["--compression-format", "gzip"]), gzip);
    let small = check("4", &["--compression", "gzip", "--compression-level", "9"]);
    assert!(small != gzip && check("5", &["--compression-level=9"]) == small);
    assert!(check("6", &["--compression", "zstd", "--compression-level", "1"]) != zstd);
    // What came compressed is compressed once more, and what was packed here gets the same bytes.
    let forced = check("7", &["--force-compression"]);
    let last = |manifest: &str| serde_json::from_str::<Value>(manifest).unwrap()["layers"][1].clone();
    assert!(forced != gzip && last(&forced) == last(&gzip), "{forced} {gzip}");
    for (options, words) in [
        (["--compression", "xz"], "unknown compression \"xz\": it is gzip or zstd"),
        (["--compression", "zstd:chunked"], "compression zstd:chunked is not built yet"),
        (["--compression-level", "10"], "invalid compression level: of gzip it is between 1 and 9"),
    ] {
        engine.dozen(&[&["push"], &options[..], &[name("1").as_str()]].concat()).refuses(1, &[words]);
    }
    // What came is gzip, and goes otherwise all the same.
    remove_all(&engine);
    engine.dozen(&["pull", &name("1")]).expect(0);
    engine.dozen(&["tag", &name("1"), &name("8")]).expect(0);
    engine.dozen(&["push", "--compression", "gzip", &name("8")]).expect(0);
    assert_eq!(raw(&machine, &name("8")), gzip);
    engine.dozen(&["push", "--compression", "zstd", "--compression-level", "3", &name("8")]).expect(0);
    assert_eq!(raw(&machine, &name("8")), zstd, "by default the level is 3");
    remove_all(&engine);
    engine.dozen(&["run", "--rm", &name("8"), "test", "-s", "/noise"]).expect(0);
    check_tmp_is_empty(&machine);
}

#[test]
fn two_pushes_compress_a_layer_once() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    let (between, gate) = gated(&machine, registry.port);
    let engine = machine.engine();
    engine.load("busybox");
    let names = ["first/app:1", "second/app:1"].map(|name| format!("{}/{name}", between.host));
    build(&machine, &names[0]);
    engine.dozen(&["tag", &names[0], &names[1]]).expect(0);
    let [mut first, second] = names.each_ref().map(|name| pushing(&machine, name));
    // Two layers each, of which one is compressed.
    until("all layers are on their way", || (gate.visits() == 4).then_some(()));
    assert_eq!(tmp(&machine), 1);
    // Who began it goes, and the other one has it all the same.
    first.kill().unwrap();
    first.wait().unwrap();
    gate.open();
    let done = second.wait_with_output().unwrap();
    assert!(done.status.success(), "{done:?}");
    check_tmp_is_empty(&machine);
    let id = inspect(&engine, &names[1])["Id"].clone();
    remove_all(&engine);
    engine.dozen(&["pull", &names[1]]).expect(0);
    assert_eq!(inspect(&engine, &names[1])["Id"], id);
    between.stop(&machine);
}
