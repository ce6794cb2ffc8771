//! What the tests run, in a process of its own with one thread: `dozen runtime` by itself, and with `library` the
//! calls that the monitor makes. With `attack` it is an attacker, inside; with `call32` a program of 32 bits; with
//! `keyring` it names its session keyring; with `notify` it sends its arguments to `$NOTIFY_SOCKET`.

#[path = "probe/attacker.rs"]
mod attacker;

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use dozen_model::UserSpec;
use dozen_runtime::{CreateOptions, ExecOptions, Root, Spec, Stdio, WindowSize};
use rustix::process::{WaitId, WaitIdOptions};
use serde::Deserialize;

/// One container's life, as JSON on the command line.
#[derive(Deserialize)]
struct Life {
    id: String,
    spec: Spec,
    root: Root,
    #[serde(default)]
    user: UserSpec,
    #[serde(default)]
    init: bool,
    /// Rows and columns.
    terminal: Option<(u16, u16)>,
    /// A further process, whose output is ours.
    exec: Option<Exec>,
}

#[derive(Deserialize)]
struct Exec {
    arguments: Vec<String>,
    #[serde(default)]
    user: UserSpec,
    #[serde(default)]
    privileged: bool,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if std::env::args_os().nth(1).is_some_and(|mode| mode == "library") {
        let file = arguments.nth(1).expect("a file that holds a life");
        return match live(Path::new(&file)) {
            Ok(code) => ExitCode::from(code),
            Err(error) => {
                use std::io::Write;
                let _ = writeln!(std::io::stderr(), "{error}");
                ExitCode::from(125)
            }
        };
    }
    if std::env::args_os().nth(1).is_some_and(|mode| mode == "attack") {
        let way = arguments.nth(1).expect("a way").into_string().expect("a way is a word");
        return attacker::run(&way, arguments.collect());
    }
    #[cfg(target_arch = "x86_64")]
    if std::env::args_os().nth(1).is_some_and(|mode| mode == "call32") {
        use std::io::Write;
        for call in arguments.skip(1) {
            let call = call.into_string().expect("NUMBER or NUMBER:ARGUMENT");
            let (number, argument) = call.split_once(':').unwrap_or((&call, "0"));
            let (number, argument) = (number.parse().expect("a number"), argument.parse().expect("a number"));
            let _ = writeln!(std::io::stdout(), "{}", call_of_32_bits(number, argument));
        }
        return ExitCode::SUCCESS;
    }
    if std::env::args_os().nth(1).is_some_and(|mode| mode == "keyring") {
        use std::io::Write;
        const KEYCTL_GET_KEYRING_ID: libc::c_long = 0;
        const KEY_SPEC_SESSION_KEYRING: libc::c_long = -3;
        // SAFETY: plain integers.
        let keyring = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0) };
        let _ = writeln!(std::io::stdout(), "{keyring}");
        return ExitCode::SUCCESS;
    }
    if std::env::args_os().nth(1).is_some_and(|mode| mode == "notify") {
        use std::os::unix::ffi::OsStrExt;
        let place = std::env::var_os("NOTIFY_SOCKET").expect("a place to tell");
        let socket = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
        for message in arguments.skip(1) {
            if let Err(error) = socket.send_to(message.as_bytes(), &place) {
                use std::io::Write;
                let _ = writeln!(std::io::stdout(), "{error}");
            }
        }
        return ExitCode::SUCCESS;
    }
    dozen_runtime::run_cli(arguments)
}

/// A system call by 32-bit numbers, with one argument; the others are 0.
#[cfg(target_arch = "x86_64")]
fn call_of_32_bits(number: i32, argument: u32) -> i32 {
    let answer: i32;
    // SAFETY: the kernel answers in eax and clears r8 to r11 (entry_64_compat.S); no call that is tried here has one that points anywhere.
    unsafe {
        std::arch::asm!(
            // Not to be had by name.
            "xchg {argument:r}, rbx",
            "int 0x80",
            "xchg {argument:r}, rbx",
            argument = inout(reg) u64::from(argument) => _,
            inlateout("eax") number => answer,
            in("ecx") 0, in("edx") 0, in("esi") 0, in("edi") 0,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    answer
}

fn live(file: &Path) -> Result<u8, Box<dyn std::error::Error>> {
    let life: Life = serde_json::from_slice(&std::fs::read(file)?)?;
    let stdio = match life.terminal {
        Some((rows, columns)) => Stdio::Terminal { size: Some(WindowSize { rows, columns }) },
        None => streams()?,
    };
    let cgroup = format!("/dozen-test-{}", life.id);
    let mut created = dozen_runtime::create(CreateOptions {
        id: &life.id,
        spec: &life.spec,
        bundle: &PathBuf::from("/"),
        root: &life.root,
        cgroup: &cgroup,
        network_namespace: None,
        user: Some(&life.user),
        group_names: &[],
        stdio,
        init: life.init,
        preserve_descriptors: 0,
        keep_session_keyring: false,
    })?;
    let terminal = created.terminal();
    let running = created.start()?;
    if let Some(exec) = life.exec {
        let environment = life.spec.process().as_ref().and_then(|process| process.env().clone()).unwrap_or_default();
        let process = dozen_runtime::exec(ExecOptions {
            container: &running,
            spec: &life.spec,
            arguments: &exec.arguments,
            environment: &environment,
            working_directory: None,
            user: &exec.user,
            keep_session_keyring: false,
            privileged: exec.privileged,
            stdio: streams()?,
            preserve_descriptors: 0,
        });
        let code = process.map(|process| wait(&process.pidfd));
        running.cgroup.kill()?;
        wait(&running.pidfd);
        running.cgroup.delete()?;
        return Ok(code?);
    }
    if let Some(master) = terminal {
        // EIO is a terminal's end of file.
        let mut output = Vec::new();
        let _ = File::from(master).read_to_end(&mut output);
        std::io::Write::write_all(&mut std::io::stdout(), &output)?;
    }
    let code = wait(&running.pidfd);
    running.cgroup.kill()?;
    running.cgroup.delete()?;
    Ok(code)
}

fn streams() -> Result<Stdio, std::io::Error> {
    let copy = |stream: &dyn AsFd| stream.as_fd().try_clone_to_owned();
    Ok(Stdio::Streams([copy(&std::io::stdin())?, copy(&std::io::stdout())?, copy(&std::io::stderr())?]))
}

fn wait(pidfd: &OwnedFd) -> u8 {
    let status = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
    let status = status.ok().flatten().expect("a child of ours can be waited for");
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
    u8::try_from(code.unwrap_or(255)).unwrap_or(255)
}
