//! Filters in the kernel: who is asked, and what programs of 32 bits may do.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};

use crate::bundle::{Bundle, failure, stdout};

/// Answers for mkdir(2): it fails with "not a typewriter", which no mkdir says by itself.
struct Agent {
    listener: UnixListener,
    path: PathBuf,
}

/// SECCOMP_IOCTL_NOTIF_RECV and SECCOMP_IOCTL_NOTIF_SEND (linux/seccomp.h).
const RECEIVE: u64 = 0xc050_2100;
const SEND: u64 = 0xc018_2101;

impl Agent {
    fn new(bundle: &Bundle) -> Self {
        let path = bundle.directory.path().join("agent.sock");
        Self { listener: UnixListener::bind(&path).unwrap(), path }
    }

    fn profile(&self) -> Value {
        json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": self.path, "listenerMetadata": "told", "syscalls":
            [{"names": ["mkdir", "mkdirat", "prctl", "capset", "execve", "close"], "action": "SCMP_ACT_NOTIFY"}]})
    }

    /// What it is told of the next process, and the descriptor by which that asks.
    fn accept(&self) -> (Value, OwnedFd) {
        let (stream, _) = self.listener.accept().unwrap();
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [0; 8192];
        let buffer = &mut [std::io::IoSliceMut::new(&mut bytes)];
        let length = recvmsg(&stream, buffer, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap().bytes;
        let notifications = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        (serde_json::from_slice(&bytes[..length]).unwrap(), notifications.unwrap())
    }
}

/// Answers until nobody is left who could ask; how often it was asked about mkdir.
fn answer(notifications: &OwnedFd) -> u32 {
    let mut asked = 0;
    loop {
        // Linux before 6.11 tells only poll(2) that nobody is left.
        let mut waiting = [PollFd::new(notifications, PollFlags::IN)];
        match poll(&mut waiting, None) {
            Ok(_) if waiting[0].revents().contains(PollFlags::IN) => {}
            Err(Errno::INTR) => continue,
            _ => return asked,
        }
        // SAFETY: plain data, which the kernel wants to be zero.
        let mut question: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the structure is as large as the number of the ioctl says.
        if unsafe { libc::ioctl(notifications.as_raw_fd(), RECEIVE as libc::Ioctl, &raw mut question) } < 0 {
            match std::io::Error::last_os_error().raw_os_error() {
                // Who asked has been killed meanwhile.
                Some(libc::EINTR) => continue,
                _ => return asked,
            }
        }
        let is_mkdir = [libc::SYS_mkdir, libc::SYS_mkdirat].contains(&libc::c_long::from(question.data.nr));
        asked += u32::from(is_mkdir);
        const CONTINUE: u32 = 1;
        let (error, flags) = if is_mkdir { (-libc::ENOTTY, 0) } else { (0, CONTINUE) };
        let answer = libc::seccomp_notif_resp { id: question.id, val: 0, error, flags };
        // SAFETY: as above.
        unsafe { libc::ioctl(notifications.as_raw_fd(), SEND as libc::Ioctl, &raw const answer) };
    }
}

fn spawn(bundle: &Bundle, arguments: &[&str]) -> Child {
    bundle.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn an_agent_answers_for_the_first_process() {
    for no_new_privileges in [false, true] {
        let bundle = Bundle::new("mkdir /tmp/x 2>&1; echo done");
        let agent = Agent::new(&bundle);
        let bundle = bundle.with(|spec| {
            spec["linux"]["seccomp"] = agent.profile();
            spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
            spec["annotations"] = json!({"a": "b"});
        });
        bundle.write();
        let child = spawn(&bundle, &["run", "--bundle", bundle.path(), &bundle.id]);
        let (told, notifications) = agent.accept();
        assert_eq!(answer(&notifications), 1);
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            stdout(&output).trim(),
            "mkdir: can't create directory '/tmp/x': Inappropriate ioctl for device\ndone"
        );
        assert_eq!((&told["fds"], &told["metadata"]), (&json!(["seccompFd"]), &json!("told")));
        assert_eq!((&told["state"]["id"], &told["state"]["pid"]), (&json!(bundle.id), &told["pid"]));
        assert_eq!((&told["state"]["status"], &told["state"]["annotations"]["a"]), (&json!("creating"), &json!("b")));
        bundle.check_nothing_is_left();
    }
}

