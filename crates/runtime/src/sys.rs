//! System calls that rustix does not have, each behind a safe function.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

use crate::plan::SchedulerAttributes;

/// What the kernel answered, as a result.
fn check(result: libc::c_long) -> Result<libc::c_long, Errno> {
    if result < 0 { Err(last_error()) } else { Ok(result) }
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Who returned from [`clone_process`].
pub(crate) enum Cloned {
    /// The one who called.
    Parent {
        /// The child's process id, in the caller's pid namespace.
        pid: i32,
        /// The child, by descriptor.
        pidfd: OwnedFd,
    },
    /// The new process.
    Child,
}

/// clone3(2) without a new stack, as fork(2) does it: the child goes on with a copy of everything.
///
/// All handlers of signals are reset in the child. `cgroup` is a directory of cgroup v2 to be born in.
///
/// # Safety
/// The calling process must have one thread: in the child, a lock of another would stay locked for ever.
pub(crate) unsafe fn clone_process(namespaces: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Cloned, Errno> {
    const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is plain integers, for which zero is valid.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = namespaces | libc::CLONE_PIDFD as u64 | CLONE_CLEAR_SIGHAND;
    arguments.pidfd = &raw mut pidfd as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: the arguments are valid and live through the call; without CLONE_VM nothing is shared, and the
    // caller promises a single thread.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>()) })?;
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: with CLONE_PIDFD the kernel has put a new descriptor there, and nobody else owns it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Cloned::Parent { pid: pid as i32, pidfd })
}

/// clone(2) of a sibling, which is what a seccomp filter of Docker's lets through if it begins no namespaces.
///
/// It ends with the signal that the caller itself ends with (CLONE_PARENT).
///
/// # Safety
/// As for [`clone_process`].
pub(crate) unsafe fn clone_sibling(namespaces: u64) -> Result<Cloned, Errno> {
    let mut pidfd: RawFd = -1;
    // SAFETY: the kernel writes the pidfd where the third argument points to, on every architecture; without a new
    // stack the child goes on with a copy of ours. The caller promises a single thread.
    let pid =
        check(unsafe { libc::syscall(libc::SYS_clone, SIBLING | namespaces, 0usize, &raw mut pidfd, 0usize, 0usize) })?;
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: with CLONE_PIDFD the kernel has put a new descriptor there, and nobody else owns it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Cloned::Parent { pid: pid as i32, pidfd })
}

/// clone(2) of an ordinary child, for a program that is not the container's: also under a filter that knows no clone3(2).
///
/// # Safety
/// As for [`clone_process`].
pub(crate) unsafe fn clone_helper() -> Result<Cloned, Errno> {
    let flags = libc::CLONE_PIDFD as u64 | libc::SIGCHLD as u64;
    let mut pidfd: RawFd = -1;
    // SAFETY: as in `clone_sibling`.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone, flags, 0usize, &raw mut pidfd, 0usize, 0usize) })?;
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: with CLONE_PIDFD the kernel has put a new descriptor there, and nobody else owns it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Cloned::Parent { pid: pid as i32, pidfd })
}

/// The flags of [`clone_sibling`].
pub(crate) const SIBLING: u64 = libc::CLONE_PARENT as u64 | libc::CLONE_PIDFD as u64;

/// Attributes for [`mount_setattr`] (mount_setattr(2), `struct mount_attr`).
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct MountAttributes {
    /// MOUNT_ATTR_* to set.
    pub(crate) set: u64,
    /// MOUNT_ATTR_* to clear.
    pub(crate) clear: u64,
    /// MS_PRIVATE and its sisters, or 0.
    pub(crate) propagation: u64,
    /// With MOUNT_ATTR_IDMAP.
    pub(crate) user_namespace: u64,
}

/// mount_setattr(2) on the mount that a descriptor names.
pub(crate) fn mount_setattr(mount: impl AsFd, recursive: bool, attributes: MountAttributes) -> Result<(), Errno> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string and the attributes live through the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    };
    check(result).map(drop)
}

/// setns(2): `target` is a namespace or, with the kinds in `namespaces`, a pidfd.
pub(crate) fn setns(target: impl AsFd, namespaces: libc::c_int) -> Result<(), Errno> {
    // SAFETY: plain integers.
    check(unsafe { libc::syscall(libc::SYS_setns, target.as_fd().as_raw_fd(), namespaces) }).map(drop)
}

