//! What an attacker inside does, where a shell is not enough: each way by its name, said on standard output.

use std::ffi::{CStr, OsString};
use std::fs;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::OpenTreeFlags;

pub fn run(way: &str, arguments: Vec<OsString>) -> ExitCode {
    let said = match way {
        "exe" => exe(),
        "writable" => writable(&arguments),
        "namespaces" => namespaces(&arguments),
        "nest" => nest(&arguments),
        "keyring" => keyring(),
        "with-key" => with_key(&arguments),
        "without-pidns" => without_pidns(&arguments),
        _ => return ExitCode::FAILURE,
    };
    let written = std::io::stdout().write_all(said.as_bytes());
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Every way that we know to the program of process 1 (CVE-2019-5736). As long as it runs nobody may write to it
/// (ETXTBSY), which is not for ever; what must be said is EROFS, which O_TRUNC has asked for first.
fn exe() -> String {
    let mut said = String::new();
    let mut note = |way: &str, file: &dyn AsRef<Path>| {
        said += &match fs::OpenOptions::new().write(true).truncate(true).open(file.as_ref()) {
            Ok(_) => format!("{way}: opened\n"),
            Err(error) => match error.raw_os_error() {
                Some(libc::EROFS) => String::new(),
                _ => format!("{way}: {error}\n"),
            },
        };
    };
    note("/proc/1/exe", &"/proc/1/exe");
    for entry in fs::read_dir("/proc/1/map_files").into_iter().flatten().flatten() {
        if fs::read_link(entry.path()).ok() == fs::read_link("/proc/1/exe").ok() {
            note("map_files", &entry.path());
        }
    }
    let program = rustix::fs::open("/proc/1/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let program = program.expect("/proc/1/exe can be looked at");
    clear_read_only(&program);
    note("mount_setattr", &format!("/proc/self/fd/{}", program.as_raw_fd()));
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if let Ok(clone) = rustix::mount::open_tree(CWD, "/proc/1/exe", flags) {
        clear_read_only(&clone);
        note("open_tree", &format!("/proc/self/fd/{}", clone.as_raw_fd()));
    }
    let place = "/tmp/program";
    if fs::write(place, "").is_ok() && mount(c"/proc/1/exe", c"/tmp/program", libc::MS_BIND) {
        mount(c"none", c"/tmp/program", libc::MS_BIND | libc::MS_REMOUNT);
        note("bind", &place);
    }
    said + "tried\n"
}

fn clear_read_only(file: &OwnedFd) {
    let clear_read_only = [0u64, libc::MOUNT_ATTR_RDONLY, 0, 0];
    // SAFETY: an empty C string and a `struct mount_attr`, only read (mount_setattr(2)).
    unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            clear_read_only.as_ptr(),
            size_of_val(&clear_read_only),
        )
    };
}

fn mount(source: &CStr, target: &CStr, flags: libc::c_ulong) -> bool {
    // SAFETY: three C strings, and no data.
    unsafe { libc::mount(source.as_ptr(), target.as_ptr(), c"none".as_ptr(), flags, std::ptr::null()) == 0 }
}

/// All files below these directories that say they are for writing and can be opened so. Nothing is written. Processes
/// are passed over, and links.
fn writable(directories: &[OsString]) -> String {
    let mut said = String::new();
    let mut rest: Vec<_> = directories.iter().map(std::path::PathBuf::from).collect();
    while let Some(directory) = rest.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let is_process = directory == Path::new("/proc") && name.as_bytes()[0].is_ascii_digit();
            let Ok(status) = fs::symlink_metadata(&path) else { continue };
            if status.is_dir() && !is_process {
                rest.push(path);
            } else if status.is_file() && status.mode() & 0o222 != 0 {
                let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
                if rustix::fs::open(&path, flags, Mode::empty()).is_ok() {
                    said += &format!("{}\n", path.display());
                }
            }
        }
    }
    said + "tried\n"
}

