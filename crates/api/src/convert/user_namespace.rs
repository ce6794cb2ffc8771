//! `HostConfig.UsernsMode`: whose users and groups a container has. Decided once, when it is made.

use std::sync::Arc;

use dozen_model::{ContainerId, ContainerSpec, IdRange, IpcMode, NetworkMode, PidMode, UserNamespace};
use dozen_settings::UserSettings;
use serde_json::{Value, json};

use crate::error::ApiError;

/// So that the group of terminals, which is 5 everywhere, is among them.
const LEAST_COUNT: u32 = 6;

/// Looks up a container by name or id.
pub(crate) type Find<'a> = &'a dyn Fn(&str) -> Result<(ContainerId, Arc<ContainerSpec>), ApiError>;

/// As it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Asked {
    /// Nothing, or `host`.
    Host { said: bool },
    /// `auto`.
    Own { said: bool, count: u32 },
    /// `container:NAME`.
    Container(ContainerId),
}

/// Puts the decision into the spec; or answers how many ids of its own the container is to have, which the engine chooses.
/// `find` looks up containers.
pub(crate) fn decide(
    mode: &str,
    spec: &mut ContainerSpec,
    defaults: &UserSettings,
    find: Find<'_>,
) -> Result<Option<u32>, ApiError> {
    let asked = read(mode, defaults, find)?;
    let mut joined = Vec::new();
    for (what, id) in joins(spec) {
        let (id, other) = find(id.as_str())?;
        joined.push((what, id, other.user_namespace.clone()));
    }
    let count = match asked {
        // Those of whom it joins, and of nobody else: a namespace is governed by who is root where it belongs.
        Asked::Host { said: false } | Asked::Own { said: false, .. } if !joined.is_empty() => {
            let (_, id, user_namespace) = &joined[0];
            spec.user_namespace = of_other(id, user_namespace, UserNamespace::Unsaid);
            spec.user_namespace.ids().map(IdRange::count)
        }
        Asked::Host { said } => {
            spec.user_namespace = if said { UserNamespace::Host } else { UserNamespace::Unsaid };
            None
        }
        Asked::Own { count, .. } => Some(count),
        Asked::Container(id) => {
            let (id, other) = find(id.as_str())?;
            spec.user_namespace = of_other(&id, &other.user_namespace, UserNamespace::Host);
            spec.user_namespace.ids().map(IdRange::count)
        }
    };
    // Whoever has ids of its own from now on shares them with nobody that is there already.
    let own = spec.user_namespace.ids();
    let is_new = own.is_none() && count.is_some();
    if let Some((what, id, _)) = joined.iter().find(|(.., other)| is_new || other.ids() != own) {
        return Err(ApiError::invalid(format!(
            "cannot join the {what} namespace of container {}: it has other users than this one",
            id.short()
        ))
        .with_hint("leave --userns away: a container has the users of those that it joins"));
    }
    if let Some(count) = count {
        check(spec, count)?;
    }
    Ok(count.filter(|_| is_new))
}

fn read(mode: &str, defaults: &UserSettings, find: Find<'_>) -> Result<Asked, ApiError> {
    let invalid = || ApiError::invalid(format!("invalid userns mode: {}", mode.chars().take(200).collect::<String>()));
    match mode {
        "" if defaults.own_ids => return Ok(Asked::Own { said: false, count: UserNamespace::USUAL_COUNT }),
        "" | "host" => return Ok(Asked::Host { said: !mode.is_empty() }),
        "auto" => return Ok(Asked::Own { said: true, count: UserNamespace::USUAL_COUNT }),
        _ => {}
    }
    match mode.split_once(':') {
        Some(("container", name)) if !name.is_empty() => find(name).map(|(id, _)| Asked::Container(id)),
        Some(("auto", options)) => {
            let mut count = UserNamespace::USUAL_COUNT;
            for option in options.split(',') {
                match option.split_once('=') {
                    Some(("size", text)) => {
                        let size = text.parse().ok().filter(|size| (LEAST_COUNT..u32::MAX).contains(size));
                        count = size.ok_or_else(|| {
                            ApiError::invalid(format!(
                                "userns mode auto: size={text}: want a number from {LEAST_COUNT} on"
                            ))
                        })?;
                    }
                    Some(("uidmapping" | "gidmapping", _)) => {
                        return Err(ApiError::not_built(format!("userns mode auto:{option}")));
                    }
                    _ => return Err(invalid()),
                }
            }
            Ok(Asked::Own { said: true, count })
        }
        // Podman's.
        Some(("keep-id" | "ns", _)) => Err(ApiError::not_built(format!("userns mode {mode}"))),
        None if matches!(mode, "keep-id" | "nomap" | "private") => {
            Err(ApiError::not_built(format!("userns mode {mode}")).with_hint("auto gives it ids of its own"))
        }
        _ => Err(invalid()),
    }
}

