//! `HostConfig.Mounts` of an inspect: what `--mount` asked for, as it did. Fields that say nothing are left out, as in Docker.

use dozen_model::{BindPropagation, BindRecursion, ContainerSpec, Mount, MountSource, WhichFiles};
use serde_json::{Map, Value, json};

/// `None` where nothing was asked for in this form.
pub(crate) fn shown(spec: &ContainerSpec) -> Option<Value> {
    let list: Vec<Value> = spec.mounts.iter().filter(|mount| mount.structured && !mount.inherited).map(one).collect();
    (!list.is_empty()).then_some(Value::Array(list))
}

pub(super) fn one(mount: &Mount) -> Value {
    let (kind, source, options) = match &mount.source {
        MountSource::Bind { path, create_missing, propagation, recursion } => {
            let mut options = Map::new();
            if *propagation != BindPropagation::Rprivate {
                options.insert("Propagation".into(), propagation.word().into());
            }
            let switch = match recursion {
                BindRecursion::Enabled => None,
                BindRecursion::Disabled => Some("NonRecursive"),
                BindRecursion::Writable => Some("ReadOnlyNonRecursive"),
                BindRecursion::ReadOnly => Some("ReadOnlyForceRecursive"),
            };
            options.extend(switch.into_iter().chain(create_missing.then_some("CreateMountpoint")).map(on));
            ("bind", path.display().to_string(), ("BindOptions", options))
        }
        MountSource::Volume { name, anonymous, copy_up, subpath, new } => {
            let mut options = Map::new();
            options.extend((!copy_up).then_some("NoCopy").map(on));
            if !new.labels.is_empty() {
                options.insert("Labels".into(), json!(new.labels));
            }
            if !new.options.is_empty() {
                options.insert("DriverConfig".into(), json!({ "Name": "local", "Options": new.options }));
            }
            options.extend(subpath.as_ref().map(|path| ("Subpath".to_owned(), json!(path))));
            let name = if *anonymous { String::new() } else { name.to_string() };
            ("volume", name, ("VolumeOptions", options))
        }
        MountSource::Tmpfs(asked) => {
            let mut options = Map::new();
            options.extend(asked.size_bytes.map(|bytes| ("SizeBytes".to_owned(), json!(bytes))));
            options.extend(asked.mode.map(|mode| ("Mode".to_owned(), json!(mode))));
            if !asked.options.is_empty() {
                let words: Vec<Vec<&str>> = asked.options.iter().map(|word| word.splitn(2, '=').collect()).collect();
                options.insert("Options".into(), json!(words));
            }
            ("tmpfs", String::new(), ("TmpfsOptions", options))
        }
        MountSource::Image { name, subpath, .. } => {
            let options = subpath.iter().map(|path| ("Subpath".to_owned(), json!(path))).collect();
            ("image", name.clone(), ("ImageOptions", options))
        }
        MountSource::Artifact(artifact) => {
            let mut options = Map::new();
            match &artifact.wanted.which {
                WhichFiles::All => {}
                WhichFiles::Digest(digest) => _ = options.insert("Digest".into(), json!(digest)),
                WhichFiles::Title(title) => _ = options.insert("Title".into(), json!(title)),
            }
            options.extend(artifact.wanted.file_name.iter().map(|name| ("Name".to_owned(), json!(name))));
            ("artifact", artifact.name.clone(), ("ArtifactOptions", options))
        }
        // Of a build's step: Docker has no word for it.
        MountSource::Layers { subpath, .. } => {
            let options = subpath.iter().map(|path| ("Subpath".to_owned(), json!(path))).collect();
            ("image", String::new(), ("ImageOptions", options))
        }
    };
    let mut shown = json!({ "Type": kind, "Target": mount.target });
    if !source.is_empty() {
        shown["Source"] = source.into();
    }
    if mount.read_only {
        shown["ReadOnly"] = true.into();
    }
    if !options.1.is_empty() {
        shown[options.0] = Value::Object(options.1);
    }
    if mount.owner != dozen_model::MountOwner::default() {
        shown["Owner"] = json!({ "UID": mount.owner.user, "GID": mount.owner.group });
    }
    shown
}

fn on(name: &str) -> (String, Value) {
    (name.to_owned(), true.into())
}
