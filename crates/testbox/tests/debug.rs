//! `dozen debug`: tools beside a container that has none.

#![allow(clippy::unwrap_used, missing_docs)]

use dozen_testbox::Machine;

/// An image with one program in it, which only sleeps.
const MAKE_BARE: &str = "cd $0 && mkdir -p root/etc && tar -xf tool.tar -C root && mv root/busybox root/sleep && \
    echo kept >root/etc/setting && tar -C root -cf bare.tar .";

#[test]
fn a_container_without_a_shell_is_looked_into_and_stays_as_it_was() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    engine.dozen(&["create", "--name", "tools", "busybox", "true"]).expect(0);
    let tool = machine.directory().join("tool.tar").display().to_string();
    machine
        .run("sh", &["-c", &format!("{} cp -L tools:/bin/busybox - >{tool}", dozen_testbox::dozen_program().display())])
        .expect(0);
    engine.dozen(&["rm", "tools"]).expect(0);
    machine.run("sh", &["-ec", MAKE_BARE, machine.directory().to_str().unwrap()]).expect(0);
    let bare = machine.directory().join("bare.tar").display().to_string();
    engine.dozen(&["import", &bare, "bare"]).expect(0);
    engine.dozen(&["run", "-d", "--name", "bare", "-v", "data:/data", "bare", "/sleep", "1000"]).expect(0);
    let before = machine.snapshot();

    assert_ne!(engine.dozen(&["exec", "bare", "sh"]).code, 0, "the container has a shell");
    assert_eq!(engine.dozen(&["debug", "bare", "cat", "etc/setting"]).text(), "kept\n");
    let listed = engine.dozen(&["debug", "bare", "ps", "-o", "pid,args"]).text();
    assert!(listed.lines().any(|line| line.trim_start() == "1 /sleep 1000"), "{listed}");
    // What is written there is written in its root, and its volumes.
    engine.dozen(&["debug", "bare", "sh", "-c", "echo 1 >made; echo 2 >data/made"]).expect(0);
    assert_eq!(engine.dozen(&["diff", "bare"]).text().lines().filter(|line| line.ends_with("/made")).count(), 1);
    let network = |verb: &[&str]| engine.dozen(&[verb, &["ip", "-o", "-4", "addr", "show", "eth0"]].concat()).text();
    let address = engine.dozen(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "bare"]).text();
    assert!(network(&["debug", "bare"]).contains(&format!(" {}/16 ", address.trim())));
    assert_eq!(engine.dozen(&["debug", "-e", "A=7", "bare", "sh", "-c", "exit $A"]).code, 7);
    let input = machine.run_with(dozen_testbox::dozen_program(), &["debug", "bare", "wc", "-c"], b"four", &[]);
    assert_eq!(input.text().trim(), "4");

    dozen_testbox::until("nothing is left of the tools", || machine.snapshot().is_subset(&before).then_some(()));
    assert_eq!(engine.dozen(&["inspect", "-f", "{{.State.Status}}", "bare"]).text(), "running\n");
    engine.dozen(&["stop", "-t", "0", "bare"]).expect(0);
    // As it is by then: its files, which nobody changes, and its volumes.
    let before = (machine.snapshot(), engine.dozen(&["images", "-aq"]).text());
    assert_eq!(engine.dozen(&["debug", "bare", "cat", "etc/setting", "made", "/data/made"]).text(), "kept\n1\n2\n");
    let written = engine.dozen(&["debug", "bare", "sh", "-c", "echo 3 >/data/late; echo 4 >late"]);
    assert!(written.code == 1 && written.err.contains("Read-only file system"), "{written:?}");
    assert_eq!(
        engine.dozen(&["debug", "bare", "sh", "-c", "ls; cat /data/late; exit 7"]).expect(7).out.matches('3').count(),
        1
    );
    let done = engine.dozen(&["debug", "--image", "nowhere", "bare"]);
    assert!(done.code == 125 && done.err.contains("nowhere"), "{done:?}");
    assert!(machine.snapshot().is_subset(&before.0));
    assert_eq!(engine.dozen(&["images", "-aq"]).text(), before.1);
    engine.dozen(&["start", "bare"]).expect(0);
    assert_eq!(engine.dozen(&["diff", "bare"]).text().lines().filter(|line| line.ends_with("/late")).count(), 0);
    let done = engine.dozen(&["debug", "nobody"]);
    assert!(done.code == 125 && done.err.contains("No such container: nobody"), "{done:?}");
}
