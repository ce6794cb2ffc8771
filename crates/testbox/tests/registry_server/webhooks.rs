//! Webhooks, by the real binary: an endpoint that is away, answers badly, and then takes what happened, in order.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc::{Receiver, channel};

use dozen_testbox::{Machine, Side, until};
use serde_json::Value;

use crate::server::{HOST, Server, curl};

/// A request's head and its body.
type Got = (String, Value);

/// Listens on the machine, answers with these statuses and then with 200, and passes on what comes.
fn endpoint(machine: &Machine, port: u16, statuses: &[&'static str]) -> Receiver<Got> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listener = machine.on(Side::Machine, || TcpListener::bind(address)).unwrap();
    let (send, receive) = channel();
    let mut statuses: VecDeque<&str> = statuses.iter().copied().collect();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream);
            // Connections are used again.
            loop {
                let mut head = String::new();
                while reader.read_line(&mut head).is_ok_and(|count| count > 2) {}
                let length = head
                    .lines()
                    .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
                let Some(length) = length else { break };
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                let status = statuses.pop_front().unwrap_or("200 OK");
                write!(reader.get_mut(), "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").unwrap();
                if send.send((head, serde_json::from_slice(&body).unwrap())).is_err() {
                    return;
                }
            }
        }
    });
    receive
}

#[test]
fn what_happens_is_told_in_order_to_who_is_there_in_the_end() {
    let machine = Machine::new();
    let file = machine.directory().join("webhooks.toml");
    let text = "[[endpoint]]\nname = \"ci\"\nurl = \"http://127.0.0.1:5010/events?x=1\"\n\
                headers = { Authorization = \"Bearer sesame\" }\nignore-media-types = [\"application/octet-stream\"]\n\
                [[endpoint]]\nname = \"dead\"\nurl = \"http://127.0.0.1:5011/\"\n";
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let arguments = ["-D", "--webhooks", file.to_str().unwrap(), "--metrics-listen", "127.0.0.1:5009"];
    let server = Server::start(&machine, &arguments);
    // Nobody listens yet: nobody who pushes notices.
    server.push("busybox", "team/box:1").expect(0);
    until("a delivery has failed", || server.said().contains("the webhook ci is tried again").then_some(()));
    let events = endpoint(&machine, 5010, &["503 Service Unavailable"]);
    let next = || events.recv_timeout(std::time::Duration::from_secs(60)).unwrap();
    let (head, first) = next();
    assert!(head.starts_with("POST /events?x=1 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("application/vnd.docker.distribution.events.v2+json") && head.contains("Bearer sesame"));
    // What was not taken comes again, as it was.
    assert_eq!(next().1, first);
    let push = &first["events"][0];
    assert_eq!(
        (&push["action"], &push["target"]["repository"], &push["target"]["tag"]),
        (&"push".into(), &"team/box".into(), &"1".into())
    );
    let digest = push["target"]["digest"].as_str().unwrap();
    assert_eq!(push["target"]["url"], format!("http://{HOST}/v2/team/box/manifests/{digest}"));
    assert_eq!((&push["request"]["method"], &push["request"]["host"]), (&"PUT".into(), &HOST.into()));
    assert!(
        push["target"]["size"].as_u64().unwrap() > 100
            && push["target"]["mediaType"].as_str().unwrap().contains("manifest")
    );
    let tag = format!("http://{HOST}/v2/team/box/manifests/1");
    curl(&machine, &["--head", &tag]).expect(0);
    curl(&machine, &[&tag]).expect(0);
    let pull = next().1;
    assert_eq!(
        (&pull["events"][0]["action"], &pull["events"][0]["target"]["digest"]),
        (&"pull".into(), &digest.into())
    );
    let layer = format!("http://{HOST}/v2/other/blobs/uploads/?from=team/box&mount=");
    let manifest = machine.run("curl", &["--silent", &tag]).text();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    next();
    let blob = manifest["layers"][0]["digest"].as_str().unwrap();
    assert!(curl(&machine, &["-X", "POST", &format!("{layer}{blob}")]).text().contains("201 Created"));
    curl(&machine, &["-X", "DELETE", &tag]).expect(0);
    // The mount is a blob's, which this one does not want.
    let deleted = next().1;
    assert_eq!(deleted["events"][0]["action"], "delete");
    assert_eq!(deleted["events"][0]["target"], serde_json::json!({ "repository": "team/box", "tag": "1" }));
    // Who is dead loses nothing yet, and holds nobody up.
    let numbers = || curl(&machine, &["http://127.0.0.1:5009/metrics"]).text();
    until("all of it is delivered", || {
        numbers().contains("dozen_registry_webhook_waiting{endpoint=\"ci\"} 0\n").then_some(())
    });
    let text = numbers();
    assert!(text.contains("dozen_registry_webhook_delivered_total{endpoint=\"ci\"} 4\n"), "{text}");
    assert!(text.contains("dozen_registry_webhook_delivered_total{endpoint=\"dead\"} 0\n"), "{text}");
    let all = endpoint(&machine, 5011, &[]);
    let action = || {
        let told = all.recv_timeout(std::time::Duration::from_secs(90)).unwrap().1;
        told["events"][0]["action"].as_str().unwrap().to_owned()
    };
    let actions: Vec<String> = (0..7).map(|_| action()).collect();
    assert_eq!(actions, ["push", "push", "push", "pull", "pull", "mount", "delete"]);
    assert!(!server.said().contains("sesame"), "{}", server.said());
}
