//! Neighbours in a pid namespace, who trace or look at whoever comes in.

use super::*;

/// A container in the pid namespace of another: those who are in it already must see nothing of the host's through
/// who comes.
#[test]
fn joining_a_pid_namespace_shows_nothing_of_the_host() {
    let marker = tempfile::tempdir().unwrap();
    let hunt = format!(
        "echo ready; while :; do for process in /proc/[0-9]*; do [ $process = /proc/1 ] && continue; \
         [ -e $process/root{0} ] && echo escaped by root; \
         for link in $process/fd/* $process/cwd; do [ -e $link{0} ] && echo escaped by $link; done; \
         done; done 2>/dev/null",
        marker.path().display()
    );
    let hunter = Bundle::new(&hunt).with(powerful);
    let running = Running::new(&hunter);
    assert_eq!(running.first_words(), "ready\n");
    let namespace = format!("/proc/{}/ns/pid", running.pid());
    if !has_procfs_of_others() {
        let bundle = Bundle::new("true").with(|spec| spec["linux"]["namespaces"][2]["path"] = json!(namespace));
        assert!(failure(&bundle.run()).contains("may trace (CAP_SYS_PTRACE)"));
        return;
    }
    for _ in 0..30 {
        let script = "[ $$ != 1 ] && grep -q ^NSpid:.$$ /proc/self/status; ps | grep -c '[e]cho ready'; \
            dd if=/proc/interrupts bs=1 count=1 2>/dev/null | wc -c; touch /proc/sys/x 2>/dev/null || echo kept";
        let bundle = Bundle::new(script).with(|spec| {
            for namespace_of in spec["linux"]["namespaces"].as_array_mut().unwrap() {
                if namespace_of["type"] == "pid" {
                    namespace_of["path"] = json!(namespace);
                }
            }
        });
        assert_eq!(stdout(&bundle.run()), "1\n0\nkept\n");
        assert_eq!(running.log(), "ready\n");
    }
    // Its terminal is its own, and its user's.
    let bundle = Bundle::new("tty; stat -c %u /dev/pts/0; (: </dev/tty) && id -u").with(|spec| {
        spec["linux"]["namespaces"][2]["path"] = json!(namespace);
    });
    let output = stdout(&bundle.live(json!({"terminal": [24, 80], "user": "33"})));
    assert_eq!(output, "/dev/pts/0\r\n33\r\n33\r\n");
    let missing = Bundle::new("").with(|spec| {
        spec["process"]["args"] = json!(["nope"]);
        spec["linux"]["namespaces"][2]["path"] = json!(namespace);
    });
    assert_eq!(missing.spec["linux"]["namespaces"][2]["type"], "pid");
    assert!(failure(&missing.run()).contains("executable file not found"));
}

/// Tells of every process that it sees with other rights than its own.
const RIGHTS_HUNT: &str = "while read name value; do [ $name = CapPrm: ] && own=$value; done < /proc/self/status; echo ready; \
     while :; do for status in /proc/[0-9]*/status; do while read name value; do case $name in \
       CapPrm:|CapBnd:) [ $value = $own ] || echo escaped with $name $value;; \
       Seccomp:) [ $value = 2 ] || echo escaped with $name $value;; \
     esac; done < $status; done; done 2>/dev/null";

fn tracing(spec: &mut Value) {
    for set in ["bounding", "effective", "permitted"] {
        spec["process"]["capabilities"][set].as_array_mut().unwrap().push(json!("CAP_SYS_PTRACE"));
    }
}

/// Who may trace (CAP_SYS_PTRACE) could take the rights of a process on its way into the container: it has none that
/// the container has not, and is under its filter, from the moment on at which it is seen.
#[test]
fn an_exec_brings_no_rights_along() {
    let hunter = Bundle::new(RIGHTS_HUNT).with(tracing);
    let running = Running::new(&hunter);
    assert_eq!(running.first_words(), "ready\n");
    for _ in 0..100 {
        stdout(&running.exec(&[&hunter.id, "true"]).output().unwrap());
    }
    assert_eq!(running.log(), "ready\n");
}