#[test]
fn an_agent_answers_for_what_start_and_exec_begin() {
    let bundle = Bundle::new("exec sleep 1000");
    let agent = Agent::new(&bundle);
    let bundle = bundle.with(|spec| spec["linux"]["seccomp"] = agent.profile());
    bundle.write();
    let pid_file = bundle.directory.path().join("pid");
    let create = ["create", "--bundle", bundle.path(), "--pid-file", pid_file.to_str().unwrap(), &bundle.id];
    assert!(bundle.command(&create).stdout(Stdio::null()).status().unwrap().success());
    let start = spawn(&bundle, &["start", &bundle.id]);
    let (told, first) = agent.accept();
    assert_eq!(told["pid"].to_string(), std::fs::read_to_string(&pid_file).unwrap());
    let first = std::thread::spawn(move || answer(&first));
    stdout(&start.wait_with_output().unwrap());
    let exec = spawn(&bundle, &["exec", &bundle.id, "sh", "-c", "mkdir /tmp/x 2>&1; exit 3"]);
    let (told, further) = agent.accept();
    assert_eq!((&told["state"]["status"], &told["state"]["id"]), (&json!("running"), &json!(bundle.id)));
    assert_eq!(answer(&further), 1);
    let output = exec.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("Inappropriate ioctl"), "{output:?}");
    stdout(&bundle.command(&["delete", "--force", &bundle.id]).output().unwrap());
    assert_eq!(first.join().unwrap(), 0);
    bundle.check_nothing_is_left();
}

#[test]
fn without_an_agent_nothing_is_started() {
    let bundle = Bundle::new("echo ran");
    let agent = Agent::new(&bundle);
    let bundle = bundle.with(|spec| spec["linux"]["seccomp"] = agent.profile());
    drop(agent);
    let output = bundle.run();
    assert!(failure(&output).contains("failed to connect with seccomp agent at"), "{output:?}");
    assert!(output.stdout.is_empty());
    let nowhere = bundle.with(|spec| spec["linux"]["seccomp"]["listenerPath"] = json!(""));
    assert!(failure(&nowhere.run()).contains("seccomp listenerPath is not set"));
}

/// What a filter does about a call by 32-bit numbers; the test program makes it by `int 0x80`.
#[cfg(target_arch = "x86_64")]
#[test]
fn programs_of_32_bits_are_filtered_too() {
    const GETPID: &str = "20";
    let run = |architectures: &[&str], action: &str| {
        let bundle = Bundle::new("").with(|spec| {
            spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": architectures,
                "syscalls": [{"names": ["getpid"], "action": action, "errnoRet": 77}]});
            spec["process"]["args"] = json!(["/probe", "call32", GETPID]);
            let source = crate::bundle::PROBE;
            let mount = json!({"destination": "/probe", "type": "bind", "source": source, "options": ["bind", "ro"]});
            spec["mounts"].as_array_mut().unwrap().push(mount);
        });
        bundle.run()
    };
    let both = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"];
    assert_eq!(stdout(&run(&both, "SCMP_ACT_ALLOW")), "1\n");
    assert_eq!(stdout(&run(&both, "SCMP_ACT_ERRNO")), "-77\n");
    assert_eq!(stdout(&run(&both, "SCMP_ACT_LOG")), "1\n");
    // Without a tracer there is nobody to allow it (seccomp(2), SECCOMP_RET_TRACE).
    assert_eq!(stdout(&run(&both, "SCMP_ACT_TRACE")), format!("-{}\n", libc::ENOSYS));
    for action in ["SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL", "SCMP_ACT_TRAP"] {
        assert_eq!(run(&both, action).status.code(), Some(128 + libc::SIGSYS), "{action}");
    }
    // Not listed: its numbers mean other calls.
    assert_eq!(run(&["SCMP_ARCH_X86_64"], "SCMP_ACT_ALLOW").status.code(), Some(128 + libc::SIGSYS));
}

