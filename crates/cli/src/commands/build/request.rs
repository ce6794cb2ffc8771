//! What the flags ask of the engine.

use std::collections::BTreeMap;

use clap::ArgMatches;
use dozen_model::Reference;
use serde_json::json;

use super::product::Product;
use crate::arguments::flags::{invalid, is_on, text, texts};
use crate::arguments::key_values::{self, Environment};
use crate::arguments::{hosts, resources, sizes};
use crate::client::Query;
use crate::failure::Failure;

/// A build, but for what is sent in the body.
#[derive(Debug)]
pub(super) struct Request {
    pub query: Query,
    /// In full: `docker.io/library/web:latest`.
    pub tags: Vec<String>,
}

pub(super) fn read(matches: &ArgMatches, product: &Product, environment: Environment<'_>) -> Result<Request, Failure> {
    let mut query = Query::new();
    let mut tags = Vec::new();
    let more = match product {
        Product::Image { names } | Product::Registry { names } => names.as_slice(),
        _ => &[],
    };
    for name in texts(matches, "tag").into_iter().chain(more.iter().map(String::as_str)) {
        let tag: Reference =
            name.parse().map_err(|error| Failure::new(format!("ERROR: invalid tag \"{name}\": {error}")))?;
        query = query.with("t", name);
        tags.push(tag.to_string());
    }
    let arguments = build_arguments(&texts(matches, "build-arg"), environment);
    if !arguments.is_empty() {
        query = query.with("buildargs", &json!(arguments).to_string());
    }
    let labels = key_values::labels(texts(matches, "label"));
    let labels = labels.map_err(|why| Failure::new(format!("ERROR: {why}")))?;
    if !labels.is_empty() {
        query = query.with("labels", &json!(labels).to_string());
    }
    query = query.with_flag("nocache", is_on(matches, "no-cache")).with_flag("pull", is_on(matches, "pull"));
    query = query.with_flag("debugshell", is_on(matches, "debug-shell"));
    for (flag, parameter) in [("no-cache-filter", "nocachefilter"), ("allow", "allow")] {
        query = texts(matches, flag).into_iter().fold(query, |query, value| query.with(parameter, value));
    }
    query = attestations(matches).iter().fold(query, |query, wanted| query.with("attest", wanted));
    for host in texts(matches, "add-host") {
        query = query.with("extrahosts", &hosts::parse(host).map_err(|why| invalid(host, "add-host", why))?);
    }
    for (flag, parameter) in [
        ("target", "target"),
        ("platform", "platform"),
        ("network", "networkmode"),
        ("cgroup-parent", "cgroupparent"),
        ("cpuset-cpus", "cpusetcpus"),
        ("cpuset-mems", "cpusetmems"),
    ] {
        query = query.with_some(parameter, text(matches, flag).filter(|value| !value.is_empty()));
    }
    for (flag, parameter) in [("cpu-period", "cpuperiod"), ("cpu-quota", "cpuquota"), ("cpu-shares", "cpushares")] {
        let number = matches.get_one::<i64>(flag).map(ToString::to_string);
        query = query.with_some(parameter, number.as_deref());
    }
    for (flag, parameter) in [("memory", "memory"), ("memory-swap", "memswap"), ("shm-size", "shmsize")] {
        let Some(given) = text(matches, flag) else { continue };
        let bytes = match given {
            "-1" if flag == "memory-swap" => -1,
            _ => sizes::parse(given).map_err(|why| invalid(given, flag, why))?,
        };
        query = query.with(parameter, &bytes.to_string());
    }
    let ulimit = |text: &&str| resources::ulimit(text).map_err(|why| invalid(text, "ulimit", why));
    let ulimits = texts(matches, "ulimit").iter().map(ulimit).collect::<Result<Vec<_>, _>>()?;
    if !ulimits.is_empty() {
        query = query.with("ulimits", &json!(ulimits).to_string());
    }
    query = query.with_some("sourceDateEpoch", crate::commands::source_date_epoch()?.as_deref());
    Ok(Request { query, tags })
}

/// What is to be said of the image beside it: of the short flags' values a boolean is on or off, others are options (buildx,
/// "--provenance", "--sbom").
fn attestations(matches: &ArgMatches) -> Vec<String> {
    let mut all: Vec<String> = texts(matches, "attest").into_iter().map(str::to_owned).collect();
    for flag in ["provenance", "sbom"] {
        all.extend(text(matches, flag).filter(|value| !value.is_empty()).map(|value| match value {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => format!("type={flag}"),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => format!("type={flag},disabled=true"),
            options => format!("type={flag},{options}"),
        }));
    }
    all
}

