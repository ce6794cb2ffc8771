//! The clients that dozen is tested with: the docker CLI, and a python with the docker SDK.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use crate::failure::{Attempt, Failure};
use crate::{host, images, packages, steps};

/// What the python has, from PyPI.
const PYTHON_PACKAGES: [&str; 1] = ["docker==7.1.0"];
/// Debian 12 has no package of the CLI alone; Debian 13's is taken where the machine has none.
const CLI_SUITE: &str = "trixie";

/// `cargo xtask clients NAME`.
pub fn verb(name: &str) -> Result<(), Failure> {
    packages::ensure("test")?;
    let path = match name {
        "python" => python()?,
        "docker" => docker()?,
        _ => return Err(Failure::new(format!("no client named '{name}'")).with_hint("there is: python, docker")),
    };
    println!("{}", path.display());
    Ok(())
}

/// A python interpreter with the docker SDK.
pub fn python() -> Result<PathBuf, Failure> {
    let directory = host::cache_directory()?.join(format!("clients/{}", PYTHON_PACKAGES.join("+")));
    let interpreter = directory.join("bin/python");
    let works =
        || Command::new(&interpreter).args(["-c", "import docker"]).output().is_ok_and(|done| done.status.success());
    if !works() {
        steps::step(format_args!("installing from PyPI, into {}: {}", directory.display(), PYTHON_PACKAGES.join(" ")));
        steps::run(Command::new("/usr/bin/python3").args(["-m", "venv", "--clear"]).arg(&directory))?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        steps::run(Command::new(&interpreter).args(pip).args(PYTHON_PACKAGES))?;
    }
    Ok(interpreter)
}

/// The docker CLI: the machine's own, else Debian 13's, unpacked apart from the host's system.
pub fn docker() -> Result<PathBuf, Failure> {
    match steps::on_path("docker") {
        Some(path) => Ok(path),
        None => debian_docker(),
    }
}

fn debian_docker() -> Result<PathBuf, Failure> {
    host::need_root("clients docker")?;
    let root = host::cache_directory()?.join(format!("clients/docker-cli-{CLI_SUITE}"));
    let wrapper = root.join("docker");
    if wrapper.is_file() {
        return Ok(wrapper);
    }
    steps::step(format_args!("no docker CLI on this machine: unpacking Debian 13's into {}", root.display()));
    if root.exists() {
        std::fs::remove_dir_all(&root).attempting(format_args!("remove {}", root.display()))?;
    }
    std::fs::create_dir_all(root.parent().expect("it lies in the cache")).attempting("make the clients' directory")?;
    images::unpack(CLI_SUITE, &["docker-cli"], &root)?;
    // It is linked with Debian 13's C library, which is newer than the host's.
    let script = "#!/bin/sh\nroot=$(dirname \"$(readlink -f \"$0\")\")\n\
                  exec \"$(echo \"$root\"/usr/lib/*/ld-linux-*.so.*)\" \
                  --library-path \"$(echo \"$root\"/usr/lib/*-linux-gnu)\" \"$root/usr/bin/docker\" \"$@\"\n";
    let new = root.join("docker.new");
    std::fs::write(&new, script).attempting("write the docker CLI's wrapper")?;
    std::fs::set_permissions(&new, PermissionsExt::from_mode(0o755)).attempting("make it executable")?;
    std::fs::rename(&new, &wrapper).attempting("rename it")?;
    Ok(wrapper)
}