/// The first process of a container in the pid namespace of another comes in the same way: that it is set up with all
/// rights is seen by nobody. Guarded by `RootTree::show`; before Linux 6.17 it is refused there.
#[test]
fn joining_a_pid_namespace_brings_no_rights_along() {
    let hunter = Bundle::new(RIGHTS_HUNT).with(tracing);
    let running = Running::new(&hunter);
    assert_eq!(running.first_words(), "ready\n");
    let namespace = format!("/proc/{}/ns/pid", running.pid());
    let joining = |script: &str| {
        Bundle::new(script).with(tracing).with(|spec| {
            assert_eq!(spec["linux"]["namespaces"][2]["type"], "pid");
            spec["linux"]["namespaces"][2]["path"] = json!(namespace);
        })
    };
    if !has_procfs_of_others() {
        assert!(failure(&joining("true").run()).contains("may trace (CAP_SYS_PTRACE)"));
        return;
    }
    for _ in 0..30 {
        let bundle = joining("[ $$ != 1 ] && [ -d /proc/$$ ] && echo seen");
        assert_eq!(stdout(&bundle.run()), "seen\n");
    }
    let terminal = joining("tty; (: </dev/tty) && echo controlled").live(json!({"terminal": [24, 80]}));
    assert_eq!(stdout(&terminal), "/dev/pts/0\r\ncontrolled\r\n");
    assert_eq!(running.log(), "ready\n");
    // One with a time namespace is set up inside.
    let timed = joining("true").with(|spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
    });
    assert!(failure(&timed.run()).contains("may trace (CAP_SYS_PTRACE)"));
    assert_eq!(running.log(), "ready\n");
}

/// Where there is no procfs of others (before Linux 6.17), the process that sets the container up does so inside, with all
/// rights: not where someone may trace. What is masked is so on the mounts that were made, although it then finds only
/// names. Guarded by `sight::refusal_of_rights` and `RootTree::close_off_beside_procfs`.
#[test]
fn a_pid_namespace_is_joined_from_inside_where_nobody_takes_rights() {
    let join = |bundle: &Bundle| {
        bundle.write();
        let run = bundle.command(&["run", "--bundle", bundle.path(), &bundle.id]);
        let mut older = std::process::Command::new(PROBE);
        older.args(["attack", "without-pidns"]).arg(run.get_program()).args(run.get_args()).stdin(Stdio::null());
        let output = older.output().unwrap();
        bundle.check_nothing_is_left();
        output
    };
    let neighbour = |change: fn(&mut Value)| Bundle::new("echo ready; exec sleep 1000").with(change);
    let joining = |running: &Running<'_>, script: &str| {
        let namespace = format!("/proc/{}/ns/pid", running.pid());
        Bundle::new(script).with(|spec| spec["linux"]["namespaces"][2]["path"] = json!(namespace))
    };
    let tracer = neighbour(tracing);
    let running = Running::new(&tracer);
    assert!(failure(&join(&joining(&running, "true"))).contains("may trace (CAP_SYS_PTRACE)"));
    drop(running);
    let harmless = neighbour(|_| {});
    let running = Running::new(&harmless);
    assert_eq!(running.first_words(), "ready\n");
    let script = "[ $$ != 1 ] && [ -d /proc/$$ ] && dd if=/proc/interrupts bs=1 count=1 2>/dev/null | wc -c; \
        (: >> /proc/sys/kernel/core_pattern) 2>/dev/null || echo kept; ls /sys/firmware | wc -l";
    assert_eq!(stdout(&join(&joining(&running, script))), "0\nkept\n0\n");
    let script = "for sys in /sys /other; do [ -d $sys/firmware ] && ls $sys/firmware; done; echo done";
    let mut ran = 0;
    for _ in 0..24 {
        let bundle = joining(&running, script);
        let (sys, other) = (bundle.root().join("sys"), bundle.root().join("other"));
        fs::create_dir(&sys).unwrap();
        fs::create_dir(&other).unwrap();
        let swapping = Neighbour::who_swaps(sys, other);
        let output = join(&bundle);
        drop(swapping);
        if output.status.success() {
            assert_eq!(stdout(&output), "done\n");
            ran += 1;
        }
    }
    assert!(ran > 0);
}

