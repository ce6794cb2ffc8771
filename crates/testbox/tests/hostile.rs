//! Images from someone who means ill, loaded and run as anybody would. The archive's own tricks have a suite in the image
//! crate; here is what reaches a user, and what an image's tree does to an engine that starts a container in it.

#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;

use dozen_testbox::{Engine, Machine, image_archive, python_program};

/// `archive SOURCE TARGET OUTSIDE ATTACK`: the image of SOURCE with one more layer, or another archive altogether.
const FORGE: &str = r#"
import gzip, hashlib, io, json, sys, tarfile

source, target, outside, attack = tarfile.open(sys.argv[1]), tarfile.open(sys.argv[2], "w"), sys.argv[3], sys.argv[4]
blob = lambda descriptor: source.extractfile("blobs/" + descriptor["digest"].replace(":", "/")).read()
manifest = json.loads(blob(json.load(source.extractfile("index.json"))["manifests"][0]))
config = json.loads(blob(manifest["config"]))
layers = [blob(layer) for layer in manifest["layers"]]
layers = [gzip.decompress(layer) if layer[:2] == b"\x1f\x8b" else layer for layer in layers]

def add(archive, name, content=b"", kind=tarfile.REGTYPE, link=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size, member.mode = kind, link, len(content), 0o755
    archive.addfile(member, io.BytesIO(content))

raw = io.BytesIO()
with tarfile.open(fileobj=raw, mode="w") as layer:
    link = lambda name, to: add(layer, name, kind=tarfile.SYMTYPE, link=to)
    gone = lambda name: add(layer, name.rpartition("/")[0] + "/.wh." + name.rpartition("/")[2] if "/" in name else ".wh." + name)
    if attack == "climbs":
        add(layer, "a/../../../../../../" + outside + "/secret", b"evil")
    elif attack == "linked":
        link("d", outside)
        add(layer, "d/secret", b"evil")
    elif attack == "hard":
        add(layer, "l", kind=tarfile.LNKTYPE, link=outside + "/secret")
    elif attack == "terminal":
        add(layer, "\x1b]0;owned\x07" * 40, b"")
    elif attack == "tree":
        # Wherever an engine writes or mounts when it starts a container.
        for name in ["hosts", "resolv.conf", "hostname", "passwd", "group", "mtab"]:
            gone("etc/" + name)
            link("etc/" + name, outside + "/secret")
        for name in ["proc", "sys", "dev", "run", "tmp", "work", "volume"]:
            gone(name)
            link(name, outside)
    elif attack == "pipes":
        for name in ["passwd", "group"]:
            gone("etc/" + name)
            add(layer, "etc/" + name, kind=tarfile.FIFOTYPE)
if attack == "ports":
    config["config"]["ExposedPorts"] = {"%d-65535/tcp" % first: {} for first in range(1, 5000)}
layers.append(raw.getvalue())
config["rootfs"]["diff_ids"] = ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in layers]
config.pop("history", None)
names = ["%d.tar" % number for number in range(len(layers))]
for name, layer in zip(names, layers):
    add(target, name, layer)
add(target, "config.json", json.dumps(config).encode())
named = "config.json" if attack != "manifest" else "\x1b]0;owned\x07" * 100000
add(target, "manifest.json", json.dumps([{"Config": named, "RepoTags": ["hostile:1"], "Layers": names}]).encode())
target.close()
"#;

struct Attacker<'a> {
    machine: &'a Machine,
    engine: &'a Engine<'a>,
}

impl Attacker<'_> {
    /// A directory with one file, which nothing may change.
    fn outside(&self) -> String {
        let outside = self.machine.directory().join("outside");
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::write(outside.join("secret"), "secret").unwrap();
        outside.display().to_string()
    }

    fn archive(&self, attack: &str) -> String {
        let archive = self.machine.directory().join(format!("{attack}.tar")).display().to_string();
        let base = image_archive("busybox");
        let arguments = ["-c", FORGE, base.to_str().unwrap(), &archive, &self.outside(), attack];
        self.machine.run(python_program(), &arguments).expect(0);
        archive
    }

    fn load(&self, attack: &str) {
        self.engine.dozen(&["load", "-i", &self.archive(attack)]).expect(0);
    }

    fn is_intact(&self) {
        let outside = self.machine.directory().join("outside");
        let names: Vec<_> = std::fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["secret"]);
        assert_eq!(std::fs::read_to_string(Path::new(&outside).join("secret")).unwrap(), "secret");
    }
}

#[test]
fn a_hostile_archive_is_refused_in_words_that_can_be_read() {
    let machine = Machine::new();
    let engine = machine.engine();
    let attacker = Attacker { machine: &machine, engine: &engine };
    for (attack, said) in [
        ("climbs", "leads out by '..'"),
        ("linked", "is no directory"),
        ("hard", "not in this layer"),
        ("terminal", "File name too long"),
        ("manifest", "is missing"),
    ] {
        let archive = attacker.archive(attack);
        let done = engine.dozen(&["load", "-i", &archive]);
        let talk = format!("{}{}", done.out, done.err);
        assert!(!talk.contains(['\u{1b}', '\u{7}']) && talk.len() < 4096, "{attack}: {} bytes: {talk:?}", talk.len());
        done.refuses(1, &[said]);
        assert_eq!(engine.dozen(&["images", "-q"]).text(), "");
        attacker.is_intact();
    }
    engine.load("busybox");
    engine.dozen(&["run", "--rm", "busybox", "true"]).expect(0);
}

/// Everything that an engine makes, mounts or reads in a container's tree is a link out of it.
#[test]
fn an_images_links_lead_an_engine_nowhere() {
    let machine = Machine::new();
    let engine = machine.engine();
    let attacker = Attacker { machine: &machine, engine: &engine };
    attacker.load("tree");
    for arguments in [
        &["run", "--rm", "hostile:1", "/bin/busybox", "true"][..],
        &["run", "--rm", "-w", "/work/new", "hostile:1", "/bin/busybox", "true"],
        &["run", "--rm", "-v", "data:/volume/below", "hostile:1", "/bin/busybox", "touch", "/volume/below/x"],
        &["run", "--rm", "--tmpfs", "/tmp/x", "-u", "somebody", "hostile:1", "/bin/busybox", "true"],
        &["run", "--rm", "-v", "copy:/volume", "hostile:1", "/bin/busybox", "touch", "/volume/secret"],
    ] {
        // It may be refused, or run inside; it may not matter outside.
        engine.dozen(arguments);
        attacker.is_intact();
    }
    engine.dozen(&["create", "--name", "still", "hostile:1", "/bin/busybox", "true"]).expect(0);
    engine.dozen(&["commit", "still", "again"]).expect(0);
    attacker.is_intact();
    // And the engine is as it was.
    engine.load("busybox");
    engine.dozen(&["run", "--rm", "busybox", "true"]).expect(0);
}

/// What is read of an image when a container is made and started neither waits nor takes for ever.
#[test]
fn an_image_keeps_an_engine_neither_waiting_nor_counting() {
    let machine = Machine::new();
    let engine = machine.engine();
    let attacker = Attacker { machine: &machine, engine: &engine };
    attacker.load("pipes");
    engine.dozen(&["run", "--rm", "hostile:1", "true"]).expect(0);
    engine.dozen(&["run", "--rm", "-u", "web", "hostile:1", "true"]).refuses(125, &["unable to find user web"]);
    attacker.load("ports");
    engine.dozen(&["create", "hostile:1"]).refuses(125, &["more ports are exposed than there are"]);
    attacker.is_intact();
}
