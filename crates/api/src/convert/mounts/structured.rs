//! `--mount`, the API's `HostConfig.Mounts`: each kind of mount with the options that are its own, and no others.

use std::path::{Component, Path, PathBuf};

use dozen_model::{
    BindPropagation, BindRecursion, DigestError, Mount, MountOwner, MountSource, NewVolume, TmpfsOptions, VolumeName,
    WantedFiles, WhichFiles,
};

use super::super::request::{self, BindOptions};
use super::super::volume_driver;
use super::{absolute, anonymous_volume, propagation, shorten, target, tmpfs_option};
use crate::error::ApiError;

/// One of them. The errors are Docker's, to which the caller adds the mount's type.
pub(super) fn mount(asked: &request::Mount) -> Result<Mount, ApiError> {
    if asked.target.is_empty() {
        return Err(ApiError::invalid("field Target must not be empty"));
    }
    let target = target(&asked.target)?;
    only_its_own_options(asked)?;
    let (source, read_only) = match asked.r#type.as_str() {
        "bind" => (bind(asked)?, asked.read_only),
        "volume" => (volume(asked)?, asked.read_only),
        "tmpfs" => (tmpfs(asked)?, asked.read_only),
        "image" => (image(asked)?, true),
        "artifact" => (artifact(asked)?, true),
        "" => return Err(ApiError::invalid("mount type unknown: field Type must not be empty")),
        "npipe" => return Err(ApiError::not_built("a mount of type npipe").with_hint("named pipes are Windows'")),
        "cluster" => return Err(ApiError::not_built("a mount of type cluster").with_hint("this is no node of a swarm")),
        _ => return Err(ApiError::invalid("mount type unknown")),
    };
    Ok(Mount { target, source, read_only, structured: true, owner: owner(asked)?, inherited: false })
}

fn only_its_own_options(asked: &request::Mount) -> Result<(), ApiError> {
    for (kind, name, given) in [
        ("bind", "BindOptions", asked.bind_options.is_some()),
        ("volume", "VolumeOptions", asked.volume_options.is_some()),
        ("image", "ImageOptions", asked.image_options.is_some()),
        ("artifact", "ArtifactOptions", asked.artifact_options.is_some()),
        ("tmpfs", "TmpfsOptions", asked.tmpfs_options.is_some()),
    ] {
        if given && asked.r#type != kind {
            return Err(ApiError::invalid(format!("field {name} must not be specified")));
        }
    }
    Ok(())
}

fn bind(asked: &request::Mount) -> Result<MountSource, ApiError> {
    if asked.source.is_empty() {
        return Err(ApiError::invalid("field Source must not be empty"));
    }
    let options = asked.bind_options.clone().unwrap_or_default();
    let propagation = match options.propagation.as_str() {
        "" => BindPropagation::default(),
        word => propagation(word)
            .ok_or_else(|| ApiError::invalid(format!("invalid propagation mode: {}", shorten(word))))?,
    };
    let recursion = recursion(&options, asked.read_only, propagation)?;
    Ok(MountSource::Bind {
        path: absolute(&asked.source)?,
        create_missing: options.create_mountpoint,
        propagation,
        recursion,
    })
}

/// Three switches of which at most one makes sense: API 1.44, "BindOptions". Of a mount that can be written to, nothing
/// below it is read-only.
fn recursion(options: &BindOptions, read_only: bool, propagation: BindPropagation) -> Result<BindRecursion, ApiError> {
    let conflict = |why: &str| Err(ApiError::invalid(format!("mount options conflict: {why}")));
    match (options.non_recursive, options.read_only_non_recursive, options.read_only_force_recursive) {
        (_, true, true) => conflict("ReadOnlyNonRecursive && ReadOnlyForceRecursive"),
        (true, _, true) => conflict("NonRecursive && ReadOnlyForceRecursive"),
        (_, _, true) if !read_only => conflict("ReadOnlyForceRecursive && !ReadOnly"),
        (_, _, true) if propagation != BindPropagation::Rprivate => {
            conflict("ReadOnlyForceRecursive && Propagation is not rprivate")
        }
        (_, _, true) => Ok(BindRecursion::ReadOnly),
        (true, _, _) => Ok(BindRecursion::Disabled),
        (_, true, _) => Ok(BindRecursion::Writable),
        _ => Ok(BindRecursion::Enabled),
    }
}

