//! What the machine is booted as: the same disk, with other words to the kernel and to systemd. Pure.

/// Which cgroups systemd mounts (systemd(1), "Kernel Command Line").
#[derive(clap::ValueEnum, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Cgroups {
    /// Version 2 alone, as Debian has it.
    #[default]
    V2,
    /// The controllers in version 1, and a version 2 without any beside them.
    Hybrid,
    /// Version 1 alone.
    V1,
}

/// Which of the kernel's modules judges processes by their labels (kernel-parameters.txt, `security=`): there is one.
#[derive(clap::ValueEnum, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Security {
    /// As Debian has it.
    #[default]
    Apparmor,
    /// Without a policy, until a test loads one.
    Selinux,
}

/// One of the machines that the disk can be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Variant {
    pub cgroups: Cgroups,
    pub security: Security,
}

impl Variant {
    /// For the kernel's command line, which systemd reads too.
    pub fn kernel_options(self) -> impl Iterator<Item = &'static str> {
        let cgroups: &[&str] = match self.cgroups {
            Cgroups::V2 => &[],
            Cgroups::Hybrid => &["systemd.unified_cgroup_hierarchy=0"],
            Cgroups::V1 => &["systemd.unified_cgroup_hierarchy=0", "systemd.legacy_systemd_cgroup_controller=1"],
        };
        let security: &[&str] = match self.security {
            Security::Apparmor => &[],
            Security::Selinux => &["security=selinux"],
        };
        cgroups.iter().chain(security).copied()
    }
}
