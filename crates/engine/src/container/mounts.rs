//! The user's mounts: where each comes from on the host, and the runtime's words for it.

use std::path::{Path, PathBuf};

use dozen_model::{BindRecursion, Mount, MountOwner, MountSource, TmpfsOptions};

use crate::EngineError;
use crate::container::artifact_files;
use crate::container::launch::make_directory;
use crate::container::oci::mount;
use crate::container::snapshot::Snapshot;
use crate::shared::Shared;

/// Where a mount comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A path of the host's.
    Path(PathBuf),
    /// Directories of the host's, above one another, the topmost first.
    Layers(Vec<PathBuf>),
    /// Nowhere: it is made anew.
    New,
}

/// Of each of the container's mounts, in the order of the spec; made if it may be.
pub(crate) fn origins(shared: &Shared, snapshot: &Snapshot) -> Result<Vec<Origin>, EngineError> {
    let mounts = snapshot.spec.mounts.iter().enumerate();
    mounts.map(|(index, mount)| origin(shared, snapshot, index, mount)).collect()
}

fn origin(shared: &Shared, snapshot: &Snapshot, index: usize, mount: &Mount) -> Result<Origin, EngineError> {
    match &mount.source {
        MountSource::Bind { path, create_missing: true, .. } if !path.exists() => {
            make_directory(path)?;
            Ok(Origin::Path(path.clone()))
        }
        MountSource::Bind { path, .. } => check_source(path).map(|()| Origin::Path(path.clone())),
        MountSource::Volume { name, .. } => Ok(Origin::Path(shared.volumes.find(name.as_str())?.mountpoint)),
        MountSource::Tmpfs(_) => Ok(Origin::New),
        MountSource::Image { .. } | MountSource::Layers { .. } | MountSource::Artifact(_) => {
            let mut layers = match &mount.source {
                MountSource::Image { id, .. } => shared.images.lower_directories(id)?,
                MountSource::Layers { layers, .. } => shared.images.directories_of(layers)?,
                MountSource::Artifact(artifact) => {
                    vec![artifact_files::directory_of(shared, &snapshot.directory, index, artifact)?]
                }
                _ => Vec::new(),
            };
            // An overlay that nobody can write to has two of them at least. A layer is never bound as it is: who may mount
            // in a container could make that writable.
            // On the data root's file system, which can be idmapped where one of the two can.
            let empty = ["empty/a", "empty/b"].map(|name| snapshot.directory.join(name));
            for directory in empty.into_iter().skip(layers.len()) {
                make_directory(&directory)?;
                layers.push(directory);
            }
            Ok(Origin::Layers(layers))
        }
    }
}

/// Of a container that is to be made: a bind by `--mount` whose source is missing is refused at once, as Docker does. What
/// `-v` names, and `bind-create-src`, is made when the container starts; what others brought was looked at then.
pub(crate) fn check_sources(mounts: &[Mount]) -> Result<(), EngineError> {
    mounts.iter().filter(|mount| !mount.inherited).try_for_each(|mount| match &mount.source {
        MountSource::Bind { path, create_missing: false, .. } => check_source(path),
        _ => Ok(()),
    })
}

fn check_source(path: &Path) -> Result<(), EngineError> {
    if path.exists() {
        return Ok(());
    }
    Err(EngineError::Invalid {
        message: format!("invalid mount config for type \"bind\": bind source path does not exist: {}", path.display()),
        hint: Some("make it first; -v and bind-create-src make a missing directory by themselves".into()),
    })
}

/// The mounts of the runtime's specification: one, or one for each file.
pub(crate) fn user_mounts(asked: &Mount, origin: &Origin) -> Vec<oci_spec::runtime::Mount> {
    asked.places().into_iter().map(|(target, part)| user_mount(asked, origin, target, part)).collect()
}

fn user_mount(asked: &Mount, origin: &Origin, target: PathBuf, part: Option<PathBuf>) -> oci_spec::runtime::Mount {
    let access = if asked.read_only { "ro" } else { "rw" }.to_owned();
    let (kind, source, mut options) = match (&asked.source, origin) {
        (MountSource::Tmpfs(options), _) => ("tmpfs", Some("tmpfs".into()), tmpfs_options(options, access)),
        (MountSource::Bind { propagation, recursion, .. }, Origin::Path(path)) => {
            let mut options = bind_options(asked.read_only, *recursion);
            options.push(propagation.word().into());
            ("bind", Some(path.clone()), options)
        }
        (_, Origin::Path(path)) => {
            let mut options = bind_options(asked.read_only, BindRecursion::Enabled);
            options.push("rprivate".into());
            ("bind", Some(path.clone()), options)
        }
        (_, Origin::Layers(layers)) => {
            let scratch = match &asked.source {
                MountSource::Layers { scratch, .. } => scratch.as_ref(),
                _ => None,
            };
            let mut options = vec![if scratch.is_some() { access } else { "ro".to_owned() }];
            options.extend(layers.iter().map(|layer| format!("lowerdir+={}", layer.display())));
            options.extend(scratch.iter().flat_map(|scratch| {
                ["upper", "work"].map(|name| format!("{name}dir={}", scratch.join(name).display()))
            }));
            ("overlay", Some("overlay".into()), options)
        }
        // Refused by the runtime, as a bind without a source.
        (_, Origin::New) => ("bind", None, bind_options(asked.read_only, BindRecursion::Enabled)),
    };
    if let Some(path) = part {
        options.push(format!("X-mount.subdir={}", path.display()));
    }
    if asked.owner != MountOwner::default() {
        let id = |id: Option<u32>| id.map_or_else(String::new, |id| id.to_string());
        options.push(format!("X-dozen.owner={}:{}", id(asked.owner.user), id(asked.owner.group)));
    }
    mount(kind, source, target, options)
}

