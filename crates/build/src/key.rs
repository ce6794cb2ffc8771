//! What a step is known by in the build cache: a digest of all that its result depends on, and of nothing else.
//!
//! It is the SHA-256 of a JSON text whose members are sorted, with the number of this form in it: entries of another form
//! are never found, and so need no care. Values of secrets never enter it, nor does where a step stands.

use dozen_dockerfile::instruction::{RunNetwork, RunSecurity};
use dozen_dockerfile::{FileMode, MountSpec, Owner};
use dozen_model::{Digest, HostEntry, Ulimit};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::operation::{Copy, MakeDirectory, Operation, Run, Source};
use crate::repository::listing::Chosen;

/// Another number for another form.
const FORM: u32 = 1;

/// What lies under a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Below<'a> {
    /// These layers, lowest first: none if the stage begins from scratch.
    Layers(&'a [Digest]),
    /// The step's layer is the same whatever is below: `--link`.
    Anything,
}

/// What the build was told, as far as a step's result depends on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Circumstances {
    /// `--network`, for a RUN that says nothing of it.
    pub network: Option<String>,
    /// `--add-host`.
    pub hosts: Vec<HostEntry>,
    /// Of /dev/shm.
    pub shm_size_bytes: Option<u64>,
    /// `--ulimit`.
    pub ulimits: Vec<Ulimit>,
    /// The time of everything, in seconds.
    pub source_date_epoch: Option<i64>,
}

/// The key of a step. `contents` are the digests of the files that it takes, each with its name, owner and mode: of a
/// COPY's sources, or of a RUN's mounts that have an origin, in order.
pub fn of(operation: &Operation, below: Below<'_>, contents: &[Digest], circumstances: &Circumstances) -> Digest {
    let what = match operation {
        Operation::Run(step) => json!({ "run": run(step, circumstances) }),
        Operation::Copy(step) => json!({ "copy": copy(step) }),
        Operation::MakeDirectory(MakeDirectory { path, user }) => {
            json!({ "directory": { "path": path, "user": user } })
        }
    };
    let below = match below {
        Below::Layers(layers) => json!(layers),
        Below::Anything => Value::Null,
    };
    let whole = json!({
        "form": FORM,
        "what": what,
        "below": below,
        "contents": contents,
        "date": circumstances.source_date_epoch,
    });
    // Members of a JSON value are sorted, so equal values give equal texts.
    Digest::from_sha256(Sha256::digest(whole.to_string()).into())
}

/// What a step is known by that somebody else says to have done, with this layer for its result: it is found where the same
/// is said again, and nowhere else.
pub fn of_imported(key: &Digest, layer: &Digest) -> Digest {
    Digest::from_sha256(Sha256::digest(format!("imported\n{key}\n{layer}")).into())
}

/// What stands for all files that layers make when they lie above one another, lowest first.
pub fn of_layers(layers: &[Digest]) -> Digest {
    let mut hash = Sha256::new();
    layers.iter().for_each(|layer| hash.update(format!("{layer}\n")));
    Digest::from_sha256(hash.finalize().into())
}

/// What stands for a part of some files: a path in them, and what stands for them.
pub fn of_part(files: &Digest, part: &str) -> Digest {
    Digest::from_sha256(Sha256::digest(format!("{files}\n{part}")).into())
}

/// What stands for all files of some repositories, each at the commit that was chosen.
pub fn of_commits<'c>(all: impl IntoIterator<Item = &'c Chosen>) -> Digest {
    let mut hash = Sha256::new();
    for Chosen { name, object, commit } in all {
        hash.update(format!("commit {commit} {object} {}\n", name.as_deref().unwrap_or_default()));
    }
    Digest::from_sha256(hash.finalize().into())
}

fn run(run: &Run, circumstances: &Circumstances) -> Value {
    let Circumstances { network: of_build, hosts, shm_size_bytes, ulimits, source_date_epoch: _ } = circumstances;
    // What the proxies are changes the way to a file, and not the file.
    let Run { arguments, script, environment, proxies: _, user, working_directory, mounts, network, security } = run;
    let network = match network {
        RunNetwork::Default => json!({ "of the build": of_build }),
        RunNetwork::None => json!("none"),
        RunNetwork::Host => json!("host"),
    };
    let security = match security {
        RunSecurity::Sandbox => "sandbox",
        RunSecurity::Insecure => "insecure",
    };
    json!({
        "arguments": arguments,
        "script": script,
        "environment": environment,
        "user": user,
        "directory": working_directory,
        "mounts": mounts.iter().map(|it| mount(it.spec())).collect::<Value>(),
        "network": network,
        "security": security,
        "hosts": hosts.iter().map(|host| json!([host.name, host.address])).collect::<Value>(),
        "shared memory": shm_size_bytes,
        "limits": ulimits.iter().map(|it| json!([it.name, it.soft, it.hard])).collect::<Value>(),
    })
}

/// Where its files come from is said by what they are; how builds share a cache changes nothing in it.
fn mount(mount: &MountSpec) -> Value {
    match mount {
        MountSpec::Bind { from: _, source, target, is_writable } => {
            json!({ "bind": source, "target": target, "writable": is_writable })
        }
        MountSpec::Cache { id, target, sharing: _, from: _, source, owner, is_writable } => {
            let id = id.as_ref().unwrap_or(target);
            json!({
                "cache": id, "target": target, "source": source, "writable": is_writable, "owner": self::owner(*owner),
            })
        }
        MountSpec::Tmpfs { target, size_bytes } => json!({ "tmpfs": target, "size": size_bytes }),
        MountSpec::Secret { id, target, env, is_required, owner } => json!({
            "secret": id, "target": target, "variable": env, "required": is_required, "owner": self::owner(*owner),
        }),
        MountSpec::Ssh { id, target, is_required, owner } => {
            json!({ "ssh": id, "target": target, "required": is_required, "owner": self::owner(*owner) })
        }
    }
}

fn owner(Owner { mode, user, group }: Owner) -> Value {
    json!([mode, user, group])
}

fn copy(copy: &Copy) -> Value {
    // Stages have other numbers as soon as one is added.
    let Copy { origin: _, sources, destination, owner, mode, link, parents, exclude, add } = copy;
    let mode = match mode {
        None => Value::Null,
        Some(FileMode::Bits(bits)) => json!(bits),
        Some(FileMode::Changes(changes)) => json!(changes),
    };
    let add = add.as_ref().map(|add| json!([add.checksum, add.keep_git_directory, add.unpack]));
    json!({
        "sources": sources.iter().map(source).collect::<Value>(),
        "destination": destination,
        "owner": owner,
        "mode": mode,
        "link": link,
        "parents": parents,
        "exclude": exclude,
        "add": add,
    })
}

fn source(source: &Source) -> Value {
    match source {
        Source::Path(path) => json!({ "path": path }),
        Source::Inline { name, content } => json!({ "name": name, "content": content }),
        Source::Url(url) => json!({ "url": url }),
        Source::Git(repository) => json!({ "git": repository }),
    }
}

#[cfg(test)]
mod tests;
