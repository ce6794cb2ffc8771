//! A test in whose middle the machine goes down: it is called again after each boot, and goes on where it stands.
//!
//! The runner of `cargo xtask vm` plays such tests (`vm_only_reboot_…`) alone, after all others. It says which boot of the
//! test it is, and a machine that goes down without having been meant to fails it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use dozen_testbox::until;

/// What the runner says: which boot it is, and where something can be kept through all of them.
pub struct Boots {
    number: u32,
    directory: PathBuf,
}

impl Boots {
    pub fn here() -> Self {
        let said = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not said: cargo xtask vm"));
        Self { number: said("DOZEN_TEST_BOOT").parse().unwrap(), directory: said("DOZEN_TEST_KEPT").into() }
    }

    /// From 1 on.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// A file that outlives the boot, once it is synced.
    pub fn kept(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Says that the machine is to go down from now on. Syncs the disk, so that whoever is about to see what a power cut
    /// takes away says it first.
    pub fn is_to_go_down(&self) -> GoingDown {
        File::create(self.kept("goes-down")).unwrap();
        rustix::fs::sync();
        GoingDown(())
    }
}

/// The machine is to go down.
pub struct GoingDown(());

impl GoingDown {
    /// As an administrator does it.
    pub fn reboot(self) -> ! {
        let asked = Command::new("systemctl").args(["reboot", "--no-block"]).status().unwrap();
        assert!(asked.success());
        // Ended like everybody else.
        until("the machine goes down", || None)
    }

    /// At this very moment; nothing is written any more (kernel: admin-guide/sysrq.rst, `b`).
    pub fn cut_power(self) -> ! {
        std::fs::write(Path::new("/proc/sysrq-trigger"), "b").unwrap();
        until("the machine goes down", || None)
    }
}
