//! Lists of manifests, made on the client's side and pushed: by our command line, and by docker's in turn.

use dozen_testbox::{Machine, docker_program, dozen_program};
use serde_json::{Value, json};

use crate::between::{Between, reply};
use crate::registry::Registry;
use crate::{HOST, raw};

fn names() -> [String; 3] {
    ["team/all:1", "team/box:1", "other/web:1"].map(|name| format!("{HOST}/{name}"))
}

#[test]
fn a_list_is_made_annotated_and_pushed() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    registry.fill("busybox", "team/box:1");
    registry.fill("nginx:1.22", "other/web:1");
    let engine = machine.engine();
    let [list, one, other] = names();
    let manifest = |arguments: &[&str]| engine.dozen(&[&["manifest"], arguments].concat());
    manifest(&["push", &list]).refuses(1, &[&format!("No such manifest: {list}")]);
    let made = manifest(&["create", &list, &one, &other]).text();
    assert_eq!(made, format!("Created manifest list {list}\n"));
    let refused = "refusing to amend an existing manifest list with no --amend flag";
    manifest(&["create", &list, &one]).refuses(1, &[refused]);
    manifest(&["annotate", "--arch", "foo", &list, &other])
        .refuses(1, &["manifest entry for image has unsupported os/arch combination: linux/foo"]);
    let nothing = format!("{HOST}/team/none:1");
    let words = format!("manifest for image {nothing} does not exist in {list}");
    manifest(&["annotate", "--arch", "arm64", &list, &nothing]).refuses(1, &[&words]);
    let annotate = ["annotate", "--arch", "arm64", "--variant", "v8", "--os-features", "a,b", "--os-version", "7"];
    manifest(&[&annotate[..], &[&list, &other]].concat()).expect(0);
    // What was said stays when the list is amended.
    manifest(&["create", "--amend", &list, &other]).expect(0);
    let shown = manifest(&["inspect", &list]).text();
    let verbose: Value = serde_json::from_str(&manifest(&["inspect", "-v", &list]).text()).unwrap();
    assert_eq!(verbose[0]["Ref"], other);
    let expected = json!({
        "architecture": "arm64", "os": "linux", "variant": "v8", "os.features": ["a", "b"], "os.version": "7",
    });
    assert_eq!(verbose[0]["Descriptor"]["platform"], expected);
    let alone: Value = serde_json::from_str(&manifest(&["inspect", &list, &other]).text()).unwrap();
    assert_eq!(alone, serde_json::from_str::<Value>(&raw(&machine, &other)).unwrap());

    let pushed = manifest(&["push", "--purge", &list]).text();
    let document = raw(&machine, &list);
    assert_eq!(document, shown.trim_end());
    let digest = machine.run_with("sha256sum", &[], document.as_bytes(), &[]).text();
    let moved = verbose[0]["Descriptor"]["digest"].as_str().unwrap();
    let expected = format!(
        "Pushed ref {HOST}/team/all@{moved} with digest: {moved}\nPushed ref {HOST}/team/all@BOX\nsha256:{}\n",
        &digest[..64]
    );
    let of_box = verbose[1]["Descriptor"]["digest"].as_str().unwrap();
    assert_eq!(pushed, expected.replace("BOX", &format!("{of_box} with digest: {of_box}")));
    // The registry has all of it in the list's repository.
    assert_eq!(engine.dozen(&["run", "--rm", &list, "echo", "hello"]).text(), "hello\n");
    let moved = format!("{HOST}/team/all@{moved}");
    engine.dozen(&["pull", &moved]).expect(0);
    manifest(&["push", &list]).refuses(1, &["No such manifest: "]);

    let words = format!("{list} is a manifest list");
    manifest(&["create", &format!("{HOST}/team/other:1"), &list]).refuses(1, &[&words]);
    let words = format!("no such manifest: {nothing}");
    let again = format!("{HOST}/team/again:1");
    manifest(&["create", &again, &one, &nothing]).refuses(1, &[&words]);
    // Nothing of it was made.
    manifest(&["rm", &again]).refuses(1, &["No such manifest: "]);
    let far = "registry.example/team/all:1";
    manifest(&["create", far, &one]).expect(0);
    let words =
        format!("cannot use source images from a different registry than the target image: {HOST} != registry.example");
    manifest(&["push", far]).refuses(1, &[&words]);
    manifest(&["rm", far, &list]).refuses(1, &[&format!("No such manifest: {list}")]);
    manifest(&["rm", far]).refuses(1, &["No such manifest: "]);
    // The registry is gone, and its list is where it was.
    manifest(&["create", &list, &one]).expect(0);
    drop(registry);
    manifest(&["push", "--purge", &list]).refuses(1, &["cannot reach the registry"]);
    manifest(&["inspect", &list]).expect(0);
}

