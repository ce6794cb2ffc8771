//! The machine itself: qemu, and what comes out of its serial ports.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::disks::System;
use super::variant::Variant;
use crate::failure::{Attempt, Failure};
use crate::{host, processes, steps};

/// Debian's kernel as it is, but for what only costs time on an emulated processor (kernel-parameters.txt). Its time stamp
/// counters are the host's, so they agree, which the kernel cannot find out there: it would read the clock from a device
/// instead, thousands of times a second, with the whole machine stopped. Its tests of its own ciphers have been seen to hang.
const KERNEL_OPTIONS: &str = "root=/dev/vda rw console=ttyS0 panic=-1 systemd.show_status=error mitigations=off \
                              tsc=reliable clocksource=tsc init_on_alloc=0 cryptomgr.notests";

/// A machine that is to be booted.
pub struct Machine<'a> {
    pub system: &'a System,
    pub payload: &'a Path,
    pub variant: Variant,
    pub kvm: bool,
    /// Where the console's talk goes.
    pub log: PathBuf,
}

impl Machine<'_> {
    /// Boots it and gives every line of the tests' serial port to `take`, until it has powered off. Removes the
    /// scratch directory as soon as qemu has opened what lies there.
    pub fn run(&self, scratch: TempDir, patience: Duration, mut take: impl FnMut(&str)) -> Result<(), Failure> {
        // A named pipe, because qemu opens its serial ports by path.
        let tests = scratch.path().join("tests");
        let mut scratch = Some(scratch);
        steps::run(Command::new("mkfifo").arg(&tests))?;
        let mut command = self.qemu(&format!("file,id=tests,path={}", tests.display()))?;
        // The pipe is opened from both ends at once here: a reader alone would wait for qemu for ever if qemu fails.
        let reader = File::options().read(true).write(true).open(&tests).attempting("open the tests' serial port")?;
        let mut child = command.stdin(Stdio::null()).spawn().attempting("run qemu-system-x86_64")?;
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
                if send.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                    return;
                }
            }
        });
        let deadline = Instant::now() + patience;
        let mut ended = false;
        loop {
            match lines.recv_timeout(Duration::from_millis(200)) {
                Ok(line) => {
                    drop(scratch.take());
                    take(&line);
                }
                // The pipe is empty, and was so before this last look at it.
                Err(_) if ended => return Ok(()),
                Err(_) => ended = child.try_wait().attempting("look after qemu")?.is_some(),
            }
            if Instant::now() > deadline && !ended {
                processes::end(child.id() as i32, Duration::from_secs(5))?;
                child.wait().attempting("wait for qemu")?;
                let limit = patience.as_secs() / 60;
                return Err(Failure::new(format!("the virtual machine was not done after {limit} min"))
                    .with_hint("--minutes gives it longer; its tests' last words are above"));
            }
        }
    }

    /// Boots it with the tests' serial port on this terminal.
    pub fn talk(&self) -> Result<(), Failure> {
        let mut command = self.qemu("stdio,id=tests,signal=off")?;
        let status = command.status().attempting("run qemu-system-x86_64")?;
        if status.success() { Ok(()) } else { Err(Failure::new(format!("qemu-system-x86_64 failed ({status})"))) }
    }

    fn qemu(&self, tests: &str) -> Result<Command, Failure> {
        let architecture = host::debian_architecture()?;
        if architecture != "amd64" {
            return Err(Failure::new(format!("the virtual machine is not built yet for {architecture}")));
        }
        // It ends with us, whatever ends us (PR_SET_PDEATHSIG(2const)).
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
        let accelerator = if self.kvm { "kvm" } else { "tcg" };
        let drive = |path: &Path| format!("file={},format=raw,if=virtio,cache=unsafe", path.display());
        command.args(["-machine", &format!("q35,accel={accelerator}"), "-cpu", "max", "-smp", "2", "-m", "3072"]);
        command.args(["-nodefaults", "-display", "none", "-snapshot"]);
        command.arg("-kernel").arg(&self.system.kernel).arg("-initrd").arg(&self.system.initrd);
        let options: Vec<&str> = [KERNEL_OPTIONS].into_iter().chain(self.variant.kernel_options()).collect();
        command.arg("-append").arg(options.join(" "));
        command.args(["-drive", &drive(&self.system.disk), "-drive", &drive(self.payload)]);
        command.args(["-device", "virtio-rng-pci"]);
        command.args(["-serial", &format!("file:{}", self.log.display()), "-chardev", tests]);
        command.args(["-serial", "chardev:tests"]);
        Ok(command)
    }
}
