//! What the process is given: its command, environment, user, directory, names, and how it ends.

use crate::{Program, for_both};

for_both!(
    exit_codes,
    environment,
    user_directory_and_entrypoint,
    names,
    a_first_process_that_reaps,
    labels_and_a_file_for_the_id,
);

fn exit_codes(program: Program) {
    program.with(|cli| {
        let code = |words: &[&str]| {
            let line: Vec<&str> = ["run", "--rm", "--network", "none"].iter().chain(words).copied().collect();
            cli.run(&line)
        };
        code(&["busybox", "true"]).expect(0);
        code(&["busybox", "sh", "-c", "exit 77"]).expect(77);
        code(&["--no-such-flag", "busybox", "true"]).refuses(125, &["unknown flag: --no-such-flag"]);
        code(&["no-such-image:nowhere"]).refuses(125, &["no-such-image:nowhere"]);
        code(&["busybox", "/etc"]).refuses(126, &["/etc"]);
        code(&["busybox", "/etc/passwd"]).refuses(126, &["permission denied"]);
        code(&["busybox", "no-such-program"]).refuses(127, &["no-such-program", "executable file not found in $PATH"]);
        code(&["busybox", "/no/such/program"]).refuses(127, &["no such file or directory"]);
        cli.background("killed", &[], "sleep 1000");
        cli.text(&["kill", "killed"]);
        assert_eq!(cli.text(&["wait", "killed"]), "137\n");
        cli.background("told", &[], "trap 'exit 9' USR1; echo up; while :; do sleep 0.05; done");
        cli.says("told", "up");
        cli.text(&["kill", "--signal", "USR1", "told"]);
        assert_eq!(cli.text(&["wait", "told"]), "9\n");
    });
}

fn environment(program: Program) {
    program.with(|cli| {
        let file = cli.machine.directory().join("variables");
        std::fs::write(&file, "# a comment\nFROM_FILE=one two\n\nFROM_CLIENT\n").unwrap();
        let line = [
            "run",
            "--rm",
            "-e",
            "A=b=c",
            "--env",
            "EMPTY=",
            "-e",
            "PASSED",
            "--env-file",
            file.to_str().unwrap(),
            "busybox",
            "env",
        ];
        let variables = [("PASSED", "along"), ("FROM_CLIENT", "here")];
        let done = cli.machine.run_with(&cli.program, &line, b"", &variables).text();
        for expected in ["A=b=c", "EMPTY=", "PASSED=along", "FROM_FILE=one two", "FROM_CLIENT=here", "HOME=/root"] {
            assert!(done.lines().any(|line| line == expected), "{expected} is not in\n{done}");
        }
        assert!(done.contains("PATH=/usr/local/sbin:"), "{done}");
        assert!(!done.contains("TERM="), "{done}");
        let bad = cli.run(&["run", "--rm", "--env-file", "/no/such/file", "busybox", "true"]);
        bad.refuses(125, &["/no/such/file", "no such file or directory"]);
    });
}

fn user_directory_and_entrypoint(program: Program) {
    program.with(|cli| {
        let who = "echo $(id -u):$(id -g) $HOME";
        assert_eq!(cli.say(&["-u", "www-data"], who), "33:33 /var/www\n");
        assert_eq!(cli.say(&["-u", "www-data:users"], who), "33:100 /var/www\n");
        assert_eq!(cli.say(&["--user", "1234:5678"], who), "1234:5678 /\n");
        cli.script(&["-u", "nobody-here"], who).refuses(125, &["unable to find user nobody-here"]);
        cli.script(&["-u", "0:nobodies"], who).refuses(125, &["unable to find group nobodies"]);
        // A working directory that is missing is made.
        assert_eq!(cli.say(&["-w", "/made/for/it"], "pwd"), "/made/for/it\n");
        cli.script(&["-w", "relative"], "pwd").refuses(125, &["relative", "it needs to be an absolute path"]);
        let entry = |options: &[&str], command: &[&str]| {
            let line: Vec<&str> =
                ["run", "--rm"].iter().chain(options).chain(&["busybox"]).chain(command).copied().collect();
            cli.text(&line)
        };
        assert_eq!(entry(&["--entrypoint", "echo"], &["a", "b"]), "a b\n");
        assert_eq!(entry(&["--entrypoint", "/bin/pwd"], &[]), "/\n");
    });
}

fn names(program: Program) {
    program.with(|cli| {
        let id = cli.background("named", &[], "sleep 1000");
        assert_eq!(cli.text(&["exec", "named", "hostname"]).trim(), &id[..12]);
        let options = ["--hostname", "front", "--add-host", "db:10.1.2.3", "--add-host", "v6:2001:db8::7"];
        let hosts = cli.say(&options, "hostname; cat /etc/hosts");
        assert!(hosts.starts_with("front\n"), "{hosts}");
        for (name, address) in [("db", "10.1.2.3"), ("v6", "2001:db8::7"), ("localhost", "127.0.0.1")] {
            let found = hosts.lines().any(|line| line.split_whitespace().collect::<Vec<_>>()[..] == [address, name]);
            assert!(found, "{name}\n{hosts}");
        }
        assert!(hosts.lines().any(|line| line.contains("front") && !line.starts_with("127.")), "{hosts}");
        let gateway = cli.say(&["--add-host", "host:host-gateway"], "grep -w host /etc/hosts; ip route");
        let address = gateway.split_whitespace().next().unwrap();
        assert!(gateway.contains(&format!("default via {address}")), "{gateway}");
    });
}

fn a_first_process_that_reaps(program: Program) {
    program.with(|cli| {
        assert_eq!(cli.say(&[], "echo $$"), "1\n");
        // The orphan's end is seen by nobody but the first process.
        let script = "[ $$ != 1 ] && (sleep 0.1 & ) ; sleep 0.5; grep -l '^State:.*zombie' /proc/[0-9]*/status; exit 5";
        let done = cli.script(&["--init"], script).expect(5);
        assert_eq!(done.out, "", "a zombie");
        // Signals pass through it.
        cli.background("init", &["--init"], crate::WORKER);
        cli.says("init", "up");
        cli.text(&["stop", "init"]);
        assert_eq!(cli.inspect("init", "{{.State.ExitCode}}"), "4");
    });
}

fn labels_and_a_file_for_the_id(program: Program) {
    program.with(|cli| {
        let file = cli.machine.directory().join("cid");
        let path = file.to_str().unwrap();
        let id = cli.background("one", &["--label", "a=b", "--label", "flag", "--cidfile", path], "sleep 1000");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), id);
        cli.run(&["run", "--cidfile", path, "busybox", "true"]).refuses(125, &[path]);
        cli.background("two", &[], "sleep 1000");
        assert_eq!(cli.text(&["ps", "--filter", "label=flag", "--format", "{{.Names}}"]), "one\n");
        assert_eq!(cli.text(&["ps", "--filter", "label=a=b", "-q"]).trim(), &id[..12]);
        assert_eq!(cli.inspect("one", r#"{{index .Config.Labels "a"}}"#), "b");
        assert_eq!(cli.text(&["ps", "--no-trunc", "--quiet", "--last", "1"]).lines().count(), 1);
    });
}