/// The namespaces of others that it joins, by what Docker calls them.
fn joins(spec: &ContainerSpec) -> impl Iterator<Item = (&'static str, &ContainerId)> {
    let network = match &spec.network {
        NetworkMode::Container(id) => Some(("network", id)),
        _ => None,
    };
    let pid = match &spec.sharing.pid {
        PidMode::Container(id) => Some(("PID", id)),
        PidMode::Private | PidMode::Host => None,
    };
    let ipc = match &spec.sharing.ipc {
        IpcMode::Container(id) => Some(("IPC", id)),
        _ => None,
    };
    [network, pid, ipc].into_iter().flatten()
}

fn of_other(id: &ContainerId, other: &UserNamespace, host: UserNamespace) -> UserNamespace {
    match other {
        UserNamespace::Unsaid | UserNamespace::Host => host,
        UserNamespace::Own(ids) => UserNamespace::Container { id: id.clone(), ids: *ids },
        // With that one it has the user namespace of a third, in which both are from then on.
        UserNamespace::Container { ids, .. } => UserNamespace::Container { id: id.clone(), ids: *ids },
    }
}

/// What cannot be had in a user namespace, in Docker's words where it has some.
fn check(spec: &ContainerSpec, count: u32) -> Result<(), ApiError> {
    let hint = "give it the host's users with --userns host";
    for (given, words) in [
        (
            spec.isolation.privileged,
            "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when \
             running privileged mode",
        ),
        (
            spec.network == NetworkMode::Host,
            "cannot share the host's network namespace when user namespaces are enabled",
        ),
        (spec.sharing.pid == PidMode::Host, "cannot share the host PID namespace when user namespaces are enabled"),
        (spec.sharing.ipc == IpcMode::Host, "cannot share the host IPC namespace when user namespaces are enabled"),
    ] {
        if given {
            return Err(ApiError::invalid(words).with_hint(hint));
        }
    }
    let user = &spec.process.user;
    let numbers = [&user.user, &user.group].into_iter().flatten().filter_map(|text| text.parse::<u32>().ok());
    let owners = spec.mounts.iter().flat_map(|mount| [mount.owner.user, mount.owner.group]).flatten();
    match numbers.chain(spec.sharing.group_numbers()).chain(owners).find(|number| *number >= count) {
        Some(number) => Err(ApiError::invalid(format!(
            "{number} is not among the {count} users and groups of the container's user namespace"
        ))
        .with_hint(format!("--userns auto:size={} has it", u64::from(number) + 1))),
        None => Ok(()),
    }
}

