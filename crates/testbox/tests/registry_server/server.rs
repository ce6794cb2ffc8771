//! `dozen registry serve` on a machine, and curl to speak to it as no client would.

use std::path::PathBuf;
use std::process::Child;

use dozen_testbox::{Done, Machine, dozen_program, image_archive, until};
use rustix::process::{Pid, Signal, kill_process};

pub const HOST: &str = "127.0.0.1:5000";

pub struct Server<'a> {
    machine: &'a Machine,
    process: Child,
    log: PathBuf,
}

pub fn root(machine: &Machine) -> PathBuf {
    machine.directory().join("registry")
}

impl<'a> Server<'a> {
    pub fn start(machine: &'a Machine, arguments: &[&str]) -> Self {
        Self::with(machine, arguments, &[])
    }

    /// With further variables in its environment.
    pub fn with(machine: &'a Machine, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut server = Self::begun(machine, arguments, variables);
        until("the registry listens", || {
            let said = server.said();
            assert!(!server.is_over(), "the registry has ended: {said}");
            said.contains("listening on").then_some(())
        });
        server
    }

    /// One that ends before it listens.
    pub fn until_over(machine: &'a Machine, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut server = Self::begun(machine, arguments, variables);
        until("the registry has ended", || server.is_over().then_some(()));
        server
    }

    /// Another one, with a directory of its own.
    pub fn beside(machine: &'a Machine, name: &str, arguments: &[&str]) -> Self {
        let root = machine.directory().join(name);
        let arguments = [&["--root", root.to_str().unwrap()], arguments].concat();
        let server = Self::logging(machine, name, &arguments, &[]);
        until("the other registry listens", || server.said().contains("listening on").then_some(()));
        server
    }

    fn begun(machine: &'a Machine, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::logging(machine, "registry", arguments, variables)
    }

    fn logging(machine: &'a Machine, name: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = machine.command(dozen_program());
        command.args(["registry", "serve"]).args(arguments).envs(variables.iter().copied());
        command.env("DOZEN_REGISTRY_ROOT", root(machine)).env("DOZEN_FAILPOINTS", failpoints(machine));
        let log = machine.directory().join(format!("{name}.log"));
        let file = std::fs::File::create(&log).unwrap();
        command.stdout(file.try_clone().unwrap()).stderr(file);
        let process = command.spawn().unwrap();
        Self { machine, process, log }
    }

    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.process.id().cast_signed()).unwrap(), signal).unwrap();
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Waits for its end: whether it ended in order.
    pub fn ended(mut self) -> bool {
        self.process.wait().unwrap().success()
    }

    pub fn is_over(&mut self) -> bool {
        self.process.try_wait().unwrap().is_some()
    }

    /// Puts a test image there.
    pub fn push(&self, image: &str, name: &str) -> Done {
        push(self.machine, image, name)
    }

    /// Takes an image from there.
    pub fn pull(&self, name: &str) -> Done {
        let (from, to) = (format!("docker://{HOST}/{name}"), self.machine.directory().join("pulled"));
        let to = format!("dir:{}", to.display());
        self.machine.run("skopeo", &["--insecure-policy", "copy", "--src-tls-verify=false", "-q", &from, &to])
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("-- registry.log\n{}", self.said());
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Files of this directory kill the server where they say.
pub fn failpoints(machine: &Machine) -> PathBuf {
    let directory = machine.directory().join("failpoints");
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

pub fn push(machine: &Machine, image: &str, name: &str) -> Done {
    push_to(machine, HOST, image, name)
}

pub fn push_to(machine: &Machine, host: &str, image: &str, name: &str) -> Done {
    let source = format!("oci-archive:{}", image_archive(image).display());
    let target = format!("docker://{host}/{name}");
    machine.run("skopeo", &["--insecure-policy", "copy", "--dest-tls-verify=false", "-q", &source, &target])
}

pub fn curl(machine: &Machine, arguments: &[&str]) -> Done {
    machine.run("curl", &[&["--silent", "--show-error", "--include"][..], arguments].concat())
}

/// Reads all that the registry keeps, while nobody serves it.
pub fn check(machine: &Machine) -> Done {
    let root = root(machine);
    machine.run(dozen_program(), &["registry", "check", "--root", root.to_str().unwrap()])
}
