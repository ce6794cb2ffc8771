//! `dozen container prune`, `image prune`, `builder prune` and `system prune`.

use clap::{ArgMatches, Command};
use http::StatusCode;
use serde_json::Value;

use super::Context;
use super::volume::{ask, confirm};
use crate::arguments::flags::{invalid, is_on, list, switch, text, texts, value, verb};
use crate::arguments::{filters, sizes};
use crate::client::{ClientError, Query};
use crate::failure::{Failure, Outcome};
use crate::output::{self, size};

type Filters = std::collections::BTreeMap<String, Vec<String>>;

fn filter() -> clap::Arg {
    list("filter", None, "Provide filter values (label=NAME=VALUE, until=MOMENT)")
}

fn force() -> clap::Arg {
    switch("force", 'f', "Do not prompt for confirmation")
}

pub fn containers_command() -> Command {
    let example = "dozen container prune\ndozen container prune -f --filter until=24h";
    verb("prune", "Remove all stopped containers", "prune [OPTIONS]", example).args([filter(), force()])
}

pub fn images_command() -> Command {
    let example = "dozen image prune\ndozen image prune -a --filter until=240h";
    verb("prune", "Remove unused images", "prune [OPTIONS]", example).args([
        switch("all", 'a', "Remove all unused images, not just dangling ones"),
        filter(),
        force(),
    ])
}

pub fn system_command() -> Command {
    let example = "dozen system prune\ndozen system prune -af --volumes";
    verb("prune", "Remove unused data", "prune [OPTIONS]", example).args([
        switch("all", 'a', "Remove all unused images not just dangling ones"),
        filter(),
        force(),
        switch("volumes", None, "Prune anonymous volumes"),
    ])
}

pub fn builds_command() -> Command {
    let example =
        "dozen builder prune\ndozen builder prune -af --filter until=48h\ndozen builder prune -f --reserved-space 2gb";
    let space = |name, help| value(name, None, "bytes", help);
    verb("prune", "Remove build cache", "prune [OPTIONS]", example).args([
        switch("all", 'a', "Remove all unused build cache, not just dangling ones"),
        list("filter", None, "Provide filter values (e.g. \"until=24h\", \"type=exec.cachemount\")"),
        force(),
        space("keep-storage", "Amount of disk space to keep for cache; an older name of --reserved-space"),
        space("max-used-space", "Maximum amount of disk space allowed to keep for cache"),
        space("min-free-space", "Target amount of free disk space after pruning"),
        space("reserved-space", "Amount of disk space always allowed to keep for cache"),
    ])
}

pub async fn builds(context: &Context, matches: &ArgMatches) -> Outcome {
    let (filters, is_all) = (asked(matches)?, is_on(matches, "all"));
    let mut query = Query::new().with_flag("all", is_all).with_filters(&filters);
    for name in ["keep-storage", "max-used-space", "min-free-space", "reserved-space"] {
        let Some(given) = text(matches, name) else { continue };
        let bytes = sizes::parse(given).map_err(|why| invalid(given, &format!("--{name}"), why))?;
        query = query.with(name, &bytes.to_string());
    }
    let question = match is_all {
        true => "WARNING! This will remove all build cache. Are you sure you want to continue?",
        false => "WARNING! This will remove all dangling build cache. Are you sure you want to continue?",
    };
    if !is_on(matches, "force") && !ask(question)? {
        return Ok(0);
    }
    let reclaimed = remove(context, &BUILD_CACHE, query).await?;
    total(reclaimed.unwrap_or(0))
}

pub async fn containers(context: &Context, matches: &ArgMatches) -> Outcome {
    let filters = asked(matches)?;
    if !is_on(matches, "force") && !confirm("WARNING! This will remove all stopped containers.")? {
        return Ok(0);
    }
    let reclaimed = prune(context, &CONTAINERS, &filters).await?;
    total(reclaimed.unwrap_or(0))
}

pub async fn images(context: &Context, matches: &ArgMatches) -> Outcome {
    let (filters, warning) = (
        images_wanted(matches)?,
        match is_on(matches, "all") {
            true => "WARNING! This will remove all images without at least one container associated to them.",
            false => "WARNING! This will remove all dangling images.",
        },
    );
    if !is_on(matches, "force") && !confirm(warning)? {
        return Ok(0);
    }
    let reclaimed = prune(context, &IMAGES, &filters).await?;
    total(reclaimed.unwrap_or(0))
}