/// Either program goes on with what the other has begun.
#[test]
fn dockers_lists_are_ours() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    registry.fill("busybox", "team/box:1");
    registry.fill("nginx:1.22", "other/web:1");
    let _engine = machine.engine();
    let [list, one, other] = names();
    let docker = |arguments: &[&str]| machine.run(docker_program(), &[&["manifest"], arguments].concat()).expect(0);
    let ours = |arguments: &[&str]| machine.run(dozen_program(), &[&["manifest"], arguments].concat()).expect(0);
    docker(&["create", "--insecure", &list, &one]);
    ours(&["create", "--amend", &list, &other]);
    docker(&["annotate", "--arch", "arm", "--variant", "v7", &list, &other]);
    ours(&["annotate", "--variant", "v6", &list, &other]);
    assert_eq!(docker(&["inspect", &list]).out, ours(&["inspect", &list]).out);
    let verbose = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    assert_eq!(verbose(&docker(&["inspect", "-v", &list]).out), verbose(&ours(&["inspect", "-v", &list]).out));
    let said = ours(&["push", &list]).out;
    let document = raw(&machine, &list);
    assert_eq!(docker(&["push", "--insecure", &list]).out, said);
    assert_eq!(raw(&machine, &list), document);
    docker(&["rm", &list]);
    machine.run(dozen_program(), &["manifest", "rm", &list]).refuses(1, &["No such manifest: "]);
}

/// A registry that takes nothing over from its other repositories: nothing goes, and the way out is told.
#[test]
fn what_is_not_taken_over_is_told() {
    let machine = Machine::new();
    let registry = Registry::with(&machine, 5001, "");
    registry.fill("busybox", "team/box:1");
    let between = Between::start(&machine, registry.port, |asked| {
        if asked.method == "POST" && asked.path.contains("mount=") {
            return reply("202 Accepted", &[("Location", "/v2/other/all/blobs/uploads/one")], b"");
        }
        asked.forward()
    });
    let engine = machine.engine();
    let host = between.host.clone();
    let (list, one) = (format!("{host}/other/all:1"), format!("{host}/team/box:1"));
    engine.dozen(&["manifest", "create", &list, &one]).expect(0);
    let refused = engine.dozen(&["manifest", "push", "--purge", &list]).expect(1);
    assert!(refused.err.contains(&format!("error mounting {host}/team/box@sha256:")), "{}", refused.err);
    assert!(
        refused.err.contains(&format!(
            "hint: the registry does not take it over from there: push the image to {host}/other/all first"
        )),
        "{}",
        refused.err
    );
    engine.dozen(&["manifest", "inspect", &list]).expect(0);
    // In the repository where the image is it goes.
    let list = format!("{host}/team/box:all");
    engine.dozen(&["manifest", "create", &list, &one]).expect(0);
    let pushed = engine.dozen(&["manifest", "push", &list]).text();
    assert!(pushed.starts_with("sha256:") && !pushed.contains("Pushed ref"), "{pushed}");
    between.stop(&machine);
}
