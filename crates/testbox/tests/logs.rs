//! Where a container's output goes, and how it is read back.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::io::{BufRead, Read};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;

use dozen_testbox::{Engine, Machine, Side, patience, until};
use serde_json::{Value, json};

fn with_busybox(machine: &Machine) -> Engine<'_> {
    let engine = machine.engine();
    engine.load("busybox");
    engine
}

/// Its directory on the data root.
fn directory(machine: &Machine, engine: &Engine<'_>, name: &str) -> PathBuf {
    let id = engine.dozen(&["inspect", "--format", "{{.Id}}", name]).text();
    machine.directory().join("data/containers").join(id.trim())
}

/// More than ten kilobytes of lines by number.
const TALK: &str = "seq 10001 12000 | sed 's/^/line number /'";

fn talk() -> String {
    (10_001..=12_000).map(|number| format!("line number {number}\n")).collect()
}

/// In a container: goes on when it is told to.
fn wait_for(file: &str) -> String {
    format!("while [ ! -e {file} ]; do sleep 0.1; done")
}

/// Someone listens while files are rotated and compressed under their eyes; and whoever comes later reads the same.
fn reads_back_across_rotation(arguments: &[&str], name: &str) {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let start = ["run", "-d", "--name", "talker", "--network", "none"];
    let script = format!("{}; {TALK}; {}", wait_for("/begin"), wait_for("/end"));
    let line = [&start[..], arguments, &["busybox", "sh", "-c", &script]].concat();
    engine.dozen(&line).expect(0);
    let directory = directory(&machine, &engine, "talker");
    let files = || {
        let files =
            std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        files.filter(|file| file.starts_with(name)).collect::<Vec<_>>()
    };
    let done = std::thread::scope(|scope| {
        let follower = scope.spawn(|| engine.dozen(&["logs", "-f", "talker"]).expect(0));
        engine.dozen(&["exec", "talker", "touch", "/begin"]).expect(0);
        // Whatever comes of it, the follower ends.
        let compressed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until("all but the newest file are compressed", || {
                let files = files();
                (files.len() > 3 && files.iter().all(|file| file == name || file.ends_with(".gz"))).then_some(())
            })
        }));
        engine.dozen(&["exec", "talker", "touch", "/end"]).expect(0);
        compressed.unwrap();
        follower.join().unwrap()
    });
    assert!(done.out == talk(), "{} bytes", done.out.len());
    for reader in [Engine::dozen, Engine::docker] {
        let all = reader(&engine, &["logs", "talker"]).expect(0).out;
        assert!(all == talk(), "{} bytes", all.len());
        let tail = reader(&engine, &["logs", "--tail", "1990", "talker"]).expect(0).out;
        assert!(tail == talk().split_inclusive('\n').skip(10).collect::<String>(), "{} bytes", tail.len());
    }
}

#[test]
fn a_json_log_is_rotated_compressed_and_read_back() {
    let options = ["--log-opt", "max-size=20k", "--log-opt", "max-file=30", "--log-opt", "compress=true"];
    reads_back_across_rotation(&options, "log.json");
}

#[test]
fn a_local_log_is_rotated_compressed_and_read_back() {
    let options = ["--log-driver", "local", "--log-opt", "max-size=10k", "--log-opt", "max-file=30"];
    reads_back_across_rotation(&options, "log.local");
}

#[test]
fn labels_variables_and_a_tag_go_with_every_line() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let line = [
        "run",
        "--name",
        "web",
        "--network",
        "none",
        "-l",
        "team=blue",
        "-l",
        "other=x",
        "-e",
        "MODE=a b",
        "--log-opt",
        "labels=team",
        "--log-opt",
        "env-regex=^MO",
        "--log-opt",
        "tag={{.Name}}/{{.ImageName}}",
        "busybox",
        "echo",
        "hello",
    ];
    engine.dozen(&line).expect(0);
    let file = std::fs::read_to_string(directory(&machine, &engine, "web").join("log.json")).unwrap();
    let wanted =
        r#"{"log":"hello\n","stream":"stdout","attrs":{"MODE":"a b","tag":"web/busybox","team":"blue"},"time":""#;
    assert!(file.starts_with(wanted), "{file}");
    for reader in [Engine::dozen, Engine::docker] {
        let details = reader(&engine, &["logs", "--details", "web"]).expect(0).out;
        assert_eq!(details, "MODE=a+b,tag=web%2Fbusybox,team=blue hello\n");
        assert_eq!(reader(&engine, &["logs", "web"]).expect(0).out, "hello\n");
    }
    let asked = engine.dozen(&["inspect", "--format", "{{json .HostConfig.LogConfig}}", "web"]).text();
    let asked: serde_json::Value = serde_json::from_str(&asked).unwrap();
    assert_eq!(asked["Type"], "json-file");
    assert_eq!(asked["Config"]["labels"], "team");
}

