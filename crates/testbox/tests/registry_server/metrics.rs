//! Numbers for Prometheus, by the real binary.

use dozen_testbox::{Machine, until};

use crate::server::{HOST, Server, curl};

#[test]
fn what_was_pushed_pulled_and_refused_is_counted() {
    let machine = Machine::new();
    let server = Server::start(&machine, &["--metrics-listen", "127.0.0.1:5009"]);
    let numbers = || curl(&machine, &["http://127.0.0.1:5009/metrics"]).text();
    let value = |name: &str| -> f64 {
        let text = numbers();
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("{name} in\n{text}")).trim().parse().unwrap()
    };
    server.push("busybox", "box:1").expect(0);
    curl(&machine, &[&format!("http://{HOST}/v2/box/manifests/1")]).expect(0);
    curl(&machine, &[&format!("http://{HOST}/v2/box/manifests/2")]).expect(0);
    curl(&machine, &[&format!("http://{HOST}/elsewhere")]).expect(0);
    curl(&machine, &["-X", "POST", &format!("http://{HOST}/v2/box/blobs/uploads/")]).expect(0);
    assert_eq!(value("dozen_registry_http_requests_total{route=\"manifest_put\",code=\"201\"}"), 1.0);
    assert_eq!(value("dozen_registry_http_requests_total{route=\"manifest_get\",code=\"200\"}"), 1.0);
    assert_eq!(value("dozen_registry_http_requests_total{route=\"manifest_get\",code=\"404\"}"), 1.0);
    assert_eq!(value("dozen_registry_http_requests_total{route=\"unknown\",code=\"404\"}"), 1.0);
    assert_eq!(value("dozen_registry_http_request_duration_seconds_count{route=\"manifest_get\"}"), 2.0);
    assert_eq!(value("dozen_registry_uploads_open"), 1.0);
    assert_eq!(
        (value("dozen_registry_manifests"), value("dozen_registry_tags"), value("dozen_registry_blobs")),
        (1.0, 1.0, 2.0)
    );
    let (stored, received) = (value("dozen_registry_stored_bytes"), value("dozen_registry_received_bytes_total"));
    assert!(stored > 100_000.0 && received > stored, "{stored} {received}");
    // A pull of a blob, which the kernel sends past us, counts as well.
    let before = value("dozen_registry_sent_bytes_total");
    server.pull("box:1").expect(0);
    assert!(value("dozen_registry_sent_bytes_total") - before > stored);
    until("nobody is connected", || (value("dozen_registry_connections") == 0.0).then_some(()));
    // No name of a repository is in it, and nothing else is served there.
    assert!(!numbers().contains("box"));
    assert!(curl(&machine, &["http://127.0.0.1:5009/v2/"]).text().contains("404 Not Found"));
    assert!(curl(&machine, &[&format!("http://{HOST}/metrics")]).text().contains("404 Not Found"));
}