pub async fn system(context: &Context, matches: &ArgMatches) -> Outcome {
    let (filters, of_images) = (asked(matches)?, images_wanted(matches)?);
    let has_volumes = is_on(matches, "volumes");
    if has_volumes && filters.contains_key("until") {
        return Err(Failure::new("ERROR: The \"until\" filter is not supported with \"--volumes\""));
    }
    let mut warning =
        "WARNING! This will remove:\n  - all stopped containers\n  - all networks not used by at least one \
                       container\n"
            .to_owned();
    if has_volumes {
        warning += "  - all anonymous volumes not used by at least one container\n";
    }
    warning += match is_on(matches, "all") {
        true => "  - all images without at least one container associated to them\n",
        false => "  - all dangling images\n",
    };
    warning += if is_on(matches, "all") { "  - all build cache\n" } else { "  - unused build cache\n" };
    if !is_on(matches, "force") && !confirm(&warning)? {
        return Ok(0);
    }
    let mut reclaimed = 0;
    for kind in [Some(&CONTAINERS), Some(&NETWORKS), has_volumes.then_some(&VOLUMES)].into_iter().flatten() {
        reclaimed += prune(context, kind, &filters).await?.unwrap_or(0);
    }
    reclaimed += prune(context, &IMAGES, &of_images).await?.unwrap_or(0);
    let of_builds = Query::new().with_flag("all", is_on(matches, "all")).with_filters(&filters);
    reclaimed += remove(context, &BUILD_CACHE, of_builds).await?.unwrap_or(0);
    total(reclaimed)
}

/// What can be pruned: its path, where the answer has what is gone, and what that is called.
struct Kind {
    path: &'static str,
    key: &'static str,
    title: &'static str,
}

const CONTAINERS: Kind = Kind { path: "/containers/prune", key: "ContainersDeleted", title: "Deleted Containers" };
const NETWORKS: Kind = Kind { path: "/networks/prune", key: "NetworksDeleted", title: "Deleted Networks" };
const VOLUMES: Kind = Kind { path: "/volumes/prune", key: "VolumesDeleted", title: "Deleted Volumes" };
const BUILD_CACHE: Kind = Kind { path: "/build/prune", key: "CachesDeleted", title: "Deleted build cache objects" };
const IMAGES: Kind = Kind { path: "/images/prune", key: "ImagesDeleted", title: "Deleted Images" };

fn asked(matches: &ArgMatches) -> Result<Filters, Failure> {
    filters::parse(texts(matches, "filter")).map_err(Failure::new)
}

fn images_wanted(matches: &ArgMatches) -> Result<Filters, Failure> {
    let mut filters = asked(matches)?;
    let dangling = if is_on(matches, "all") { "false" } else { "true" };
    filters.entry("dangling".to_owned()).or_insert_with(|| vec![dangling.to_owned()]);
    Ok(filters)
}

async fn prune(context: &Context, kind: &Kind, filters: &Filters) -> Result<Option<i64>, Failure> {
    remove(context, kind, Query::new().with_filters(filters)).await
}

/// Says what is gone; how much room that made, `None` if the engine has nothing of this kind.
async fn remove(context: &Context, kind: &Kind, query: Query) -> Result<Option<i64>, Failure> {
    let path = format!("{}{query}", kind.path);
    let answer: Value = match context.client.post(&path, None).await {
        Err(ClientError::Refused { status: StatusCode::NOT_IMPLEMENTED, .. }) => return Ok(None),
        answer => answer?,
    };
    let lines: Vec<String> = answer[kind.key].as_array().into_iter().flatten().filter_map(line).collect();
    if !lines.is_empty() {
        output::print(&format!("{}:\n{}\n\n", kind.title, lines.join("\n")))?;
    }
    Ok(Some(answer["SpaceReclaimed"].as_i64().unwrap_or(0)))
}

/// An id or a name, or what became of an image.
fn line(gone: &Value) -> Option<String> {
    let of_image = |key: &str, word: &str| gone[key].as_str().map(|what| format!("{word}: {what}"));
    gone.as_str()
        .map(str::to_owned)
        .or_else(|| of_image("Untagged", "untagged"))
        .or_else(|| of_image("Deleted", "deleted"))
}

fn total(reclaimed: i64) -> Outcome {
    output::print_line(&format!("Total reclaimed space: {}", size::human(reclaimed)))?;
    Ok(0)
}
