//! Ways out of a container by way of its start: hostile images, and neighbours on a volume that it shares.

#![allow(clippy::unwrap_used, missing_docs)]

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use dozen_testbox::{Engine, Machine};
use serde_json::json;

/// CVE-2019-5736, with CAP_SYS_ADMIN: process 1 is our own binary, on a read-only mount that nobody inside may make
/// writable (mount_setattr(2), system call 442 everywhere).
const MAKE_WRITABLE: &str = r"
import ctypes, os
program = os.open('/proc/1/exe', os.O_PATH)
clear_read_only = (ctypes.c_uint64 * 4)(0, 1, 0, 0)
ctypes.CDLL(None).syscall(442, program, b'', 0x1000, clear_read_only, 32)
print('read-only' if os.fstatvfs(program).f_flag & os.ST_RDONLY else 'writable')
";

#[test]
fn our_own_binary_stays_read_only() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("python:3.11-slim");
    let run = ["run", "--rm", "--init", "--cap-add", "SYS_ADMIN", "python:3.11-slim", "python3", "-c", MAKE_WRITABLE];
    assert_eq!(engine.dozen(&run).expect(0).out, "read-only\n");
}

/// What a shell has open, by number, where it is, and what its root is. That by which it has listed them is gone by then.
const OPEN: &str = "for file in /proc/$$/fd/*; do [ -L $file ] && echo ${file##*/}; done; \
    readlink /proc/$$/cwd; readlink /proc/$$/root";

/// CVE-2024-21626 and its class: engine, monitor and keeper have sockets, logs, ledgers and mounts open, and a process of
/// a container's has none of it, whatever kind of process it is. (What closes them is taken away in the runtime's own
/// tests.)
#[test]
fn nothing_of_the_engines_is_open_inside() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let nothing = "0\n1\n2\n/\n/\n";
    for options in [&[][..], &["-i"], &["--init"], &["--network", "host"], &["--privileged"], &["-u", "33"]] {
        let run = [&["run", "--rm"], options, &["busybox", "sh", "-c", OPEN]].concat();
        assert_eq!(engine.dozen(&run).expect(0).out, nothing, "{options:?}");
    }
    // Our own init keeps none for itself.
    let of_init = OPEN.replace("$$", "1");
    assert_eq!(engine.dozen(&["run", "--rm", "--init", "busybox", "sh", "-c", &of_init]).expect(0).out, nothing);
    let dozen = dozen_testbox::dozen_program();
    let on_screen = nothing.replace('\n', "\r\n");
    let mut screen = machine.screen(&dozen, &["run", "--rm", "-it", "busybox", "sh", "-c", OPEN]);
    screen.shows(&on_screen);
    screen.end();

    engine.dozen(&["run", "-d", "--name", "host", "busybox", "sleep", "1000"]).expect(0);
    for options in [&[][..], &["-i"], &["--privileged"], &["-u", "33"]] {
        let exec = [&["exec"], options, &["host", "sh", "-c", OPEN]].concat();
        assert_eq!(engine.dozen(&exec).expect(0).out, nothing, "exec {options:?}");
    }
    let mut screen = machine.screen(&dozen, &["exec", "-it", "host", "sh", "-c", OPEN]);
    screen.shows(&on_screen);
    screen.end();
    let detached = format!("({OPEN}) >/open.new; mv /open.new /open");
    engine.dozen(&["exec", "-d", "host", "sh", "-c", &detached]).expect(0);
    let seen = dozen_testbox::until("the detached exec has looked", || {
        let done = engine.dozen(&["exec", "host", "cat", "/open"]);
        (done.code == 0).then_some(done.out)
    });
    assert_eq!(seen, nothing);
    engine.dozen(&["rm", "-f", "host"]).expect(0);
}

/// CVE-2024-21626 by the engine: no working directory, of a container, an image or an exec, and no program is one of
/// the host's by a number that happens to be open on the way in.
#[test]
fn no_descriptor_leads_outside() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    engine.dozen(&["run", "-d", "--name", "host", "busybox", "sleep", "1000"]).expect(0);
    for number in 3..13 {
        for directory in [format!("/proc/self/fd/{number}"), format!("/proc/self/fd/{number}/..")] {
            let refused = |arguments: &[&str]| assert_ne!(engine.dozen(arguments).code, 0, "{arguments:?}");
            refused(&["exec", "-w", &directory, "host", "true"]);
            refused(&["exec", "host", &format!("{directory}/../../../../../bin/ls")]);
            if directory.ends_with(char::is_numeric) {
                refused(&["run", "--rm", "-w", &directory, "busybox", "true"]);
            }
        }
    }
    let change = ["commit", "--change", "WORKDIR /proc/self/fd/8", "host", "hostile"];
    engine.dozen(&change).expect(0);
    assert_ne!(engine.dozen(&["run", "--rm", "hostile", "true"]).code, 0);
    engine.dozen(&["rm", "-f", "host"]).expect(0);
}

/// Swaps the places where a neighbour's mounts go for links, as fast as it can.
const SWAPPER: &str = r#"
cd /vol
swap() {
    while :; do
        mkdir -p "$1/deep"
        rm -rf "$1"
        ln -s "$2" "$1"
        rm -f "$1"
        mkdir "$1"
        ln -s "$2" "$1/deep"
        rm -rf "$1"
    done
}
swap t "$OUTSIDE" &
swap t "../../../../../../../..$OUTSIDE" &
swap t "/proc/1/root$OUTSIDE" &
swap t / &
swap t /proc &
echo ready
wait
"#;

