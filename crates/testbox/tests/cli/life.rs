//! Containers' and images' life, as it is typed.

use std::time::{Duration, Instant};

use dozen_testbox::{next_second, patience};

use crate::{Program, WORKER, for_both};

for_both!(
    detached_stopped_started_removed,
    removal_by_itself,
    stop_signal_and_timeout,
    lists_and_inspect,
    images,
    commits_of_what_stands_still,
    events,
    commands_take_several,
);

fn detached_stopped_started_removed(program: Program) {
    program.with(|cli| {
        let id = cli.background("worker", &[], WORKER);
        assert!(id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        cli.says("worker", "up");
        assert_eq!(cli.text(&["stop", "worker"]), "worker\n");
        assert_eq!(cli.inspect("worker", "{{.State.Status}} {{.State.ExitCode}}"), "exited 4");
        assert_eq!(cli.text(&["start", "worker"]), "worker\n");
        assert_eq!(cli.text(&["restart", &id[..6]]), format!("{}\n", &id[..6]));
        assert_eq!(cli.inspect("worker", "{{.State.Running}} {{.RestartCount}}"), "true 0");
        assert_eq!(cli.text(&["rename", "worker", "veteran"]), "");
        cli.run(&["rm", "veteran"]).refuses(1, &["container is running"]);
        assert_eq!(cli.text(&["rm", "-f", "veteran"]), "veteran\n");
        cli.run(&["start", "veteran"]).refuses(1, &["No such container: veteran"]);
        assert_eq!(cli.text(&["create", "--name", "made", "busybox", "true"]).trim().len(), 64);
        assert_eq!(cli.inspect("made", "{{.State.Status}}"), "created");
        assert_eq!(cli.text(&["start", "-a", "made"]), "");
    });
}

fn removal_by_itself(program: Program) {
    program.with(|cli| {
        cli.say(&[], "true");
        let before = cli.machine.snapshot();
        cli.script(&["--name", "short", "-v", "/scratch"], "echo x >/scratch/x; exit 3").expect(3);
        cli.background("brief", &["--rm", "-v", "/scratch"], "sleep 0.2");
        let gone =
            || (cli.text(&["ps", "-aq"]).is_empty() && cli.text(&["volume", "ls", "-q"]).is_empty()).then_some(());
        dozen_testbox::until("both are gone", gone);
        dozen_testbox::until("nothing is left", || cli.machine.snapshot().is_subset(&before).then_some(()));
    });
}

fn stop_signal_and_timeout(program: Program) {
    program.with(|cli| {
        let script = "trap 'exit 11' USR2; echo up; while :; do sleep 0.05; done";
        cli.background("polite", &["--stop-signal", "SIGUSR2"], script);
        cli.says("polite", "up");
        cli.text(&["stop", "polite"]);
        assert_eq!(cli.inspect("polite", "{{.State.ExitCode}}"), "11");
        // The first process does not heed a signal that it has no handler for.
        cli.background("deaf", &["--stop-timeout", "1"], "echo up; while :; do sleep 0.05; done");
        cli.says("deaf", "up");
        let begun = Instant::now();
        cli.text(&["stop", "deaf"]);
        let took = begun.elapsed();
        assert!((Duration::from_secs(1)..patience(Duration::from_secs(8))).contains(&took), "{took:?}");
        assert_eq!(cli.inspect("deaf", "{{.State.ExitCode}} {{.Config.StopTimeout}}"), "137 1");
        cli.text(&["start", "deaf"]);
        cli.text(&["stop", "-t", "0", "deaf"]);
    });
}

fn lists_and_inspect(program: Program) {
    program.with(|cli| {
        cli.background("up", &["-e", "A=b", "-p", "8080:80"], "sleep 1000");
        cli.script(&["--name", "nobody"], "true").expect(0);
        cli.run(&["run", "--name", "down", "busybox", "sh", "-c", "exit 6"]).expect(6);
        let table = cli.text(&["ps", "--all"]);
        let head = table.lines().next().unwrap();
        for column in ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"] {
            assert!(head.contains(column), "{head}");
        }
        assert!(table.contains("0.0.0.0:8080->80/tcp") && table.contains("Exited (6)"), "{table}");
        assert_eq!(cli.text(&["ps", "--format", "{{.Names}}|{{.Image}}|{{.State}}"]), "up|busybox|running\n");
        let listed = cli.text(&["ps", "-a", "--format", "{{json .}}"]);
        let row: serde_json::Value = serde_json::from_str(listed.lines().last().unwrap()).unwrap();
        assert_eq!(row["Names"], "up");
        assert!(row["Size"].as_str().unwrap().contains("virtual"), "{row}");
        let inspected: serde_json::Value = serde_json::from_str(&cli.text(&["inspect", "up", "down"])).unwrap();
        assert_eq!(inspected[0]["HostConfig"]["PortBindings"]["80/tcp"][0]["HostPort"], "8080");
        assert_eq!(inspected[0]["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"], "8080");
        assert_eq!(inspected[1]["State"]["ExitCode"], 6);
        assert!(cli.inspect("up", "{{.NetworkSettings.IPAddress}}").contains('.'));
        assert_eq!(cli.inspect("up", "{{range .Config.Env}}{{println .}}{{end}}").lines().next(), Some("A=b"));
        cli.run(&["inspect", "nothing"]).refuses(1, &["No such object: nothing"]);
        let top = cli.text(&["top", "up"]);
        assert!(top.starts_with("UID") && top.contains("sleep 1000"), "{top}");
    });
}

