//! What containers use, as it is told and shown: by docker's command line, our own, and the API itself.

#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use dozen_testbox::{Engine, Machine};

fn background(engine: &Engine<'_>, name: &str, options: &[&str], script: &str) {
    let line = [&["run", "-d", "--name", name][..], options, &["busybox", "sh", "-c", script]].concat();
    engine.dozen(&line).expect(0);
}

fn ask(machine: &Machine, path: &str) -> BufReader<UnixStream> {
    let mut stream = UnixStream::connect(machine.socket()).unwrap();
    stream.set_read_timeout(Some(dozen_testbox::patience(std::time::Duration::from_secs(30)))).unwrap();
    // The older version of HTTP has no chunks: a document to a line.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: box\r\n\r\n").unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while reader.read_line(&mut line).unwrap() > 2 {
        line.clear();
    }
    reader
}

fn next(stream: &mut BufReader<UnixStream>) -> serde_json::Value {
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
}

#[test]
fn figures_are_those_of_the_container() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    background(&engine, "busy", &["--memory", "64m", "--pids-limit", "20"], "while :; do :; done");
    background(&engine, "idle", &["--network", "none"], "sleep 1000");
    engine.dozen(&["create", "--name", "never", "busybox", "true"]).expect(0);
    let format = "{{.Name}} {{.CPUPerc}} {{.MemUsage}} {{.PIDs}}";
    for done in [
        engine.docker(&["stats", "--no-stream", "--format", format]),
        engine.dozen(&["stats", "--no-stream", "--format", format]),
    ] {
        let text = done.text();
        assert_eq!(text.lines().count(), 2, "{text}");
        let of = |name: &str| -> Vec<String> {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line.split(' ').map(str::to_owned).collect()
        };
        let percent = |text: &str| text.trim_end_matches('%').parse::<f64>().unwrap();
        let (busy, idle) = (of("busy"), of("idle"));
        assert!(percent(&busy[1]) > percent(&idle[1]) && percent(&busy[1]) > 5.0, "{text}");
        assert_eq!(busy[4], "64MiB", "{text}");
        assert_eq!(busy[5], "1", "{text}");
    }
    let shown = engine.dozen(&["stats", "--no-stream", "--all", "--format", "{{.Name}} {{.CPUPerc}}"]).text();
    assert!(shown.lines().any(|line| line == "never --"), "{shown}");
    engine.dozen(&["stats", "--no-stream", "nobody"]).refuses(1, &["No such container: nobody"]);

    let mut one = ask(&machine, "/v1.47/containers/busy/stats?stream=false&one-shot=true");
    let one = next(&mut one);
    assert_eq!((&one["name"], &one["precpu_stats"]["cpu_usage"]["total_usage"]), (&"/busy".into(), &0.into()));
    assert_eq!((&one["pids_stats"]["limit"], &one["memory_stats"]["limit"]), (&20.into(), &(64 << 20).into()));
    assert!(one["networks"]["eth0"]["rx_bytes"].is_u64() && one["networks"].get("lo").is_none(), "{one}");
    assert!(one["cpu_stats"]["online_cpus"].as_u64() >= Some(1), "{one}");
    let mut text = String::new();
    ask(&machine, "/containers/busy/stats?one-shot=true").read_to_string(&mut text).unwrap();
    assert!(text.contains("cannot have stream=true and one-shot=true"), "{text}");
    let never = next(&mut ask(&machine, "/containers/never/stats?stream=false"));
    assert_eq!((&never["read"], &never["memory_stats"]), (&"0001-01-01T00:00:00Z".into(), &serde_json::json!({})));
}

#[test]
fn a_stream_goes_on_from_second_to_second_and_ends_with_the_container() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    background(&engine, "watched", &["--network", "none"], "sleep 1000");
    let (mut one, mut other) =
        (ask(&machine, "/containers/watched/stats"), ask(&machine, "/v1.41/containers/watched/stats?stream=1"));
    let (first, second) = (next(&mut one), next(&mut one));
    assert_eq!(first["preread"], "0001-01-01T00:00:00Z");
    assert_eq!(second["preread"], first["read"]);
    assert_eq!(second["precpu_stats"], first["cpu_stats"]);
    assert!(second["read"].as_str() > first["read"].as_str());
    // Both see the same samples.
    let theirs = next(&mut other);
    assert!([&first["read"], &second["read"]].contains(&&theirs["read"]), "{theirs}");
    // Who leaves leaves the other its stream.
    drop(other);
    next(&mut one);
    engine.dozen(&["kill", "watched"]).expect(0);
    let mut rest = String::new();
    one.read_to_string(&mut rest).unwrap();
    assert!(rest.lines().count() <= 2, "{rest}");
}
