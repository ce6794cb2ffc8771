//! The parameters of `POST /build`: each acts, asks for nothing, or is refused by its name.

use std::collections::BTreeMap;

use dozen_dockerfile::scope::{Given, Platform};
use dozen_engine::{BuildRequest, DockerfileSource, HostResources};
use dozen_model::{Reference, Ulimit};
use dozen_settings::Settings;
use jiff::Timestamp;
use serde::de::DeserializeOwned;

use super::create::host_entry;
use super::resources::{self, RequestedUlimit, Resources};
use crate::error::ApiError;
use crate::extract::Query;

/// What becomes of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parameter {
    /// It is read into the request, or by the route.
    Acts,
    /// It asks for nothing that anybody could notice; the comment beside it says why.
    Ignored,
    /// Not built: refused unless it is empty, off, or one of these. What is said of it, and the way out.
    Refused(&'static [&'static str], &'static str, &'static str),
}

use Parameter::{Acts, Ignored, Refused};

/// An empty list or map as clients of Go write it.
const NOTHING: &[&str] = &["null", "[]", "{}"];

/// All parameters of Docker's API 1.24 to 1.51, and ours. Others are passed over, as Docker passes over them.
const PARAMETERS: &[(&str, Parameter)] = &[
    ("dockerfile", Acts),
    ("t", Acts),
    ("q", Acts),
    ("nocache", Acts),
    ("target", Acts),
    ("platform", Acts),
    ("buildargs", Acts),
    ("labels", Acts),
    ("networkmode", Acts),
    ("extrahosts", Acts),
    ("shmsize", Acts),
    ("ulimits", Acts),
    ("memory", Acts),
    ("memswap", Acts),
    ("cpushares", Acts),
    ("cpuquota", Acts),
    ("cpuperiod", Acts),
    ("cpusetcpus", Acts),
    ("cpusetmems", Acts),
    ("cgroupparent", Acts),
    // Ours.
    ("nocachefilter", Acts),
    ("allow", Acts),
    ("sourceDateEpoch", Acts),
    // What a step ran in is always gone at its end, however it ended: docker's own client asks for that, and the SDKs'
    // "keep them" is only that nobody has said anything.
    ("rm", Ignored),
    ("forcerm", Ignored),
    ("remote", Refused(&[], "a build context from an address", "fetch it, and send the file: curl … | dozen build -")),
    (
        "pull",
        Refused(
            &[],
            "pulling base images anew (\"pull\")",
            "leave --pull out; base images are brought in with: dozen load -i FILE",
        ),
    ),
    (
        "squash",
        Refused(&[], "squashing layers (\"squash\")", "a last stage that copies from the others has few layers"),
    ),
    (
        "cachefrom",
        Refused(NOTHING, "other images as a cache (\"cachefrom\")", "leave --cache-from out: the engine keeps a cache"),
    ),
    (
        "outputs",
        Refused(
            NOTHING,
            "BuildKit's \"outputs\"",
            "dozen build -o type=local,dest=DIRECTORY does it on the client's side",
        ),
    ),
    ("version", Refused(&["1"], "BuildKit's protocol (\"version\")", "set DOCKER_BUILDKIT=0, or use 'dozen build'")),
    ("session", Refused(&[], "a build session", "set DOCKER_BUILDKIT=0, or use 'dozen build'")),
    (
        "buildid",
        Refused(&[], "cancelling a build by its id (\"buildid\")", "a build ends with its client's connection"),
    ),
    ("isolation", Refused(&["default"], "the parameter \"isolation\"", "leave it out: Linux has no other")),
    ("securityopt", Refused(NOTHING, "the parameter \"securityopt\"", "leave --security-opt out")),
];

/// What a request asks for, with the engine's configuration where it leaves things open; and what Docker warns of.
/// `platform` and `created` are parameters that other requests have too.
pub(crate) fn request(
    query: &Query,
    platform: Option<&dozen_engine::Platform>,
    created: Option<Timestamp>,
    settings: &Settings,
) -> Result<(BuildRequest, Vec<String>), ApiError> {
    for (name, parameter) in PARAMETERS {
        if let Refused(neutral, what, hint) = parameter {
            let asks = |text: &str| !neutral.contains(&text.trim()) && Query::is_on(text);
            if query.all(name).any(asks) {
                return Err(ApiError::not_built(what).with_hint(*hint));
            }
        }
    }
    let mut warnings = Vec::new();
    let limits = limits(query, settings, &mut warnings)?;
    let host = of(&dozen_engine::Platform::host());
    let build = BuildRequest {
        dockerfile: query
            .text("dockerfile")
            .map_or_else(Default::default, |path| DockerfileSource::InContext(path.into())),
        given: Given {
            // One without a value is one that the client has none for: it keeps its default.
            arguments: given(json::<BTreeMap<String, Option<String>>>(query, "buildargs")?),
            target_platform: platform.map_or_else(|| host.clone(), of),
            build_platform: host,
            target_stage: query.text("target").unwrap_or_default().to_owned(),
        },
        tags: tags(query)?,
        labels: json(query, "labels")?,
        no_cache: query.flag("nocache"),
        no_cache_stages: listed(query, "nocachefilter"),
        network: query.text("networkmode").filter(|mode| *mode != "default").map(str::to_owned),
        hosts: query.all("extrahosts").filter(|it| !it.is_empty()).map(host_entry).collect::<Result<_, _>>()?,
        shm_size_bytes: Some(match query.number::<i64>("shmsize")?.map(u64::try_from) {
            None | Some(Ok(0)) => settings.shm_size_bytes,
            Some(Ok(size)) => size,
            Some(Err(_)) => return Err(ApiError::invalid("SHM size can not be less than 0")),
        }),
        ulimits: limits.ulimits,
        memory_bytes: limits.memory.limit_bytes,
        memory_swap_bytes: limits.memory.with_swap_bytes,
        cpu_shares: limits.cpu.shares,
        cpu_quota_us: limits.cpu.quota_us,
        cpu_period_us: limits.cpu.period_us,
        cpuset_cpus: some(limits.cpu.cpus),
        cpuset_memory_nodes: some(limits.cpu.memory_nodes),
        cgroup_parent: limits.cgroup_parent.map(|parent| parent.to_string()),
        secrets: BTreeMap::new(),
        entitlements: entitlements(query)?,
        source_date_epoch: created.map(Timestamp::as_second),
    };
    Ok((build, warnings))
}

