//! The virtual machine's disks: ext4 images filled by mke2fs, so that nothing has to be mounted.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use crate::failure::{Attempt, Failure};
use crate::{host, images, steps};

/// Debian packages of the machine. The kernel is Debian's smallest: without drivers of real hardware.
const PACKAGES: [&str; 24] = [
    "linux-image-cloud-amd64",
    "initramfs-tools",
    "systemd",
    "systemd-sysv",
    "dbus",
    "kmod",
    "udev",
    "procps",
    "iproute2",
    "nftables",
    "python3",
    "ca-certificates",
    // The judges of the runtime and of archives, and what they judge with.
    "busybox-static",
    "crun",
    "runc",
    "skopeo",
    "umoci",
    // Builds from repositories; it serves them, too.
    "git",
    // What loads profiles of AppArmor, and what makes a policy of SELinux's: the tests have their own.
    "apparmor",
    "checkpolicy",
    // A ledger that cannot be written, and a disk that turns read-only.
    "strace",
    "e2fsprogs",
    // Disks whose files share blocks.
    "xfsprogs",
    "btrfs-progs",
];

/// What is done after the packages, with the root file system as `$1`.
const SCRIPT: &str = r#"#!/bin/sh
set -eu
cd "$1"
echo dozen-vm >etc/hostname
printf '%s\n' '127.0.0.1 localhost dozen-vm' '::1 localhost' >etc/hosts
: >etc/resolv.conf
printf '%s\n' '/dev/vda / ext4 defaults 0 1' '/dev/vdb /payload ext4 ro 0 0' >etc/fstab
mkdir -p payload
cat >etc/systemd/system/dozen-tests.service <<'END'
[Unit]
Description=The end-to-end tests of dozen
RequiresMountsFor=/payload
After=multi-user.target
[Service]
Type=oneshot
Delegate=yes
ExecStart=/payload/run
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS1
# Nothing is written that is kept, so nothing has to be stopped in order, unless that is what is tested.
ExecStopPost=/bin/sh -c 'test -e /var/lib/dozen-vm/goes-down || exec systemctl --no-block --force --force poweroff'
TimeoutStartSec=infinity
END
mkdir -p etc/systemd/system/multi-user.target.wants etc/systemd/system.conf.d
ln -sf ../dozen-tests.service etc/systemd/system/multi-user.target.wants/dozen-tests.service
# Nobody is there to be asked, and nothing is to run beside the tests.
for unit in getty@.service serial-getty@.service apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer \
    fstrim.timer systemd-timesyncd.service systemd-networkd-wait-online.service apparmor.service; do
    ln -sf /dev/null "etc/systemd/system/$unit"
done
"#;

/// How large the machine's disk is; what is not written takes no room.
const SYSTEM_SIZE: &str = "4G";

/// The first disk, and what it is booted with.
pub struct System {
    /// An ext4 file system.
    pub disk: PathBuf,
    /// Debian's kernel.
    pub kernel: PathBuf,
    /// Its first root, with the drivers of the disks.
    pub initrd: PathBuf,
}

/// Makes the machine, or takes it from the cache.
pub fn system() -> Result<System, Failure> {
    let directory = host::cache_directory()?.join("vm");
    let recipe = format!("1\n{}\n{SCRIPT}\n{SYSTEM_SIZE}", PACKAGES.join(" "));
    let hash: String = Sha256::digest(recipe).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let place = directory.join(&hash);
    let system = System { disk: place.join("disk"), kernel: place.join("vmlinuz"), initrd: place.join("initrd") };
    std::fs::create_dir_all(&directory).attempting(format_args!("create {}", directory.display()))?;
    // One builds it, and nobody takes it from under another's hands.
    let lock = File::create(directory.join("lock")).attempting("make a lock for the machine")?;
    lock.lock().attempting("wait for whoever builds the machine")?;
    if place.is_dir() {
        return Ok(system);
    }
    steps::step("building the virtual machine from Debian's packages");
    for entry in std::fs::read_dir(&directory).attempting("look for older machines")?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            std::fs::remove_dir_all(entry.path()).attempting("remove the older machine")?;
        }
    }
    let scratch = tempfile::tempdir_in(&directory).attempting("make a scratch directory")?;
    let script = scratch.path().join("script");
    std::fs::write(&script, SCRIPT).attempting("write a script")?;
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).attempting("make a script executable")?;
    let (root, made) = (scratch.path().join("root"), scratch.path().join("made"));
    images::install(&PACKAGES, &script, &root)?;
    std::fs::create_dir(&made).attempting("make a directory")?;
    for (prefix, name) in [("vmlinuz-", "vmlinuz"), ("initrd.img-", "initrd")] {
        let entries = std::fs::read_dir(root.join("boot")).attempting("read the machine's /boot")?.flatten();
        let found = entries
            .map(|e| e.path())
            .find(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(prefix)));
        let path = found.ok_or_else(|| Failure::new(format!("the kernel's package brought no {prefix}*")))?;
        std::fs::copy(&path, made.join(name)).attempting(format_args!("copy {}", path.display()))?;
    }
    ext4(&made.join("disk"), &root, SYSTEM_SIZE)?;
    std::fs::rename(&made, &place).attempting("put the machine into the cache")?;
    Ok(system)
}

/// Makes an ext4 file system of a directory's files.
pub fn ext4(disk: &Path, root: &Path, size: &str) -> Result<(), Failure> {
    let mut command = Command::new("mke2fs");
    command.args(["-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=1,root_owner=0:0", "-d"]).arg(root).arg(disk);
    steps::capture(command.arg(size)).map(|_| ())
}
