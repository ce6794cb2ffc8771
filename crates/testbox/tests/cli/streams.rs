//! Input, output, terminals, logs.

use std::process::Stdio;

use dozen_testbox::{Machine, docker_program, dozen_program};

use crate::{Program, WORKER, for_both};

for_both!(
    input_by_a_pipe,
    a_terminal,
    keys_that_detach,
    attach_and_start_again,
    exec_of_every_kind,
    logs,
    logs_followed_across_a_restart,
    signals_pass_through,
);

fn input_by_a_pipe(program: Program) {
    program.with(|cli| {
        let done = cli.with_input(
            &["run", "--rm", "-i", "busybox", "sh", "-c", "wc -c; echo oops >&2; exit 3"],
            &[b'x'; 300_000],
        );
        let done = done.expect(3);
        assert_eq!((done.out.as_str(), done.err.as_str()), ("300000\n", "oops\n"));
        assert_eq!(cli.with_input(&["run", "--rm", "-i", "busybox", "cat"], b"").expect(0).out, "");
        // Without -i nothing is read.
        assert_eq!(cli.with_input(&["run", "--rm", "busybox", "cat"], b"unseen").expect(0).out, "");
        let large = vec![b'y'; 2_000_000];
        assert_eq!(cli.with_input(&["run", "--rm", "-i", "busybox", "cat"], &large).expect(0).out.len(), large.len());
        // A process that reads only a part.
        assert_eq!(cli.with_input(&["run", "--rm", "-i", "busybox", "head", "-c", "3"], &large).expect(0).out, "yyy");
    });
}

fn a_terminal(program: Program) {
    program.with(|cli| {
        let mut screen = cli.screen(&["run", "--rm", "-it", "--name", "screen", "busybox", "sh"]);
        screen.shows("# ");
        screen.type_in("until [ \"$(stty size)\" = \"24 80\" ]; do :; done; echo $TERM; tty\r");
        screen.shows("\r\nxterm\r\n/dev/pts/0\r\n");
        screen.resize(30, 100);
        dozen_testbox::until("the size arrives", || {
            (cli.text(&["exec", "screen", "stty", "-F", "/dev/pts/0", "size"]) == "30 100\n").then_some(())
        });
        // Interrupting ends what runs, not the shell.
        screen.type_in("sleep 1000\r");
        dozen_testbox::until("it sleeps", || (cli.run(&["exec", "screen", "pidof", "sleep"]).code == 0).then_some(()));
        screen.type_in("\x03");
        screen.shows("# ");
        screen.type_in("echo $?; exit 7\r");
        screen.shows("130\r\n");
        assert_eq!(screen.end().0, 7);
        assert_eq!(cli.text(&["ps", "-aq"]), "");
        // It has its size from the beginning: nobody waits for a resize.
        let mut screen = cli.screen(&["run", "--rm", "-it", "busybox", "stty", "size"]);
        screen.shows("24 80\r\n");
        screen.end();
        // A terminal is asked for where there is none.
        let refused = cli.with_input(&["run", "--rm", "-it", "busybox", "true"], b"");
        refused.refuses(1, &["the input device is not a TTY"]);
        assert_eq!(cli.text(&["run", "--rm", "-t", "busybox", "echo", "x"]), "x\r\n");
    });
}

fn keys_that_detach(program: Program) {
    program.with(|cli| {
        let mut screen = cli.screen(&["run", "-it", "--name", "left", "busybox", "sh"]);
        screen.shows("# ");
        screen.type_in("\x10\x11");
        assert_eq!(screen.end().0, 0);
        assert_eq!(cli.inspect("left", "{{.State.Running}}"), "true");
        let mut again = cli.screen(&["attach", "--detach-keys", "ctrl-a", "left"]);
        again.type_in("echo here\r");
        again.shows("here\r\n");
        again.type_in("\x01");
        again.end();
        let mut last = cli.screen(&["attach", "left"]);
        last.type_in("exit 9\r");
        assert_eq!(last.end().0, 9);
    });
}

fn attach_and_start_again(program: Program) {
    program.with(|cli| {
        cli.text(&["create", "-i", "--name", "reader", "busybox", "sh", "-c", "read -r word; echo got $word; exit 6"]);
        for word in ["one", "two"] {
            let done = cli.with_input(&["start", "-a", "-i", "reader"], format!("{word}\n").as_bytes()).expect(6);
            assert_eq!(done.out, format!("got {word}\n"));
        }
        cli.background("echo", &["-i"], "while read -r word; do echo got $word; [ $word = end ] && exit 8; done");
        let done = cli.with_input(&["attach", "echo"], b"a\nend\n");
        assert_eq!((done.code, done.out.as_str()), (8, "got a\ngot end\n"), "{done:?}");
        cli.run(&["attach", "echo"]).refuses(1, &["cannot attach to a stopped container"]);
        cli.run(&["attach", "nobody"]).refuses(1, &["No such container: nobody"]);
    });
}