/// Its part of inspect's HostConfig; the maps are as Podman shows them.
pub(crate) fn show(host: &mut Value, spec: &ContainerSpec) {
    let usual = UserNamespace::USUAL_COUNT;
    host["UsernsMode"] = match &spec.user_namespace {
        UserNamespace::Unsaid => json!(""),
        UserNamespace::Host => json!("host"),
        UserNamespace::Own(ids) if ids.count() == usual => json!("auto"),
        UserNamespace::Own(ids) => json!(format!("auto:size={}", ids.count())),
        UserNamespace::Container { id, .. } => json!(format!("container:{id}")),
    };
    if let Some(ids) = spec.user_namespace.ids() {
        let map = format!("0:{ids}");
        host["IDMappings"] = json!({ "UidMap": [map], "GidMap": [map] });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::create;
    use crate::convert::request::Create;

    fn id(letter: &str) -> ContainerId {
        letter.repeat(64).parse().unwrap()
    }

    fn ids() -> IdRange {
        "100000:1000".parse().unwrap()
    }

    fn spec(body: Value, find: &dyn Fn(&str) -> Result<ContainerId, ApiError>) -> ContainerSpec {
        let request: Create = serde_json::from_value(body).unwrap();
        let image = dozen_model::ImageId::new(format!("sha256:{}", "a".repeat(64)).parse().unwrap());
        create::spec(&request, image, &Default::default(), find).unwrap().0
    }

    /// `own` and `its` share ids, `plain` has the host's.
    fn decided(mode: &str, remap: bool, mut body: Value) -> Result<(UserNamespace, Option<u32>), String> {
        let known = |name: &str| {
            [("own", "a"), ("its", "b"), ("plain", "c")]
                .into_iter()
                .find(|(known, letter)| name == *known || name == letter.repeat(64))
                .map(|(_, letter)| id(letter))
                .ok_or_else(|| ApiError::invalid(format!("No such container: {name}")))
        };
        body["Image"] = json!("x");
        body["Cmd"] = json!(["x"]);
        let mut asked = spec(body, &known);
        let find = |name: &str| {
            let id_of = known(name)?;
            let mut other = spec(json!({"Image": "x", "Cmd": ["x"]}), &known);
            if id_of == id("a") {
                other.user_namespace = UserNamespace::Own(ids());
            } else if id_of == id("b") {
                other.user_namespace = UserNamespace::Container { id: id("a"), ids: ids() };
            }
            Ok((id_of, Arc::new(other)))
        };
        let defaults = UserSettings { own_ids: remap, ..UserSettings::default() };
        let own = decide(mode, &mut asked, &defaults, &find).map_err(|error| error.message)?;
        Ok((asked.user_namespace, own))
    }

    #[test]
    fn what_is_said_goes_before_the_engine_s_default() {
        let usual = Some(UserNamespace::USUAL_COUNT);
        for (mode, remap, want) in [
            ("", false, (UserNamespace::Unsaid, None)),
            ("", true, (UserNamespace::Unsaid, usual)),
            ("host", false, (UserNamespace::Host, None)),
            ("host", true, (UserNamespace::Host, None)),
            ("auto", false, (UserNamespace::Unsaid, usual)),
            ("auto:size=70000", true, (UserNamespace::Unsaid, Some(70_000))),
            ("container:own", false, (UserNamespace::Container { id: id("a"), ids: ids() }, None)),
            ("container:its", true, (UserNamespace::Container { id: id("b"), ids: ids() }, None)),
            ("container:plain", true, (UserNamespace::Host, None)),
        ] {
            assert_eq!(decided(mode, remap, json!({})), Ok(want), "{mode} {remap}");
        }
        for (mode, words) in [
            ("auto:size=5", "size=5: want a number from 6 on"),
            ("auto:size=", "want a number"),
            ("auto:size=4294967295", "want a number"),
            ("auto:uidmapping=0:1:2", "userns mode auto:uidmapping=0:1:2 is not built"),
            ("auto:", "invalid userns mode: auto:"),
            ("keep-id", "userns mode keep-id is not built"),
            ("ns:/proc/1/ns/user", "is not built"),
            ("private", "is not built"),
            ("container:", "invalid userns mode"),
            ("container:nobody", "No such container: nobody"),
            ("own", "invalid userns mode: own"),
        ] {
            let error = decided(mode, false, json!({})).unwrap_err();
            assert!(error.contains(words), "{mode}: {error}");
        }
    }

    #[test]
    fn who_joins_another_has_its_users() {
        let joins = |what: &str, whom: &str| json!({ "HostConfig": { what: format!("container:{whom}") } });
        for what in ["NetworkMode", "PidMode", "IpcMode"] {
            for remap in [false, true] {
                let of = |mode: &str, whom: &str| decided(mode, remap, joins(what, whom));
                let shared = |letter: &str| Ok((UserNamespace::Container { id: id(letter), ids: ids() }, None));
                assert_eq!(of("", "own"), shared("a"), "{what} {remap}");
                assert_eq!(of("", "its"), shared("b"));
                assert_eq!(of("", "plain"), Ok((UserNamespace::Unsaid, None)));
                assert_eq!(of("host", "plain"), Ok((UserNamespace::Host, None)));
                for (mode, whom) in [("host", "own"), ("auto", "own"), ("auto", "plain"), ("container:plain", "own")] {
                    let error = of(mode, whom).unwrap_err();
                    assert!(error.contains("it has other users than this one"), "{mode} {whom}: {error}");
                }
            }
        }
        let both = |other: &str| json!({ "HostConfig": { "NetworkMode": "container:own", "IpcMode": format!("container:{other}") } });
        assert!(decided("", false, both("its")).is_ok());
        assert!(
            decided("", false, both("plain")).unwrap_err().contains("cannot join the IPC namespace of container ccc")
        );
    }

    #[test]
    fn what_cannot_be_had_is_refused() {
        for (host, words) in [
            (json!({"Privileged": true}), "privileged mode is incompatible with user namespaces.  You must run"),
            (
                json!({"NetworkMode": "host"}),
                "cannot share the host's network namespace when user namespaces are enabled",
            ),
            (json!({"PidMode": "host"}), "cannot share the host PID namespace when user namespaces are enabled"),
            (json!({"IpcMode": "host"}), "cannot share the host IPC namespace"),
            (json!({"GroupAdd": ["65536"]}), "65536 is not among the 65536 users and groups"),
        ] {
            let body = json!({ "HostConfig": host });
            for (mode, remap) in [("auto", false), ("", true)] {
                let error = decided(mode, remap, body.clone()).unwrap_err();
                assert!(error.contains(words), "{mode}: {error}");
            }
            assert!(decided("host", true, body).is_ok());
        }
        let as_user = |user: &str, mode: &str| decided(mode, false, json!({ "User": user }));
        assert!(as_user("70000", "auto").unwrap_err().contains("70000 is not among"));
        assert!(as_user("0:70000", "auto").is_err() && as_user("70000", "auto:size=70001").is_ok());
        let privileged = json!({ "HostConfig": { "Privileged": true } });
        assert!(decided("container:own", false, privileged).unwrap_err().contains("incompatible with user namespaces"));
    }

    #[test]
    fn inspect_shows_what_create_takes() {
        let shown = |user_namespace: UserNamespace| {
            let nobody = |name: &str| Err(ApiError::invalid(name));
            let mut spec = spec(json!({"Image": "x", "Cmd": ["x"]}), &nobody);
            spec.user_namespace = user_namespace;
            let host = crate::convert::inspect::host_config(&spec);
            (host["UsernsMode"].as_str().unwrap().to_owned(), host["IDMappings"]["UidMap"][0].clone())
        };
        assert_eq!(shown(UserNamespace::Unsaid), (String::new(), Value::Null));
        assert_eq!(shown(UserNamespace::Host), ("host".to_owned(), Value::Null));
        assert_eq!(shown(UserNamespace::Own(ids())), ("auto:size=1000".to_owned(), json!("0:100000:1000")));
        assert_eq!(shown(UserNamespace::Own("100000:65536".parse().unwrap())).0, "auto");
        let joined = UserNamespace::Container { id: id("a"), ids: ids() };
        assert_eq!(shown(joined), (format!("container:{}", id("a")), json!("0:100000:1000")));
    }
}