#[test]
fn without_a_log_there_is_output_and_nothing_to_read() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    for (program, name) in [(Engine::dozen as fn(&_, &[&str]) -> _, "one"), (Engine::docker, "two")] {
        let line = ["run", "--name", name, "--log-driver", "none", "--network", "none", "busybox", "echo", "hello"];
        assert_eq!(program(&engine, &line).text(), "hello\n");
        program(&engine, &["logs", name]).refuses(1, &["configured logging driver does not support reading"]);
        assert_eq!(engine.dozen(&["inspect", "--format", "{{.HostConfig.LogConfig.Type}}", name]).text(), "none\n");
        let files = std::fs::read_dir(directory(&machine, &engine, name)).unwrap();
        let files: Vec<_> = files.map(|entry| entry.unwrap().file_name()).collect();
        assert!(!files.iter().any(|file| file.to_string_lossy().starts_with("log")), "{files:?}");
    }
}

#[test]
fn log_options_that_cannot_be_are_refused_before_anything_is_made() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    for (options, words) in [
        (&["--log-driver", "nothing"][..], "no log driver named 'nothing' is registered"),
        (&["--log-driver", "splunk"], "not built yet"),
        (&["--log-opt", "x=y"], "unknown log opt 'x' for json-file log driver"),
        (&["--log-opt", "tag={{.Secret}}"], "\".Secret\" is not known"),
        (&["--log-opt", "labels-regex=("], "labels-regex"),
    ] {
        let line = [&["create"][..], options, &["busybox", "true"]].concat();
        for program in [Engine::dozen, Engine::docker] {
            let done = program(&engine, &line);
            assert!(done.code != 0 && done.err.contains(words), "{done:?}");
        }
    }
    assert_eq!(engine.dozen(&["ps", "-aq"]).text(), "");
}

/// The next so many lines of a server's first connection, without what stands before the text.
fn lines(server: &UnixListener, count: usize) -> Vec<String> {
    let reader = std::io::BufReader::new(server.accept().unwrap().0);
    let text = |line: String| line.split_once("]: ").map(|(_, text)| text.to_owned()).unwrap();
    reader.lines().take(count).map(|line| text(line.unwrap())).collect()
}

#[test]
fn a_syslog_server_gets_every_line_and_logs_reads_the_copy() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let path = machine.directory().join("syslog.sock");
    let address = format!("syslog-address=unix://{}", path.display());
    let line = ["--log-driver", "syslog", "--log-opt", &address, "--log-opt", "tag={{.Name}}", "--network", "none"];
    let run = |name: &str, script: &str| {
        let run = [&["run", "-d", "--name", name][..], &line, &["busybox", "sh", "-c", script]].concat();
        engine.dozen(&run)
    };
    // In Docker's words; 127 is what its client makes of a file that is not there.
    run("early", "true").refuses(127, &["failed to initialize logging driver", "syslog.sock"]);
    let server = UnixListener::bind(&path).unwrap();
    run("talker", "echo one; echo two >&2; sleep 1000").expect(0);
    let mut first = lines(&server, 2);
    first.sort();
    assert_eq!(first, ["one", "two"]);
    // The first connection is closed by now. What comes next comes over another.
    engine.dozen(&["exec", "talker", "sh", "-c", "echo three >/proc/1/fd/1"]).expect(0);
    assert_eq!(lines(&server, 1), ["three"]);
    let copy = until("the copy has all", || {
        let done = engine.docker(&["logs", "talker"]);
        done.out.contains("three").then_some(done)
    });
    assert_eq!((copy.out.as_str(), copy.err.as_str()), ("one\nthree\n", "two\n"));
    let path = engine.dozen(&["inspect", "--format", "{{.HostConfig.LogConfig.Type}} [{{.LogPath}}]", "talker"]).text();
    assert_eq!(path, "syslog []\n");
}