/// libseccomp's filters, as runc and crun have them, say the same about calls by 32-bit numbers.
#[cfg(target_arch = "x86_64")]
#[test]
fn programs_of_32_bits_are_filtered_as_elsewhere() {
    // socketcall(SYS_SOCKET, SYS_CONNECT, SYS_RECVMSG), socket, connect, ipc(SEMOP, SHMGET), personality(0, -1), umask,
    // getuid.
    let calls = ["102:1", "102:3", "102:17", "359", "362", "117:1", "117:23", "136:0", "136:4294967295", "60:18", "24"];
    let allow_but = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["connect", "shmget"], "action": "SCMP_ACT_ERRNO", "errnoRet": 71},
        {"names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 72,
            "args": [{"index": 0, "value": 0xffff_ffff_u32, "op": "SCMP_CMP_EQ"}]},
        {"names": ["umask"], "action": "SCMP_ACT_ERRNO", "errnoRet": 73,
            "args": [{"index": 0, "value": 0xf0, "valueTwo": 0x10, "op": "SCMP_CMP_MASKED_EQ"}]},
        {"names": ["no_such_call"], "action": "SCMP_ACT_ERRNO"},
    ]});
    let all_of = |names: &[&str]| {
        json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 74, "syscalls": [
            {"names": names, "action": "SCMP_ACT_ALLOW"},
            {"names": ["personality", "umask"], "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 0, "value": 17, "op": "SCMP_CMP_GE"}]},
        ]})
    };
    // What a program needs to begin and to end, and a runtime before it.
    let ordinary = [
        "read",
        "write",
        "close",
        "mmap",
        "munmap",
        "mprotect",
        "brk",
        "rt_sigaction",
        "rt_sigprocmask",
        "sigaltstack",
        "execve",
        "exit_group",
        "futex",
        "arch_prctl",
        "set_tid_address",
        "set_robust_list",
        "rseq",
        "prlimit64",
        "readlink",
        "readlinkat",
        "getrandom",
        "poll",
        "fstat",
        "newfstatat",
        "openat",
        "fcntl",
        "ioctl",
        "sched_getaffinity",
        "gettid",
        "tgkill",
        "getpid",
        "capset",
        "prctl",
        "clone",
        "clone3",
        "wait4",
        "epoll_ctl",
        "epoll_pwait",
        "nanosleep",
        "madvise",
        "setuid",
        "setgid",
        "setgroups",
        "chdir",
        "fchdir",
        "getdents64",
        "getppid",
        "faccessat",
        "faccessat2",
        "capget",
        "fstatfs",
        "statfs",
        "dup3",
        "pipe2",
        "sendmsg",
        "recvmsg",
        "sendto",
        "recvfrom",
        "setresuid",
        "setresgid",
        "close_range",
        "getcwd",
        "lseek",
        "fchown",
        "getuid",
        "sched_yield",
        "stat",
        "access",
        "pread64",
        "sysinfo",
        "uname",
        "epoll_create1",
        "eventfd2",
        "rt_sigreturn",
        "kill",
        "exit",
        "tkill",
        "dup2",
    ];
    for profile in [allow_but, all_of(&ordinary), all_of(&[&ordinary[..], &["connect", "shmget"]].concat())] {
        let mut profile = profile;
        profile["architectures"] = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]);
        let bundle = Bundle::new("").with(|spec| {
            spec["linux"]["seccomp"] = profile.clone();
            spec["process"]["args"] = json!([&["/probe", "call32"][..], &calls].concat());
            let source = crate::bundle::PROBE;
            let mount = json!({"destination": "/probe", "type": "bind", "source": source, "options": ["bind", "ro"]});
            spec["mounts"].as_array_mut().unwrap().push(mount);
        });
        let ours = stdout(&bundle.run());
        assert_eq!(ours.lines().count(), calls.len(), "{ours}");
        for (name, output, _) in crate::oracle::others(&bundle, &["runc", "crun"]) {
            assert_eq!(ours, output, "left ours, right {name}'s: {profile}");
        }
    }
}
