//! Builds for other platforms than this host's.

#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};

use dozen_testbox::{Done, Engine, Machine};

fn directory(machine: &Machine, name: &str, dockerfile: &str) -> PathBuf {
    let at = machine.directory().join(name);
    std::fs::create_dir_all(&at).unwrap();
    std::fs::write(at.join("Dockerfile"), dockerfile).unwrap();
    at
}

fn build(engine: &Engine<'_>, flags: &[&str], at: &Path) -> Done {
    engine.dozen(&[&["build", "--progress", "plain"], flags, &[at.to_str().unwrap()]].concat())
}

fn inspect(engine: &Engine<'_>, image: &str, format: &str) -> String {
    engine.dozen(&["image", "inspect", "-f", format, image]).text()
}

/// busybox under another platform's name, which is enough to be told apart by.
fn with_foreign_busybox(machine: &Machine) -> Engine<'_> {
    let engine = machine.engine();
    engine.load("busybox");
    let archive = machine.directory().join("root.tar").display().to_string();
    engine.dozen(&["create", "--name", "root", "busybox", "true"]).expect(0);
    engine.dozen(&["export", "-o", &archive, "root"]).expect(0);
    engine.dozen(&["rm", "root"]).expect(0);
    engine.dozen(&["import", "--platform", "linux/arm64", &archive, "foreign"]).expect(0);
    engine
}

#[test]
fn files_for_another_platform_need_no_emulator() {
    let machine = Machine::new();
    let engine = with_foreign_busybox(&machine);
    let native = inspect(&engine, "busybox", "{{.Os}}/{{.Architecture}}");
    let dockerfile = "ARG TARGETARCH\nFROM --platform=$BUILDPLATFORM busybox AS made\nARG TARGETPLATFORM BUILDPLATFORM\n\
        RUN echo $BUILDPLATFORM for $TARGETPLATFORM >/said\nFROM foreign AS based\nCOPY --from=made /said /said\n\
        FROM scratch AS empty\nARG TARGETARCH TARGETVARIANT\nLABEL of=$TARGETARCH$TARGETVARIANT\nCOPY --from=based /said /said\n";
    let at = directory(&machine, "files", dockerfile);
    build(&engine, &["--platform", "linux/arm64", "-t", "arm"], &at).expect(0);
    assert_eq!(inspect(&engine, "arm", "{{.Os}}/{{.Architecture}} {{.Config.Labels.of}}"), "linux/arm64 arm64\n");
    build(&engine, &["--platform", "linux/arm64", "-o", machine.directory().join("out").to_str().unwrap()], &at)
        .expect(0);
    let said = std::fs::read_to_string(machine.directory().join("out/said")).unwrap();
    assert_eq!(said, format!("{} for linux/arm64\n", native.trim()));
    // A base that is for another platform alone is none.
    let at = directory(&machine, "base", "FROM busybox\nCOPY Dockerfile /\n");
    build(&engine, &["--platform", "linux/arm64"], &at).refuses(
        1,
        &["failed to resolve source metadata for busybox", "has no image for linux/arm64", ">>> FROM busybox"],
    );
    let at = directory(&machine, "taken", "FROM foreign\nCOPY --from=busybox /bin /bin\n");
    build(&engine, &["--platform", "linux/arm64"], &at).refuses(1, &["busybox", "has no image for linux/arm64"]);
    let at = directory(&machine, "said", "FROM --platform=linux/s390x foreign\nCOPY Dockerfile /\n");
    build(&engine, &[], &at).refuses(1, &["has no image for linux/s390x"]);
}

#[test]
fn commands_for_another_platform_need_one_and_that_is_said_before_anything_is_run() {
    const EMULATOR: &str = "enabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: FLAGS\noffset 0\n\
        magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";
    let machine = Machine::new();
    // What the kernel shows, as this machine alone sees it: nothing is registered anywhere.
    let shown = machine.directory().join("binfmt");
    std::fs::create_dir(&shown).unwrap();
    std::fs::write(shown.join("register"), "").unwrap();
    machine.run("mount", &["--bind", shown.to_str().unwrap(), "/proc/sys/fs/binfmt_misc"]).expect(0);
    let engine = with_foreign_busybox(&machine);
    let dockerfile = "FROM --platform=$BUILDPLATFORM busybox AS first\nRUN echo ra''n it\n\
        FROM foreign AS second\nCOPY --from=first /etc /etc\nFROM second\nENV A=b\nRUN echo $A >/a\n";
    let at = directory(&machine, "commands", dockerfile);
    let flags = ["--platform", "linux/arm64", "-t", "commands"];
    let done = build(&engine, &flags, &at);
    assert!(!done.err.contains("ran it"), "{}", done.err);
    done.refuses(
        1,
        &[
            "commands for linux/arm64 cannot be run on linux/",
            "no emulator for it is registered in /proc/sys/fs/binfmt_misc",
            "   7 | >>> RUN echo $A >/a",
            "hint: install qemu-user-static and binfmt-support",
        ],
    );
    std::fs::write(shown.join("qemu-aarch64"), EMULATOR.replace("FLAGS", "OC")).unwrap();
    build(&engine, &flags, &at).refuses(1, &["registered without the flag F"]);
    std::fs::write(shown.join("qemu-aarch64"), EMULATOR.replace("FLAGS", "OCF")).unwrap();
    let done = build(&engine, &flags, &at).expect(0);
    assert!(done.err.contains("ran it"), "{}", done.err);
    assert_eq!(inspect(&engine, "commands", "{{.Architecture}}"), "arm64\n");
    machine.run("umount", &["/proc/sys/fs/binfmt_misc"]).expect(0);
}