#[test]
fn a_fluentd_server_that_comes_late_gets_what_was_said_before() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let path = machine.directory().join("fluentd.sock");
    let address = format!("fluentd-address=unix://{}", path.display());
    let line = ["--log-driver", "fluentd", "--log-opt", &address, "--log-opt", "tag=app", "--network", "none"];
    let run = |name: &str, more: &[&str]| {
        engine.dozen(
            &[&["run", "-d", "--name", name][..], &line, more, &["busybox", "sh", "-c", "echo hi; sleep 1000"]]
                .concat(),
        )
    };
    run("early", &[]).refuses(127, &["failed to initialize logging driver"]);
    run("late", &["--log-opt", "fluentd-async=true", "--log-opt", "fluentd-retry-wait=100ms"]).expect(0);
    let server = UnixListener::bind(&path).unwrap();
    let mut stream = server.accept().unwrap().0;
    let mut message = Vec::new();
    while !message.ends_with(b"\xa3log\xa2hi") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        message.push(byte[0]);
    }
    assert!(message.starts_with(b"\x93\xa3app"), "{message:?}");
    assert!(message.windows(5).any(|window| window == b"/late"), "{message:?}");
}

/// It takes nothing at all, for as long as the test runs: neither a container that does not block nor what its
/// output is read back by is held up.
#[test]
fn a_dead_log_server_holds_nobody_up_who_does_not_block() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let path = machine.directory().join("syslog.sock");
    let server = UnixListener::bind(&path).unwrap();
    let address = format!("syslog-address=unix://{}", path.display());
    let line = [
        "run",
        "--name",
        "talker",
        "--network",
        "none",
        "--log-driver",
        "syslog",
        "--log-opt",
        &address,
        "--log-opt",
        "mode=non-blocking",
        "--log-opt",
        "max-buffer-size=16k",
        "busybox",
        "sh",
        "-c",
        "seq 1 100000",
    ];
    let all: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
    assert!(engine.dozen(&line).expect(0).out == all);
    assert!(engine.dozen(&["logs", "talker"]).expect(0).out == all);
    drop(server);
}

/// Killed, and ended in good order: whoever follows goes on with the next engine, with every line and each once.
#[test]
fn who_follows_a_log_goes_on_through_dead_engines() {
    let machine = Machine::new();
    let mut engine = with_busybox(&machine);
    let count = format!("i=0; while [ ! -e /end ]; do i=$((i+1)); echo line $i; sleep 0.02; done; {TALK}");
    let run = ["run", "-d", "-t", "--name", "counter", "--network", "none", "busybox", "sh", "-c", &count];
    engine.dozen(&run).expect(0);
    let program = dozen_testbox::dozen_program();
    let done = std::thread::scope(|scope| {
        let follower = scope.spawn(|| machine.run(&program, &["logs", "-f", "counter"]).expect(0));
        let seen = |engine: &Engine<'_>| engine.dozen(&["logs", "counter"]).out.lines().count();
        let before = until("it counts", || Some(seen(&engine)).filter(|lines| *lines > 5));
        engine.kill();
        engine.restart();
        until("it counts on", || (seen(&engine) > before + 5).then_some(()));
        engine.restart();
        engine.dozen(&["exec", "counter", "touch", "/end"]).expect(0);
        follower.join().unwrap()
    });
    let all = engine.dozen(&["logs", "counter"]).expect(0).out;
    assert!(done.out == all, "{} bytes, want {}", done.out.len(), all.len());
    assert!(all.contains("line number 12000"));
}