/// The CLONE_NEW* of an open namespace (NS_GET_NSTYPE of ioctl_nsfs(2)).
pub(crate) fn namespace_kind(namespace: impl AsFd) -> Result<libc::c_int, Errno> {
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: this request has no argument.
    let kind = unsafe { libc::ioctl(namespace.as_fd().as_raw_fd(), NS_GET_NSTYPE) };
    check(libc::c_long::from(kind)).map(|kind| kind as libc::c_int)
}

/// unshare(2) of namespaces: cgroup, mount and user concern the calling process at once, time its children.
pub(crate) fn unshare(namespaces: libc::c_int) -> Result<(), Errno> {
    // SAFETY: plain integers; no memory is unshared.
    check(unsafe { libc::syscall(libc::SYS_unshare, namespaces) }).map(drop)
}

/// pivot_root(".", "."), after which the old root lies over the new one (pivot_root(2), NOTES).
pub(crate) fn pivot_root_here() -> Result<(), Errno> {
    // SAFETY: two valid C strings.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) }).map(drop)
}

/// prctl(2) with integers only.
pub(crate) fn prctl(option: libc::c_int, second: u64, third: u64) -> Result<i32, Errno> {
    // SAFETY: no option that this crate uses takes a pointer in these places.
    check(libc::c_long::from(unsafe { libc::prctl(option, second, third, 0u64, 0u64) })).map(|value| value as i32)
}

/// capset(2), version 3, of the calling thread.
pub(crate) fn capset(effective: u64, permitted: u64, inheritable: u64) -> Result<(), Errno> {
    const VERSION_3: u32 = 0x2008_0522;
    let header: [u32; 2] = [VERSION_3, 0];
    let low = |set: u64| set as u32;
    let high = |set: u64| (set >> 32) as u32;
    let data: [u32; 6] =
        [low(effective), low(permitted), low(inheritable), high(effective), high(permitted), high(inheritable)];
    // SAFETY: header and data have the layout that version 3 wants: two u32, and two times three u32.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) }).map(drop)
}

/// capget(2), version 3: the permitted set of the calling thread.
pub(crate) fn capget_permitted() -> Result<u64, Errno> {
    let mut header: [u32; 2] = [0x2008_0522, 0];
    let mut data = [0u32; 6];
    // SAFETY: as in `capset`; the kernel writes no more than version 3's two structures.
    check(unsafe { libc::syscall(libc::SYS_capget, header.as_mut_ptr(), data.as_mut_ptr()) })?;
    Ok(u64::from(data[1]) | u64::from(data[4]) << 32)
}

/// One instruction of classic BPF (linux/filter.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Instruction {
    pub(crate) code: u16,
    pub(crate) if_true: u8,
    pub(crate) if_false: u8,
    pub(crate) value: u32,
}

/// SECCOMP_FILTER_FLAG_NEW_LISTENER (seccomp(2)).
pub(crate) const NEW_LISTENER: u64 = 8;

/// seccomp(2), SECCOMP_SET_MODE_FILTER. With [`NEW_LISTENER`] there is a descriptor by which the filter asks.
pub(crate) fn install_filter(program: &[Instruction], flags: u64) -> Result<Option<OwnedFd>, Errno> {
    const SECCOMP_SET_MODE_FILTER: libc::c_long = 1;
    let length = u16::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: Instruction has sock_filter's layout, the kernel only reads `len` of them.
    let answer =
        check(unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &raw const program) })?;
    // SAFETY: with this flag the answer is a new descriptor, which nobody else owns.
    Ok((flags & NEW_LISTENER != 0).then(|| unsafe { OwnedFd::from_raw_fd(answer as RawFd) }))
}

/// keyctl(2), KEYCTL_JOIN_SESSION_KEYRING with an anonymous keyring: the host's keys stay the host's.
pub(crate) fn join_new_session_keyring() -> Result<(), Errno> {
    // SAFETY: a null name asks for an anonymous keyring.
    check(unsafe { libc::syscall(libc::SYS_keyctl, 1, std::ptr::null::<libc::c_char>()) }).map(drop)
}

