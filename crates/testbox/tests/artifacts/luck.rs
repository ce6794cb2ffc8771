//! Artifacts on a bad day: connections that break, registries that lie, an engine that is killed.

use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use dozen_testbox::{Gate, Machine, dozen_program, until};
use serde_json::json;

use crate::registry::{Asked, Between, Registry, reply};
use crate::server::HOST;
use crate::{artifact, file, inspect, kept, noise, sending};

/// A registry with one artifact, whose file is of several MiB, and nothing on the machine.
fn filled(machine: &Machine, engine: &dozen_testbox::Engine<'_>) {
    let (name, path) = (format!("{HOST}/team/notes:1"), file(machine, "large.bin", &noise(3 << 20)));
    artifact(engine, &["add", &name, &path]).expect(0);
    artifact(engine, &["push", &name]).expect(0);
    artifact(engine, &["rm", &name]).expect(0);
    assert_eq!(kept(machine), (0, 0));
}

fn body(answer: &[u8]) -> usize {
    answer.windows(4).position(|four| four == b"\r\n\r\n").map_or(answer.len(), |at| at + 4)
}

fn is_large(asked: &Asked, answer: &[u8]) -> bool {
    asked.is_blob() && asked.method == "GET" && answer.len() > 100_000
}

#[test]
fn a_connection_that_breaks_costs_only_the_rest() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    let engine = machine.engine();
    filled(&machine, &engine);
    let rest = Arc::new(AtomicUsize::new(0));
    let asked_for_rest = rest.clone();
    let between = Between::start(&machine, registry.port, move |asked| {
        let mut answer = asked.forward();
        if asked.field("range").is_some() {
            asked_for_rest.fetch_add(1, Ordering::SeqCst);
        } else if is_large(asked, &answer) {
            let begin = body(&answer);
            answer.truncate(begin + (answer.len() - begin) / 2);
        }
        answer
    });
    let name = format!("{}/team/notes:1", between.host);
    artifact(&engine, &["pull", &name]).expect(0);
    assert_eq!(rest.load(Ordering::SeqCst), 1);
    let out = machine.directory().join("out");
    artifact(&engine, &["extract", &name, out.to_str().unwrap()]).expect(0);
    assert!(std::fs::read(out).unwrap() == noise(3 << 20));
    between.stop(&machine);
}

#[test]
fn a_registry_that_lies_is_found_out_and_leaves_nothing() {
    type Lie = fn(&Asked, Vec<u8>) -> Vec<u8>;
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    let is_manifest = |asked: &Asked| asked.path.contains("/manifests/") && asked.method == "GET";
    let changed: Lie = |asked, mut answer| {
        if is_large(asked, &answer) {
            let last = answer.len() - 100;
            answer[last] ^= 1;
        }
        answer
    };
    let longer: Lie = |asked, answer| match is_large(asked, &answer) {
        true => reply("200 OK", &[], &[&answer[body(&answer)..], b"more"].concat()),
        false => answer,
    };
    let gone: Lie = |asked, answer| if asked.is_blob() { reply("404 Not Found", &[], b"") } else { answer };
    let page: Lie = |asked, answer| match asked.path.contains("/manifests/") {
        true => reply("200 OK", &[("Content-Type", "text/html")], b"<html>Log in to this network</html>"),
        false => answer,
    };
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    let engine = machine.engine();
    filled(&machine, &engine);
    let lie: Arc<Mutex<Lie>> = Arc::new(Mutex::new(changed));
    let (told, crowd) = (lie.clone(), Arc::new(Mutex::new(None::<String>)));
    let said = crowd.clone();
    let between = Between::start(&machine, registry.port, move |asked| {
        if let (Some(manifest), true) = (&*said.lock().unwrap(), is_manifest(asked)) {
            return reply("200 OK", &[("Content-Type", MANIFEST)], manifest.as_bytes());
        }
        let lie = *told.lock().unwrap();
        lie(asked, asked.forward())
    });
    let name = format!("{}/team/notes:1", between.host);
    for (next, words) in [
        (changed, "is damaged"),
        (longer, "where"),
        (gone, "404 Not Found"),
        (page, "what answers is a web page, no registry"),
    ] {
        *lie.lock().unwrap() = next;
        artifact(&engine, &["pull", &name]).refuses(1, &[words]);
        assert_eq!((kept(&machine), artifact(&engine, &["ls", "-q"]).text()), ((0, 0), String::new()));
    }
    *lie.lock().unwrap() = |_, answer| answer;
    let digest = |letter: char| format!("sha256:{}", letter.to_string().repeat(64));
    let part = |letter, size: u64| json!({ "mediaType": "x/y", "digest": digest(letter), "size": size });
    let many: Vec<_> = (0..1001).map(|_| part('a', 1)).collect();
    for (manifest, words) in [
        (json!({ "config": part('a', 1), "layers": many }), "1001 files"),
        (json!({ "config": part('a', 1), "layers": [part('a', 2)] }), "two sizes"),
        (json!({ "config": {}, "layers": [] }), "malformed"),
        (json!({ "config": part('a', u64::MAX), "layers": [part('b', u64::MAX)] }), "blob unknown"),
        (json!({ "schemaVersion": 2, "manifests": [part('a', 1)] }), "it says that it is"),
    ] {
        *crowd.lock().unwrap() = Some(manifest.to_string());
        artifact(&engine, &["pull", &name]).refuses(1, &[words]);
        assert_eq!(kept(&machine), (0, 0));
    }
    *crowd.lock().unwrap() = None;
    artifact(&engine, &["pull", &name]).expect(0);
    assert_eq!(inspect(&engine, &name)["Manifest"]["layers"].as_array().unwrap().len(), 1);
    between.stop(&machine);
}

