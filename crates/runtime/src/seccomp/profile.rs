//! Profiles: the default one, and those that users bring in Docker's JSON format.
//!
//! The default allows what Docker's default profile (documented at docs.docker.com, "Seccomp security profiles for
//! Docker") allows, so that what runs there runs here: everything that an ordinary program needs, and with a
//! capability the calls that it is for. Written as rules of our own, in [`RULES`].

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
    LinuxSeccompFilterFlag, LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};
use serde::Deserialize;

use crate::capability;
use crate::error::RuntimeError;

/// For whom a rule of the default profile is.
enum If {
    Always,
    /// One capability is held.
    Holds(&'static str),
    /// CAP_SYS_ADMIN is not held.
    NoAdmin,
    /// The architecture, in Rust's words.
    Machine(&'static str),
}

/// Allowed calls, parted by blanks.
const RULES: &[(If, &str)] = &[
    // Files and directories.
    (
        If::Always,
        "access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 \
         fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl \
         fcntl64 fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 \
         fsync ftruncate ftruncate64 futimesat getcwd getdents getdents64 getxattr getxattrat inotify_add_watch \
         inotify_init inotify_init1 inotify_rm_watch ioctl lchown lchown32 lgetxattr link linkat listmount listxattr \
         listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat \
         name_to_handle_at newfstatat open openat openat2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read \
         readahead readlink readlinkat readv removexattr removexattrat rename renameat renameat2 rmdir sendfile \
         sendfile64 setxattr setxattrat splice stat stat64 statfs statfs64 statmount statx symlink symlinkat sync \
         sync_file_range syncfs tee truncate truncate64 umask unlink unlinkat utime utimensat utimensat_time64 utimes \
         vmsplice write writev",
    ),
    // Asynchronous input and output, waiting for it. io_uring is not among it.
    (
        If::Always,
        "epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd \
         eventfd2 io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit _newselect pipe \
         pipe2 poll ppoll ppoll_time64 pselect6 pselect6_time64 select signalfd signalfd4",
    ),
    // Memory.
    (
        If::Always,
        "brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2 \
         mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect process_mrelease \
         remap_file_pages",
    ),
    // Processes, their ids, limits, scheduling and signals.
    (
        If::Always,
        "alarm capget capset execve execveat exit exit_group fork getcpu getegid getegid32 geteuid geteuid32 getgid \
         getgid32 getgroups getgroups32 getitimer getpgid getpgrp getpid getppid getpriority getresgid getresgid32 \
         getresuid getresuid32 getrlimit getrusage getsid get_thread_area gettid getuid getuid32 ioprio_get ioprio_set \
         kill landlock_add_rule landlock_create_ruleset landlock_restrict_self pause pidfd_open pidfd_send_signal prctl \
         prlimit64 restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend \
         rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_getaffinity sched_getattr sched_getparam \
         sched_get_priority_max sched_get_priority_min sched_getscheduler sched_rr_get_interval \
         sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield \
         seccomp setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid \
         setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid \
         set_thread_area set_tid_address setuid setuid32 sigaltstack sigprocmask sigreturn sysinfo tgkill times tkill \
         ugetrlimit uname uretprobe vfork wait4 waitid waitpid",
    ),
    // Since kernel 4.8 ptrace(2) cannot be used to get around seccomp, and dozen needs a newer one anyway.
    (If::Always, "process_vm_readv process_vm_writev ptrace"),
    // Threads.
    (
        If::Always,
        "futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake get_robust_list rseq set_robust_list",
    ),
    // Clocks and timers; adjtimex and clock_adjtime ask, and set only with CAP_SYS_TIME.
    (
        If::Always,
        "adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 \
         clock_nanosleep clock_nanosleep_time64 gettimeofday nanosleep time timer_create timer_delete timer_getoverrun \
         timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 \
         timerfd_settime timerfd_settime64 cachestat getrandom",
    ),
    // Sockets; socket(2) itself by family, below.
    (
        If::Always,
        "accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64 \
         recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair",
    ),
    // System V's and POSIX's communication between processes.
    (
        If::Always,
        "ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 \
         mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget",
    ),
    (If::Machine("x86_64"), "arch_prctl modify_ldt"),
    (If::Machine("aarch64"), "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2"),
    (If::Holds("DAC_READ_SEARCH"), "open_by_handle_at"),
    (
        If::Holds("SYS_ADMIN"),
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr lsm_list_modules \
         lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname \
         sethostname setns syslog umount umount2 unshare",
    ),
    (If::Holds("SYS_BOOT"), "reboot"),
    (If::Holds("SYS_CHROOT"), "chroot"),
    (If::Holds("SYS_MODULE"), "delete_module init_module finit_module"),
    (If::Holds("SYS_PACCT"), "acct"),
    (If::Holds("SYS_PTRACE"), "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    (If::Holds("SYS_RAWIO"), "iopl ioperm"),
    (If::Holds("SYS_TIME"), "settimeofday stime clock_settime clock_settime64"),
    (If::Holds("SYS_TTY_CONFIG"), "vhangup"),
    (If::Holds("SYS_NICE"), "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    (If::Holds("SYSLOG"), "syslog"),
    (If::Holds("BPF"), "bpf"),
    (If::Holds("PERFMON"), "perf_event_open"),
];

/// personality(2): Linux, its 32-bit sisters, no randomization of addresses, and the question.
const PERSONALITIES: [u64; 5] = [0x0, 0x0008, 0x20000, 0x20008, 0xffff_ffff];
/// Families of socket(2) that are not to be had: obsolete or a way to the host (AF_VSOCK, AF_ALG and the like):
/// all from this one on, but for [`SOCKET_FAMILIES`].
const FIRST_UNUSUAL_FAMILY: u64 = 12;
const SOCKET_FAMILIES: &[u64] =
    &[13, 14, 15, 16, 17, 18, 21, 22, 24, 26, 27, 28, 29, 30, 31, 32, 33, 35, 36, 39, 41, 42, 43, 44, 45];
/// The CLONE_NEW* flags but for NEWTIME: namespaces are for CAP_SYS_ADMIN.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;

/// The default profile, for a process whose bounding set is `capabilities`.
pub(crate) fn default_profile(capabilities: u64) -> LinuxSeccomp {
    let holds = |name: &str| capability::bit(name).is_some_and(|bit| capabilities & bit != 0);
    let admin = holds("SYS_ADMIN");
    let applies = |condition: &If| match condition {
        If::Always => true,
        If::Holds(name) => holds(name),
        If::NoAdmin => !admin,
        If::Machine(machine) => *machine == std::env::consts::ARCH,
    };
    let names: Vec<String> = RULES
        .iter()
        .filter(|(condition, _)| applies(condition))
        .flat_map(|(_, names)| names.split_whitespace().map(str::to_owned))
        .collect();
    let mut rules = vec![rule(names, Vec::new(), LinuxSeccompAction::ScmpActAllow, None)];
    let allow = |name: &str, operator, value| {
        rule(vec![name.to_owned()], vec![argument(value, operator)], LinuxSeccompAction::ScmpActAllow, None)
    };
    rules.push(allow("socket", LinuxSeccompOperator::ScmpCmpLt, FIRST_UNUSUAL_FAMILY));
    rules.extend(SOCKET_FAMILIES.iter().map(|family| allow("socket", LinuxSeccompOperator::ScmpCmpEq, *family)));
    rules.extend(PERSONALITIES.iter().map(|persona| allow("personality", LinuxSeccompOperator::ScmpCmpEq, *persona)));
    if applies(&If::NoAdmin) {
        rules.push(allow("clone", LinuxSeccompOperator::ScmpCmpMaskedEq, NAMESPACE_FLAGS));
        // Its flags are behind a pointer, where no filter can see them: C libraries then take clone(2).
        let absent = Some(libc::ENOSYS as u32);
        rules.push(rule(vec!["clone3".to_owned()], Vec::new(), LinuxSeccompAction::ScmpActErrno, absent));
    }
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(libc::EPERM as u32)
        .architectures(architectures())
        .syscalls(rules)
        .build()
        .expect("every field of a filter has a default")
}

/// What programs of this machine can be.
fn architectures() -> Vec<Arch> {
    match std::env::consts::ARCH {
        "aarch64" => vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm],
        _ => vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
    }
}

fn argument(value: u64, operator: LinuxSeccompOperator) -> LinuxSeccompArg {
    let builder = LinuxSeccompArgBuilder::default().index(0usize).value(value).op(operator);
    let builder = if operator == LinuxSeccompOperator::ScmpCmpMaskedEq { builder.value_two(0u64) } else { builder };
    builder.build().expect("every field of an argument has a default")
}

fn rule(
    names: Vec<String>,
    arguments: Vec<LinuxSeccompArg>,
    action: LinuxSeccompAction,
    errno: Option<u32>,
) -> LinuxSyscall {
    let mut rule = LinuxSyscallBuilder::default()
        .names(names)
        .action(action)
        .args(arguments)
        .build()
        .expect("every field of a rule has a default");
    rule.set_errno_ret(errno);
    rule
}

/// A profile in Docker's JSON format (docs.docker.com, "Seccomp security profiles for Docker"): the spec's, with rules
/// that depend on capabilities, architectures and the kernel.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Profile {
    default_action: LinuxSeccompAction,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Option<Vec<Arch>>,
    #[serde(default)]
    arch_map: Option<Vec<ArchitectureMap>>,
    #[serde(default)]
    flags: Option<Vec<LinuxSeccompFilterFlag>>,
    #[serde(default)]
    listener_path: Option<String>,
    #[serde(default)]
    listener_metadata: Option<String>,
    #[serde(default)]
    syscalls: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchitectureMap {
    architecture: Arch,
    sub_architectures: Option<Vec<Arch>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    names: Vec<String>,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<LinuxSeccompArg>>,
    #[serde(default, rename = "comment")]
    _comment: Option<String>,
    #[serde(default)]
    includes: Option<Conditions>,
    #[serde(default)]
    excludes: Option<Conditions>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Conditions {
    #[serde(default)]
    caps: Vec<String>,
    #[serde(default)]
    arches: Vec<String>,
    min_kernel: Option<String>,
}

/// Refuses a profile that could not be used, before anything is made.
pub fn check_profile(json: &str) -> Result<(), RuntimeError> {
    super::compile(&resolve_profile(json, 0)?).map(drop)
}

/// Reads a user's profile for a process whose bounding set is `capabilities`.
pub(crate) fn resolve_profile(json: &str, capabilities: u64) -> Result<LinuxSeccomp, RuntimeError> {
    let invalid =
        |why: &dyn std::fmt::Display| RuntimeError::Invalid(format!("Decoding seccomp profile failed: {why}"));
    let profile: Profile = serde_json::from_str(json).map_err(|error| invalid(&error))?;
    let mut listed = profile.architectures.unwrap_or_default();
    if let Some(map) = profile.arch_map.filter(|map| !map.is_empty()) {
        if !listed.is_empty() {
            return Err(invalid(
                &"'architectures' and 'archMap' were specified in the seccomp profile, use either one",
            ));
        }
        let native = architectures()[0];
        for entry in map.into_iter().filter(|entry| entry.architecture == native) {
            listed.push(entry.architecture);
            listed.extend(entry.sub_architectures.unwrap_or_default());
        }
    }
    let mut rules = Vec::new();
    for entry in profile.syscalls {
        if entry.name.is_some() && !entry.names.is_empty() {
            return Err(invalid(&"'name' and 'names' were specified in the seccomp profile, use either one"));
        }
        let names: Vec<String> = entry.name.into_iter().chain(entry.names).collect();
        if includes(entry.includes.as_ref(), capabilities) && !excludes(entry.excludes.as_ref(), capabilities) {
            rules.push(rule(names, entry.args.unwrap_or_default(), entry.action, entry.errno_ret));
        }
    }
    let mut seccomp = LinuxSeccompBuilder::default()
        .default_action(profile.default_action)
        .architectures(listed)
        .syscalls(rules)
        .build()
        .expect("every field of a filter has a default");
    seccomp.set_default_errno_ret(profile.default_errno_ret).set_flags(profile.flags);
    seccomp.set_listener_path(profile.listener_path.map(Into::into)).set_listener_metadata(profile.listener_metadata);
    Ok(seccomp)
}

fn has_capability(name: &str, capabilities: u64) -> bool {
    capability::bit(name.strip_prefix("CAP_").unwrap_or(name)).is_some_and(|bit| capabilities & bit != 0)
}

/// Go's names of architectures, which these profiles use.
fn is_native(architecture: &str) -> bool {
    matches!((std::env::consts::ARCH, architecture), ("x86_64", "amd64") | ("aarch64", "arm64"))
}

/// All that is named must be so.
fn includes(conditions: Option<&Conditions>, capabilities: u64) -> bool {
    conditions.is_none_or(|conditions| {
        (conditions.arches.is_empty() || conditions.arches.iter().any(|arch| is_native(arch)))
            && conditions.caps.iter().all(|name| has_capability(name, capabilities))
            && conditions.min_kernel.as_deref().is_none_or(kernel_is_at_least)
    })
}

/// Anything that is so leaves the rule out.
fn excludes(conditions: Option<&Conditions>, capabilities: u64) -> bool {
    conditions.is_some_and(|conditions| {
        conditions.arches.iter().any(|arch| is_native(arch))
            || conditions.caps.iter().any(|name| has_capability(name, capabilities))
            || conditions.min_kernel.as_deref().is_some_and(kernel_is_at_least)
    })
}

fn kernel_is_at_least(wanted: &str) -> bool {
    let parse = |text: &str| {
        let mut parts = text.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    };
    parse(&rustix::system::uname().release().to_string_lossy()) >= parse(wanted)
}
