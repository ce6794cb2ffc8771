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
    hunter.write();
    let log = hunter.directory.path().join("log");
    let pid_file = hunter.directory.path().join("pid");
    let run = ["run", "--detach", "--bundle", hunter.path(), "--pid-file", pid_file.to_str().unwrap(), &hunter.id];
    let started = hunter.command(&run).stdout(fs::File::create(&log).unwrap()).stderr(Stdio::inherit()).status();
    assert!(started.unwrap().success());
    while fs::read_to_string(&log).unwrap() != "ready\n" {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let namespace = format!("/proc/{}/ns/pid", fs::read_to_string(&pid_file).unwrap());
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
        assert_eq!(fs::read_to_string(&log).unwrap(), "ready\n");
    }
    let missing = Bundle::new("").with(|spec| {
        spec["process"]["args"] = json!(["nope"]);
        spec["linux"]["namespaces"][2]["path"] = json!(namespace);
    });
    assert_eq!(missing.spec["linux"]["namespaces"][2]["type"], "pid");
    assert!(failure(&missing.run()).contains("executable file not found"));
    stdout(&hunter.command(&["delete", "--force", &hunter.id]).output().unwrap());
    hunter.check_nothing_is_left();
}

/// Who may trace (CAP_SYS_PTRACE) could take the rights of a process on its way into the container: it has none that
/// the container has not, and is under its filter, from the moment on at which it is seen.
#[test]
fn an_exec_brings_no_rights_along() {
    let script = "while read name value; do [ $name = CapPrm: ] && own=$value; done < /proc/self/status; echo ready; \
        while :; do for status in /proc/[0-9]*/status; do while read name value; do case $name in \
          CapPrm:|CapBnd:) [ $value = $own ] || echo escaped with $name $value;; \
          Seccomp:) [ $value = 2 ] || echo escaped with $name $value;; \
        esac; done < $status; done; done 2>/dev/null";
    let hunter = Bundle::new(script).with(|spec| {
        for set in ["bounding", "effective", "permitted"] {
            spec["process"]["capabilities"][set].as_array_mut().unwrap().push(json!("CAP_SYS_PTRACE"));
        }
    });
    hunter.write();
    let log = hunter.directory.path().join("log");
    let run = ["run", "--detach", "--bundle", hunter.path(), &hunter.id];
    let started = hunter.command(&run).stdout(fs::File::create(&log).unwrap()).stderr(Stdio::inherit()).status();
    assert!(started.unwrap().success());
    while fs::read_to_string(&log).unwrap() != "ready\n" {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    for _ in 0..100 {
        stdout(&hunter.command(&["exec", &hunter.id, "true"]).output().unwrap());
    }
    assert_eq!(fs::read_to_string(&log).unwrap(), "ready\n");
    stdout(&hunter.command(&["delete", "--force", &hunter.id]).output().unwrap());
    hunter.check_nothing_is_left();
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
    bundle.write();
    let with_key = |command: std::process::Command| {
        let mut outer = std::process::Command::new(PROBE);
        outer.args(["attack", "with-key"]).arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
        outer
    };
    let log = bundle.directory.path().join("log");
    let run = bundle.command(&["run", "--detach", "--bundle", bundle.path(), &bundle.id]);
    let started = with_key(run).stdout(fs::File::create(&log).unwrap()).status();
    assert!(started.unwrap().success());
    let exec = bundle.command(&["exec", &bundle.id, "/bin/probe", "attack", "keyring"]);
    let seen = stdout(&with_key(exec).output().unwrap());
    assert!(seen.starts_with("Required key not available"), "{seen}");
    while fs::read_to_string(&log).unwrap().is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert_eq!(fs::read_to_string(&log).unwrap(), seen);
    stdout(&bundle.command(&["delete", "--force", &bundle.id]).output().unwrap());
    bundle.check_nothing_is_left();
}
