//! `-v`, `--mount`, `--tmpfs` and the image's volumes → one list of mounts, no two at one place.

mod shown;
mod structured;

pub(crate) use self::shown::shown;
pub(crate) use self::structured::wanted_files;

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use dozen_model::{
    BindPropagation, BindRecursion, ContainerId, Mount, MountOwner, MountSource, NewVolume, TmpfsOptions, VolumeName,
};

use super::request::HostConfig;
use super::volume_driver;
use crate::error::ApiError;

/// All mounts of a container. `volumes` are targets of anonymous volumes: the image's and the user's.
pub(crate) fn mounts<'a>(
    host: &HostConfig,
    volumes: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<Mount>, ApiError> {
    let mut all = Vec::new();
    let mut taken = BTreeSet::new();
    let mut add = |mount: Mount| {
        if !taken.insert(mount.target.clone()) {
            return Err(ApiError::invalid(format!("Duplicate mount point: {}", mount.target.display())));
        }
        all.push(mount);
        Ok(())
    };
    for raw in &host.binds {
        add(with_driver(bind(raw)?, &host.volume_driver)?)?;
    }
    for mount in &host.mounts {
        add(structured::mount(mount)
            .map_err(|why| why.context(format_args!("invalid mount config for type {:?}", mount.r#type)))?)?;
    }
    for (target, options) in &host.tmpfs {
        add(tmpfs(target, options)?)?;
    }
    for raw in volumes {
        // One path alone is the common form; `EXPOSE`d volumes never have a source.
        let target = target(raw).map_err(|why| why.context(format_args!("invalid volume specification: '{raw}'")))?;
        if taken.insert(target.clone()) {
            all.push(with_driver(plain(target, anonymous_volume(true), false), &host.volume_driver)?);
        }
    }
    Ok(all)
}

/// `--volume-driver` is for the volumes of `-v` and of the image; those of `--mount` have their own.
fn with_driver(mount: Mount, driver: &str) -> Result<Mount, ApiError> {
    if let MountSource::Volume { name, .. } = &mount.source {
        volume_driver::of_container(driver, name.as_str())?;
    }
    Ok(mount)
}

/// `-v`: `[source:]target[:options]`.
fn bind(raw: &str) -> Result<Mount, ApiError> {
    let invalid = || ApiError::invalid(format!("invalid volume specification: '{}'", shorten(raw)));
    let parts: Vec<&str> = raw.splitn(4, ':').collect();
    let (source, target_text, options) = match parts[..] {
        [target] => ("", target, ""),
        // A volume without a source cannot have a mode.
        [_, second] if !second.is_empty() && BindOptions::parse(second).is_some() => return Err(invalid()),
        [source, target] => (source, target, ""),
        [source, target, options] => (source, target, options),
        _ => return Err(invalid()),
    };
    if parts[0].is_empty() || target_text.is_empty() {
        return Err(invalid());
    }
    let Some(options) = BindOptions::parse(options) else {
        return Err(ApiError::invalid(format!("invalid mode: {options}")));
    };
    let kind = if source.starts_with('/') { "bind" } else { "volume" };
    let target = target(target_text).map_err(|why| {
        why.context(format_args!(
            "invalid volume specification: '{}': invalid mount config for type {kind:?}",
            shorten(raw)
        ))
    })?;
    let source = if source.is_empty() {
        anonymous_volume(!options.no_copy)
    } else if source.starts_with('/') {
        if options.no_copy {
            return Err(ApiError::invalid(format!("invalid mode: {} (nocopy is for volumes)", parts[2])));
        }
        let path = clean(Path::new(source)).ok_or_else(invalid)?;
        let (propagation, recursion) = (options.propagation.unwrap_or_default(), BindRecursion::default());
        MountSource::Bind { path, create_missing: true, propagation, recursion }
    } else {
        if options.propagation.is_some() {
            return Err(ApiError::invalid(format!("invalid mode: {} (propagation is for binds)", parts[2])));
        }
        let name: VolumeName = source.parse().map_err(|_| {
            ApiError::invalid(format!(
                "create {source}: {source:?} includes invalid characters for a local volume name, only \
                 \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
            ))
        })?;
        let new = NewVolume::default();
        MountSource::Volume { name, anonymous: false, copy_up: !options.no_copy, subpath: None, new }
    };
    Ok(plain(target, source, options.read_only))
}

/// The words after the second colon of `-v`.
#[derive(Default)]
struct BindOptions {
    read_only: bool,
    no_copy: bool,
    propagation: Option<BindPropagation>,
}

impl BindOptions {
    /// `None`: a word is unknown, or two contradict each other.
    fn parse(text: &str) -> Option<Self> {
        let mut options = Self::default();
        let mut seen = BTreeSet::new();
        for word in text.split(',').filter(|_| !text.is_empty()) {
            let group = match word {
                "rw" | "ro" => {
                    options.read_only = word == "ro";
                    "mode"
                }
                // SELinux labels: there is no SELinux that could confine a container of ours.
                "z" | "Z" => "label",
                "nocopy" => {
                    options.no_copy = true;
                    "copy"
                }
                // Only ever meant something on a Mac.
                "consistent" | "cached" | "delegated" | "default" => "consistency",
                _ => {
                    options.propagation = Some(propagation(word)?);
                    "propagation"
                }
            };
            if !seen.insert(group) {
                return None;
            }
        }
        Some(options)
    }
}

fn propagation(word: &str) -> Option<BindPropagation> {
    Some(match word {
        "rprivate" => BindPropagation::Rprivate,
        "private" => BindPropagation::Private,
        "rshared" => BindPropagation::Rshared,
        "shared" => BindPropagation::Shared,
        "rslave" => BindPropagation::Rslave,
        "slave" => BindPropagation::Slave,
        _ => return None,
    })
}

/// `--tmpfs target[:options]`, as the API's map has it.
fn tmpfs(target_text: &str, options: &str) -> Result<Mount, ApiError> {
    let target = target(target_text).map_err(|why| why.context("invalid tmpfs mount"))?;
    let mut tmpfs = TmpfsOptions::default();
    let mut read_only = false;
    for word in options.split(',').filter(|word| !word.is_empty()) {
        match word {
            "ro" => read_only = true,
            "rw" => read_only = false,
            // It is private to its container, whatever is asked.
            "private" | "rprivate" => {}
            _ => tmpfs_option(word, &mut tmpfs)
                .ok_or_else(|| ApiError::invalid(format!("Invalid tmpfs option {:?}", shorten(word))))?,
        }
    }
    Ok(plain(target, MountSource::Tmpfs(tmpfs), read_only))
}

/// One option of tmpfs(5) or of mount(8) that a tmpfs may have; `None` for any other.
fn tmpfs_option(word: &str, tmpfs: &mut TmpfsOptions) -> Option<()> {
    const FLAGS: [&str; 14] = [
        "exec",
        "noexec",
        "suid",
        "nosuid",
        "dev",
        "nodev",
        "sync",
        "async",
        "atime",
        "noatime",
        "diratime",
        "nodiratime",
        "relatime",
        "strictatime",
    ];
    let number = |text: &str| !text.is_empty() && text.len() < 20 && text.bytes().all(|b| b.is_ascii_digit());
    match word.split_once('=') {
        None if FLAGS.contains(&word) => tmpfs.options.push(word.to_owned()),
        Some(("size", percent)) if percent.strip_suffix('%').is_some_and(number) => tmpfs.options.push(word.to_owned()),
        Some(("size", size)) => tmpfs.size_bytes = Some(size_bytes(size)?),
        Some(("mode", mode)) => tmpfs.mode = Some(u32::from_str_radix(mode, 8).ok().filter(|mode| *mode <= 0o7777)?),
        Some(("uid" | "gid" | "nr_inodes" | "nr_blocks", value))
            if number(value.trim_end_matches(['k', 'K', 'm', 'M', 'g', 'G'])) =>
        {
            tmpfs.options.push(word.to_owned());
        }
        Some(("mpol", policy)) if policy.bytes().all(|b| b.is_ascii_alphanumeric() || b":=,-".contains(&b)) => {
            tmpfs.options.push(word.to_owned());
        }
        _ => return None,
    }
    Some(())
}

/// `64m`, `1g`, `65536`, as tmpfs(5) and Docker's log options read them: powers of 1024.
pub(crate) fn size_bytes(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches('b').trim_end_matches("i");
    let (digits, shift) = match digits.strip_suffix(['k', 'm', 'g', 't']) {
        Some(rest) => (
            rest,
            match digits.as_bytes().last() {
                Some(b'k') => 10,
                Some(b'm') => 20,
                Some(b'g') => 30,
                _ => 40,
            },
        ),
        None => (digits, 0),
    };
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// A place inside the container: absolute, cleaned of `.` and `..`, not the root.
fn target(text: &str) -> Result<PathBuf, ApiError> {
    let path = absolute(text)?;
    if path == Path::new("/") {
        return Err(ApiError::invalid("invalid specification: destination can't be '/'"));
    }
    Ok(path)
}

fn absolute(text: &str) -> Result<PathBuf, ApiError> {
    clean(Path::new(text)).ok_or_else(|| {
        ApiError::invalid(format!("invalid mount path: '{}' mount path must be absolute", shorten(text)))
    })
}

/// An absolute path without `.`, `..` and double slashes, by its letters alone, as Go's filepath.Clean.
pub(crate) fn clean(path: &Path) -> Option<PathBuf> {
    if !path.is_absolute() || path.as_os_str().as_encoded_bytes().contains(&0) {
        return None;
    }
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::ParentDir => {
                clean.pop();
            }
            Component::Normal(name) => clean.push(name),
            _ => {}
        }
    }
    Some(clean)
}

fn anonymous_volume(copy_up: bool) -> MountSource {
    // 64 random hexadecimal digits, which is what a fresh id is too.
    let name = ContainerId::random().as_str().parse().expect("hexadecimal digits are a name");
    MountSource::Volume { name, anonymous: true, copy_up, subpath: None, new: NewVolume::default() }
}

/// As the older forms have it, which leave the rest unsaid.
fn plain(target: PathBuf, source: MountSource, read_only: bool) -> Mount {
    Mount { target, source, read_only, structured: false, owner: MountOwner::default(), inherited: false }
}

fn shorten(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests;
