//! An image of as many layers as Docker allows, and more than the options of one mount(2) hold by their paths.

#![allow(clippy::unwrap_used, missing_docs)]

use dozen_testbox::{Machine, image_archive, python_program};

/// Stacks layers on an image, with `/layer/N` in each, `/layer/top` in all, and a whiteout halfway.
const STACK: &str = r#"
import gzip, hashlib, io, json, sys, tarfile

source, target, count = tarfile.open(sys.argv[1]), tarfile.open(sys.argv[2], "w"), int(sys.argv[3])
blob = lambda descriptor: source.extractfile("blobs/" + descriptor["digest"].replace(":", "/")).read()
manifest = json.loads(blob(json.load(source.extractfile("index.json"))["manifests"][0]))
config = json.loads(blob(manifest["config"]))
layers = [blob(layer) for layer in manifest["layers"]]
layers = [gzip.decompress(layer) if layer[:2] == b"\x1f\x8b" else layer for layer in layers]

def add(archive, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))

for number in range(len(layers), count):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as layer:
        directory = tarfile.TarInfo("layer")
        directory.type, directory.mode = tarfile.DIRTYPE, 0o755
        layer.addfile(directory)
        add(layer, "layer/%d" % number, b"%d\n" % number)
        add(layer, "layer/top", b"%d\n" % number)
        if number == 60:
            add(layer, "layer/.wh.30", b"")
    layers.append(raw.getvalue())
config["rootfs"]["diff_ids"] = ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in layers]
config.pop("history", None)
names = ["%d.tar" % number for number in range(count)]
for name, layer in zip(names, layers):
    add(target, name, layer)
add(target, "config.json", json.dumps(config).encode())
add(target, "manifest.json", json.dumps([{"Config": "config.json", "RepoTags": ["deep:1"], "Layers": names}]).encode())
target.close()
"#;

#[test]
fn an_image_of_120_layers_runs_and_is_copied_up() {
    let machine = Machine::new();
    let engine = machine.engine();
    let archive = machine.directory().join("deep.tar");
    let (base, archive) = (image_archive("busybox"), archive.to_str().unwrap());
    machine.run(python_program(), &["-c", STACK, base.to_str().unwrap(), archive, "120"]).expect(0);
    engine.dozen(&["load", "--input", archive]).expect(0);
    let look = "cat /layer/1 /layer/119 /layer/top; ls /layer | wc -l; cat /layer/30 2>/dev/null || echo gone";
    let expected = "1\n119\n119\n119\ngone\n";
    assert_eq!(engine.dozen(&["run", "--rm", "deep:1", "sh", "-c", look]).text(), expected);
    // A volume takes over what lies in all of them.
    assert_eq!(engine.dozen(&["run", "--rm", "-v", "copy:/layer", "deep:1", "sh", "-c", look]).text(), expected);
    assert_eq!(engine.dozen(&["run", "--rm", "-v", "copy:/layer", "deep:1", "cat", "/layer/60"]).text(), "60\n");
}
