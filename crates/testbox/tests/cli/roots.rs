//! Root file systems out of containers and into images: `export`, `import`.

use crate::{Program, for_both};

for_both!(a_container_is_exported_imported_and_runs, what_cannot_be_imported, one_platform_of_several);

fn a_container_is_exported_imported_and_runs(program: Program) {
    program.with(|cli| {
        let script = "echo written >/etc/motd; rm /bin/vi; mkdir /deep; echo volume >/data/inside; echo tmpfs >/scratch/inside; echo up; sleep 1000";
        cli.background("maker", &["-v", "/data", "--tmpfs", "/scratch"], script);
        cli.says("maker", "up");
        let place = cli.machine.directory().join("export");
        std::fs::create_dir(&place).unwrap();
        let archive = place.join("maker.tar").display().to_string();
        // While it runs, and once it has ended: the same.
        assert_eq!(cli.text(&["export", "-o", &archive, "maker"]), "");
        let running = std::fs::read(&archive).unwrap();
        cli.text(&["kill", "maker"]);
        let streamed = cli.run(&["container", "export", "maker"]);
        assert_eq!(streamed.code, 0, "{streamed:?}");
        cli.machine.run("sh", &["-c", &format!("cd {} && tar -xpf maker.tar --exclude=dev", place.display())]).text();
        let read = |name: &str| std::fs::read_to_string(place.join(name)).map_err(|error| error.kind());
        assert_eq!(read("etc/motd"), Ok("written\n".into()));
        assert!(place.join("deep").is_dir() && place.join("bin/busybox").exists() && !place.join("bin/vi").exists());
        for mounted in ["data", "scratch", "proc", "sys"] {
            assert_eq!(std::fs::read_dir(place.join(mounted)).unwrap().count(), 0, "{mounted}");
        }
        cli.run(&["export", "-o", &place.join("no/file").display().to_string(), "maker"]).refuses(1, &["invalid output path"]);
        cli.run(&["export", "-o", &archive, "nobody"]).refuses(1, &["No such container: nobody"]);
        cli.text(&["rm", "-v", "maker"]);
        // In from a file, and in from stdin.
        let id = cli.text(&["import", "-c", "CMD [\"cat\", \"/etc/motd\"]", "-c", "ENV A=b", "-m", "flat", &archive, "flat:1"]);
        assert!(id.starts_with("sha256:") && id.trim().len() == 71, "{id}");
        assert_eq!(cli.text(&["run", "--rm", "flat:1"]), "written\n");
        assert_eq!(cli.inspect("flat:1", "{{.Config.Env}} {{.Comment}} {{len .RootFS.Layers}}"), "[A=b] flat 1");
        let again = cli.with_input(&["import", "--platform", "linux/arm/v6", "-", "foreign"], &running).text();
        assert_ne!(again, id);
        assert_eq!(cli.inspect("foreign", "{{.Os}} {{.Architecture}} {{.Variant}} {{.Comment}}"), "linux arm v6 Imported from -");
        let layers = |name: &str| cli.inspect(name, "{{.RootFS.Layers}}");
        assert_eq!(layers("foreign"), layers("flat:1"));
        assert_eq!(cli.text(&["history", "--format", "{{.Comment}}", "flat:1"]), "flat\n");
    });
}

fn what_cannot_be_imported(program: Program) {
    program.with(|cli| {
        let images = cli.text(&["images", "-aq"]);
        cli.with_input(&["import", "-"], b"no archive").refuses(1, &["what was given is no tar archive"]);
        cli.with_input(&["import", "-c", "FROM x", "-"], &[0; 1024])
            .refuses(1, &["FROM is not a valid change command"]);
        cli.with_input(&["import", "--platform", "a/b/c/d", "-"], &[0; 1024])
            .refuses(1, &["invalid OS or architecture"]);
        cli.with_input(&["import", "--platform", "windows/amd64", "-"], &[0; 1024]).refuses(1, &["windows"]);
        cli.run(&["import", "/no/such/file"]).refuses(1, &["no such file or directory"]);
        cli.run(&["import", "https://example.com/tree.tar"]).refuses(1, &["is not built yet"]);
        assert_eq!(cli.text(&["images", "-aq"]), images);
    });
}