/// The limits of RUN, by the rules that hold for containers.
fn limits(
    query: &Query,
    settings: &Settings,
    warnings: &mut Vec<String>,
) -> Result<dozen_model::ResourceSpec, ApiError> {
    let number = |name| query.number::<i64>(name).map(Option::unwrap_or_default);
    let text = |name| query.text(name).unwrap_or_default().to_owned();
    let mut asked = Resources {
        memory: number("memory")?,
        memory_swap: number("memswap")?,
        cpu_shares: number("cpushares")?,
        cpu_period: number("cpuperiod")?,
        cpu_quota: number("cpuquota")?,
        cpuset_cpus: text("cpusetcpus"),
        cpuset_mems: text("cpusetmems"),
        cgroup_parent: text("cgroupparent"),
        ulimits: json(query, "ulimits")?,
        ..Resources::default()
    };
    for (name, Ulimit { soft, hard, .. }) in defaults(settings) {
        if !asked.ulimits.iter().any(|other| other.name == name) {
            asked.ulimits.push(RequestedUlimit { name, soft, hard });
        }
    }
    if asked.cgroup_parent.is_empty() {
        asked.cgroup_parent.clone_from(&settings.containers.cgroup_parent);
    }
    resources::spec(&asked, HostResources::of_host(), warnings)
}

fn defaults(settings: &Settings) -> impl Iterator<Item = (String, Ulimit)> {
    settings
        .containers
        .ulimits
        .iter()
        .map(|(name, limit)| (name.clone(), Ulimit { name: name.clone(), soft: limit.soft, hard: limit.hard }))
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn of(platform: &dozen_engine::Platform) -> Platform {
    Platform {
        os: platform.os.clone(),
        architecture: platform.architecture.clone(),
        variant: platform.variant.clone().unwrap_or_default(),
    }
}

fn given(arguments: BTreeMap<String, Option<String>>) -> BTreeMap<String, String> {
    arguments.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// A parameter that is JSON; without one, or with null, what is there for nothing.
fn json<T: DeserializeOwned + Default>(query: &Query, name: &str) -> Result<T, ApiError> {
    let Some(text) = query.text(name) else { return Ok(T::default()) };
    let read: Result<Option<T>, _> = serde_json::from_str(text);
    // What is wrong is not told: an argument may be a password.
    read.map(Option::unwrap_or_default).map_err(|error| {
        let at = error.column();
        ApiError::invalid(format!("the parameter {name:?} is not the JSON that it has to be (at character {at})"))
    })
}

/// Given again, or in one with commas.
fn listed(query: &Query, name: &str) -> Vec<String> {
    query
        .all(name)
        .flat_map(|text| text.split(','))
        .map(str::trim)
        .filter(|it| !it.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Names with a tag, each once.
fn tags(query: &Query) -> Result<Vec<Reference>, ApiError> {
    let mut tags: Vec<Reference> = Vec::new();
    for text in query.all("t").filter(|text| !text.is_empty()) {
        let tag: Reference = text.parse()?;
        if tag.digest().is_some() {
            return Err(ApiError::invalid("build tag cannot contain a digest"));
        }
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    Ok(tags)
}

/// What a Dockerfile may do that it otherwise may not (docs.docker.com/reference/cli/docker/buildx/build, "--allow").
fn entitlements(query: &Query) -> Result<Vec<String>, ApiError> {
    let all = listed(query, "allow");
    match all.iter().find(|it| !["security.insecure", "network.host"].contains(&it.as_str())) {
        Some(other) => Err(ApiError::not_built(format_args!("the entitlement {other:?}"))
            .with_hint("there are \"security.insecure\" and \"network.host\"")),
        None => Ok(all),
    }
}

#[cfg(test)]
mod tests;