#[test]
fn a_pull_that_is_given_up_or_killed_leaves_nothing() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    let mut engine = machine.engine();
    filled(&machine, &engine);
    let gate = Arc::new(Gate::default());
    let kept_gate = gate.clone();
    let between = Between::start(&machine, registry.port, move |asked| {
        let answer = asked.forward();
        if is_large(asked, &answer) {
            kept_gate.pass();
        }
        answer
    });
    let name = format!("{}/team/notes:1", between.host);
    let pulling = |times: usize| {
        let mut command = machine.command(dozen_program());
        command.args(["artifact", "pull", &name]).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        until("the file is on its way", || (gate.visits() == times).then_some(()));
        assert_eq!(kept(&machine).1, 1);
        child
    };
    // Who asked goes.
    let mut client = pulling(1);
    client.kill().unwrap();
    client.wait().unwrap();
    until("nothing is left of it", || (kept(&machine) == (0, 0)).then_some(()));
    // The engine goes.
    let mut client = pulling(2);
    engine.kill();
    assert!(!client.wait().unwrap().success());
    engine.restart();
    assert_eq!((kept(&machine), artifact(&engine, &["ls", "-q"]).text()), ((0, 0), String::new()));
    gate.open();
    artifact(&engine, &["pull", &name]).expect(0);
    assert_eq!(kept(&machine), (3, 0));
    between.stop(&machine);
}

/// What is on its way to somebody stays until it is there.
#[test]
fn what_is_removed_while_it_is_sent_arrives_whole() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    let engine = machine.engine();
    let paths = [file(&machine, "large.bin", &noise(3 << 20)), file(&machine, "small", b"small")];
    let gate = Arc::new(Gate::default());
    let kept_gate = gate.clone();
    let between = sending::Between::start(&machine, registry.port, move |asked| {
        // Before anything is read of a file.
        if asked.path.contains("/blobs/") && asked.method == "HEAD" {
            kept_gate.pass();
        }
        asked.forward()
    });
    let name = format!("{}/team/notes:1", between.host);
    artifact(&engine, &["add", &name, &paths[0], &paths[1]]).expect(0);
    let mut push = machine.command(dozen_program());
    let push = push.args(["artifact", "push", &name]).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    until("the registry is asked", || (gate.visits() > 0).then_some(()));
    artifact(&engine, &["rm", &name]).expect(0);
    assert_eq!(artifact(&engine, &["ls", "-q"]).text(), "");
    assert_eq!(kept(&machine).0, 4);
    gate.open();
    assert!(push.unwrap().wait().unwrap().success());
    until("nothing is left of it", || (kept(&machine) == (0, 0)).then_some(()));
    artifact(&engine, &["pull", &name]).expect(0);
    let out = machine.directory().join("out");
    std::fs::create_dir(&out).unwrap();
    artifact(&engine, &["extract", &name, out.to_str().unwrap()]).expect(0);
    assert!(std::fs::read(out.join("large.bin")).unwrap() == noise(3 << 20));
    between.stop(&machine);
}

/// On a terminal, what is on its way is seen; elsewhere the result alone.
#[test]
fn a_terminal_shows_how_far_it_is() {
    let machine = Machine::new();
    let _registry = Registry::start(&machine);
    let engine = machine.engine();
    let (name, path) = (format!("{HOST}/team/notes:1"), file(&machine, "large.bin", &noise(3 << 20)));
    let digest = artifact(&engine, &["add", &name, &path]).text().trim().to_owned();
    let layer = inspect(&engine, &name)["Manifest"]["layers"][0]["digest"].as_str().unwrap()[7..19].to_owned();
    let on_a_terminal = |arguments: &[&str], code: i32, want: &[String]| {
        let mut screen = machine.screen(&dozen_program(), &[&["artifact"], arguments].concat());
        want.iter().for_each(|text| screen.shows(text));
        assert_eq!(screen.end().0, code);
    };
    let moves = |words: &str| format!("{layer}: {words}");
    let told = format!("{name}: digest: sha256:{digest}");
    on_a_terminal(&["push", &name], 0, &[moves("Preparing"), moves("Pushed"), told.clone()]);
    on_a_terminal(&["push", &name], 0, &[moves("Layer already exists"), told]);
    artifact(&engine, &["rm", &name]).expect(0);
    on_a_terminal(&["pull", &name], 0, &[moves("Pulling fs layer"), moves("Pull complete"), digest.clone()]);
    on_a_terminal(&["pull", &name], 0, &[moves("Already exists"), digest]);
    on_a_terminal(&["pull", &format!("{HOST}/team/notes:2")], 1, &["manifest unknown".to_owned()]);
    let quiet = machine.screen(&dozen_program(), &["artifact", "pull", "--quiet", &name]);
    let (code, shown) = quiet.end();
    assert!(code == 0 && !shown.contains(&layer), "{shown}");
    let piped = artifact(&engine, &["pull", &name]);
    assert_eq!(piped.err, "");
}
