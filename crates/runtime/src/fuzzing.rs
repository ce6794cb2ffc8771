//! Ways in for the fuzzers (`fuzz/`), and the test that runs what they have found again.
//!
//! Each takes any bytes and asserts what must hold whatever they are.

use std::path::{Component, Path};

use crate::Spec;
use crate::plan::Plan;
use crate::user::decide;

/// A spec as the standard command line reads it, planned: what is accepted leads nowhere but into the root.
pub fn spec(data: &[u8]) {
    let Ok(spec) = serde_json::from_slice::<Spec>(data) else { return };
    let rules =
        spec.linux().as_ref().and_then(|linux| linux.resources().as_ref()).and_then(|all| all.devices().clone());
    let _ = crate::device_filter::compile(&rules.unwrap_or_default());
    if let Some(seccomp) = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref()) {
        let _ = crate::seccomp::compile(seccomp);
    }
    let Ok(plan) = Plan::new(&spec, Path::new("/bundle"), None, false) else { return };
    let targets = plan.mounts.iter().map(|mount| &mount.target);
    for path in targets.chain(&plan.masked_paths).chain(&plan.readonly_paths) {
        let normal = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
        assert!(path.is_absolute() && path.components().all(normal), "{path:?}");
    }
    for (path, _) in &plan.sysctls {
        assert!(!path.split('/').any(|part| part == ".."), "{path:?}");
    }
}

/// A seccomp profile as `--security-opt seccomp=FILE` brings it.
pub fn seccomp(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = crate::check_profile(text);
    }
}

/// Who is asked for, /etc/passwd and /etc/group, with RS bytes (0x1e) between them.
pub fn user(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut parts = text.split('\u{1e}');
    let (asked, passwd, group) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let Ok(asked) = asked.parse() else { return };
    if let Ok(identity) = decide(&asked, passwd, group) {
        // To the kernel this number means that an id stays what it is: root's (setresuid(2)).
        assert!(!identity.groups.contains(&u32::MAX) && identity.uid != u32::MAX, "{identity:?}");
        assert_eq!(identity.groups.first(), Some(&identity.gid));
    }
}

#[cfg(test)]
mod tests {
    include!("../../../fuzz/replay.rs");

    #[test]
    fn specs() {
        replay("spec", super::spec);
    }

    #[test]
    fn profiles() {
        replay("seccomp", super::seccomp);
    }

    #[test]
    fn users() {
        replay("user", super::user);
    }
}
