//! What is refused, and that nothing of it stays.

use dozen_testbox::{Machine, until};

use crate::{Program, for_both};

for_both!(nothing_is_left_of_what_failed, what_is_not_built_is_named, bad_archives);

fn nothing_is_left_of_what_failed(program: Program) {
    program.with(|cli| {
        cli.background("web", &["-p", "8080:80"], "sleep 1000");
        cli.say(&[], "true");
        until("the first is gone", || {
            (cli.machine.snapshot().iter().filter(|line| line.starts_with("file data/containers")).count() == 1)
                .then_some(())
        });
        let before = settled(cli.machine);
        for (options, command, words) in [
            (&["--name", "web"][..], &["true"][..], "already in use"),
            (&["-p", "8080:80"], &["true"], "port is already allocated"),
            (&["-u", "nobody-here"], &["true"], "unable to find user"),
            (&[], &["no-such-program"], "executable file not found"),
            (&["-v", "new-volume:/etc", "-u", "nobody-here"], &["true"], "unable to find user"),
            (&["--mount", "type=bind,source=/no/such,target=/x"], &["true"], "bind source path does not exist"),
            (&["--name", "../../etc"], &["true"], "Invalid container name"),
            (&["--network", "container:nobody"], &["true"], "No such container"),
            (&["--cap-add", "FLYING"], &["true"], "FLYING"),
            (&["--hostname", "two words"], &["true"], "two words"),
        ] {
            let line: Vec<&str> =
                ["run", "--rm"].iter().chain(options).chain(&["busybox"]).chain(command).copied().collect();
            let done = cli.run(&line);
            assert!(done.code >= 125 && done.err.contains(words), "{done:?}");
            if options.contains(&"new-volume:/etc") {
                cli.text(&["volume", "rm", "new-volume"]);
            }
        }
        let after = settled(cli.machine);
        let new: Vec<_> = after.difference(&before).collect();
        assert!(new.is_empty(), "left behind: {new:?}");
        assert_eq!(cli.text(&["ps", "-a", "--format", "{{.Names}}"]), "web\n");
    });
}

/// The kernel takes its time with links whose namespace has died: looked at until nothing changes for a while.
fn settled(machine: &Machine) -> std::collections::BTreeSet<String> {
    let mut last = machine.snapshot();
    let mut same = 0;
    until("the machine comes to rest", || {
        let now = machine.snapshot();
        same = if now == last { same + 1 } else { 0 };
        last = now;
        (same > 5).then_some(())
    });
    last
}

fn what_is_not_built_is_named(program: Program) {
    program.with(|cli| {
        for (words, what) in [
            (&["run", "--rm", "--cpu-rt-runtime", "1000", "busybox", "true"][..], "untime"),
            (&["run", "--rm", "--log-driver", "splunk", "busybox", "true"], "splunk"),
            (&["import", "http://example.com/tree.tar"], "importing from the address"),
            (&["import", "http://me:hunter2@example.com/a"], "the address \"http://xxxxx@example.com/a\""),
        ] {
            let done = cli.run(words);
            assert!(done.code != 0, "{done:?}");
            assert!(done.err.contains("not built yet") && done.err.contains(what), "{done:?}");
        }
        assert_eq!(cli.text(&["ps", "-aq"]), "");
    });
}

fn bad_archives(program: Program) {
    program.with(|cli| {
        let good = std::fs::read(dozen_testbox::image_archive("busybox")).unwrap();
        let before = settled(cli.machine);
        let files = |root: &str| {
            let line = format!("find {}/data -type f | grep -v state.db | sort", root);
            cli.machine.run("sh", &["-c", &line]).out
        };
        let root = cli.machine.directory().display().to_string();
        let stored = files(&root);
        // Of what the engine has already it would not even look at the bytes.
        let mut corrupt = std::fs::read(dozen_testbox::image_archive("debian:bookworm-slim")).unwrap();
        let middle = corrupt.len() / 2;
        corrupt[middle..middle + 1000].fill(0xa5);
        let gzip = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], &[0xff; 600]].concat();
        for (what, archive, words) in [
            ("truncated", &good[..good.len() / 2], "cut short"),
            ("corrupt", &corrupt, ""),
            ("empty", &[], "it is empty"),
            ("text", b"this is no archive, it is a line of text\n", "it is no tar archive"),
            ("gzip", &gzip, "compressed data is damaged"),
        ] {
            let path = cli.machine.directory().join("bad.tar");
            std::fs::write(&path, archive).unwrap();
            let done = cli.run(&["load", "-i", path.to_str().unwrap()]);
            assert!(done.code == 1 && !done.err.is_empty() && done.err.contains(words), "{what}: {done:?}");
        }
        assert_eq!(settled(cli.machine), before);
        assert_eq!(files(&root), stored);
        assert_eq!(cli.text(&["images", "-q"]).lines().count(), 1);
        cli.say(&[], "true");
    });
}

#[test]
fn a_typo_suggests_the_right_word() {
    Program::Dozen.with(|cli| {
        cli.run(&["rnu", "busybox"]).refuses(1, &["rnu", "run"]);
        cli.run(&["run", "--nmae", "x", "busybox"]).refuses(125, &["unknown flag: --nmae", "--name"]);
    });
}
