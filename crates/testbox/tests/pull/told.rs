//! What a pull tells beside how far it is: that a registry wants to be left alone for a while, and how many pulls it still gives.

use std::sync::atomic::{AtomicUsize, Ordering};

use dozen_testbox::Machine;

use crate::registry::{Between, Registry, reply};

#[test]
fn a_registry_that_is_busy_is_waited_for_and_its_budget_is_told() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    registry.fill("busybox", "box:1");
    let refused = AtomicUsize::new(0);
    let between = Between::start(&machine, registry.port, move |asked| {
        if asked.method == "GET" && asked.is_blob() && refused.fetch_add(1, Ordering::SeqCst) == 1 {
            // The first blob is the configuration, which is no layer.
            return reply("503 Service Unavailable", &[("Retry-After", "1")], b"");
        }
        let answer = asked.forward();
        if !asked.path.contains("/manifests/") {
            return answer;
        }
        let fields = "\r\nRateLimit-Limit: 100;w=21600\r\nRateLimit-Remaining: 76;w=21600\r\n";
        String::from_utf8(answer).unwrap().replacen("\r\n", fields, 1).into_bytes()
    });
    let engine = machine.engine();
    let name = format!("{}/box:1", between.host);
    let pulled = engine.dozen(&["pull", &name]).text();
    assert!(pulled.contains(": Retrying in 1 second\n"), "{pulled}");
    assert!(pulled.contains("\nPulls left: 76 of 100 every 6 h\nDigest: sha256:"), "{pulled}");
    assert!(pulled.ends_with(&format!("Status: Downloaded newer image for {name}\n{name}\n")), "{pulled}");
    engine.dozen(&["rmi", &name]).expect(0);
    let again = engine.docker(&["pull", &name]).text();
    assert!(again.contains("Pulls left: 76 of 100 every 6 h\n") && !again.contains("Retrying"), "{again}");
    between.stop(&machine);
}
