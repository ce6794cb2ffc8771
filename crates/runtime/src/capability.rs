//! Capabilities: names, sets as bits, and giving them up (capabilities(7)).

use oci_spec::runtime::{Capabilities, LinuxCapabilities};
use rustix::io::Errno;

use crate::sys;

/// In the order of their numbers (linux/capability.h).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// All that have a name here.
pub(crate) const ALL: u64 = (1 << NAMES.len()) - 1;

/// The set of a single capability, by name without `CAP_`.
pub(crate) fn bit(name: &str) -> Option<u64> {
    NAMES.iter().position(|known| *known == name).map(|number| 1 << number)
}

/// The names of a set, without `CAP_`.
pub(crate) fn names(set: u64) -> impl Iterator<Item = &'static str> {
    NAMES.iter().enumerate().filter(move |(number, _)| set & (1 << number) != 0).map(|(_, name)| *name)
}

/// The five sets of a process, as bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CapabilitySets {
    pub(crate) bounding: u64,
    pub(crate) effective: u64,
    pub(crate) permitted: u64,
    pub(crate) inheritable: u64,
    pub(crate) ambient: u64,
}

impl CapabilitySets {
    /// As a spec says. One without capabilities gets none (OCI runtime-spec, config.md, "process.capabilities").
    pub(crate) fn from_spec(spec: Option<&LinuxCapabilities>) -> Self {
        let bits = |set: &Option<Capabilities>| {
            let names = set.iter().flatten().map(ToString::to_string);
            names.filter_map(|name| bit(name.strip_prefix("CAP_").unwrap_or(&name))).fold(0, |all, one| all | one)
        };
        spec.map_or_else(Self::default, |spec| Self {
            bounding: bits(spec.bounding()),
            effective: bits(spec.effective()),
            permitted: bits(spec.permitted()),
            inheritable: bits(spec.inheritable()),
            ambient: bits(spec.ambient()),
        })
    }

    /// Docker's way with a user other than root: what execve(2) would leave, before execve.
    pub(crate) fn for_user(self, uid: u32) -> Self {
        if uid == 0 { self } else { Self { effective: self.ambient, permitted: self.ambient, ..self } }
    }

    /// Without what the kernel would not grant: what we do not have ourselves and so cannot hand on, and what a set may
    /// hold only if others do (capabilities(7), "Programmatically adjusting capability sets"). A runtime should not fail
    /// for it (runtime-spec, config.md, "process.capabilities").
    pub(crate) fn within(self, ours: u64) -> Self {
        let (bounding, permitted) = (self.bounding & ours, self.permitted & ours);
        let inheritable = self.inheritable & bounding;
        Self {
            bounding,
            effective: self.effective & permitted,
            permitted,
            inheritable,
            ambient: self.ambient & permitted & inheritable,
        }
    }

    /// What this has in any set, and the other has not in the same.
    pub(crate) fn beyond(self, other: Self) -> u64 {
        self.bounding & !other.bounding
            | self.effective & !other.effective
            | self.permitted & !other.permitted
            | self.inheritable & !other.inheritable
            | self.ambient & !other.ambient
    }
}

/// Shrinks the bounding set. Needs CAP_SETPCAP; a number that the kernel does not know ends the list.
pub(crate) fn drop_bounding(keep: u64) -> Result<(), Errno> {
    for number in 0..64 {
        if keep & (1 << number) != 0 {
            continue;
        }
        match sys::prctl(libc::PR_CAPBSET_DROP, number, 0) {
            Err(Errno::INVAL) => break,
            result => result?,
        };
    }
    Ok(())
}

/// Sets the four other sets. After this there is no way back.
pub(crate) fn set(sets: &CapabilitySets) -> Result<(), Errno> {
    sys::capset(sets.effective, sets.permitted, sets.inheritable)?;
    sys::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0)?;
    for number in (0..64).filter(|number| sets.ambient & (1 << number) != 0) {
        sys::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, number)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_kernels() {
        for (name, number) in
            [("CHOWN", 0), ("NET_RAW", 13), ("SYS_ADMIN", 21), ("SETFCAP", 31), ("CHECKPOINT_RESTORE", 40)]
        {
            assert_eq!(bit(name), Some(1 << number), "{name}");
        }
        assert_eq!(names(0x11).collect::<Vec<_>>(), ["CHOWN", "FSETID"]);
        assert_eq!(names(ALL).count(), 41);
    }

    #[test]
    fn sets_of_a_spec() {
        let spec: LinuxCapabilities = serde_json::from_str(
            r#"{"bounding": ["CAP_CHOWN", "CAP_KILL"], "effective": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"]}"#,
        )
        .unwrap();
        let sets = CapabilitySets::from_spec(Some(&spec));
        assert_eq!((sets.bounding, sets.effective, sets.permitted, sets.ambient), (0x21, 1, 1, 0));
        let user = sets.for_user(1000);
        assert_eq!((user.bounding, user.effective, user.permitted), (0x21, 0, 0));
        assert_eq!(sets.within(0x20).effective, 0);
        assert_eq!(sets.beyond(sets.within(ALL)), 0);
        assert_eq!(sets.beyond(sets.within(0x20)), 1);
        // Each set within those that it must be within.
        let odd = CapabilitySets { bounding: 1, effective: 3, permitted: 1, inheritable: 5, ambient: 9 };
        let granted = CapabilitySets { bounding: 1, effective: 1, permitted: 1, inheritable: 1, ambient: 1 };
        assert_eq!((odd.within(ALL), odd.beyond(granted)), (granted, 2 | 4 | 8));
        assert_eq!(CapabilitySets::from_spec(None), CapabilitySets::default());
    }
}