/// What is mounted below comes along, unless it is to stay away, and is read-only too, unless it is to stay writable. What
/// is read-only on the host stays so: nobody who asks for a bind has asked for more.
fn bind_options(read_only: bool, recursion: BindRecursion) -> Vec<String> {
    let bind = if recursion == BindRecursion::Disabled { "bind" } else { "rbind" };
    let access = match (read_only, recursion) {
        (false, _) => None,
        (true, BindRecursion::Enabled | BindRecursion::ReadOnly) => Some("rro"),
        (true, BindRecursion::Disabled | BindRecursion::Writable) => Some("ro"),
    };
    [bind].into_iter().chain(access).map(str::to_owned).collect()
}

fn tmpfs_options(asked: &TmpfsOptions, access: String) -> Vec<String> {
    // Docker's defaults, each of which an option of the user's can undo.
    let mut options: Vec<String> = ["noexec", "nosuid", "nodev"].map(str::to_owned).to_vec();
    for option in &asked.options {
        options.retain(|known| known.strip_prefix("no") != Some(option) && known != option);
        options.push(option.clone());
    }
    options.push(access);
    options.extend(asked.size_bytes.map(|bytes| format!("size={bytes}")));
    options.push(format!("mode={:o}", asked.mode.unwrap_or(0o1777)));
    options
}

#[cfg(test)]
mod tests {
    use dozen_model::BindPropagation;

    use super::*;

    fn options_of(source: MountSource, read_only: bool, owner: MountOwner, origin: &Origin) -> String {
        let asked = Mount { target: "/t".into(), source, read_only, structured: true, owner, inherited: false };
        user_mounts(&asked, origin)[0].options().clone().unwrap_or_default().join(",")
    }

    #[test]
    fn what_is_missing_is_refused_unless_it_is_made_later() {
        let bind = |path: &str, create_missing, inherited| Mount {
            target: "/t".into(),
            source: MountSource::Bind {
                path: path.into(),
                create_missing,
                propagation: BindPropagation::default(),
                recursion: BindRecursion::default(),
            },
            read_only: false,
            structured: true,
            owner: MountOwner::default(),
            inherited,
        };
        assert!(
            check_sources(&[bind("/", false, false), bind("/no/a", true, false), bind("/no/a", false, true)]).is_ok()
        );
        let error = check_sources(&[bind("/no/a", false, false)]).unwrap_err().to_string();
        assert_eq!(error, "invalid mount config for type \"bind\": bind source path does not exist: /no/a");
    }

    #[test]
    fn tmpfs_defaults_can_be_undone() {
        let options = TmpfsOptions { options: vec!["exec".into()], size_bytes: Some(64), mode: None };
        assert_eq!(tmpfs_options(&options, "rw".into()), ["nosuid", "nodev", "exec", "rw", "size=64", "mode=1777"]);
    }

    #[test]
    fn a_bind_says_what_becomes_of_the_mounts_below() {
        for (read_only, recursion, want) in [
            (false, BindRecursion::Enabled, "rbind,rslave"),
            (true, BindRecursion::Enabled, "rbind,rro,rslave"),
            (true, BindRecursion::ReadOnly, "rbind,rro,rslave"),
            (true, BindRecursion::Writable, "rbind,ro,rslave"),
            (true, BindRecursion::Disabled, "bind,ro,rslave"),
            (false, BindRecursion::Disabled, "bind,rslave"),
        ] {
            let propagation = BindPropagation::Rslave;
            let bind = MountSource::Bind { path: "/a".into(), create_missing: false, propagation, recursion };
            assert_eq!(options_of(bind, read_only, MountOwner::default(), &Origin::Path("/a".into())), want);
        }
    }

    #[test]
    fn parts_and_owners_are_the_runtimes_to_find() {
        let subpath = Some(PathBuf::from("a/b"));
        let image = MountSource::Image {
            id: dozen_model::ImageId::new(format!("sha256:{}", "a".repeat(64)).parse().unwrap()),
            name: "x".into(),
            subpath: subpath.clone(),
        };
        let layers = Origin::Layers(vec!["/l1".into(), "/l2".into()]);
        let want = "ro,lowerdir+=/l1,lowerdir+=/l2,X-mount.subdir=a/b";
        assert_eq!(options_of(image, true, MountOwner::default(), &layers), want);
        let layered = |scratch: Option<PathBuf>, read_only| {
            let source = MountSource::Layers { layers: Vec::new(), subpath: None, scratch };
            options_of(source, read_only, MountOwner::default(), &layers)
        };
        assert_eq!(layered(None, false), "ro,lowerdir+=/l1,lowerdir+=/l2");
        let want = "rw,lowerdir+=/l1,lowerdir+=/l2,upperdir=/s/upper,workdir=/s/work";
        assert_eq!(layered(Some("/s".into()), false), want);
        assert_eq!(layered(Some("/s".into()), true), want.replace("rw", "ro"));
        let name = "vol".parse().unwrap();
        let volume = MountSource::Volume { name, anonymous: false, copy_up: true, subpath, new: Default::default() };
        let owner = MountOwner { user: Some(5), group: None };
        let want = "rbind,rprivate,X-mount.subdir=a/b,X-dozen.owner=5:";
        assert_eq!(options_of(volume, false, owner, &Origin::Path("/v/_data".into())), want);
    }
}