/// `NAME=VALUE`; a name alone takes our own value, or is left out.
pub(super) fn build_arguments(texts: &[&str], environment: Environment<'_>) -> BTreeMap<String, String> {
    let pair = |text: &&str| match text.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.to_owned())),
        None => environment(text).map(|value| ((*text).to_owned(), value)),
    };
    texts.iter().filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str) -> Result<(String, Vec<String>), String> {
        let words = std::iter::once("build").chain(line.split_whitespace()).chain(["."]);
        let matches = super::super::command().try_get_matches_from(words).unwrap();
        let product = Product::read(&matches).map_err(|failure| failure.message)?;
        let request = read(&matches, &product, &|name| (name == "OURS").then(|| "o".to_owned()));
        request.map(|it| (it.query.to_string(), it.tags)).map_err(|failure| failure.message)
    }

    #[test]
    fn every_flag_is_asked_for() {
        for (line, query) in [
            ("", ""),
            ("-t web -t b:2", "?t=web&t=b:2"),
            ("-o type=image,name=web", "?t=web"),
            ("--push -t web -o type=image,name=db", "?t=web&t=db"),
            ("--build-arg A=b --build-arg OURS --build-arg C", "?buildargs=%7B%22A%22:%22b%22%2C%22OURS%22:%22o%22%7D"),
            ("--pull", "?pull=1"),
            ("--label a=b --no-cache", "?labels=%7B%22a%22:%22b%22%7D&nocache=1"),
            ("--no-cache-filter a,b --no-cache-filter c", "?nocachefilter=a%2Cb&nocachefilter=c"),
            ("--allow network.host", "?allow=network.host"),
            ("--add-host db=10.0.0.1", "?extrahosts=db:10.0.0.1"),
            ("--target t --platform linux/arm64 --network none", "?target=t&platform=linux%2Farm64&networkmode=none"),
            ("--cgroup-parent /a --cpuset-cpus 0 --cpuset-mems 0", "?cgroupparent=%2Fa&cpusetcpus=0&cpusetmems=0"),
            ("--cpu-period 1000 --cpu-quota 2000 -c 3", "?cpuperiod=1000&cpuquota=2000&cpushares=3"),
            ("-m 64m --memory-swap -1 --shm-size 1m", "?memory=67108864&memswap=-1&shmsize=1048576"),
            ("--ulimit nofile=5:6", "?ulimits=%5B%7B%22Hard%22:6%2C%22Name%22:%22nofile%22%2C%22Soft%22:5%7D%5D"),
            ("--rm --force-rm --rm=false --load", ""),
            ("--sbom=true --provenance mode=max", "?attest=type%3Dprovenance%2Cmode%3Dmax&attest=type%3Dsbom"),
            ("--attest type=sbom --sbom=false", "?attest=type%3Dsbom&attest=type%3Dsbom%2Cdisabled%3Dtrue"),
        ] {
            assert_eq!(asked(line).map(|(query, _)| query).as_deref(), Ok(query), "{line}");
        }
        assert_eq!(asked("-t web").unwrap().1, ["docker.io/library/web:latest"]);
    }

    #[test]
    fn what_is_wrong_or_not_built_is_said() {
        for (line, words) in [
            ("-t A", "invalid tag \"A\": invalid reference format"),
            ("--add-host x", "invalid argument \"x\" for \"--add-host\" flag: bad format for add-host"),
            ("-m x", "invalid argument \"x\" for \"--memory\" flag"),
            ("--ulimit x", "invalid argument \"x\" for \"--ulimit\" flag"),
            ("--label =x", "invalid label format"),
        ] {
            let said = asked(line).unwrap_err();
            assert!(said.contains(words), "{line}: {said}");
        }
    }

    #[test]
    fn build_arguments_may_be_our_own() {
        let found = build_arguments(&["a=1", "b", "c", "d=", "e=f=g"], &|name| (name == "b").then(|| "ours".into()));
        let shown: Vec<_> = found.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(shown, ["a=1", "b=ours", "d=", "e=f=g"]);
    }
}
