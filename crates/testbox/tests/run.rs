//! `run` and its relatives as people use them, each on a machine of its own.

#![allow(clippy::unwrap_used, missing_docs)]

use dozen_testbox::{Engine, Machine};

fn with_busybox(machine: &Machine) -> Engine<'_> {
    let engine = machine.engine();
    engine.load("busybox");
    engine
}

#[test]
fn version_and_info_answer() {
    let machine = Machine::new();
    let engine = machine.engine();
    let version = engine.dozen(&["version"]).text();
    assert!(version.contains("Client") && version.contains("Server"), "{version}");
    assert!(engine.dozen(&["info"]).text().contains("Containers: 0"));
}

#[test]
fn exit_codes_are_dockers() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    for (expected, words) in [
        (0, &["busybox", "true"][..]),
        (3, &["busybox", "sh", "-c", "exit 3"]),
        (125, &["--no-such-flag", "busybox"]),
        (125, &["no-such-image:nowhere"]),
        (126, &["busybox", "/etc"]),
        (127, &["busybox", "no-such-program"]),
    ] {
        let line: Vec<&str> = ["run", "--rm"].iter().chain(words).copied().collect();
        engine.dozen(&line).expect(expected);
    }
}

/// The kernel executes no program that is to have a capability which its container may not have (capabilities(7)).
#[test]
fn a_program_with_capabilities_that_the_container_lacks_is_not_executable() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    engine.dozen(&["run", "-d", "--name", "maker", "busybox", "sleep", "1000"]).expect(0);
    engine.dozen(&["exec", "maker", "cp", "/bin/busybox", "/bin/busybox.capable"]).expect(0);
    let pid = engine.dozen(&["inspect", "--format", "{{.State.Pid}}", "maker"]).text();
    // A struct vfs_cap_data of linux/capability.h, version 2, effective: CAP_SYS_ADMIN (21).
    let words: [u32; 5] = [0x0200_0001, 1 << 21, 0, 0, 0];
    let value: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let program = format!("/proc/{}/root/bin/busybox.capable", pid.trim());
    rustix::fs::setxattr(&program, "security.capability", &value, rustix::fs::XattrFlags::empty()).unwrap();
    let words = "exec: \"/bin/busybox.capable\": operation not permitted";
    let executed = engine.dozen(&["exec", "maker", "/bin/busybox.capable", "true"]).expect(126);
    assert!(executed.err.contains(words), "{executed:?}");
    engine.dozen(&["exec", "-d", "maker", "/bin/busybox.capable", "true"]).refuses(126, &[words]);
    engine.dozen(&["commit", "maker", "capable"]).expect(0);
    engine.dozen(&["run", "--name", "refused", "capable", "/bin/busybox.capable", "true"]).refuses(126, &[words]);
    assert_eq!(engine.dozen(&["inspect", "--format", "{{.State.ExitCode}}", "refused"]).text(), "126\n");
    engine.dozen(&["run", "--rm", "--cap-add", "SYS_ADMIN", "capable", "/bin/busybox.capable", "true"]).expect(0);
}

#[test]
fn the_process_sees_what_it_was_given() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let script = "echo $GREETING; pwd; id -u; hostname; cat /given/file";
    std::fs::write(machine.directory().join("file"), "from the host\n").unwrap();
    let bind = format!("{}:/given:ro", machine.directory().display());
    let line = ["run", "--rm", "-e", "GREETING=hi", "-w", "/tmp", "-u", "33", "--hostname", "box", "-v", &bind];
    let line: Vec<&str> = line.into_iter().chain(["busybox", "sh", "-c", script]).collect();
    assert_eq!(engine.dozen(&line).text(), "hi\n/tmp\n33\nbox\nfrom the host\n");
}

#[test]
fn a_name_in_use_is_refused_in_dockers_words() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    engine.dozen(&["run", "--name", "twin", "busybox", "true"]).expect(0);
    engine
        .dozen(&["run", "--name", "twin", "busybox", "true"])
        .refuses(125, &["Conflict", "\"/twin\"", "already in use"]);
    engine.dozen(&["rm", "twin"]).expect(0);
    engine.dozen(&["rm", "twin"]).refuses(1, &["No such container: twin"]);
}

#[test]
fn logs_keep_both_streams_apart() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    engine.dozen(&["run", "--name", "talker", "busybox", "sh", "-c", "echo out; echo err >&2; echo out2"]).expect(0);
    let logs = engine.dozen(&["logs", "talker"]).expect(0);
    assert_eq!((logs.out.as_str(), logs.err.as_str()), ("out\nout2\n", "err\n"));
    // Two pipes have no order between them: which line is the last is the kernel's choice.
    let last = engine.dozen(&["logs", "--tail", "1", "talker"]).expect(0);
    assert_eq!((last.out + &last.err).lines().count(), 1);
}

#[test]
fn exec_stop_and_remove_leave_nothing() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    // The first container brings the bridge up, which stays.
    engine.dozen(&["run", "--rm", "busybox", "true"]).expect(0);
    let before = machine.snapshot();
    engine
        .dozen(&[
            "run",
            "-d",
            "--name",
            "worker",
            "busybox",
            "sh",
            "-c",
            "trap 'exit 5' TERM; while :; do sleep 1; done",
        ])
        .expect(0);
    assert_eq!(engine.dozen(&["exec", "-e", "A=b", "worker", "sh", "-c", "echo $A; exit 0"]).text(), "b\n");
    engine.dozen(&["exec", "worker", "sh", "-c", "exit 9"]).expect(9);
    engine.dozen(&["exec", "worker", "nothing-like-it"]).expect(127);
    engine.dozen(&["stop", "worker"]).expect(0);
    assert_eq!(engine.dozen(&["inspect", "--format", "{{.State.ExitCode}}", "worker"]).text(), "5\n");
    engine.dozen(&["rm", "worker"]).expect(0);
    engine.dozen(&["run", "-d", "--name", "other", "busybox", "sleep", "1000"]).expect(0);
    engine.dozen(&["rm", "--force", "other"]).expect(0);
    // The first container's link may still be in `before`, and be gone by now: the kernel takes its time.
    dozen_testbox::until("the containers' things are gone", || machine.snapshot().is_subset(&before).then_some(()));
}

#[test]
fn a_committed_container_is_an_image() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    engine.dozen(&["run", "--name", "maker", "busybox", "sh", "-c", "echo made >/made; rm /bin/vi"]).expect(0);
    engine.dozen(&["commit", "--change", r#"CMD ["cat", "/made"]"#, "maker", "product:1"]).expect(0);
    assert_eq!(engine.dozen(&["run", "--rm", "product:1"]).text(), "made\n");
    engine.dozen(&["run", "--rm", "product:1", "ls", "/bin/vi"]).expect(1);
}