/// An index with this host's image and, under another platform's name, one that runs here as well.
fn one_platform_of_several(program: Program) {
    program.with(|cli| {
        let place = cli.machine.directory().join("layout");
        let script = r#"
import hashlib, json, os, subprocess, sys, tarfile
place, archive = sys.argv[1:]
os.makedirs(place)
tarfile.open(archive).extractall(place)
def read(digest): return open(f"{place}/blobs/sha256/{digest[7:]}", "rb").read()
def write(kind, value):
    data = json.dumps(value).encode()
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    open(f"{place}/blobs/sha256/{digest[7:]}", "wb").write(data)
    return {"mediaType": f"application/vnd.oci.image.{kind}.v1+json", "digest": digest, "size": len(data)}
first = json.load(open(f"{place}/index.json"))["manifests"][0]
manifest = json.loads(read(first["digest"]))
config = json.loads(read(manifest["config"]["digest"]))
host = {"os": "linux", "architecture": config["architecture"]}
config.update(architecture="s390x", comment="the other")
other = write("manifest", dict(manifest, config=write("config", config)))
one = {k: first[k] for k in ("mediaType", "digest", "size")}
index = write("index", {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
    "manifests": [dict(other, platform={"os": "linux", "architecture": "s390x"}), dict(one, platform=host)]})
index["annotations"] = {"io.containerd.image.name": "docker.io/library/several:1"}
json.dump({"schemaVersion": 2, "manifests": [index]}, open(f"{place}/index.json", "w"))
if os.path.exists(f"{place}/manifest.json"): os.remove(f"{place}/manifest.json")
print(index["digest"], config["architecture"])
"#;
        let archive = dozen_testbox::image_archive("busybox").display().to_string();
        let made = cli.machine.run("python3", &["-c", script, &place.display().to_string(), &archive]).text();
        let digest = made.split(' ').next().unwrap().to_owned();
        let at = |name: &str| cli.machine.directory().join(name).display().to_string();
        cli.machine.run("tar", &["-C", &place.display().to_string(), "-cf", &at("several.tar"), "."]).text();
        assert_eq!(cli.text(&["load", "-i", &at("several.tar")]), "Loaded image: several:1\n");
        assert_eq!(cli.text(&["run", "--rm", "several:1", "echo", "here"]), "here\n");
        assert_eq!(cli.text(&["run", "--rm", "--platform", "linux/s390x", "several:1", "echo", "there"]), "there\n");
        assert!(cli.text(&["images", "-q"]).lines().count() <= 2);
        if !cli.text(&["image", "inspect", "--help"]).contains("--platform") {
            // Docker's own client before version 28: it asks for what is there without naming a platform.
            return;
        }
        assert_eq!(
            cli.text(&["image", "inspect", "--platform", "linux/s390x", "-f", "{{.Architecture}}", "several:1"]),
            "s390x\n"
        );
        let saved = |name: &str| cli.machine.run("tar", &["-xOf", &at(name), "index.json"]).text();
        cli.text(&["save", "-o", &at("whole.tar"), "several:1"]);
        assert!(saved("whole.tar").contains(&digest));
        cli.text(&["save", "--platform", "linux/s390x", "-o", &at("one.tar"), "several:1"]);
        assert!(!saved("one.tar").contains(&digest));
        cli.run(&["save", "--platform", "linux/mips64", "-o", &at("none.tar"), "several:1"])
            .refuses(1, &["linux/mips64"]);
        cli.text(&["rmi", "-f", "several:1"]);
        cli.text(&["load", "--platform", "linux/s390x", "-i", &at("whole.tar")]);
        assert_eq!(cli.inspect("several:1", "{{.Architecture}}"), "s390x");
        cli.run(&["load", "--platform", "linux/mips64", "-i", &at("whole.tar")]).refuses(1, &["linux/mips64"]);
    });
}

/// Docker's client takes files alone.
#[test]
fn a_directory_with_an_image_is_loaded() {
    Program::Dozen.with(|cli| {
        let at = |name: &str| cli.machine.directory().join(name).display().to_string();
        cli.text(&["save", "-o", &at("saved.tar"), "busybox"]);
        let id = cli.inspect("busybox", "{{.Id}}");
        std::fs::create_dir(at("layout")).unwrap();
        cli.machine.run("tar", &["-xf", &at("saved.tar"), "-C", &at("layout")]).text();
        cli.text(&["rmi", "-f", "busybox"]);
        cli.run(&["load", "-i", &at("layout/blobs")]).refuses(1, &["is a directory without an image", "index.json"]);
        assert_eq!(cli.text(&["load", "-i", &at("layout")]), "Loaded image: busybox:latest\n");
        assert_eq!(cli.inspect("busybox", "{{.Id}}"), id);
        assert_eq!(cli.text(&["run", "--rm", "busybox", "echo", "here"]), "here\n");
        // What a link leads to outside is nobody's: the archive has the link, and misses the file.
        std::fs::rename(at("layout/index.json"), at("index.json")).unwrap();
        std::os::unix::fs::symlink("../index.json", at("layout/index.json")).unwrap();
        std::fs::remove_file(at("layout/manifest.json")).unwrap();
        cli.run(&["load", "-i", &at("layout")]).refuses(1, &["index.json"]);
    });
}