fn volume(asked: &request::Mount) -> Result<MountSource, ApiError> {
    let options = asked.volume_options.clone().unwrap_or_default();
    let (copy_up, new) =
        (!options.no_copy, NewVolume { labels: options.labels, options: options.driver_config.options });
    volume_driver::of_container(&options.driver_config.name, &asked.source)?;
    if asked.source.is_empty() {
        if !options.subpath.is_empty() {
            return Err(ApiError::invalid("must not set Subpath when using anonymous volumes"));
        }
        if asked.read_only {
            return Err(ApiError::invalid("must not set ReadOnly mode when using anonymous volumes"));
        }
        let mut source = anonymous_volume(copy_up);
        if let MountSource::Volume { new: slot, .. } = &mut source {
            *slot = new;
        }
        return Ok(source);
    }
    let name: VolumeName = asked.source.parse().map_err(|_| {
        ApiError::invalid(format!(
            "create {0}: {0:?} includes invalid characters for a local volume name, only \
             \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed",
            shorten(&asked.source)
        ))
    })?;
    let subpath = subpath(&options.subpath, "volume")?;
    Ok(MountSource::Volume { name, anonymous: false, copy_up, subpath, new })
}

fn image(asked: &request::Mount) -> Result<MountSource, ApiError> {
    if asked.source.is_empty() {
        return Err(ApiError::invalid("field Source must not be empty"));
    }
    let id =
        asked.image.clone().ok_or_else(|| ApiError::invalid(format!("No such image: {}", shorten(&asked.source))))?;
    let options = asked.image_options.clone().unwrap_or_default();
    Ok(MountSource::Image { id, name: asked.source.clone(), subpath: subpath(&options.subpath, "image")? })
}

fn artifact(asked: &request::Mount) -> Result<MountSource, ApiError> {
    if asked.source.is_empty() {
        return Err(ApiError::invalid("field Source must not be empty"));
    }
    let found = asked.artifact.clone();
    let missing = || ApiError::invalid(format!("{}: artifact does not exist", shorten(&asked.source)));
    Ok(MountSource::Artifact(Box::new(found.ok_or_else(missing)?)))
}

/// Which files of an artifact.
pub(crate) fn wanted_files(asked: &request::Mount) -> Result<WantedFiles, ApiError> {
    let options = asked.artifact_options.clone().unwrap_or_default();
    let which = match (options.digest.as_str(), options.title.as_str()) {
        ("", "") => WhichFiles::All,
        ("", title) => WhichFiles::Title(title.to_owned()),
        (digest, "") => {
            WhichFiles::Digest(digest.parse().map_err(|error: DigestError| ApiError::invalid(error.to_string()))?)
        }
        // podman's words.
        _ => return Err(ApiError::invalid("cannot specify both digest and title")),
    };
    Ok(WantedFiles { which, file_name: (!options.name.is_empty()).then_some(options.name) })
}

/// A path that, by its letters, stays where it begins (Go's filepath.IsLocal); its links are looked after when it is mounted.
fn subpath(text: &str, what: &str) -> Result<Option<PathBuf>, ApiError> {
    if text.is_empty() {
        return Ok(None);
    }
    let invalid = || ApiError::invalid(format!("subpath must be a relative path within the {what}"));
    let mut clean = PathBuf::new();
    for part in Path::new(text).components() {
        match part {
            Component::CurDir => {}
            Component::Normal(name) => clean.push(name),
            Component::ParentDir if clean.pop() => {}
            _ => return Err(invalid()),
        }
    }
    if text.contains('\0') {
        return Err(invalid());
    }
    Ok((!clean.as_os_str().is_empty()).then_some(clean))
}

fn tmpfs(asked: &request::Mount) -> Result<MountSource, ApiError> {
    if !asked.source.is_empty() {
        return Err(ApiError::invalid("field Source must not be specified"));
    }
    let options = asked.tmpfs_options.clone().unwrap_or_default();
    let size_bytes =
        u64::try_from(options.size_bytes).map_err(|_| ApiError::invalid("the size of a tmpfs cannot be negative"))?;
    let mut tmpfs = TmpfsOptions { size_bytes: (size_bytes > 0).then_some(size_bytes), ..Default::default() };
    tmpfs.mode = (options.mode != 0).then_some(options.mode & 0o7777);
    for option in &options.options {
        let word = option.join("=");
        if option.len() > 2 || tmpfs_option(&word, &mut tmpfs).is_none() {
            return Err(ApiError::invalid(format!("Invalid tmpfs option {word:?}")));
        }
    }
    Ok(MountSource::Tmpfs(tmpfs))
}

fn owner(asked: &request::Mount) -> Result<MountOwner, ApiError> {
    let owner = MountOwner { user: asked.owner.user, group: asked.owner.group };
    if owner != MountOwner::default() && !matches!(asked.r#type.as_str(), "bind" | "volume") {
        return Err(ApiError::invalid("field Owner must not be specified").with_hint(
            "a tmpfs has uid= and gid= among its own options, and what an image has belongs to whom it says",
        ));
    }
    if [owner.user, owner.group].contains(&Some(u32::MAX)) {
        return Err(ApiError::invalid(format!("field Owner: {} is nobody's id", u32::MAX)));
    }
    Ok(owner)
}