/// Nests cgroups deeper than a path is long, and goes into the last of them.
fn nest(hierarchies: &[OsString]) -> String {
    let mut said = String::new();
    let name = "n".repeat(200);
    for hierarchy in hierarchies {
        let path = std::ffi::CString::new(hierarchy.as_bytes()).expect("an argument has no null byte");
        mount(c"none", &path, libc::MS_BIND | libc::MS_REMOUNT);
        let nested = std::env::set_current_dir(hierarchy).and_then(|()| {
            for _ in 0..30 {
                fs::create_dir(&name)?;
                std::env::set_current_dir(&name)?;
            }
            fs::OpenOptions::new().write(true).open("cgroup.procs")?.write_all(b"0")
        });
        if nested.is_ok() {
            said += "nested\n";
        }
    }
    said
}

const KEYCTL_JOIN_SESSION_KEYRING: usize = 1;
const KEYCTL_SEARCH: usize = 10;
const SESSION_KEYRING: isize = -3;
const KEY: &CStr = c"dozen-test-secret";

/// Whether the session keyring has the key that [`with_key`] has put into its own (keyctl(2)).
fn keyring() -> String {
    // SAFETY: integers and C strings.
    let found = unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_SEARCH, SESSION_KEYRING, c"user".as_ptr(), KEY.as_ptr(), 0usize)
    };
    if found >= 0 { "found\n".into() } else { format!("{}\n", std::io::Error::last_os_error()) }
}

/// Executes a program as root of new namespaces of every kind (user_namespaces(7)).
fn namespaces(arguments: &[OsString]) -> String {
    let kinds = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWPID;
    // SAFETY: an integer; this process has one thread.
    if unsafe { libc::unshare(kinds) } != 0 {
        return format!("cannot unshare: {}\n", std::io::Error::last_os_error());
    }
    for (file, text) in [("setgroups", "deny"), ("uid_map", "0 0 1"), ("gid_map", "0 0 1")] {
        if let Err(error) = fs::write(format!("/proc/self/{file}"), text) {
            return format!("cannot write {file}: {error}\n");
        }
    }
    let [program, arguments @ ..] = arguments else { return String::new() };
    // The new pid namespace is the child's.
    match Command::new(program).args(arguments).status() {
        Ok(_) => String::new(),
        Err(error) => format!("{error}\n"),
    }
}

/// Executes a program in a session that has a key.
fn with_key(arguments: &[OsString]) -> String {
    // SAFETY: a null name asks for an anonymous keyring; then C strings, and bytes with their number.
    let added = unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>());
        libc::syscall(libc::SYS_add_key, c"user".as_ptr(), KEY.as_ptr(), c"x".as_ptr(), 1usize, SESSION_KEYRING)
    };
    if added < 0 {
        return format!("no key: {}\n", std::io::Error::last_os_error());
    }
    let [program, arguments @ ..] = arguments else { return String::new() };
    let error = Command::new(program).args(arguments).exec();
    format!("{error}\n")
}

/// Executes a program on a kernel without `pidns=` of proc(5): no option can be given a descriptor (FSCONFIG_SET_FD).
fn without_pidns(arguments: &[OsString]) -> String {
    const FSCONFIG_SET_FD: u32 = 5;
    let instruction = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let (load, equal, answer) =
        (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, libc::BPF_RET);
    let mut program = [
        instruction(load, 0, 0, 0),
        instruction(equal, 0, 3, libc::SYS_fsconfig as u32),
        // The second argument.
        instruction(load, 0, 0, 24),
        instruction(equal, 0, 1, FSCONFIG_SET_FD),
        instruction(answer, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EINVAL as u32),
        instruction(answer, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: a program with its length, only read (seccomp(2)).
    if unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) } != 0 {
        return format!("no filter: {}\n", std::io::Error::last_os_error());
    }
    let [program, arguments @ ..] = arguments else { return String::new() };
    let error = Command::new(program).args(arguments).exec();
    format!("{error}\n")
}
