//! Where mounts go, and what neighbours make of the places meanwhile.

use super::*;

#[test]
fn many_mounts_are_made_and_gone() {
    let data = tempfile::tempdir().unwrap();
    let bundle = Bundle::new("grep -c /many/ /proc/self/mountinfo").with(|spec| {
        (0..3000).for_each(|number| push_mount(spec, bind(&data, &format!("/many/{number}"))));
    });
    assert_eq!(stdout(&bundle.run()), "3000\n");
}

/// A root that shares its mounts with the host's must not unmount them there when it lets go of the host.
#[test]
fn a_shared_root_leaves_the_hosts_mounts_alone() {
    let bundle = Bundle::new("true").with(|spec| spec["linux"]["rootfsPropagation"] = json!("shared"));
    bundle.write();
    // A host whose mounts are shared, as systemd makes them, with one below another.
    let script = "mount --make-rshared / && mkdir -p $1/a && mount -t tmpfs a $1/a && mkdir $1/a/b && \
        mount -t tmpfs b $1/a/b && before=$(grep -c . /proc/self/mountinfo) && \
        $2 runtime --root $1/state run --bundle $1 $3 && [ $before = $(grep -c . /proc/self/mountinfo) ]";
    let status = std::process::Command::new("unshare")
        .args(["--mount", "sh", "-ec", script, "sh", bundle.path(), PROBE, &bundle.id])
        .stdin(Stdio::null())
        .status();
    assert!(status.unwrap().success(), "mounts of the host are gone");
    bundle.check_nothing_is_left();
}

/// CVE-2021-30465, CVE-2024-45310: a neighbour on a volume swaps the directory that mounts lie in for a link, faster
/// than they are made. They are made in the container or not at all; outside nothing is made or covered. Guarded by
/// RESOLVE_IN_ROOT in `open_resolved` and by descriptors from there on (`RootTree::make`, `attach`).
#[test]
fn a_neighbour_who_swaps_directories_gets_nowhere() {
    let (volume, data, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir());
    let outside = outside.unwrap();
    let name = outside.path().display().to_string();
    fs::write(data.path().join("file"), "").unwrap();
    fs::create_dir(outside.path().join("there")).unwrap();
    fs::write(outside.path().join("there/secret"), "").unwrap();
    let (place, decoy) = (volume.path().join("place"), volume.path().join("decoy"));
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let (before, mut ran) = (mounts(), 0);
    for round in 0..32 {
        let target = match round % 4 {
            0 => name.clone(),
            1 => format!("../../../../../../../..{name}"),
            2 => format!("/proc/1/root{name}"),
            _ => "/".to_owned(),
        };
        fs::create_dir(&place).unwrap();
        symlink(target, &decoy).unwrap();
        let bundle = Bundle::new("[ -e /vol/place/there/secret ] && echo escaped; echo ran").with(|spec| {
            push_mount(spec, bind(&volume, "/vol"));
            push_mount(spec, bind(&data, "/vol/place/new/deep"));
            push_mount(spec, bind(data.path().join("file"), "/vol/place/file"));
            push_mount(spec, bind(&data, "/vol/place/there"));
            push_mount(spec, json!({"destination": "/vol/place/tmp", "type": "tmpfs", "source": "tmpfs"}));
            spec["linux"]["devices"] = json!([{"path": "/vol/place/node", "type": "c", "major": 1, "minor": 3}]);
            spec["process"]["cwd"] = json!("/vol/place/work");
        });
        let neighbour = Neighbour::who_swaps(place.clone(), decoy.clone());
        let output = bundle.run();
        drop(neighbour);
        if output.status.success() {
            assert_eq!(stdout(&output), "ran\n");
            ran += 1;
        }
        let names = |directory: &Path| fs::read_dir(directory).unwrap().count();
        assert_eq!((names(outside.path()), names(&outside.path().join("there"))), (1, 1), "made outside");
        for path in [&place, &decoy] {
            let link = fs::symlink_metadata(path).unwrap().is_symlink();
            if link { fs::remove_file(path).unwrap() } else { fs::remove_dir_all(path).unwrap() }
        }
    }
    assert!(ran > 0);
    assert_eq!(mounts(), before);
}
