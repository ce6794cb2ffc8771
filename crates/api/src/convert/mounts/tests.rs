use proptest::prelude::*;

use super::super::request;
use super::*;

fn with_binds(binds: &[&str]) -> HostConfig {
    HostConfig { binds: binds.iter().map(|s| (*s).to_owned()).collect(), ..HostConfig::default() }
}

fn print(mount: &Mount) -> String {
    let mode = if mount.read_only { "ro" } else { "rw" };
    let source = match &mount.source {
        MountSource::Bind { path, create_missing, propagation, .. } => {
            format!("bind {} {create_missing} {propagation:?}", path.display())
        }
        MountSource::Volume { anonymous: true, copy_up, .. } => format!("anonymous {copy_up}"),
        MountSource::Volume { name, copy_up, .. } => format!("volume {name} {copy_up}"),
        MountSource::Image { name, .. } => format!("image {name}"),
        MountSource::Artifact(artifact) => format!("artifact {}", artifact.name),
        MountSource::Layers { .. } => unreachable!("no request asks for layers"),
        MountSource::Tmpfs(options) => {
            format!("tmpfs {:?} {:?} {}", options.size_bytes, options.mode, options.options.join(","))
        }
    };
    format!("{} {mode} {source}", mount.target.display())
}

#[test]
fn binds_and_volumes_parse() {
    #[track_caller]
    fn check(raw: &str, want: &str) {
        let mounts = mounts(&with_binds(&[raw]), []).unwrap();
        assert_eq!(mounts.iter().map(print).collect::<Vec<_>>(), [want], "{raw}");
    }
    check("/a:/b", "/b rw bind /a true Rprivate");
    check("/a/../c/./d//e:/b/../f:ro", "/f ro bind /c/d/e true Rprivate");
    check("/a:/b:ro,z,rslave", "/b ro bind /a true Rslave");
    check("data:/b", "/b rw volume data true");
    check("data:/b:nocopy,ro", "/b ro volume data false");
    check("/data", "/data rw anonymous true");
    check("/a:/b:cached", "/b rw bind /a true Rprivate");
}

#[test]
fn bad_binds_are_refused_in_dockers_words() {
    #[track_caller]
    fn check(raw: &str, words: &str) {
        let error = mounts(&with_binds(&[raw]), []).unwrap_err();
        assert!(error.message.contains(words) && error.status() == 400, "{raw}: {}", error.message);
    }
    check("", "invalid volume specification: ''");
    check(":/b", "invalid volume specification: ':/b'");
    check("/a:", "invalid volume specification");
    check("/a:ro", "invalid volume specification: '/a:ro'");
    check("/a:/b:rw:x", "invalid volume specification");
    check("/a:/b:rw,ro", "invalid mode: rw,ro");
    check("/a:/b:fast", "invalid mode: fast");
    check("/a:/b:nocopy", "invalid mode");
    check("data:/b:shared", "invalid mode");
    check("./a:/b", "includes invalid characters for a local volume name, only");
    check("/a:b", "invalid mount path: 'b' mount path must be absolute");
    check("/a:/", "destination can't be '/'");
    check("/a:/b/..", "destination can't be '/'");
}

#[test]
fn one_place_is_mounted_once() {
    let twice = mounts(&with_binds(&["/a:/x", "b0:/x/"]), []).unwrap_err();
    assert_eq!(twice.message, "Duplicate mount point: /x");
    let mut host = with_binds(&["/a:/x"]);
    host.tmpfs.insert("/x".into(), String::new());
    assert_eq!(mounts(&host, []).unwrap_err().message, "Duplicate mount point: /x");
    // An image's volume gives way to what the user mounts there.
    let all = mounts(&with_binds(&["/a:/x"]), ["/x", "/y", "/y/"]).unwrap();
    assert_eq!(all.iter().map(print).collect::<Vec<_>>(), ["/x rw bind /a true Rprivate", "/y rw anonymous true"]);
}

