//! `cargo xtask vm`: the end-to-end tests on the machine that most users have: Debian's kernel, systemd as process 1,
//! cgroup v2 alone.
//!
//! ```text
//! first disk    Debian and its cloud kernel, cached by the hash of its recipe; what is written to it is thrown away
//! second disk   dozen, the tests, clients and images of this run, read-only, at /payload
//! serial ports  the kernel's and systemd's talk goes to a log; the tests' output comes here, the result on its last line
//! ```

mod disks;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::failure::{Attempt, Failure};
use crate::{clients, host, images, packages, processes, steps};

/// From power on to power off. Emulated, a test takes some twenty times as long as on the host.
const PATIENCE: Duration = Duration::from_secs(40 * 60);
/// What the machine says last, before the tests' exit code.
const RESULT: &str = "dozen-vm-result ";

/// Builds what is missing, boots, runs the tests and passes their verdict on.
pub fn verb(kvm: bool, filter: Option<&str>) -> Result<(), Failure> {
    host::need_root("vm")?;
    packages::ensure("vm")?;
    packages::ensure("images")?;
    let system = disks::system()?;
    let scratch = tempfile::tempdir_in(host::cache_directory()?).attempting("make a scratch directory")?;
    let payload = disks::payload(scratch.path(), &payload()?, filter)?;
    let log = host::cache_directory()?.join("vm.log");
    let tests = scratch.path().join("tests");

    steps::step(format_args!("booting the virtual machine; its console's log is {}", log.display()));
    let begun = Instant::now();
    let verdict = boot(&system, &payload, kvm, &log, &tests)?;
    steps::step(format_args!("the machine has powered off after {} s", begun.elapsed().as_secs()));
    match verdict {
        Some(0) => Ok(()),
        Some(code) => Err(Failure::new(format!("tests failed in the virtual machine (exit code {code})"))),
        None => Err(Failure::new("the virtual machine ended before its tests did")
            .with_hint(format!("its console's log is {}", log.display()))),
    }
}

/// What goes onto the second disk: a name there, and where it is here.
fn payload() -> Result<Vec<(String, PathBuf)>, Failure> {
    let mut files = vec![("dozen".to_owned(), steps::build_dozen()?)];
    for archive in images::ensure(&images::USUAL, false)? {
        let name = archive.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        files.push((format!("images/{name}"), archive));
    }
    let python = clients::python()?;
    let environment = python.parent().and_then(Path::parent).expect("bin/python lies in an environment");
    files.push(("python".to_owned(), environment.to_owned()));
    let docker = clients::docker()?;
    // Debian 13's lies in a directory with its libraries; the host's own is one program.
    let unpacked =
        docker.parent().filter(|root| root.join("usr/bin/docker").is_file() && root.join("docker").is_file());
    match unpacked {
        Some(root) => files.push(("docker-cli".to_owned(), root.to_owned())),
        None => files.push(("docker-cli/docker".to_owned(), docker)),
    }
    steps::step("building the end-to-end tests");
    let mut build = steps::cargo();
    build.args(["test", "--package", "dozen-testbox", "--no-run", "--message-format", "json-render-diagnostics"]);
    let output = build.stdin(Stdio::null()).stderr(Stdio::inherit()).output().attempting("run cargo test --no-run")?;
    let tests = steps::executables(&output.stdout, |message| message["profile"]["test"] == true);
    if !output.status.success() || tests.is_empty() {
        return Err(Failure::new("the end-to-end tests do not build: the compiler's messages are above"));
    }
    for test in tests {
        let name = test.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        files.push((format!("tests/{name}"), test.clone()));
    }
    Ok(files)
}

fn boot(system: &disks::System, payload: &Path, kvm: bool, log: &Path, tests: &Path) -> Result<Option<i32>, Failure> {
    // A named pipe, because qemu opens its serial ports by path.
    steps::run(Command::new("mkfifo").arg(tests))?;
    let architecture = host::debian_architecture()?;
    if architecture != "amd64" {
        return Err(Failure::new(format!("the virtual machine is not built yet for {architecture}")));
    }
    let mut command = Command::new("qemu-system-x86_64");
    let accelerator = if kvm { "kvm" } else { "tcg" };
    let drive = |path: &Path| format!("file={},format=raw,if=virtio,cache=unsafe", path.display());
    command.args(["-machine", &format!("q35,accel={accelerator}"), "-cpu", "max", "-smp", "2", "-m", "2048"]);
    command.args(["-nodefaults", "-display", "none", "-no-reboot", "-snapshot"]);
    command.arg("-kernel").arg(&system.kernel).arg("-initrd").arg(&system.initrd);
    command.args(["-append", "root=/dev/vda rw console=ttyS0 panic=-1 systemd.show_status=1"]);
    command.args(["-drive", &drive(&system.disk), "-drive", &drive(payload)]);
    command.args(["-device", "virtio-rng-pci"]);
    command.args(["-serial", &format!("file:{}", log.display()), "-chardev"]);
    // The pipe is opened from both ends at once here: a reader alone would wait for qemu for ever if qemu fails.
    command.args([&format!("file,id=tests,path={}", tests.display()), "-serial", "chardev:tests"]);
    let reader = File::options().read(true).write(true).open(tests).attempting("open the tests' serial port")?;
    let mut child = command.stdin(Stdio::null()).spawn().attempting("run qemu-system-x86_64")?;

    let (send, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(reader).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    let deadline = Instant::now() + PATIENCE;
    let mut verdict = None;
    loop {
        match lines.recv_timeout(Duration::from_millis(200)) {
            Ok(line) => match line.trim_end().strip_prefix(RESULT) {
                Some(code) => verdict = code.parse().ok(),
                None => eprintln!("    {}", line.trim_end()),
            },
            Err(_) if child.try_wait().attempting("look after qemu")?.is_some() => return Ok(verdict),
            Err(_) if Instant::now() > deadline => {
                processes::end(child.id() as i32, Duration::from_secs(5))?;
                child.wait().attempting("wait for qemu")?;
                return Err(Failure::new(format!("the virtual machine was not done after {} s", PATIENCE.as_secs())));
            }
            Err(_) => {}
        }
    }
}