/// Sets user or group ids of the whole process, which has one thread, so the raw call will do. What would leave an id as
/// it is (-1 of setresuid(2)) is an error.
pub(crate) fn set_ids(uid: u32, gid: u32, groups: &[u32]) -> Result<(), Errno> {
    if [uid, gid].iter().chain(groups).any(|id| *id == u32::MAX) {
        return Err(Errno::INVAL);
    }
    // SAFETY: plain integers and a slice with its length.
    unsafe {
        check(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()))?;
        check(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        check(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
    }
    Ok(())
}

/// The calling thread's files are made by this user (setfsuid(2)); its capabilities stay.
pub(crate) fn act_as(uid: u32, gid: u32) -> Result<(), Errno> {
    if [uid, gid].contains(&u32::MAX) {
        return Err(Errno::INVAL);
    }
    let permitted = capget_permitted()?;
    // SAFETY: plain integers. Neither call tells of a failure: each answers with the id from before.
    unsafe {
        libc::syscall(libc::SYS_setfsgid, gid);
        libc::syscall(libc::SYS_setfsuid, uid);
    }
    // Those for files went with root's id.
    capset(permitted, permitted, 0)?;
    make_undumpable()
}

/// Does something on a thread of its own, whose files are made by this user; what it may do stays.
///
/// # Errors
/// No thread can be had, or it may not change its user.
pub fn as_user<T: Send>(uid: u32, gid: u32, act: impl FnOnce() -> T + Send) -> std::io::Result<T> {
    std::thread::scope(|scope| {
        let work = || act_as(uid, gid).map(|()| act());
        let thread = std::thread::Builder::new().name("dozen-as-user".to_owned()).spawn_scoped(scope, work)?;
        match thread.join() {
            Ok(done) => Ok(done?),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Default actions for every signal, none blocked: neither is ours to hand on.
pub(crate) fn reset_signals() {
    for signal in 1..=64 {
        if signal != libc::SIGKILL && signal != libc::SIGSTOP {
            // `struct kernel_sigaction`, all zero: SIG_DFL, no flags, no mask.
            let default = [0u64; 4];
            // SAFETY: the structure is as large as the kernel's and only read. Not by libc: it hides 32 and 33.
            unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), std::ptr::null::<u64>(), 8usize) };
        }
    }
    let none = 0u64;
    // SAFETY: a mask of 8 bytes, only read.
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const none, std::ptr::null::<u64>(), 8usize)
    };
}

/// close_range(2) of `first..=last`; with `on_exec`, only marks them.
pub(crate) fn close_range(first: u32, last: u32, on_exec: bool) -> Result<(), Errno> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    let flags = if on_exec { CLOSE_RANGE_CLOEXEC } else { 0 };
    // SAFETY: closing descriptors is a matter of the callers' bookkeeping, not of memory.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) }).map(drop)
}

/// dup3(2) onto a number of choice, or a mere clearing of close-on-exec if it is that number already.
pub(crate) fn duplicate_onto(descriptor: RawFd, wanted: RawFd) -> Result<(), Errno> {
    if descriptor == wanted {
        // SAFETY: plain integers.
        return check(unsafe { libc::syscall(libc::SYS_fcntl, wanted, libc::F_SETFD, 0) }).map(drop);
    }
    // SAFETY: plain integers; the callers own the wanted number.
    check(unsafe { libc::syscall(libc::SYS_dup3, descriptor, wanted, 0) }).map(drop)
}

