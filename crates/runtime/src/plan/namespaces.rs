//! Which namespaces are made, and which are joined.

use oci_spec::runtime::LinuxNamespaceType;

use super::{Plan, invalid, not_built};
use crate::Spec;
use crate::error::RuntimeError;

impl Plan {
    /// Others are in its pid namespace, and may look at what comes into it.
    pub(crate) fn joins_pid_namespace(&self) -> bool {
        self.join.iter().any(|(_, kind)| *kind == libc::CLONE_NEWPID)
    }

    pub(super) fn namespaces(&mut self, spec: &Spec, own_network: bool) -> Result<(), RuntimeError> {
        let mut seen = Vec::new();
        for namespace in spec.linux().iter().flat_map(|linux| linux.namespaces().iter().flatten()) {
            let kind = namespace.typ();
            if seen.contains(&kind) {
                return Err(invalid(format!("namespace {kind} is given twice")));
            }
            seen.push(kind);
            let flag = match kind {
                LinuxNamespaceType::User | LinuxNamespaceType::Time => return not_built(format!("a {kind} namespace")),
                LinuxNamespaceType::Network if own_network => continue,
                LinuxNamespaceType::Cgroup if namespace.path().is_none() => {
                    self.new_cgroup_namespace = true;
                    continue;
                }
                other => other as libc::c_int,
            };
            match namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty()) {
                None => self.new_namespaces |= flag as u64,
                Some(_) if kind == LinuxNamespaceType::Mount => return not_built("joining a mount namespace"),
                Some(path) => self.join.push((path.clone(), flag)),
            }
        }
        if self.new_namespaces & libc::CLONE_NEWNS as u64 == 0 {
            return not_built("a container without a mount namespace of its own");
        }
        let own_uts = self.new_namespaces & libc::CLONE_NEWUTS as u64 != 0;
        if !own_uts && (self.hostname.is_some() || self.domainname.is_some()) {
            return Err(invalid("unable to set hostname without a private UTS namespace"));
        }
        Ok(())
    }
}
