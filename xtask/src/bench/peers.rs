//! The other engines and runtimes: Debian 13's packages, unpacked into a root of their own and never mixed into the
//! host, cached by the hash of this recipe.

use std::fs::File;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::failure::{Attempt, Failure};
use crate::{host, images, packages, steps};

/// docker.io 26.1 with BuildKit in it, podman 5.4, buildah 1.39, crun 1.21.
const SUITE: &str = "trixie";
/// Raised when [`finish`] does something else.
const RECIPE_VERSION: u32 = 1;
const PACKAGES: [&str; 16] = [
    "docker.io",
    "docker-cli",
    "docker-buildx",
    "docker-registry",
    "containerd",
    "runc",
    "podman",
    "buildah",
    "crun",
    "conmon",
    "netavark",
    "golang-github-containers-common",
    "iptables",
    "nftables",
    "iproute2",
    "strace",
];
/// The programs that packages would have installed as alternatives, which only their scripts do.
const ALTERNATIVES: [&str; 4] = ["iptables", "iptables-save", "ip6tables", "ip6tables-save"];
/// Where the bench's own files appear inside.
pub const BENCH_DIRECTORY: &str = "bench";

/// The root, made where the cache has none.
pub fn root() -> Result<PathBuf, Failure> {
    let directory = host::cache_directory()?.join("peers");
    std::fs::create_dir_all(&directory).attempting(format_args!("create {}", directory.display()))?;
    let recipe = format!("{RECIPE_VERSION} {SUITE} {} {}", host::debian_architecture()?, PACKAGES.join(" "));
    let hash: String = Sha256::digest(recipe).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let root = directory.join(&hash);
    if root.is_dir() {
        return Ok(root);
    }
    packages::ensure("images")?;
    // Two runs do not unpack at the same time; the lock ends with the process.
    let path = directory.join("lock");
    let lock = File::create(&path).attempting(format_args!("create {}", path.display()))?;
    lock.lock().attempting(format_args!("lock {}", path.display()))?;
    if root.is_dir() {
        return Ok(root);
    }
    steps::step(format_args!("unpacking the peers from Debian 13's packages into {}", root.display()));
    host::forget_roots(&directory)?;
    let new = directory.join(format!("{hash}.new"));
    images::unpack(SUITE, &PACKAGES, &new)?;
    finish(&new)?;
    std::fs::rename(&new, &root).attempting(format_args!("rename {}", new.display()))?;
    Ok(root)
}

/// What the packages' scripts would have done, as far as the engines need it, and the mount points of a cell.
fn finish(root: &Path) -> Result<(), Failure> {
    for name in ALTERNATIVES {
        // `iptables-save` of the nftables kind is called `iptables-nft-save`.
        let target = match name.split_once('-') {
            Some((family, verb)) => format!("{family}-nft-{verb}"),
            None => format!("{name}-nft"),
        };
        let link = root.join("usr/sbin").join(name);
        symlink(&target, &link).attempting(format_args!("link {}", link.display()))?;
    }
    // Debian's merged /usr is made by the script of a package too.
    for name in ["bin", "sbin", "lib", "lib64"].iter().filter(|name| root.join("usr").join(name).is_dir()) {
        let link = root.join(name);
        symlink(format!("usr/{name}"), &link).attempting(format_args!("link {}", link.display()))?;
    }
    for directory in [BENCH_DIRECTORY, "proc", "sys", "dev", "run", "tmp", "var", "etc"] {
        let path = root.join(directory);
        std::fs::create_dir_all(&path).attempting(format_args!("create {}", path.display()))?;
    }
    let files = [
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"),
        ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
        ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
        ("etc/resolv.conf", ""),
    ];
    for (name, text) in files {
        let path = root.join(name);
        std::fs::write(&path, text).attempting(format_args!("write {}", path.display()))?;
    }
    Ok(())
}