fn exec_of_every_kind(program: Program) {
    program.with(|cli| {
        cli.background("host", &["-e", "A=outer"], "sleep 1000");
        let done =
            cli.with_input(&["exec", "-i", "host", "sh", "-c", "cat; echo oops >&2; exit 4"], b"typed").expect(4);
        assert_eq!((done.out.as_str(), done.err.as_str()), ("typed", "oops\n"));
        let line = [
            "exec",
            "-e",
            "B=inner",
            "-w",
            "/tmp",
            "-u",
            "www-data",
            "host",
            "sh",
            "-c",
            "echo $A $B $(pwd) $(id -un)",
        ];
        assert_eq!(cli.text(&line), "outer inner /tmp www-data\n");
        assert_eq!(cli.text(&["exec", "-d", "host", "touch", "/proof"]), "");
        dozen_testbox::until("it is done", || {
            (cli.run(&["exec", "host", "test", "-e", "/proof"]).code == 0).then_some(())
        });
        let mut screen = cli.screen(&["exec", "-it", "host", "sh"]);
        screen.shows("# ");
        screen.type_in("stty size; exit 5\r");
        screen.shows("24 80\r\n");
        assert_eq!(screen.end().0, 5);
        cli.run(&["exec", "host", "no-such-program"]).refuses(127, &["no-such-program"]);
        cli.run(&["exec", "host", "/etc"]).expect(126);
        cli.run(&["exec", "-u", "nobody-here", "host", "true"]).refuses(126, &["unable to find user nobody-here"]);
        cli.text(&["kill", "host"]);
        cli.run(&["exec", "host", "true"]).refuses(1, &["is not running"]);
        cli.run(&["exec", "nobody", "true"]).refuses(1, &["No such container: nobody"]);
    });
}

fn logs(program: Program) {
    program.with(|cli| {
        cli.run(&["run", "--name", "talker", "busybox", "sh", "-c", "for i in 1 2 3 4; do echo $i; done; printf end"])
            .expect(0);
        assert_eq!(cli.text(&["logs", "talker"]), "1\n2\n3\n4\nend");
        assert_eq!(cli.text(&["logs", "--tail", "2", "talker"]), "4\nend");
        assert_eq!(cli.text(&["logs", "-n", "0", "talker"]), "");
        assert_eq!(cli.text(&["logs", "--tail", "1000000000", "talker"]), "1\n2\n3\n4\nend");
        assert_eq!(cli.text(&["logs", "--details", "--tail", "2", "talker"]), " 4\n end");
        let stamped = cli.text(&["logs", "-t", "--tail", "all", "talker"]);
        assert!(stamped.lines().all(|line| line.contains("T") && line.contains("Z ")), "{stamped}");
        assert_eq!(cli.text(&["logs", "--since", "1h", "talker"]), "1\n2\n3\n4\nend");
        assert_eq!(cli.text(&["logs", "--until", "1h", "talker"]), "");
        // A following reader of what has ended ends.
        assert_eq!(cli.text(&["logs", "-f", "talker"]), "1\n2\n3\n4\nend");
        cli.run(&["logs", "nobody"]).refuses(1, &["No such container: nobody"]);
        // A long line comes in one piece.
        cli.run(&["run", "--name", "long", "busybox", "sh", "-c", "head -c 100000 /dev/zero | tr '\\0' x"]).expect(0);
        assert_eq!(cli.text(&["logs", "long"]).len(), 100_000);
    });
}

fn logs_followed_across_a_restart(program: Program) {
    let machine = Machine::new();
    let mut engine = machine.engine();
    engine.load("busybox");
    let client = match program {
        Program::Docker => docker_program(),
        Program::Dozen => dozen_program(),
    };
    let count = "i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo line $i; sleep 0.05; done; exit 3";
    engine.dozen(&["run", "-d", "--name", "counter", "--network", "none", "busybox", "sh", "-c", count]).expect(0);
    engine.kill();
    engine.restart();
    // Nothing is missing of what was written while nobody was there.
    let done = machine.run(&client, &["logs", "-f", "counter"]).expect(0);
    let expected: String = (1..=40).map(|number| format!("line {number}\n")).collect();
    assert_eq!(done.out, expected);
    assert_eq!(engine.dozen(&["wait", "counter"]).text(), "3\n");
}

/// A CLI in the foreground hands on what it is sent.
fn signals_pass_through(program: Program) {
    program.with(|cli| {
        let mut command = cli.machine.command(&cli.program);
        command.args(["run", "--rm", "--name", "target", "busybox", "sh", "-c", WORKER]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = [0; 3];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
        assert_eq!(&line, b"up\n");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(4));
        assert_eq!(cli.text(&["ps", "-aq"]), "");
    });
}
