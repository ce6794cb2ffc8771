//! What a container has changed, where its ports are, and what nobody needs any more: `diff`, `port` and `prune`, by the
//! docker CLI and by dozen's own.

#![allow(clippy::unwrap_used, missing_docs)]

use std::path::PathBuf;

use dozen_testbox::{Done, Engine, Machine, docker_program, dozen_program};

fn with_both(test: impl Fn(&dyn Fn(&[&str]) -> Done, &Engine<'_>)) {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    for program in [docker_program(), dozen_program()] {
        let program: PathBuf = program;
        test(&|arguments| machine.run(&program, arguments), &engine);
    }
}

#[test]
fn a_container_tells_what_it_has_changed() {
    with_both(|run, _| {
        let script = "echo >/new; mkdir -p /made/below; echo x >>/etc/passwd; rm /etc/group; chmod 700 /var; \
                      rm -r /home; mkdir /home; touch /home/own; touch /tmp/gone; rm /tmp/gone";
        let line = ["run", "--name", "one", "--network", "none", "busybox", "sh", "-c", script];
        run(&line).expect(0);
        let told = run(&["diff", "one"]).text();
        let mut lines: Vec<&str> = told.lines().collect();
        // Whether these directories are told depends on their times alone.
        lines.retain(|line| !matches!(*line, "C /tmp"));
        let expected = [
            "C /etc",
            "D /etc/group",
            "C /etc/passwd",
            "C /home",
            "A /home/own",
            "A /made",
            "A /made/below",
            "A /new",
            "C /var",
        ];
        assert_eq!(lines, expected);
        run(&["rm", "one"]).expect(0);
        // Nothing was changed by being started.
        run(&["run", "--name", "two", "-v", "/data", "busybox", "true"]).expect(0);
        assert_eq!(run(&["diff", "two"]).text(), "A /data\n");
        run(&["rm", "-v", "two"]).expect(0);
        run(&["diff", "nobody"]).refuses(1, &["No such container: nobody"]);
    });
}

#[test]
fn ports_are_listed() {
    with_both(|run, _| {
        run(&["run", "-d", "--name", "web", "-p", "127.0.0.1:8099:80", "busybox", "sleep", "1000"]).expect(0);
        assert_eq!(run(&["port", "web"]).text(), "80/tcp -> 127.0.0.1:8099\n");
        assert_eq!(run(&["port", "web", "80"]).text(), "127.0.0.1:8099\n");
        run(&["port", "web", "81"]).refuses(1, &["No public port '81"]);
        run(&["rm", "-f", "web"]).expect(0);
    });
}

#[test]
fn stopped_containers_and_images_without_names_are_pruned() {
    with_both(|run, engine| {
        let create = |name: &str, label: &str| {
            run(&["create", "--name", name, "--label", label, "--network", "none", "busybox", "sleep", "1000"])
                .expect(0);
        };
        let names = || run(&["ps", "-a", "--format", "{{.Names}}"]).text();
        create("stopped", "kind=a");
        create("kept", "kind=b");
        create("running", "kind=a");
        run(&["start", "running"]).expect(0);
        let pruned = run(&["container", "prune", "-f", "--filter", "label!=kind=b"]).text();
        assert!(
            pruned.starts_with("Deleted Containers:\n") && pruned.contains("Total reclaimed space: 0B"),
            "{pruned}"
        );
        assert_eq!(names(), "running\nkept\n");
        // Made a moment ago.
        run(&["container", "prune", "-f", "--filter", "until=1h"]).expect(0);
        assert_eq!(names(), "running\nkept\n");
        run(&["container", "prune", "-f", "--filter", "colour=red"]).refuses(1, &["invalid filter"]);

        engine.dozen(&["exec", "running", "touch", "/file"]).expect(0);
        run(&["commit", "running", "mine:1"]).expect(0);
        engine.dozen(&["exec", "running", "touch", "/other"]).expect(0);
        run(&["commit", "running", "mine:1"]).expect(0);
        let images = || run(&["images", "-aq"]).text().lines().count();
        assert_eq!(images(), 3);
        let pruned = run(&["image", "prune", "-f"]).text();
        assert!(pruned.starts_with("Deleted Images:\ndeleted: sha256:"), "{pruned}");
        assert_eq!(images(), 2);
        run(&["image", "prune", "-f", "--filter", "until=1h"]).expect(0);
        let pruned = engine.dozen(&["system", "prune", "-af"]).text();
        assert!(pruned.contains("Deleted Containers:\n") && pruned.contains("untagged: mine:1"), "{pruned}");
        // That of the one that runs stays.
        assert_eq!((names().as_str(), images()), ("running\n", 1));
        run(&["rm", "-f", "running"]).expect(0);
    });
}