/// `pidns=` of proc(5).
fn has_procfs_of_others() -> bool {
    let context = rustix::mount::fsopen("proc", rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    let namespace = fs::File::open("/proc/self/ns/pid").unwrap();
    rustix::mount::fsconfig_set_fd(&context, "pidns", &namespace).is_ok()
}

/// The same where the filter refuses what a process does on its way in, so that it cannot come first. With no_new_privs it
/// needs no right; without, the right to load it would be the container's. Guarded by `child/sight.rs`.
#[test]
fn no_filter_makes_an_exec_bring_rights_along() {
    for forbidden in ["clone", "close_range", "getpid", "mremap", "prlimit64", "recvmsg", "sendmsg", "setsid"] {
        for no_new_privileges in [true, false] {
            let hunter = Bundle::new(RIGHTS_HUNT).with(tracing).with(|spec| {
                let rule = json!({"names": [forbidden], "action": "SCMP_ACT_ERRNO", "errnoRet": 1});
                spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
                spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
            });
            let running = Running::new(&hunter);
            assert_eq!(running.first_words(), "ready\n");
            let mut errors = 0;
            for _ in 0..8 {
                let output =
                    running.exec(&[&hunter.id, "/bin/grep", "Seccomp:", "/proc/self/status"]).output().unwrap();
                if output.status.success() {
                    assert_eq!(stdout(&output), "Seccomp:\t2\n");
                } else {
                    let error = failure(&output);
                    assert!(error.contains(&format!("does not let {forbidden} through")), "{error}");
                    errors += 1;
                }
            }
            assert_eq!(running.log(), "ready\n", "{forbidden} {no_new_privileges}");
            // What is marked to be closed is so before the filter.
            let refused = forbidden != "close_range" && !no_new_privileges;
            assert_eq!(errors, if refused { 8 } else { 0 }, "{forbidden} {no_new_privileges}");
        }
    }
}

/// Nor does one that asks others: it is the usher's filter already, so that the descriptor by which it asks is never held
/// inside, where who takes it would answer for itself. Guarded by `hear_of_filter`.
#[test]
fn a_filter_that_asks_is_there_as_early() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent");
    let agent = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let hunter = Bundle::new(RIGHTS_HUNT).with(tracing).with(|spec| {
        let rule = json!({"names": ["mkdirat", "mkdir"], "action": "SCMP_ACT_NOTIFY"});
        spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule], "listenerPath": path});
    });
    let (accept, accepted) = std::sync::mpsc::channel();
    std::thread::spawn(move || agent.incoming().try_for_each(|connection| accept.send(connection)));
    let running = Running::new(&hunter);
    assert_eq!(running.first_words(), "ready\n");
    for _ in 0..30 {
        let output = stdout(&running.exec(&[&hunter.id, "grep", "Seccomp:", "/proc/self/status"]).output().unwrap());
        assert_eq!(output, "Seccomp:\t2\n");
    }
    assert_eq!(running.log(), "ready\n");
    // Kept, or what asks would be told that nobody answers.
    let kept: Vec<_> = accepted.iter().take(31).collect();
    assert!(kept.iter().all(Result::is_ok) && accepted.try_recv().is_err());
}

/// A filter that forbids what it takes to be brought in early is still in force in time.
#[test]
fn an_exec_comes_in_under_any_filter() {
    for forbidden in ["clone", "setsid", "close_range", "recvmsg"] {
        let bundle = Bundle::new("exec sleep 1000").with(|spec| {
            let rule = json!({"names": [forbidden], "action": "SCMP_ACT_ERRNO", "errnoRet": 1});
            spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
        });
        let exec = json!({"arguments": ["grep", "Seccomp:", "/proc/self/status"], "user": "web"});
        assert_eq!(stdout(&bundle.live(json!({"exec": exec}))), "Seccomp:\t2\n", "{forbidden}");
    }
}

