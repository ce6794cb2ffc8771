//! Containers with users and groups of their own, or with those of a container that they join.
//!
//! On disk everything keeps the ids of images: the runtime mounts layers, volumes and binds idmapped, and what a container
//! makes in them has on disk the id that it has inside. So nothing on disk knows of a range, and one that is free again can
//! be given to the next container at once.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::OnceLock;

use dozen_model::{BindPropagation, BindRecursion, ContainerSpec, IdRange, MountSource, UserNamespace, error_chain};
use dozen_runtime::{FROM_NAMESPACE, OWNER, Spec};
use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespaceType, Mount};

use crate::EngineError;
use crate::container::oci::PING_GROUPS;
use crate::container::sharing;
use crate::container::snapshot::Snapshot;
use crate::shared::Shared;

/// A user namespace for a start, held until the container is in it.
#[derive(Debug)]
pub(crate) struct Entered {
    ids: IdRange,
    namespace: OwnedFd,
}

/// Makes that of a container that has its own, or opens that of the one that it joins. Blocks.
pub(crate) fn begin(shared: &Shared, snapshot: &Snapshot) -> Result<Option<Entered>, EngineError> {
    let (ids, namespace) = match &snapshot.spec.user_namespace {
        UserNamespace::Unsaid | UserNamespace::Host => return Ok(None),
        UserNamespace::Own(ids) => (*ids, dozen_runtime::user_namespace(*ids)?),
        UserNamespace::Container { id, ids } => {
            let [namespace] = sharing::namespaces_of(&*sharing::snapshot_of(shared, id)?, ["user"], "user namespace")?;
            (*ids, namespace)
        }
    };
    Ok(Some(Entered { ids, namespace }))
}

impl Entered {
    /// A network namespace that belongs to it. Blocks.
    pub(crate) fn new_network(&self) -> Result<OwnedFd, EngineError> {
        Ok(dozen_runtime::network_namespace_of(self.namespace.as_fd())?)
    }

    /// Changes the specification of a container that has the host's ids. The last that is done to it.
    pub(crate) fn apply(&self, spec: &mut Spec) {
        for mount in spec.mounts_mut().iter_mut().flatten() {
            map(mount);
        }
        let Some(linux) = spec.linux_mut() else { return };
        sharing::share(linux, LinuxNamespaceType::User, Some(sharing::path_of(&self.namespace)));
        linux.set_uid_mappings(Some(mappings(self.ids))).set_gid_mappings(Some(mappings(self.ids)));
        // Whose on the host is somebody who is not in there, that is its root's: it has asked for the device.
        for device in linux.devices_mut().iter_mut().flatten() {
            let known = |id: Option<u32>| id.filter(|id| self.ids.outside(*id).is_some());
            let (user, group) = (known(device.uid()), known(device.gid()));
            device.set_uid(user).set_gid(group);
        }
        // Groups that nobody in there has are refused (ip-sysctl.rst, `ping_group_range`).
        if let Some(groups) = linux.sysctl_mut().as_mut().and_then(|sysctls| sysctls.get_mut(PING_GROUPS.0))
            && groups == PING_GROUPS.1
        {
            *groups = format!("0 {}", self.ids.count() - 1);
        }
    }
}

fn mappings(ids: IdRange) -> Vec<LinuxIdMapping> {
    let one = LinuxIdMappingBuilder::default().container_id(0u32).host_id(ids.first()).size(ids.count()).build();
    vec![one.expect("a map has two sides and a size")]
}

/// A bind gets the owners that the container knows, but for what is another container's with the same ids, and for what has
/// owners of its own anyway, which the runtime maps.
fn map(mount: &mut Mount) {
    let Some(options) = mount.options_mut() else { return };
    let says = |key: &str| options.iter().any(|option| option.split('=').next() == Some(key));
    if says(FROM_NAMESPACE) || says(OWNER) {
        return;
    }
    let word = match (says("rbind"), says("bind")) {
        (true, _) => "ridmap",
        (false, true) => "idmap",
        (false, false) => return,
    };
    options.push(word.to_owned());
}

