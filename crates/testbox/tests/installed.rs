//! An engine that is installed for good: its configuration file, what it listens on, and how it is reached.

#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

use dozen_testbox::{Daemon, Machine, dozen_program, next_second};
use rustix::process::Signal;

fn write(path: &Path, text: &str) -> String {
    std::fs::write(path, text).unwrap();
    path.display().to_string()
}

fn ping(socket: &Path) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: box\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_file_sets_what_containers_get_and_sighup_reads_it_again() {
    let machine = Machine::new();
    let path = machine.directory().join("daemon.json");
    let file = write(
        &path,
        r#"{ "labels": ["rack=7"], "default-shm-size": "8m", "log-opts": { "max-size": "1m", "max-file": "2" },
             "ip": "127.0.0.1", "debug": true }"#,
    );
    let daemon = Daemon::start(&machine, &["--config-file", &file]);
    let info = daemon.dozen(&["info", "-f", "{{.Labels}} {{.Debug}} {{.LoggingDriver}}"]);
    assert_eq!(info.text().trim(), "[rack=7] true json-file");
    daemon.load("busybox");
    let shown = |name: &str| {
        let format = "{{.HostConfig.ShmSize}} {{json .HostConfig.LogConfig.Config}}";
        daemon.dozen(&["inspect", "-f", format, name]).text().trim().to_owned()
    };
    daemon.dozen(&["create", "--name", "first", "busybox", "true"]).expect(0);
    assert_eq!(shown("first"), r#"8388608 {"max-file":"2","max-size":"1m"}"#);
    let df = daemon.dozen(&["run", "--rm", "-p", "8088:80", "busybox", "df", "-k", "/dev/shm"]).text();
    assert!(df.contains(" 8192 "), "{df}");

    std::fs::write(&path, r#"{ "labels": ["rack=8"], "group": "1", "log-opts": { "max-size": "3m" } }"#).unwrap();
    daemon.signal(Signal::HUP);
    daemon.says("the settings have been read again", 1);
    daemon.says("group has changed: that takes effect when the engine is started again", 1);
    assert_eq!(daemon.dozen(&["info", "-f", "{{.Labels}} {{.Debug}}"]).text().trim(), "[rack=8] false");
    daemon.dozen(&["create", "--name", "second", "busybox", "true"]).expect(0);
    assert_eq!(shown("second"), r#"67108864 {"max-size":"3m"}"#);
    assert_eq!(shown("first"), r#"8388608 {"max-file":"2","max-size":"1m"}"#, "what is made stays as it was made");
    let events =
        daemon.dozen(&["events", "--since", "1h", "--until", &next_second(), "--filter", "type=daemon"]).text();
    assert!(events.contains(" daemon reload "), "{events}");

    // A bad file is named, and changes nothing.
    std::fs::write(&path, r#"{ "label": ["rack=9"] }"#).unwrap();
    daemon.signal(Signal::HUP);
    daemon.says("the following directives don't match any configuration option: label: the settings stay", 1);
    assert_eq!(daemon.dozen(&["info", "-f", "{{.Labels}}"]).text().trim(), "[rack=8]");
}

#[test]
fn a_configuration_that_cannot_be_used_is_refused_by_name() {
    let machine = Machine::new();
    let path = machine.directory().join("daemon.json");
    let validate = |text: &str, flags: &[&str]| {
        let file = write(&path, text);
        let mut arguments = vec!["daemon", "--validate", "--config-file", &file];
        arguments.extend(flags);
        machine.run(dozen_program(), &arguments)
    };
    assert_eq!(validate(r#"{ "debug": true, "hosts": ["unix://"] }"#, &[]).expect(0).err, "configuration OK\n");
    let prefix = format!("unable to configure the engine with file {}: ", path.display());
    for (text, flags, words) in [
        ("{ \"log_driver\": \"x\" }", &[][..], "don't match any configuration option: log_driver"),
        ("{ \"log_driver\": \"x\" }", &[], "did you mean log-driver?"),
        ("{ \"bridge\": \"br0\" }", &[], "the configuration option bridge is refused"),
        ("{ \"bip\": \"10.0.0.0/24\" }", &[], "option bip: \"10.0.0.0/24\" is the subnet's own address"),
        ("{ \"debug\": 1 }", &[], "option debug: 1 is neither true nor false"),
        ("{ \"debug\": true", &[], "EOF while parsing an object at line 1"),
        (
            "{ \"labels\": [\"a=1\"] }",
            &["--label", "b=1"],
            "the following directives are specified both as a flag and in the configuration file: \
             labels: (from flag: [\"b=1\"], from file: [\"a=1\"])",
        ),
    ] {
        let done = validate(text, flags).expect(1);
        assert!(done.err.starts_with(&prefix) && done.err.contains(words), "{text}: {done:?}");
    }
    for (text, words) in [
        ("{ \"log-opts\": { \"max-sise\": \"1m\" } }", "unknown log opt 'max-sise'"),
        (
            "{ \"hosts\": [\"tcp://0.0.0.0:2375\"] }",
            "tcp://0.0.0.0:2375 is refused without TLS and client certificates",
        ),
        ("{ \"min-api-version\": \"1.60\" }", "min-api-version 1.60 is not from 1.24 to 1.51"),
        ("{ \"default-ulimits\": { \"files\": { \"Soft\": 1, \"Hard\": 1 } } }", "invalid ulimit type: files"),
        ("{ \"dns-search\": [\"a b\"] }", "invalid HostConfig.DnsSearch"),
        ("{ \"tls\": true }", "tls without tlsverify would let anybody in"),
        ("{ \"tlsverify\": true }", "tlsverify needs tlscacert, tlscert and tlskey"),
        ("{ \"group\": \"no-such-group\" }", "there is no group \"no-such-group\""),
    ] {
        let done = validate(text, &[]).expect(1);
        assert!(done.err.contains(words), "{text}: {done:?}");
        // What --validate refuses does not start.
        let file = path.to_str().unwrap();
        assert!(machine.run(dozen_program(), &["daemon", "--config-file", file]).expect(1).err.contains(words));
    }
    machine.run(dozen_program(), &["daemon", "--validate", "--config-file", "/no/such.json"]).expect(1);
}

#[test]
fn every_host_is_listened_on_and_the_group_may_use_it() {
    let machine = Machine::new();
    let second = machine.directory().join("second.sock");
    let host = format!("unix://{}", second.display());
    // The box's environment names an engine's address for commands only.
    let daemon = Daemon::start(&machine, &["-H", "unix://", "-H", &host, "--group", "4242"]);
    for socket in [&machine.socket(), &second] {
        assert!(ping(socket).contains("200 OK"));
        let file = std::fs::metadata(socket).unwrap();
        assert_eq!((file.gid(), file.permissions().mode() & 0o777), (4242, 0o660), "{}", socket.display());
    }
    // Both outlive the engine; the next one's group counts.
    daemon.load("busybox");
    daemon.dozen(&["run", "-d", "--name", "stays", "busybox", "sleep", "1000"]).expect(0);
    drop(daemon);
    let waiting = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| ping(&second));
        let next = Daemon::start(&machine, &["-H", "unix://", "-H", &host]);
        let answer = waiting.join().unwrap();
        assert_eq!(std::fs::metadata(&second).unwrap().gid(), 0);
        next.dozen(&["rm", "-f", "stays"]);
        answer
    });
    assert!(waiting.contains("200 OK"));
}

#[test]
fn a_socket_that_a_service_manager_opened_is_served() {
    let machine = Machine::new();
    let path = machine.directory().join("activated.sock");
    let listener = UnixListener::bind(&path).unwrap();
    // Somebody comes before there is an engine.
    let mut early = UnixStream::connect(&path).unwrap();
    early.write_all(b"GET /_ping HTTP/1.1\r\nHost: box\r\nConnection: close\r\n\r\n").unwrap();
    // The shell keeps its number when it becomes the engine: LISTEN_PID is that (sd_listen_fds(3)).
    let mut command = machine.command("sh");
    let script = "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" daemon --host fd://";
    command.args(["-ec", script]).arg(dozen_program()).stdin(std::os::fd::OwnedFd::from(listener));
    let daemon = Daemon::of(&machine, command);
    let mut answer = String::new();
    early.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("200 OK"));
    assert!(ping(&path).contains("200 OK"));
    // It is nobody else's: containers and monitors do not inherit it, and our own path is not listened on.
    assert!(!machine.socket().exists());
    drop(daemon);

    let refused = machine.run(dozen_program(), &["daemon", "--host", "fd://"]).expect(1);
    assert!(refused.err.contains("no socket was handed over (LISTEN_FDS)"), "{refused:?}");
}

/// `dozen system install` below a root of its own: the machine's stays as it is.
#[test]
fn what_install_puts_there_uninstall_takes_away() {
    let machine = Machine::new();
    let root = machine.directory().join("root");
    std::fs::create_dir_all(root.join("etc")).unwrap();
    std::fs::write(root.join("etc/hostname"), "kept\n").unwrap();
    let system = |verb: &str, more: &[&str]| {
        let mut arguments = vec!["--context", "default", "system", verb, "--root", root.to_str().unwrap()];
        arguments.extend(more);
        machine.run(dozen_program(), &arguments)
    };
    let everything = || {
        let find = Command::new("find").arg(&root).output().unwrap();
        let mut lines: Vec<String> = String::from_utf8(find.stdout).unwrap().lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let before = everything();

    let rehearsed = system("install", &["--dry-run", "--docker-socket"]).text();
    assert!(rehearsed.contains("would write /etc/systemd/system/dozen.service\n"), "{rehearsed}");
    assert_eq!(everything(), before, "a rehearsal changes nothing");
    assert_eq!(system("uninstall", &[]).text(), "nothing is installed\n");

    system("install", &["--docker-socket"]).expect(0);
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    assert!(read("etc/systemd/system/dozen.socket").contains("ListenStream=/run/docker.sock\n"));
    assert!(read("etc/systemd/system/dozen.service").contains("KillMode=process\n"));
    assert!(read("usr/local/share/bash-completion/completions/dozen").contains("sig-proxy"));
    assert!(read("usr/local/share/man/man1/dozen-run.1").contains("dozen\\-run"));
    let wanted = root.join("etc/systemd/system/multi-user.target.wants/dozen.service");
    assert_eq!(std::fs::read_link(wanted).unwrap(), Path::new("/etc/systemd/system/dozen.service"));
    let program = root.join("usr/local/bin/dozen");
    machine.run(&program, &["--version"]).expect(0);

    // Again: nothing to do. Something else: only that.
    assert_eq!(system("install", &["--docker-socket"]).text(), "everything is in place\n");
    assert_eq!(system("install", &[]).text(), "write /etc/systemd/system/dozen.socket\n");

    // What somebody else has put beside it stays.
    std::fs::write(root.join("usr/local/bin/other"), "").unwrap();
    system("uninstall", &[]).expect(0);
    let left: Vec<String> = everything().into_iter().filter(|path| !before.contains(path)).collect();
    let places = ["usr", "usr/local", "usr/local/bin", "usr/local/bin/other"];
    assert_eq!(left, places.map(|place| root.join(place).display().to_string()));
    assert_eq!(read("etc/hostname"), "kept\n");
}

/// The run root of the service goes with it. One that an environment names may be a directory of something else as well.
#[test]
fn uninstall_removes_the_service_s_run_root_and_none_that_is_named() {
    let machine = Machine::new();
    let root = machine.directory().join("root");
    let below = |path: &Path| root.join(path.strip_prefix("/").unwrap());
    let (of_service, named) = (below(Path::new("/run/dozen")), below(&machine.directory().join("run")));
    for place in [&of_service, &named] {
        std::fs::create_dir_all(place).unwrap();
        std::fs::write(place.join("something"), "").unwrap();
    }
    let system = |verb: &str, is_named: bool, more: &[&str]| {
        let mut command = machine.command(dozen_program());
        command.args(["--context", "default", "system", verb, "--root", root.to_str().unwrap()]).args(more);
        if !is_named {
            command.env_remove("DOZEN_RUN_ROOT");
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    system("install", true, &[]);
    // Not even together with all data.
    let said = system("uninstall", true, &["--purge", "--yes"]);
    assert!(said.contains("remove /usr/local/bin/dozen\n") && !said.contains("/run"), "{said}");
    assert!(named.join("something").exists() && of_service.join("something").exists());

    system("install", false, &[]);
    let said = system("uninstall", false, &[]);
    assert!(said.ends_with(&format!("remove {}\n", of_service.display())), "{said}");
    assert!(!of_service.exists() && named.join("something").exists());
}

#[test]
fn what_an_engine_still_runs_is_not_left_alone_and_data_goes_only_when_it_is_said() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    engine.dozen(&["run", "-d", "--name", "busy", "busybox", "sleep", "1000"]).expect(0);
    let uninstall = |more: &[&str]| {
        let mut arguments = vec!["--context", "default", "system", "uninstall", "--purge"];
        arguments.extend(more);
        machine.run(dozen_program(), &arguments)
    };
    assert!(uninstall(&[]).expect(1).err.contains("--yes says that images, containers and volumes shall go"));
    let refused = uninstall(&["--yes"]).expect(1);
    assert!(refused.err.contains("1 containers run") && refused.err.contains("--force"), "{refused:?}");
    assert!(machine.directory().join("data").exists());
    engine.dozen(&["rm", "-f", "busy"]).expect(0);
    drop(engine);
    let purged = uninstall(&["--yes", "--dry-run"]).text();
    assert!(purged.contains(&format!("would remove {}/data\n", machine.directory().display())), "{purged}");
    assert!(machine.directory().join("data").exists());
}