/// Limits are those of the container's, also where they would stand in the way of who comes in.
#[test]
fn an_exec_has_the_tightest_limits() {
    let bundle = Bundle::new("exec sleep 1000").with(|spec| {
        spec["process"]["rlimits"] = json!([
            {"type": "RLIMIT_NPROC", "soft": 1, "hard": 2}, {"type": "RLIMIT_NOFILE", "soft": 4, "hard": 5},
        ]);
    });
    let exec = json!({"arguments": ["grep", "-E", "processes|open files", "/proc/self/limits"], "user": "4711"});
    let output = stdout(&bundle.live(json!({"exec": exec})));
    let words: Vec<&str> = output.split_whitespace().filter(|word| word.parse::<u32>().is_ok()).collect();
    assert_eq!(words, ["1", "2", "4", "5"], "{output}");
}

/// The keys of whoever starts a container, or a process in it, are not there to be read (keyrings(7)). Guarded by
/// `join_new_session_keyring`.
#[test]
fn nobody_inside_has_the_callers_keys() {
    let bundle = Bundle::new("/bin/probe attack keyring; exec sleep 1000").with(powerful);
    copy_program(Path::new(PROBE), &bundle.root().join("bin/probe"));
    let with_key = |command: std::process::Command| {
        let mut outer = std::process::Command::new(PROBE);
        outer.args(["attack", "with-key"]).arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
        outer
    };
    let running = Running::start(&bundle, with_key);
    let seen = stdout(&with_key(running.exec(&[&bundle.id, "/bin/probe", "attack", "keyring"])).output().unwrap());
    assert!(seen.starts_with("Required key not available"), "{seen}");
    assert_eq!(running.first_words(), seen);
}

/// A label that confines is written, or its container does not run: whatever namespaces there are, and whichever process
/// it is. Guarded by `labels::apply` on every way to execve(2).
#[test]
fn no_process_runs_without_the_label_that_was_asked_for() {
    let labelled = |spec: &mut Value| spec["process"]["selinuxLabel"] = json!("system_u:system_r:container_t:s0");
    let mapped = |spec: &mut Value| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        for map in ["uidMappings", "gidMappings"] {
            spec["linux"][map] = json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
        }
    };
    let timed = |spec: &mut Value| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
    };
    let other = Bundle::new("exec sleep 1000");
    let running = Running::new(&other);
    let namespace = format!("/proc/{}/ns/pid", running.pid());
    let joined = |spec: &mut Value| spec["linux"]["namespaces"][2]["path"] = json!(namespace);
    let kinds: [&dyn Fn(&mut Value); 4] = [&|_| {}, &mapped, &timed, &joined];
    for (number, kind) in kinds.into_iter().enumerate() {
        assert_eq!(stdout(&Bundle::new("echo ran").with(kind).run()), "ran\n", "{number}");
        let error = failure(&Bundle::new("echo ran").with(kind).with(labelled).run());
        assert!(error.contains("SELinux"), "{number}: {error}");
    }
}

/// The last number of 32 bits means "as it is" to setresuid(2): it would be root's. Guarded by `check_id`.
#[test]
fn nobody_is_root_by_the_last_number() {
    let last = u32::MAX;
    let bundle = Bundle::new("id").with(|spec| spec["process"]["user"] = json!({"uid": last, "gid": last}));
    assert!(failure(&bundle.run()).contains("4294967295 is no id"));
    let bundle =
        Bundle::new("exec sleep 1000").with(|spec| spec["process"]["user"] = json!({"uid": 1000, "gid": 1000}));
    let running = Running::new(&bundle);
    for user in ["4294967295:4294967295", "4294967295", "1000:4294967295"] {
        let output = running.exec(&["-u", user, &bundle.id, "id"]).output().unwrap();
        assert!(failure(&output).contains("4294967295 is no id"), "{user}");
    }
    let output = running.exec(&["--additional-gids", "4294967295", &bundle.id, "id"]).output().unwrap();
    assert!(failure(&output).contains("4294967295 is no id"));
    // By name it is looked up, and not found.
    for user in ["4294967295", "0:4294967295"] {
        let error = failure(&Bundle::new("id").live(json!({"user": user})));
        assert!(error.contains("unable to find"), "{error}");
    }
}