/// Refuses, before anything is made, what could not be mounted in a user namespace. Blocks.
pub(crate) fn check(shared: &Shared, spec: &ContainerSpec) -> Result<(), EngineError> {
    check_layers(shared, spec)?;
    spec.mounts.iter().try_for_each(|mount| match &mount.source {
        MountSource::Bind { propagation, .. }
            if !matches!(propagation, BindPropagation::Rprivate | BindPropagation::Private) =>
        {
            Err(EngineError::NotBuilt {
                message: format!(
                    "{}: bind-propagation={} in a user namespace is not built: what is mounted on the host later would \
                     come without the container's users",
                    mount.target.display(),
                    propagation.word()
                ),
                hint: Some("leave it away, or give the container the host's users with --userns host".into()),
            })
        }
        MountSource::Bind { path, recursion, .. } if path.exists() => {
            let below = *recursion != BindRecursion::Disabled;
            dozen_runtime::can_be_idmapped(path, below).map_err(|error| EngineError::Invalid {
                message: format!("cannot bind {} in a user namespace: {}", mount.target.display(), error_chain(&error)),
                hint: Some("give the container the host's users with --userns host".into()),
            })
        }
        _ => Ok(()),
    })
}

fn check_layers(shared: &Shared, spec: &ContainerSpec) -> Result<(), EngineError> {
    /// It was found out, and the kernel stays the same.
    static CAN_BE: OnceLock<()> = OnceLock::new();
    if CAN_BE.get().is_some() {
        return Ok(());
    }
    let mut layers: Vec<PathBuf> = shared.lower_directories(spec)?;
    layers.truncate(1);
    // Where containers' own layers lie. An overlay that nobody writes to has two.
    layers.push(shared.config.data_root.join("containers"));
    dozen_runtime::overlay::check_idmapped(&layers).map_err(|error| EngineError::Invalid {
        message: format!("a user namespace needs layers that are idmapped: {}", error_chain(&error)),
        hint: Some("Linux 5.19 or newer can, with the data root on ext4, XFS or btrfs; without: --userns host".into()),
    })?;
    let _ = CAN_BE.set(());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::oci::mount;

    #[test]
    fn binds_are_mapped_unless_their_owners_are_known() {
        let mapped = |kind: &str, options: &[&str]| {
            let options = options.iter().map(ToString::to_string).collect();
            let mut mount = mount(kind, Some("/x".into()), "/t".into(), options);
            map(&mut mount);
            mount.options().clone().unwrap_or_default().join(",")
        };
        assert_eq!(mapped("bind", &["rbind", "rro", "rprivate"]), "rbind,rro,rprivate,ridmap");
        assert_eq!(mapped("bind", &["bind", "rprivate"]), "bind,rprivate,idmap");
        assert_eq!(mapped("bind", &["bind", "X-dozen.namespace=/proc/1/fd/7"]), "bind,X-dozen.namespace=/proc/1/fd/7");
        assert_eq!(mapped("bind", &["rbind", "X-dozen.owner=5:"]), "rbind,X-dozen.owner=5:");
        assert_eq!(mapped("tmpfs", &["nosuid"]), "nosuid");
        assert_eq!(mapped("overlay", &["ro", "lowerdir+=/a"]), "ro,lowerdir+=/a");
    }

    #[test]
    fn a_specification_names_the_namespace_and_its_map() {
        let namespace = std::fs::File::open("/dev/null").unwrap().into();
        let entered = Entered { ids: "100000:1000".parse().unwrap(), namespace };
        let mut spec = Spec::default();
        let sysctls = [PING_GROUPS, ("net.ipv4.ip_forward", "1")].map(|(name, value)| (name.into(), value.into()));
        spec.linux_mut().as_mut().unwrap().set_sysctl(Some(sysctls.into()));
        let device = oci_spec::runtime::LinuxDeviceBuilder::default()
            .path("/dev/x")
            .typ(oci_spec::runtime::LinuxDeviceType::C)
            .major(1)
            .minor(3)
            .uid(1000u32)
            .gid(999u32)
            .build();
        spec.linux_mut().as_mut().unwrap().set_devices(Some(vec![device.unwrap()]));
        entered.apply(&mut spec);
        let linux = spec.linux().as_ref().unwrap();
        let device = &linux.devices().as_ref().unwrap()[0];
        assert_eq!((device.uid(), device.gid()), (None, Some(999)));
        let users = linux.namespaces().iter().flatten().find(|one| one.typ() == LinuxNamespaceType::User).unwrap();
        assert_eq!(users.path().clone().unwrap(), sharing::path_of(&entered.namespace));
        let map = &linux.uid_mappings().as_ref().unwrap()[0];
        assert_eq!((map.container_id(), map.host_id(), map.size()), (0, 100_000, 1000));
        assert_eq!(linux.gid_mappings(), linux.uid_mappings());
        let sysctls = linux.sysctl().as_ref().unwrap();
        assert_eq!((&*sysctls[PING_GROUPS.0], &*sysctls["net.ipv4.ip_forward"]), ("0 999", "1"));
    }
}
