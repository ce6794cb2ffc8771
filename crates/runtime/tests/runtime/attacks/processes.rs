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
    fs::copy(PROBE, bundle.root().join("bin/probe")).unwrap();
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
