//! The parameters of `POST /build`: each acts, asks for nothing, or is refused by its name.

mod attest;

use std::collections::BTreeMap;

use dozen_dockerfile::scope::{Given, Platform};
use dozen_engine::{BuildName, BuildRequest, DockerfileSource};
use dozen_model::{ContainerSpec, Reference};
use jiff::Timestamp;
use serde::de::DeserializeOwned;

use super::request::{Create, HostConfig, LogConfig};
use super::resources::Resources;
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
    ("buildid", Acts),
    ("cachefrom", Acts),
    ("pull", Acts),
    // Ours.
    ("nocachefilter", Acts),
    ("allow", Acts),
    ("debugshell", Acts),
    ("attest", Acts),
    ("sourceDateEpoch", Acts),
    ("cacheto", Acts),
    // What a step ran in is always gone at its end, however it ended: docker's own client asks for that, and the SDKs'
    // "keep them" is only that nobody has said anything.
    ("rm", Ignored),
    ("forcerm", Ignored),
    ("remote", Acts),
    (
        "squash",
        Refused(&[], "squashing layers (\"squash\")", "a last stage that copies from the others has few layers"),
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
    ("isolation", Refused(&["default"], "the parameter \"isolation\"", "leave it out: Linux has no other")),
    ("securityopt", Refused(NOTHING, "the parameter \"securityopt\"", "leave --security-opt out")),
];

/// What a request asks for, with the engine's configuration where it leaves things open; and what Docker warns of.
/// `platform` and `created` are parameters that other requests have too; `container` makes a container's specification of a
/// request for one, and says how many users of its own it has.
pub(crate) fn request(
    query: &Query,
    platform: Option<&dozen_engine::Platform>,
    created: Option<Timestamp>,
    container: impl FnOnce(Create) -> Result<(ContainerSpec, Option<u32>), ApiError>,
) -> Result<BuildRequest, ApiError> {
    for (name, parameter) in PARAMETERS {
        if let Refused(neutral, what, hint) = parameter {
            let asks = |text: &str| !neutral.contains(&text.trim()) && Query::is_on(text);
            if query.all(name).any(asks) {
                return Err(ApiError::not_built(what).with_hint(*hint));
            }
        }
    }
    let (container, own_ids) = container(of_steps(query)?)?;
    // Without a value: the client has none, and it keeps its default.
    let mut arguments = given(json::<BTreeMap<String, Option<String>>>(query, "buildargs")?);
    if let Some(created) = created {
        arguments.insert("SOURCE_DATE_EPOCH".to_owned(), created.as_second().to_string());
    }
    let cache_to = cache_to(query)?;
    let inline = arguments.get("BUILDKIT_INLINE_CACHE").is_some_and(|value| matches!(value.as_str(), "1" | "true"));
    let host = of(&dozen_engine::Platform::host());
    let build = BuildRequest {
        name: BuildName::default(),
        dockerfile: query
            .text("dockerfile")
            .map_or_else(Default::default, |path| DockerfileSource::InContext(path.into())),
        given: Given {
            arguments,
            target_platform: platform.map_or_else(|| host.clone(), of),
            build_platform: host,
            target_stage: query.text("target").unwrap_or_default().to_owned(),
        },
        tags: tags(query)?,
        labels: json(query, "labels")?,
        no_cache: query.flag("nocache"),
        no_cache_stages: listed(query, "nocachefilter"),
        cache_steps: Vec::new(),
        cache_images: json(query, "cachefrom")?,
        cache_sources: Vec::new(),
        cache_destinations: Vec::new(),
        has_inline_cache: inline || cache_to.contains(&"inline".to_owned()),
        is_cache_taken: cache_to.contains(&"client".to_owned()),
        container,
        own_ids,
        platform: platform.map(of),
        secrets: BTreeMap::new(),
        agents: BTreeMap::new(),
        authorities: None,
        credentials: BTreeMap::new(),
        pull: query.flag("pull"),
        debug_shell: query.flag("debugshell"),
        attestations: attest::read(query.all("attest"))?,
        entitlements: entitlements(query)?,
    };
    Ok(build)
}

/// The request for the containers that run the steps, by the rules that hold for all; their image, their command and their
/// mounts are the steps' own. What they write is told and not kept.
fn of_steps(query: &Query) -> Result<Create, ApiError> {
    let number = |name| query.number::<i64>(name).map(Option::unwrap_or_default);
    let text = |name| query.text(name).unwrap_or_default().to_owned();
    let resources = Resources {
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
    let host_config = HostConfig {
        network_mode: text("networkmode"),
        extra_hosts: query.all("extrahosts").filter(|it| !it.is_empty()).map(str::to_owned).collect(),
        shm_size: number("shmsize")?,
        log_config: LogConfig { r#type: "none".to_owned(), ..LogConfig::default() },
        resources,
        ..HostConfig::default()
    };
    Ok(Create { cmd: Some(vec!["/bin/true".to_owned()]), host_config, ..Create::default() })
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

/// Where the cache goes: into the image, or to the client, which takes it while the build goes on.
fn cache_to(query: &Query) -> Result<Vec<String>, ApiError> {
    let all = listed(query, "cacheto");
    match all.iter().find(|it| !["inline", "client"].contains(&it.as_str())) {
        Some(other) => Err(ApiError::not_built(format_args!("a cache that goes to {other:?}"))
            .with_hint("there are \"inline\" and \"client\"")),
        None => Ok(all),
    }
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
