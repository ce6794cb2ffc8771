//! A web server with a large file, and an application as the twelve factors would have it.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use dozen_testbox::{MACHINE_ADDRESS, Machine, Side, patience, until};

use crate::with;

#[test]
#[ignore = "heavy: an image of its own (cargo xtask test)"]
fn nginx_serves_and_ends_politely() {
    let machine = Machine::new();
    let engine = with(&machine, "nginx:1.22");
    std::fs::write(machine.directory().join("index.html"), "from a bind\n").unwrap();
    let page = format!("{}:/var/www/html/index.html:ro", machine.directory().join("index.html").display());
    engine.dozen(&["run", "-d", "--name", "web", "-p", "8080:80", "-v", &page, "nginx:1.22"]).expect(0);
    assert_eq!(machine.page(Side::Neighbour, SocketAddr::new(MACHINE_ADDRESS, 8080)), "from a bind\n");
    assert_eq!(machine.page(Side::Machine, (Ipv4Addr::LOCALHOST, 8080).into()), "from a bind\n");
    // Its log is the container's.
    assert!(engine.dozen(&["logs", "web"]).expect(0).out.contains("GET / HTTP/1.0"));
    engine.dozen(&["exec", "web", "nginx", "-s", "reload"]).expect(0);
    assert_eq!(machine.page(Side::Neighbour, SocketAddr::new(MACHINE_ADDRESS, 8080)), "from a bind\n");
    // SIGQUIT, as the image says.
    engine.dozen(&["stop", "web"]).expect(0);
    assert_eq!(engine.dozen(&["wait", "web"]).text(), "0\n");
}

const LARGE_BYTES: usize = 100 << 20;

/// Bytes without a pattern that a lost, doubled or swapped piece could hide in (xorshift64, Marsaglia 2003).
fn large() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(LARGE_BYTES);
    while bytes.len() < LARGE_BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes
}

/// By every way that a published port has, all of them at the same time: the kernel's translation, the keeper's copy
/// for `[::1]`, and another container that calls the machine's address.
#[test]
#[ignore = "heavy: an image of its own (cargo xtask test)"]
fn nginx_sends_a_large_file_whole_by_every_way_in() {
    let machine = Machine::new();
    let engine = with(&machine, "nginx:1.22");
    engine.load("busybox");
    let file = machine.directory().join("large");
    let bytes = large();
    std::fs::write(&file, &bytes).unwrap();
    let bind = format!("{}:/var/www/html/large:ro", file.display());
    engine.dozen(&["run", "-d", "--name", "web", "-p", "8080:80", "-v", &bind, "nginx:1.22"]).expect(0);
    let outside = SocketAddr::new(MACHINE_ADDRESS, 8080);
    until("nginx answers", || machine.connect(Side::Neighbour, outside).ok());

    let ways: [(Side, IpAddr); 5] = [
        (Side::Machine, Ipv4Addr::LOCALHOST.into()),
        (Side::Machine, Ipv6Addr::LOCALHOST.into()),
        (Side::Machine, MACHINE_ADDRESS),
        (Side::Neighbour, MACHINE_ADDRESS),
        (Side::Neighbour, "2001:db8:b0::2".parse().unwrap()),
    ];
    let (bind, url) = (format!("{}:/large:ro", file.display()), format!("http://{outside}/large"));
    std::thread::scope(|scope| {
        let (machine, bytes) = (&machine, &bytes);
        for (side, address) in ways {
            scope.spawn(move || {
                let mut stream = machine.connect(side, SocketAddr::new(address, 8080)).unwrap();
                stream.write_all(b"GET /large HTTP/1.0\r\nHost: box\r\n\r\n").unwrap();
                let mut answer = Vec::with_capacity(LARGE_BYTES + 1024);
                stream.read_to_end(&mut answer).unwrap();
                let head = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
                assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer[..head]));
                assert!(answer[head..] == bytes[..], "{} bytes for {side:?} at {address}", answer.len() - head);
            });
        }
        scope.spawn(|| {
            let script = format!("wget -qO- {url} | cmp - /large && echo equal");
            let line = ["run", "--rm", "-v", &bind, "busybox", "sh", "-c", &script];
            assert_eq!(engine.dozen(&line).text(), "equal\n");
        });
    });
}

/// Its configuration from the environment, its port bound by itself, its log a stream of events. A request waits in it
/// until the test lets it go.
const APPLICATION: &str = r#"
import os, time
from flask import Flask

app = Flask(__name__)

@app.get("/")
def greet():
    return os.environ["GREETING"] + "\n"

@app.get("/slow/<number>")
def slow(number):
    print("begun", number, flush=True)
    while not os.path.exists("/given/release"):
        time.sleep(0.01)
    print("finished", number, flush=True)
    return f"answer {number}\n"
"#;

const IN_FLIGHT: usize = 8;

#[test]
#[ignore = "heavy: an image of its own (cargo xtask test)"]
fn an_application_that_is_stopped_finishes_what_it_has_begun() {
    let machine = Machine::new();
    let engine = with(&machine, "gunicorn:20");
    let given = machine.directory().join("given");
    std::fs::create_dir(&given).unwrap();
    std::fs::write(given.join("application.py"), APPLICATION).unwrap();
    let bind = format!("{}:/given:ro", given.display());
    let run = ["run", "-d", "--name", "app", "-p", "8000:8000", "-e", "GREETING=good day", "-v", &bind];
    let serve = ["gunicorn:20", "--workers=2", "--threads=8", "--graceful-timeout=60", "application:app"];
    engine.dozen(&[&run[..], &serve[..]].concat()).expect(0);
    let address = SocketAddr::new(MACHINE_ADDRESS, 8000);
    assert_eq!(machine.page(Side::Neighbour, address), "good day\n");

    let said = |word: &str| engine.dozen(&["logs", "app"]).expect(0).out.matches(word).count();
    std::thread::scope(|scope| {
        let requests: Vec<_> = (0..IN_FLIGHT)
            .map(|number| {
                let machine = &machine;
                scope.spawn(move || -> std::io::Result<String> {
                    let mut stream = machine.connect(Side::Neighbour, address)?;
                    // Only so that a failure of the test does not wait for the answer that it holds back.
                    stream.set_read_timeout(Some(patience(Duration::from_secs(100))))?;
                    stream.write_all(format!("GET /slow/{number} HTTP/1.0\r\nHost: box\r\n\r\n").as_bytes())?;
                    let mut answer = String::new();
                    stream.read_to_string(&mut answer)?;
                    Ok(answer)
                })
            })
            .collect();
        until("every request is in the application", || (said("begun") == IN_FLIGHT).then_some(()));
        let stop = scope.spawn(|| engine.dozen(&["stop", "--time", "100", "app"]));
        until("the application was asked to end", || {
            engine.dozen(&["logs", "app"]).err.contains("Handling signal: term").then_some(())
        });
        assert_eq!(said("finished"), 0);
        std::fs::write(given.join("release"), "").unwrap();
        for (number, request) in requests.into_iter().enumerate() {
            let answer = request.join().unwrap().unwrap();
            assert!(answer.ends_with(&format!("\r\n\r\nanswer {number}\n")), "{answer}");
        }
        stop.join().unwrap().expect(0);
    });
    assert_eq!(engine.dozen(&["wait", "app"]).text(), "0\n");
    assert_eq!(said("finished"), IN_FLIGHT);
    let log = engine.dozen(&["logs", "app"]).expect(0).err;
    assert!(log.contains("Shutting down: Master"), "its log has an end:\n{log}");
}
