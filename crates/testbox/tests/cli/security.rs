//! What a process may do.

use crate::{Cli, Program, for_both};

for_both!(capabilities, privileged, options, what_is_hidden);

/// One line of /proc/self/status.
#[track_caller]
fn status(cli: &Cli<'_>, options: &[&str], field: &str) -> String {
    let said = cli.say(options, "cat /proc/self/status");
    let line = said.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap().trim().to_owned()
}

fn capabilities(program: Program) {
    program.with(|cli| {
        // Docker's fourteen, capabilities(7) by number.
        assert_eq!(status(cli, &[], "CapEff"), "00000000a80425fb");
        assert_eq!(status(cli, &[], "CapBnd"), "00000000a80425fb");
        assert_eq!(status(cli, &[], "CapAmb"), "0000000000000000");
        assert_eq!(status(cli, &["--cap-add", "NET_ADMIN"], "CapEff"), "00000000a80435fb");
        assert_eq!(status(cli, &["--cap-drop", "ALL"], "CapBnd"), "0000000000000000");
        assert_eq!(status(cli, &["--cap-drop", "all", "--cap-add", "cap_chown"], "CapEff"), "0000000000000001");
        assert_eq!(status(cli, &["--cap-drop", "MKNOD"], "CapEff"), "00000000a00425fb");
        assert_eq!(status(cli, &["-u", "33"], "CapEff"), "0000000000000000");
        cli.say(&["--cap-add", "NET_ADMIN"], "ip address add 10.9.9.9/32 dev lo");
        cli.script(&[], "ip address add 10.9.9.9/32 dev lo").expect(2);
        cli.script(&["--cap-add", "FLYING"], "true").refuses(125, &["FLYING"]);
    });
}

fn privileged(program: Program) {
    program.with(|cli| {
        let effective = status(cli, &["--privileged"], "CapEff");
        let of_the_machine = cli.machine.run("sh", &["-c", "grep CapBnd /proc/self/status"]).text();
        assert!(of_the_machine.trim().ends_with(&effective), "{effective} {of_the_machine}");
        assert_eq!(status(cli, &["--privileged"], "Seccomp"), "0");
        cli.say(
            &["--privileged"],
            "mount -t tmpfs none /mnt 2>/dev/null || mount -t tmpfs none /tmp; test -c /dev/null",
        );
        cli.script(&[], "mount -t tmpfs none /tmp").expect(1);
        let writable = cli.say(&["--privileged"], "grep ' /proc/sys ' /proc/mounts; grep ' /sys ' /proc/mounts");
        assert!(writable.contains("/sys sysfs rw") && !writable.contains("/proc/sys "), "{writable}");
        // An exec may be privileged where its container is not.
        cli.background("plain", &[], "sleep 1000");
        let caps = |options: &[&str]| {
            let line: Vec<&str> = ["exec"]
                .iter()
                .chain(options)
                .chain(&["plain", "grep", "CapEff", "/proc/self/status"])
                .copied()
                .collect();
            cli.text(&line).trim().rsplit('\t').next().unwrap().to_owned()
        };
        assert_eq!(caps(&[]), "00000000a80425fb");
        assert_eq!(caps(&["--privileged"]), effective);
        assert_eq!(caps(&["-u", "33"]), "0000000000000000");
    });
}

fn options(program: Program) {
    program.with(|cli| {
        assert_eq!(status(cli, &[], "NoNewPrivs"), "0");
        assert_eq!(status(cli, &["--security-opt", "no-new-privileges"], "NoNewPrivs"), "1");
        assert_eq!(status(cli, &[], "Seccomp"), "2");
        assert_eq!(status(cli, &["--security-opt", "seccomp=unconfined"], "Seccomp"), "0");
        let profile = cli.machine.directory().join("profile.json");
        let deny = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":1}]}"#;
        std::fs::write(&profile, deny).unwrap();
        let option = format!("seccomp={}", profile.display());
        cli.script(&["--security-opt", &option], "mkdir /x").refuses(1, &["Operation not permitted"]);
        cli.script(&["--security-opt", "seccomp=/no/such/profile"], "true").refuses(125, &["/no/such/profile"]);
        cli.script(&["--security-opt", "magic=on"], "true").refuses(125, &["magic=on"]);
    });
}

fn what_is_hidden(program: Program) {
    program.with(|cli| {
        // Which of them there are is the kernel's configuration.
        let hidden =
            "cat /proc/kcore /proc/keys /proc/timer_list 2>/dev/null | wc -c; ls /sys/firmware 2>/dev/null | wc -l";
        assert_eq!(cli.say(&[], hidden), "0\n0\n");
        cli.script(&[], "echo x >/proc/sys/kernel/domainname").refuses(1, &["Read-only file system"]);
        let said = cli.say(&[], "ls /dev");
        for device in ["null", "zero", "full", "random", "urandom", "tty", "shm", "pts", "mqueue", "fd", "stdin"] {
            assert!(said.lines().any(|line| line == device), "{device}\n{said}");
        }
        assert!(!said.contains("loop") && !said.contains("kmsg"), "{said}");
        let only = cli.script(&["--read-only"], "touch /x");
        only.refuses(1, &["Read-only file system"]);
        // Descriptors 0, 1, 2 and the directory itself.
        assert_eq!(cli.say(&[], "ls /proc/self/fd | wc -l"), "4\n");
        assert_eq!(cli.say(&[], "df -k /dev/shm | tail -1 | awk '{print $2}'"), "65536\n");
    });
}
