//! A bundle: read, and written for who begins with one.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespace, LinuxNamespaceType};

use super::arguments::CreateArguments;
use crate::cgroup::Cgroup;
use crate::create::Root;
use crate::error::{Context, RuntimeError};
use crate::reading::read_spec;
use crate::{Spec, default_spec};

const EXAMPLE: &str = include_str!("example.json");

/// A bundle, read.
pub(super) struct Bundle {
    pub(super) path: PathBuf,
    pub(super) spec: Spec,
    /// The spec as it was read.
    pub(super) config: Vec<u8>,
    pub(super) root: Root,
    pub(super) cgroup: String,
    /// What it says that was not understood.
    pub(super) warnings: Vec<String>,
}

pub(super) fn read_bundle(create: &CreateArguments) -> Result<Bundle, RuntimeError> {
    if create.no_pivot {
        return Err(RuntimeError::NotBuilt("--no-pivot".to_owned()));
    }
    let path = fs::canonicalize(&create.bundle).context(|| format!("open bundle {}", create.bundle.display()))?;
    let config = path.join(&create.config);
    let bytes = fs::read(&config).context(|| format!("read {}", config.display()))?;
    let (mut spec, warnings) =
        read_spec(&bytes).map_err(|error| RuntimeError::Invalid(format!("{}: {error}", config.display())))?;
    default_spec::allow_default_devices(&mut spec);
    map_own_ids(&mut spec);
    let root = spec.root().as_ref().ok_or_else(|| RuntimeError::Invalid("the spec has no root".to_owned()))?;
    let root = path.join(root.path());
    if !root.is_dir() {
        return Err(RuntimeError::Invalid(format!("invalid rootfs: {} is no directory", root.display())));
    }
    let wanted = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_ref());
    let wanted = wanted.map(|path| path.display().to_string()).filter(|path| !path.is_empty());
    let cgroup = cgroup_name(wanted.as_deref(), &create.id, create.systemd_cgroup)?;
    Ok(Bundle { path, spec, config: bytes, root: Root::Directory(root), cgroup, warnings })
}

/// A new user namespace for which nothing is mapped has our own user as its root, as crun gives it.
fn map_own_ids(spec: &mut Spec) {
    let Some(linux) = spec.linux_mut().as_mut() else { return };
    let is_new = |namespace: &LinuxNamespace| {
        namespace.typ() == LinuxNamespaceType::User
            && namespace.path().as_ref().is_none_or(|p| p.as_os_str().is_empty())
    };
    if !linux.namespaces().iter().flatten().any(is_new) {
        return;
    }
    let own = |id: u32| {
        let mapping = LinuxIdMappingBuilder::default().container_id(0u32).host_id(id).size(1u32).build();
        mapping.ok().map(|mapping| vec![mapping])
    };
    let none = |mappings: &Option<Vec<LinuxIdMapping>>| mappings.as_ref().is_none_or(Vec::is_empty);
    if none(linux.uid_mappings()) && none(linux.gid_mappings()) {
        linux.set_uid_mappings(own(rustix::process::geteuid().as_raw()));
        linux.set_gid_mappings(own(rustix::process::getegid().as_raw()));
    }
}

/// Where the container's cgroup is to be, as [`crate::Cgroup`] takes it.
fn cgroup_name(wanted: Option<&str>, id: &str, by_systemd: bool) -> Result<String, RuntimeError> {
    match (wanted, by_systemd) {
        (Some(path), false) => Ok(format!("/{}", path.trim_start_matches('/'))),
        (None, false) => Ok(format!("/{id}")),
        (None, true) => Ok(format!("system.slice:dozen:{id}")),
        (Some(name), true) if name.split(':').count() == 3 && !name.starts_with('/') => Ok(name.to_owned()),
        // As runc says it.
        (Some(other), true) => Err(RuntimeError::Invalid(format!(
            "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {other:?} instead"
        ))),
    }
}

/// The example that other runtimes write, too: little of everything, so that it is safe to begin with.
pub(super) fn write_spec(bundle: &Path) -> Result<(), RuntimeError> {
    let mut spec: serde_json::Value =
        serde_json::from_str(EXAMPLE).map_err(|error| RuntimeError::Invalid(error.to_string()))?;
    if let (2, Some(namespaces)) = (Cgroup::version(), spec["linux"]["namespaces"].as_array_mut()) {
        namespaces.push(serde_json::json!({"type": "cgroup"}));
    }
    let file = bundle.join("config.json");
    let json = serde_json::to_vec_pretty(&spec).map_err(|error| RuntimeError::Invalid(error.to_string()))?;
    let mut new = File::create_new(&file).context(|| format!("make {}", file.display()))?;
    new.write_all(&json).context(|| format!("write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroups_have_names_of_two_kinds() {
        let name = |wanted, by_systemd| cgroup_name(wanted, "id", by_systemd).map_err(|error| error.to_string());
        assert_eq!(name(None, false).unwrap(), "/id");
        assert_eq!(name(Some("//a/b:c:d"), false).unwrap(), "/a/b:c:d");
        assert_eq!(name(None, true).unwrap(), "system.slice:dozen:id");
        assert_eq!(name(Some(":crio:x"), true).unwrap(), ":crio:x");
        assert!(name(Some("/a:b:c"), true).unwrap_err().contains("slice:prefix:name"));
        assert!(name(Some("machine.slice"), true).is_err());
    }
}