/// A server's next message: put together from its chunks, and unpacked.
fn gelf(server: &UdpSocket) -> Value {
    let (mut chunks, mut wanted) = (BTreeMap::new(), 1);
    while chunks.len() < wanted {
        let mut buffer = vec![0; 65536];
        let count = server.recv(&mut buffer).unwrap();
        assert!(count <= 1420, "{count}");
        match buffer[..count].strip_prefix(&[0x1e, 0x0f]) {
            Some(chunk) => {
                wanted = usize::from(chunk[9]);
                chunks.insert(chunk[8], chunk[10..].to_vec());
            }
            None => drop(chunks.insert(0, buffer[..count].to_vec())),
        }
    }
    let packed: Vec<u8> = chunks.into_values().flatten().collect();
    let mut text = Vec::new();
    match packed[..] {
        [0x1f, 0x8b, ..] => drop(flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut text).unwrap()),
        [0x78, ..] => drop(flate2::read::ZlibDecoder::new(&packed[..]).read_to_end(&mut text).unwrap()),
        _ => text = packed,
    }
    serde_json::from_slice(&text).unwrap()
}

#[test]
fn graylog_hears_by_datagrams_and_by_a_connection() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let server = machine.on(Side::Machine, || UdpSocket::bind("127.0.0.1:0")).unwrap();
    server.set_read_timeout(Some(patience(Duration::from_secs(20)))).unwrap();
    let address = format!("gelf-address=udp://{}", server.local_addr().unwrap());
    let line = ["--network", "none", "--log-driver", "gelf", "--log-opt", "tag={{.Name}}", "--log-opt", "labels=team"];
    let random = "dd if=/dev/urandom bs=1000 count=9 2>/dev/null | base64 -w 0";
    let script = format!("echo one; echo; echo two >&2; echo $({random})");
    for kind in ["gzip", "zlib", "none"] {
        let kind = format!("gelf-compression-type={kind}");
        let more = ["--log-opt", &address, "--log-opt", &kind, "--label", "team=blue", "busybox", "sh", "-c", &script];
        engine.docker(&[&["run", "--name", "it"][..], &line, &more].concat()).expect(0);
        let inspected: Value = serde_json::from_str(&engine.docker(&["inspect", "it"]).text()).unwrap();
        let mut heard = [gelf(&server), gelf(&server), gelf(&server)];
        heard.sort_by_key(|message| message["short_message"].as_str().unwrap().len());
        heard[..2].sort_by_key(|message| message["short_message"].as_str().unwrap().to_owned());
        for (message, text, level) in [(&heard[0], "one", 6), (&heard[1], "two", 3)] {
            assert_eq!((&message["short_message"], &message["level"]), (&json!(text), &json!(level)), "{message}");
        }
        assert_eq!(heard[2]["short_message"].as_str().unwrap().len(), 12_000);
        let first = &heard[0];
        for (name, want) in [
            ("version", "1.1"),
            ("_container_id", inspected[0]["Id"].as_str().unwrap()),
            ("_container_name", "it"),
            ("_image_id", inspected[0]["Image"].as_str().unwrap()),
            ("_image_name", "busybox"),
            ("_tag", "it"),
            ("_team", "blue"),
            ("_created", inspected[0]["Created"].as_str().unwrap()),
        ] {
            assert_eq!(first[name], want, "{name} of {first}");
        }
        assert!(first["_command"].as_str().unwrap().starts_with("sh -c echo one"), "{first}");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((now - first["timestamp"].as_f64().unwrap()).abs() < 600.0, "{first}");
        assert!(engine.docker(&["logs", "it"]).text().starts_with("one\n\n"), "the copy has what cannot be sent, too");
        engine.docker(&["rm", "it"]).expect(0);
    }
    let server = machine.on(Side::Machine, || TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = format!("gelf-address=tcp://{}", server.local_addr().unwrap());
    let more = ["--log-opt", &address, "busybox", "sh", "-c", "echo one; echo two"];
    engine.docker(&[&["run", "--name", "it"][..], &line, &more].concat()).expect(0);
    let mut said = Vec::new();
    server.accept().unwrap().0.read_to_end(&mut said).unwrap();
    let messages = said.split(|byte| *byte == 0).filter(|message| !message.is_empty());
    let texts: Vec<Value> =
        messages.map(|message| serde_json::from_slice::<Value>(message).unwrap()["short_message"].clone()).collect();
    assert_eq!(texts, [json!("one"), json!("two")]);
    drop(server);
    engine.docker(&["start", "-a", "it"]).refuses(1, &["failed to initialize logging driver"]);
}