#[test]
fn structured_mounts_parse() {
    #[track_caller]
    fn check(json: serde_json::Value, want: Result<&str, &str>) {
        let mount: request::Mount = serde_json::from_value(json.clone()).unwrap();
        let host = HostConfig { mounts: vec![mount], ..HostConfig::default() };
        match (mounts(&host, []), want) {
            (Ok(got), Ok(want)) => assert_eq!(print(&got[0]), want),
            (Err(got), Err(want)) => assert!(got.message.contains(want), "{}", got.message),
            (got, _) => panic!("{json}: {got:?}"),
        }
    }
    use serde_json::json;
    check(
        json!({"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": true}),
        Ok("/b ro bind /a false Rprivate"),
    );
    check(
        json!({"Type": "bind", "Source": "/a", "Target": "/b", "BindOptions": {"CreateMountpoint": true, "Propagation": "shared"}}),
        Ok("/b rw bind /a true Shared"),
    );
    check(json!({"Type": "volume", "Source": "v1", "Target": "/b"}), Ok("/b rw volume v1 true"));
    check(json!({"Type": "volume", "Target": "/b", "VolumeOptions": {"NoCopy": true}}), Ok("/b rw anonymous false"));
    check(
        json!({"Type": "tmpfs", "Target": "/b", "TmpfsOptions": {"SizeBytes": 4096, "Mode": 448, "Options": [["uid", "1"], ["exec"]]}}),
        Ok("/b rw tmpfs Some(4096) Some(448) uid=1,exec"),
    );
    check(
        json!({"Type": "bind", "Target": "/b"}),
        Err("invalid mount config for type \"bind\": field Source must not be empty"),
    );
    check(json!({"Type": "bind", "Source": "/a"}), Err("field Target must not be empty"));
    check(json!({"Type": "bind", "Source": "a", "Target": "/b"}), Err("mount path must be absolute"));
    check(json!({"Type": "tmpfs", "Source": "/a", "Target": "/b"}), Err("field Source must not be specified"));
    check(json!({"Type": "tmpfs", "Target": "/b", "TmpfsOptions": {"SizeBytes": -1}}), Err("negative"));
    check(json!({"Type": "image", "Source": "x", "Target": "/b"}), Err("No such image: x"));
    check(
        json!({"Type": "bind", "Source": "/a", "Target": "/b", "VolumeOptions": {}}),
        Err("field VolumeOptions must not be specified"),
    );
    for (subpath, words) in [
        ("../a", Err("subpath must be a relative path within the volume")),
        ("a/../../b", Err("subpath must be a relative path within the volume")),
        ("/a", Err("subpath must be a relative path within the volume")),
        ("./a//b/../c", Ok("/b rw volume v1 true")),
    ] {
        let options = json!({"Subpath": subpath});
        check(json!({"Type": "volume", "Source": "v1", "Target": "/b", "VolumeOptions": options}), words);
    }
    check(
        json!({"Type": "volume", "Target": "/b", "VolumeOptions": {"Subpath": "a"}}),
        Err("must not set Subpath when using anonymous volumes"),
    );
    check(json!({"Type": "volume", "Target": "/b", "ReadOnly": true}), Err("must not set ReadOnly mode"));
    check(json!({"Type": "npipe", "Source": "x", "Target": "/b"}), Err("type npipe is not built yet"));
    check(json!({"Type": "cluster", "Source": "x", "Target": "/b"}), Err("type cluster is not built yet"));
    check(json!({"Type": "tmpfs", "Target": "/b", "Owner": {"UID": 1}}), Err("field Owner must not be specified"));
    check(json!({"Type": "bind", "Source": "/a", "Target": "/b", "Owner": {"GID": 4_294_967_295u32}}), Err("nobody's"));
    check(json!({"Type": "floppy", "Target": "/b"}), Err("mount type unknown"));
    check(json!({"Type": "volume", "Source": "a/b", "Target": "/b"}), Err("invalid characters"));
}

#[test]
fn what_becomes_of_the_mounts_below_a_bind() {
    use serde_json::json;
    let read = |read_only: bool, options: serde_json::Value| {
        let mount =
            json!({"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": read_only, "BindOptions": options});
        let host = HostConfig { mounts: vec![serde_json::from_value(mount).unwrap()], ..HostConfig::default() };
        match mounts(&host, []).map(|mounts| mounts[0].source.clone()) {
            Ok(MountSource::Bind { recursion, .. }) => Ok(recursion),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.message),
        }
    };
    let conflict = |why: &str| Err(format!("invalid mount config for type \"bind\": mount options conflict: {why}"));
    for (read_only, options, want) in [
        (true, json!({}), Ok(BindRecursion::Enabled)),
        (true, json!({"ReadOnlyNonRecursive": true}), Ok(BindRecursion::Writable)),
        (false, json!({"ReadOnlyNonRecursive": true}), Ok(BindRecursion::Writable)),
        (true, json!({"ReadOnlyForceRecursive": true}), Ok(BindRecursion::ReadOnly)),
        (false, json!({"NonRecursive": true}), Ok(BindRecursion::Disabled)),
        (false, json!({"ReadOnlyForceRecursive": true}), conflict("ReadOnlyForceRecursive && !ReadOnly")),
        (
            true,
            json!({"ReadOnlyForceRecursive": true, "ReadOnlyNonRecursive": true}),
            conflict("ReadOnlyNonRecursive && ReadOnlyForceRecursive"),
        ),
        (
            true,
            json!({"ReadOnlyForceRecursive": true, "Propagation": "rslave"}),
            conflict("ReadOnlyForceRecursive && Propagation is not rprivate"),
        ),
    ] {
        assert_eq!(read(read_only, options.clone()), want, "{options}");
    }
}