/// A null-terminated array of C strings, as execve(2) wants it.
fn pointers(strings: &[std::ffi::CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
}

/// execve(2); returns only to say why not.
pub(crate) fn execve(path: &CStr, arguments: &[std::ffi::CString], environment: &[std::ffi::CString]) -> Errno {
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: null-terminated arrays of C strings that live through the call.
    unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    last_error()
}

/// execveat(2) of an open file; returns only to say why not.
pub(crate) fn execute_descriptor(
    file: impl AsFd,
    arguments: &[std::ffi::CString],
    environment: &[std::ffi::CString],
) -> Errno {
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: as in `execve`; AT_EMPTY_PATH takes the file from the descriptor.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_fd().as_raw_fd(),
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    last_error()
}

/// bpf(2), BPF_PROG_LOAD and BPF_PROG_ATTACH of a device program to a cgroup directory.
pub(crate) fn attach_device_program(cgroup: impl AsFd, program: &[u64]) -> Result<(), Errno> {
    const BPF_PROG_LOAD: libc::c_long = 5;
    const BPF_PROG_ATTACH: libc::c_long = 8;
    const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
    const BPF_CGROUP_DEVICE: u32 = 6;
    const BPF_F_ALLOW_MULTI: u32 = 2;
    /// The beginning of `union bpf_attr` for BPF_PROG_LOAD (linux/bpf.h).
    #[repr(C)]
    struct Load {
        program_type: u32,
        instructions: u32,
        program: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
    }
    let license = c"Apache-2.0";
    let load = Load {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        instructions: u32::try_from(program.len()).map_err(|_| Errno::INVAL)?,
        program: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
    };
    // SAFETY: the structure and what it points to live through the call; an instruction of eBPF is 8 bytes.
    let loaded = check(unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const load, size_of::<Load>()) })?;
    // SAFETY: a new descriptor that nobody else owns.
    let loaded = unsafe { OwnedFd::from_raw_fd(loaded as RawFd) };
    let attach: [u32; 4] =
        [cgroup.as_fd().as_raw_fd() as u32, loaded.as_raw_fd() as u32, BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI];
    // SAFETY: target, program, type and flags are the four first fields of the union for BPF_PROG_ATTACH.
    check(unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, attach.as_ptr(), size_of_val(&attach)) }).map(drop)
}

/// sched_setattr(2).
pub(crate) fn sched_setattr(pid: i32, attributes: &SchedulerAttributes) -> Result<(), Errno> {
    // SAFETY: the structure begins with its size and is only read.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, pid, std::ptr::from_ref(attributes), 0) }).map(drop)
}

/// ioprio_set(2) of one process: its class, shifted by 13, and level.
pub(crate) fn set_io_priority(pid: i32, priority: u32) -> Result<(), Errno> {
    const IOPRIO_WHO_PROCESS: libc::c_long = 1;
    // SAFETY: plain integers.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, pid, priority) }).map(drop)
}

/// sched_getaffinity(2) of the calling thread, one bit for each processor.
pub(crate) fn affinity() -> Result<Vec<u64>, Errno> {
    // The kernel wants room for all that it could have.
    let mut mask = vec![0u64; 128];
    // SAFETY: a buffer and its length in bytes.
    let length =
        check(unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, mask.len() * 8, mask.as_mut_ptr()) })? as usize;
    mask.truncate(length.div_ceil(8));
    Ok(mask)
}

/// sched_setaffinity(2); 0 is the calling thread.
pub(crate) fn set_affinity(pid: i32, mask: &[u64]) -> Result<(), Errno> {
    // SAFETY: a buffer that is only read, and its length in bytes.
    check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, pid, size_of_val(mask), mask.as_ptr()) }).map(drop)
}

/// personality(2).
pub(crate) fn personality(domain: u32) -> Result<(), Errno> {
    // SAFETY: a plain integer.
    check(unsafe { libc::syscall(libc::SYS_personality, libc::c_ulong::from(domain)) }).map(drop)
}

/// set_mempolicy(2); without nodes the mode alone.
pub(crate) fn set_memory_policy(mode: u32, nodes: &[u64]) -> Result<(), Errno> {
    let mask = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // One more than there are: the kernel takes one off (set_mempolicy(2), BUGS).
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    // SAFETY: a mask of that many bits, only read.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) }).map(drop)
}

/// getrlimit(2): the hard limit.
pub(crate) fn hard_limit(resource: libc::__rlimit_resource_t) -> u64 {
    let mut now = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a place for the answer. It fails for unknown resources only, and then leaves what is there.
    unsafe { libc::prlimit64(0, resource, std::ptr::null(), &raw mut now) };
    now.rlim_max
}

/// Makes the calling process invisible to ptrace(2) and /proc for all without CAP_SYS_PTRACE over it.
pub(crate) fn make_undumpable() -> Result<(), Errno> {
    prctl(libc::PR_SET_DUMPABLE, 0, 0).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_id_is_left_as_it_is() {
        for (uid, gid, groups) in [(u32::MAX, 0, &[][..]), (0, u32::MAX, &[]), (0, 0, &[0, u32::MAX])] {
            assert_eq!(set_ids(uid, gid, groups), Err(Errno::INVAL));
        }
        assert_eq!(act_as(u32::MAX, 0), Err(Errno::INVAL));
    }
}