/// CVE-2021-30465, CVE-2024-45310, CVE-2025-52881: whatever lies at a mount's place at the moment, a mount is made in
/// its own container, or not at all, and outside nothing is.
#[test]
fn a_neighbour_that_swaps_mount_points_gets_nowhere() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let outside = machine.directory().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let place = format!("OUTSIDE={}", outside.display());
    let run = ["run", "-d", "--name", "swapper", "-v", "shared:/vol", "-e", &place, "busybox", "sh", "-c", SWAPPER];
    engine.dozen(&run).expect(0);
    dozen_testbox::until("the swapper is ready", || {
        engine.dozen(&["logs", "swapper"]).expect(0).out.contains("ready").then_some(())
    });
    let mounts = || machine.run("cat", &["/proc/self/mountinfo"]).expect(0).out;
    let before = mounts();
    let (mut started, mut refused) = (0, 0);
    // As often as an emulated processor comes to it.
    let begun = std::time::Instant::now();
    for round in (0..200).take_while(|_| begun.elapsed() < std::time::Duration::from_secs(300)) {
        let place = ["/vol/t", "/vol/t/deep", "/vol/t/deep/deeper"][round % 3];
        let (data, work) = (format!("data:{place}"), format!("{place}/made"));
        // Where the mount has landed is a place of the container's own; its neighbour cannot see it.
        let run = [
            "run",
            "--rm",
            "-v",
            "shared:/vol",
            "-v",
            &data,
            "--tmpfs",
            "/vol/t/tmp",
            "-w",
            &work,
            "busybox",
            "sh",
            "-c",
            "[ -r /proc/self/status ] && head -c 1 /proc/interrupts | wc -c",
        ];
        let done = engine.dozen(&run);
        match done.code {
            0 => {
                assert_eq!(done.out, "0\n", "/proc is not masked");
                started += 1;
            }
            // Refused, or what was to be executed or entered is hidden by a mount that was led there.
            125..=127 | 1 => refused += 1,
            _ => panic!("{done:?}"),
        }
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "round {round}: made outside");
    }
    assert!(started > 0, "{refused} refused");
    assert_eq!(mounts(), before);
    engine.dozen(&["rm", "-f", "swapper"]).expect(0);
}

/// An image of one layer, as `docker save` writes it: busybox, and links.
fn image(directory: &Path, name: &str, links: &[(&str, &str)]) -> PathBuf {
    let root = directory.join(name);
    let shell = |script: &str| {
        let output = Command::new("sh").args(["-ec", script]).current_dir(directory).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    shell(&format!("mkdir -p {name}/bin {name}/etc; cp /bin/busybox {name}/bin/; ln -s busybox {name}/bin/sh"));
    shell(&format!("for applet in cat ls wc head; do ln -s busybox {name}/bin/$applet; done"));
    for (link, target) in links {
        std::fs::create_dir_all(root.join(link).parent().unwrap()).unwrap();
        symlink(target, root.join(link)).unwrap();
    }
    shell(&format!("tar -C {name} -cf {name}.layer ."));
    let digest = shell(&format!("sha256sum {name}.layer | cut -d' ' -f1"));
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    let manifest = json!([{
        "Config": format!("{name}.json"), "RepoTags": [format!("{name}:latest")], "Layers": [format!("{name}.layer")],
    }]);
    std::fs::write(directory.join(format!("{name}.json")), config.to_string()).unwrap();
    std::fs::write(directory.join("manifest.json"), manifest.to_string()).unwrap();
    shell(&format!("tar -cf {name}.tar manifest.json {name}.json {name}.layer"));
    directory.join(format!("{name}.tar"))
}

fn load(engine: &Engine<'_>, directory: &Path, name: &str, links: &[(&str, &str)]) {
    let archive = image(directory, name, links);
    engine.dozen(&["load", "--input", archive.to_str().unwrap()]).expect(0);
}

#[test]
fn links_of_an_image_stay_inside() {
    let machine = Machine::new();
    let engine = machine.engine();
    let directory = machine.directory();
    let outside = directory.join("outside");
    std::fs::create_dir(&outside).unwrap();
    let at = |prefix: &str, name: &str| format!("{prefix}{}/{name}", outside.display());
    // As Debian's systemd-resolved leaves it, and as an attacker would.
    load(
        &engine,
        directory,
        "links",
        &[
            ("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf"),
            ("etc/hosts", &at("", "hosts")),
            ("etc/hostname", &at("../../../../../../../..", "hostname")),
        ],
    );
    let files = "cat /etc/resolv.conf /etc/hosts /etc/hostname | wc -l; cat /etc/hostname";
    let output = engine.dozen(&["run", "--rm", "--hostname", "inside", "links", "sh", "-c", files]).expect(0).out;
    assert!(output.ends_with("\ninside\n"), "{output}");
    for (name, link, target) in [
        ("procfs", "etc/hosts", "/proc/1/root/tmp/hosts"),
        ("proc", "proc", "/etc"),
        ("sys", "sys", "/proc/1/root/sys"),
        ("dev", "dev", "../../../../../../dev"),
    ] {
        load(&engine, directory, name, &[(link, target)]);
        let done = engine.dozen(&["run", "--rm", name, "true"]);
        assert_ne!(done.code, 0, "{name}");
        assert!(done.err.contains("must be an ordinary directory") || link == "etc/hosts", "{}", done.err);
    }
    // Hidden by the container's own /dev.
    load(&engine, directory, "console", &[("dev/console", "/proc/sysrq-trigger"), ("dev/null", "/etc/passwd")]);
    let script = "[ -c /dev/console ] && [ ! -L /dev/null ] && head -c 1 /proc/interrupts | wc -c";
    assert_eq!(engine.dozen(&["run", "--rm", "-t", "console", "sh", "-c", script]).expect(0).out.trim(), "0");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "made outside");
}