#[test]
fn inspect_shows_what_was_asked() {
    use serde_json::json;
    for asked in [
        json!({"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": true, "BindOptions": {"ReadOnlyNonRecursive": true, "Propagation": "slave"}}),
        json!({"Type": "bind", "Source": "/a", "Target": "/b", "Owner": {"UID": 5, "GID": null}}),
        json!({"Type": "volume", "Source": "vol", "Target": "/b", "VolumeOptions": {"NoCopy": true, "Labels": {"a": "b"}, "Subpath": "x/y"}}),
        json!({"Type": "volume", "Target": "/b"}),
        json!({"Type": "tmpfs", "Target": "/b", "TmpfsOptions": {"SizeBytes": 4096, "Mode": 448, "Options": [["uid", "1"], ["exec"]]}}),
    ] {
        let mut mount: request::Mount = serde_json::from_value(asked.clone()).unwrap();
        mount.image = None;
        let mount = structured::mount(&mount).unwrap();
        assert_eq!(shown::one(&mount), asked);
    }
}

#[test]
fn files_of_an_artifact_are_shown_as_they_were_asked_for() {
    use dozen_model::{ArtifactMount, Digest, MountedFile, MountedFiles};
    use serde_json::{Value, json};
    let digest = Digest::from_sha256([7; 32]);
    let found = |asked: &request::Mount| {
        let file = MountedFile { name: "a".into(), digest: digest.clone(), size_bytes: 1 };
        Ok::<_, ApiError>(ArtifactMount {
            name: asked.source.clone(),
            manifest: digest.clone(),
            wanted: wanted_files(asked)?,
            files: MountedFiles::File(file),
        })
    };
    let read = |options: Value| {
        let asked = json!({ "Type": "artifact", "Source": "a:1", "Target": "/b", "ArtifactOptions": options });
        let mut mount: request::Mount = serde_json::from_value(asked).unwrap();
        mount.artifact = Some(found(&mount)?);
        structured::mount(&mount)
    };
    for options in [json!({ "Digest": digest, "Name": "n" }), json!({ "Title": "t" }), json!({ "Name": "n" })] {
        let mount = read(options.clone()).unwrap();
        assert!(mount.read_only);
        let want = json!({
            "Type": "artifact", "Source": "a:1", "Target": "/b", "ReadOnly": true, "ArtifactOptions": options,
        });
        assert_eq!(shown::one(&mount), want);
    }
    for (options, words) in [
        (json!({ "Digest": digest, "Title": "t" }), "cannot specify both digest and title"),
        (json!({ "Digest": "sha256:5" }), "digest"),
    ] {
        assert!(read(options).unwrap_err().message.contains(words), "{words}");
    }
    for (asked, words) in [
        (json!({ "Type": "artifact", "Target": "/b" }), "field Source must not be empty"),
        (json!({ "Type": "artifact", "Source": "a", "Target": "/b" }), "a: artifact does not exist"),
        (json!({ "Type": "bind", "Source": "/a", "Target": "/b", "ArtifactOptions": {} }), "field ArtifactOptions"),
    ] {
        let mount: request::Mount = serde_json::from_value(asked).unwrap();
        assert!(structured::mount(&mount).unwrap_err().message.contains(words), "{words}");
    }
}

#[test]
fn tmpfs_options_are_those_that_a_tmpfs_has() {
    #[track_caller]
    fn check(options: &str, want: Option<&str>) {
        let host = HostConfig { tmpfs: [("/t".to_owned(), options.to_owned())].into(), ..HostConfig::default() };
        assert_eq!(mounts(&host, []).ok().map(|m| print(&m[0])).as_deref(), want, "{options}");
    }
    check("", Some("/t rw tmpfs None None "));
    check("size=64m,mode=1770,ro", Some("/t ro tmpfs Some(67108864) Some(1016) "));
    check("rw,exec,uid=5,size=50%", Some("/t rw tmpfs None None exec,uid=5,size=50%"));
    for bad in ["size=x", "size=-1", "mode=9", "mode=77777", "uid=x", "bind", "remount", "size=1,overlay=x", "gid="] {
        check(bad, None);
    }
}

#[test]
fn sizes_are_powers_of_1024() {
    for (text, want) in [
        ("0", Some(0)),
        ("10m", Some(10 << 20)),
        ("1G", Some(1 << 30)),
        ("5kb", Some(5120)),
        ("2mib", Some(2 << 20)),
        ("", None),
        ("m", None),
        ("-1", None),
        ("1.5m", None),
        ("99999999999999999999", None),
        ("99999999999t", None),
    ] {
        assert_eq!(size_bytes(text), want, "{text}");
    }
}

proptest! {
    #[test]
    fn no_text_panics(raw in "[a-z/:,.\\PC]{0,40}", options in "[a-z=,0-9%]{0,30}") {
        let _ = bind(&raw);
        let _ = tmpfs(&raw, &options);
    }

    #[test]
    fn what_is_accepted_is_absolute_and_clean(raw in "(/?[a.]{1,3}){1,4}:(/[a.]{1,3}){1,4}") {
        if let Ok(mount) = bind(&raw) {
            prop_assert!(mount.target.is_absolute());
            prop_assert!(!mount.target.components().any(|c| c == Component::ParentDir));
            prop_assert_ne!(mount.target, PathBuf::from("/"));
        }
    }
}
