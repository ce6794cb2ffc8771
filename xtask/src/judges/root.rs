//! The judges' root: Debian 13's runtimes and engines installed, the sources of the suites beside them with their helpers
//! built, cached by the hash of this recipe. The sources come by apt, which checks them, and are no part of the tree.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::failure::{Attempt, Failure};
use crate::{host, images, steps};

/// crun 1.21, runc 1.1.15, docker.io 26.1 with BuildKit in it, podman 5.4, containerd 1.7, buildah 1.39.
const SUITE: &str = "trixie";
const PREPARE: &str = include_str!("prepare.sh");
const PACKAGES: [&str; 35] = [
    // Who is compared, and who runs containers by us.
    "crun",
    "runc",
    "docker.io",
    "docker-cli",
    "docker-buildx",
    "buildah",
    "containerd",
    "podman",
    "conmon",
    "catatonit",
    "netavark",
    "golang-github-containers-common",
    "iptables",
    "nftables",
    // What the suites need.
    "bats",
    "bsdutils",
    "jq",
    "gawk",
    "python3",
    "gcc",
    "libc6-dev",
    "libseccomp-dev",
    "pkgconf",
    "dpkg-dev",
    "xz-utils",
    "bzip2",
    "zstd",
    "procps",
    "psmisc",
    "iproute2",
    "util-linux",
    "kmod",
    "attr",
    "ca-certificates",
    "uidmap",
];
/// The suites' images, and ours that take their place.
const IMAGES: [(&str, &str); 2] = [("busybox", "busybox.tar"), ("debian:bookworm-slim", "debian.tar")];

/// The root, made where the cache has none.
pub fn root() -> Result<PathBuf, Failure> {
    let directory = host::cache_directory()?.join("judges");
    std::fs::create_dir_all(&directory).attempting(format_args!("create {}", directory.display()))?;
    let recipe = format!("{SUITE} {} {} {PREPARE}", host::debian_architecture()?, PACKAGES.join(" "));
    let hash: String = Sha256::digest(recipe).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let root = directory.join(&hash);
    if root.is_dir() {
        return Ok(root);
    }
    // Two runs do not make it at the same time; the lock ends with the process.
    let path = directory.join("root.lock");
    let lock = File::create(&path).attempting(format_args!("create {}", path.display()))?;
    lock.lock().attempting(format_args!("lock {}", path.display()))?;
    if root.is_dir() {
        return Ok(root);
    }
    steps::step(format_args!("making the judges' root from Debian 13's packages and sources in {}", root.display()));
    host::forget_roots(&directory)?;
    let scratch = tempfile::tempdir_in(&directory).attempting("make a scratch directory")?;
    let script = scratch.path().join("script");
    std::fs::write(scratch.path().join("prepare.sh"), PREPARE).attempting("write a script")?;
    let text = format!(
        "#!/bin/sh\nset -eu\ncp '{}' \"$1/prepare.sh\"\nchroot \"$1\" sh -eu /prepare.sh\nrm \"$1/prepare.sh\"\n",
        scratch.path().join("prepare.sh").display()
    );
    std::fs::write(&script, text).attempting("write a script")?;
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).attempting("make a script executable")?;
    let new = scratch.path().join("root");
    images::install_other(SUITE, &PACKAGES, &script, &new)?;
    for (name, file) in IMAGES {
        let archive = images::ensure(&[name], false)?.remove(0);
        take_layer(&archive, &new.join("src/images").join(file))?;
    }
    std::fs::rename(&new, &root).attempting(format_args!("rename {}", new.display()))?;
    Ok(root)
}

/// An archive of ours has one layer, a compressed tar: the root file system as it is.
fn take_layer(archive: &Path, target: &Path) -> Result<(), Failure> {
    let context = || format!("read {}", archive.display());
    let file = File::open(archive).attempting(context())?;
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries().attempting(context())? {
        let mut entry = entry.attempting(context())?;
        let mut magic = [0; 2];
        let is_blob = entry.path().is_ok_and(|path| path.starts_with("blobs"));
        // RFC 1952, 2.3.1.
        if is_blob && entry.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b] {
            let mut out = File::create(target).attempting(format_args!("create {}", target.display()))?;
            std::io::copy(&mut magic.as_slice().chain(entry), &mut out)
                .attempting(format_args!("write {}", target.display()))?;
            return Ok(());
        }
    }
    Err(Failure::new(format!("no layer in {}", target.display())))
}
