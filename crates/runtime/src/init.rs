//! dozen's own init (`--init`): process 1 that reaps orphans, forwards signals, and ends as its child does.
//!
//! It is this binary, executed from a descriptor (`own_binary`) as `dozen-init runtime init PROGRAM NAME ARGUMENT…`
//! when the container is all set up, seccomp and capabilities included.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use rustix::io::Errno;

use crate::sys;

/// What the shell says of a program that cannot be executed.
const CANNOT_EXECUTE: u8 = 126;

/// The command line of an init for this program.
pub(crate) fn arguments(program: CString, arguments: &[CString]) -> Vec<CString> {
    [c"dozen-init", c"runtime", c"init"]
        .into_iter()
        .map(CString::from)
        .chain([program])
        .chain(arguments.iter().cloned())
        .collect()
}

/// Runs as process 1: `arguments` are the program's path, its name, and its arguments.
pub(crate) fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.map(|argument| CString::new(argument.into_vec()).unwrap_or_default());
    let Some(program) = arguments.next() else { return ExitCode::from(CANNOT_EXECUTE) };
    let arguments: Vec<CString> = arguments.collect();
    // All signals wait until we ask for them, from before there is a child on.
    // SAFETY: sigset_t is plain data that sigfillset fills.
    let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: a valid set, and no old one wanted.
    unsafe {
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
    }
    // The container's filter is in force already, and Docker's knows no clone3(2): fork it is.
    // SAFETY: this process has one thread.
    let child = match unsafe { libc::fork() } {
        0 => become_program(&program, &arguments),
        -1 => return ExitCode::from(CANNOT_EXECUTE),
        child => child,
    };
    loop {
        let mut signal = 0;
        // SAFETY: a valid set and a place for the answer.
        if unsafe { libc::sigwait(&raw const all, &raw mut signal) } != 0 {
            continue;
        }
        if signal == libc::SIGCHLD {
            if let Some(code) = reap(child) {
                return ExitCode::from(code);
            }
        } else {
            // SAFETY: plain integers. The child is ours and not reaped, so the number is still its.
            unsafe { libc::kill(child, signal) };
        }
    }
}

/// In the child: a process group of its own, in the foreground if there is a terminal, then the program.
fn become_program(program: &CString, arguments: &[CString]) -> ! {
    // SAFETY: plain integers. SIGTTOU is still blocked, as tcsetpgrp from the background needs.
    unsafe {
        libc::setpgid(0, 0);
        libc::tcsetpgrp(0, libc::getpgrp());
    }
    sys::reset_signals();
    let environment: Vec<CString> = std::env::vars_os()
        .map(|(name, value)| match name == "LISTEN_PID" && value == "1" {
            // Sockets that are handed on to process 1 are for whom it is there (sd_listen_fds(3)).
            true => (name, std::process::id().to_string().into()),
            false => (name, value),
        })
        .filter_map(|(name, value)| CString::new([name.into_vec(), value.into_vec()].join(&b'=')).ok())
        .collect();
    let errno = sys::execve(program, arguments, &environment);
    let code = if errno == Errno::NOENT { 127 } else { CANNOT_EXECUTE };
    // SAFETY: nothing of ours is left to be cleaned up.
    unsafe { libc::_exit(i32::from(code)) }
}

/// Reaps all that have ended; the child's exit code if it is among them.
fn reap(child: i32) -> Option<u8> {
    let mut code = None;
    loop {
        let mut status = 0;
        // SAFETY: a place for the status.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        if pid <= 0 {
            return code;
        }
        if pid == child {
            let ended = if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) };
            code = Some(ended as u8);
        }
    }
}