fn images(program: Program) {
    program.with(|cli| {
        assert_eq!(cli.text(&["images", "--format", "{{.Repository}}:{{.Tag}}"]), "busybox:latest\n");
        cli.text(&["tag", "busybox", "other/name:2"]);
        cli.run(&["run", "--name", "maker", "other/name:2", "sh", "-c", "echo made >/made"]).expect(0);
        let id = cli.text(&["commit", "-m", "why", "-a", "me", "-c", "ENV A=b", "maker", "product"]);
        assert!(id.starts_with("sha256:"), "{id}");
        assert_eq!(cli.text(&["run", "--rm", "product", "sh", "-c", "cat /made; echo $A"]), "made\nb\n");
        let history = cli.text(&["history", "product"]);
        assert!(history.lines().count() > 2 && history.contains("why"), "{history}");
        let archive = cli.machine.directory().join("saved.tar");
        let path = archive.to_str().unwrap();
        cli.text(&["save", "-o", path, "product", "busybox"]);
        cli.run(&["rmi", "product"]).expect(0);
        cli.run(&["run", "--rm", "--pull", "never", "product", "true"]).refuses(125, &["product"]);
        let loaded = cli.text(&["load", "-i", path]);
        assert!(loaded.contains("Loaded image: product:latest") && loaded.contains("busybox:latest"), "{loaded}");
        assert_eq!(cli.inspect("product", "{{.Id}}"), id.trim());
        // Quiet, as Docker's client is: without progress.
        let quiet = cli.text(&["load", "-q", "-i", path]);
        let mut lines: Vec<&str> = quiet.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["Loaded image: busybox:latest", "Loaded image: product:latest"]);
        // From standard input, too.
        let bytes = std::fs::read(&archive).unwrap();
        assert!(cli.with_input(&["load"], &bytes).text().contains("product:latest"));
        cli.run(&["rmi", "nothing:here"]).refuses(1, &["No such image: nothing:here"]);
        // One of two names is only a name; the last is the image, and a container was made from it.
        assert_eq!(cli.text(&["rmi", "other/name:2"]), "Untagged: other/name:2\n");
        cli.run(&["rmi", "busybox"]).refuses(1, &["unable to remove repository reference", "busybox"]);
        cli.text(&["rm", "maker"]);
    });
}

/// A writer keeps one file never shorter than another, and at most a byte longer. Much lies between them.
fn commits_of_what_stands_still(program: Program) {
    program.with(|cli| {
        let fill = "head -c 30000000 /dev/urandom >/middle; echo filled";
        cli.background("writer", &[], &format!("{fill}; while :; do echo >>/first; echo >>/second; done"));
        cli.says("writer", "filled");
        let lengths = |line: &[&str]| {
            let said = cli.text(&[line, &["stat", "-c", "%s", "/first", "/second"]].concat());
            let lengths: Vec<u64> = said.lines().map(|line| line.trim().parse().unwrap()).collect();
            (lengths[0], lengths[1])
        };
        let writes = || {
            let before = lengths(&["exec", "writer"]);
            dozen_testbox::until("it writes", || (lengths(&["exec", "writer"]) > before).then_some(()));
        };
        dozen_testbox::until("it writes", || {
            cli.run(&["exec", "writer", "test", "-s", "/second"]).code.eq(&0).then_some(())
        });
        for options in [&[][..], &["--pause"]] {
            cli.text(&[&["commit"], options, &["writer", "whole"]].concat());
            let (first, second) = lengths(&["run", "--rm", "whole"]);
            assert!(second > 0 && (second..=second + 1).contains(&first), "{first} {second}");
            writes();
        }
        dozen_testbox::until("one that goes on writing is torn", || {
            cli.text(&["commit", "--pause=false", "writer", "torn"]);
            let (first, second) = lengths(&["run", "--rm", "torn"]);
            (!(second..=second + 1).contains(&first)).then_some(())
        });
        writes();
        // One that does not run stands still already.
        cli.text(&["kill", "writer"]);
        cli.text(&["wait", "writer"]);
        cli.text(&["commit", "writer", "ended"]);
    });
}

fn events(program: Program) {
    program.with(|cli| {
        cli.run(&["run", "--name", "mortal", "busybox", "sh", "-c", "exit 3"]).expect(3);
        cli.text(&["rm", "mortal"]);
        let until = next_second();
        let line = ["events", "--since", "10m", "--until", &until, "--filter", "container=mortal"];
        let format = ["--format", "{{.Action}}{{with .Actor.Attributes.exitCode}} {{.}}{{end}}"];
        let line: Vec<&str> = line.iter().chain(&format).copied().collect();
        let said = cli.text(&line);
        let wanted = |line: &&str| ["create", "start", "die 3", "destroy"].contains(line);
        assert_eq!(said.lines().filter(wanted).collect::<Vec<_>>(), ["create", "start", "die 3", "destroy"], "{said}");
    });
}

fn commands_take_several(program: Program) {
    program.with(|cli| {
        for name in ["a1", "a2"] {
            cli.background(name, &["--network", "none"], WORKER);
            cli.says(name, "up");
        }
        let done = cli.run(&["stop", "a1", "missing", "a2"]).expect(1);
        assert_eq!(done.out, "a1\na2\n");
        assert!(done.err.contains("No such container: missing"), "{}", done.err);
        assert_eq!(cli.text(&["wait", "a1", "a2"]), "4\n4\n");
        assert_eq!(cli.text(&["rm", "a1", "a2"]), "a1\na2\n");
    });
}
