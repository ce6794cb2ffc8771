//! `dozen volume create|inspect|ls|prune|rm`.

mod archive;
mod snapshot;

use std::collections::BTreeMap;
use std::io::{BufRead, Write};

use clap::{Arg, ArgMatches, Command};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Context, inspect};
use crate::arguments::flags::{filter, format, inspect_format, is_on, list, names, switch, text, texts, value, verb};
use crate::arguments::{filters, key_values};
use crate::client::{Query, encode_segment};
use crate::failure::{Failure, Outcome};
use crate::output::listing::{self, Layout};
use crate::output::{self, size};
use crate::template::Row;

pub fn command() -> Command {
    Command::new("volume")
        .about("Manage volumes")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([
            verb("create", "Create a volume", "volume create [OPTIONS] [VOLUME]", "dozen volume create data")
                .arg(value("driver", 'd', "string", "Specify volume driver name (local is the only one)"))
                .arg(list("label", None, "Set metadata for a volume"))
                .arg(list("opt", 'o', "Set driver specific options"))
                // From before the name stood on its own; scripts still have it.
                .arg(value("name", None, "string", "Specify volume name").hide(true))
                .arg(Arg::new("volume").value_name("VOLUME")),
            verb(
                "inspect",
                "Display detailed information on one or more volumes",
                "volume inspect [OPTIONS] VOLUME [VOLUME...]",
                "dozen volume inspect -f '{{.Mountpoint}}' data",
            )
            .arg(inspect_format())
            .arg(names("VOLUME")),
            verb("ls", "List volumes", "volume ls [OPTIONS]", "dozen volume ls --filter dangling=true")
                .visible_alias("list")
                .arg(filter())
                .arg(format())
                .arg(switch("quiet", 'q', "Only display volume names")),
            verb("prune", "Remove unused local volumes", "volume prune [OPTIONS]", "dozen volume prune -f")
                .arg(switch("all", 'a', "Remove all unused volumes, not just anonymous ones"))
                .arg(list("filter", None, "Provide filter values (e.g. \"label=<label>\")"))
                .arg(switch("force", 'f', "Do not prompt for confirmation")),
            verb("rm", "Remove one or more volumes", "volume rm [OPTIONS] VOLUME [VOLUME...]", "dozen volume rm data")
                .visible_alias("remove")
                .arg(switch("force", 'f', "Force the removal of one or more volumes"))
                .arg(names("VOLUME")),
        ])
        .subcommands(archive::commands())
        .subcommand(snapshot::command())
}

pub async fn execute(context: &Context, name: &str, matches: &ArgMatches) -> Outcome {
    match name {
        "create" => create(context, matches).await,
        "export" => archive::export(context, matches).await,
        "import" => archive::import(context, matches).await,
        "inspect" => inspect::execute(context, matches, Some("volume")).await,
        "ls" => show(context, matches).await,
        "prune" => prune(context, matches).await,
        "rm" => remove(context, matches).await,
        "snapshot" => snapshot::execute(context, matches).await,
        _ => unreachable!("clap knows no other verb"),
    }
}

async fn create(context: &Context, matches: &ArgMatches) -> Outcome {
    let options = key_values::labels(texts(matches, "opt")).map_err(Failure::new)?;
    let labels = key_values::labels(texts(matches, "label")).map_err(Failure::new)?;
    let mut body = json!({ "Driver": text(matches, "driver").unwrap_or("local") });
    if !labels.is_empty() {
        body["Labels"] = json!(labels);
    }
    if !options.is_empty() {
        body["DriverOpts"] = json!(options);
    }
    if let Some(name) = name_of(matches)? {
        body["Name"] = name.into();
    }
    let created: Value = context.client.post("/volumes/create", Some(&body)).await?;
    output::print_line(created.get("Name").and_then(Value::as_str).unwrap_or_default())?;
    Ok(0)
}

fn name_of(matches: &ArgMatches) -> Result<Option<&str>, Failure> {
    let flag = text(matches, "name").filter(|name| !name.is_empty());
    match (flag, text(matches, "volume")) {
        (Some(_), Some(_)) => Err(Failure::new(
            "conflicting options: cannot specify a volume-name through both --name and as a positional arg",
        )),
        (flag, word) => Ok(flag.or(word)),
    }
}

async fn remove(context: &Context, matches: &ArgMatches) -> Outcome {
    let is_forced = is_on(matches, "force");
    let query = Query::new().with_flag("force", is_forced);
    let mut failures = Vec::new();
    for name in texts(matches, "names") {
        match context.client.delete(&format!("/volumes/{}{query}", encode_segment(name))).await {
            Ok(_) => output::print_line(name)?,
            Err(error) => failures.push(Failure::from(error)),
        }
    }
    Failure::all(failures)
}

const LAYOUT: Layout = Layout {
    table: "{{.Driver}}\t{{.Name}}",
    quiet: "Name",
    headings: &[
        ("Driver", "DRIVER"),
        ("Name", "VOLUME NAME"),
        ("Labels", "LABELS"),
        ("Mountpoint", "MOUNTPOINT"),
        ("Scope", "SCOPE"),
    ],
};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Volumes {
    volumes: Option<Vec<Volume>>,
    warnings: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Volume {
    name: String,
    driver: String,
    mountpoint: String,
    scope: String,
    labels: Option<BTreeMap<String, String>>,
}

async fn show(context: &Context, matches: &ArgMatches) -> Outcome {
    let filters = filters::parse(texts(matches, "filter")).map_err(Failure::new)?;
    let answer: Volumes = context.client.get(&format!("/volumes{}", Query::new().with_filters(&filters))).await?;
    for warning in answer.warnings.iter().flatten() {
        output::say(&format!("WARNING: {warning}"));
    }
    let mut volumes = answer.volumes.unwrap_or_default();
    volumes.sort_by(|a, b| a.name.cmp(&b.name));
    let rows = volumes.into_iter().map(row).collect();
    output::print(&listing::render(&LAYOUT, text(matches, "format"), is_on(matches, "quiet"), rows)?)?;
    Ok(0)
}

fn row(volume: Volume) -> Row {
    let labels: Vec<(String, String)> = volume.labels.unwrap_or_default().into_iter().collect();
    let columns = vec![
        ("Driver", volume.driver),
        ("Name", volume.name),
        ("Labels", labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")),
        ("Mountpoint", volume.mountpoint),
        ("Scope", volume.scope),
    ];
    Row { columns, labels: Some(labels) }
}

async fn prune(context: &Context, matches: &ArgMatches) -> Outcome {
    let mut filters = filters::parse(texts(matches, "filter")).map_err(Failure::new)?;
    let is_all = is_on(matches, "all");
    if is_all {
        filters.insert("all".to_owned(), vec!["true".to_owned()]);
    }
    let which = if is_all { "all volumes" } else { "anonymous local volumes" };
    if !is_on(matches, "force")
        && !confirm(&format!("WARNING! This will remove {which} not used by at least one container."))?
    {
        return Ok(0);
    }
    let answer: Value =
        context.client.post(&format!("/volumes/prune{}", Query::new().with_filters(&filters)), None).await?;
    let removed: Vec<&str> = answer
        .get("VolumesDeleted")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if !removed.is_empty() {
        output::print(&format!("Deleted Volumes:\n{}\n\n", removed.join("\n")))?;
    }
    let reclaimed = answer.get("SpaceReclaimed").and_then(Value::as_i64).unwrap_or(0);
    output::print_line(&format!("Total reclaimed space: {}", size::human(reclaimed)))?;
    Ok(0)
}

pub(super) fn confirm(warning: &str) -> Result<bool, Failure> {
    ask(&format!("{warning}\nAre you sure you want to continue?"))
}

pub(super) fn ask(question: &str) -> Result<bool, Failure> {
    let mut stderr = std::io::stderr();
    let _ = write!(stderr, "{question} [y/N] ");
    let _ = stderr.flush();
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|error| Failure::new(format!("cannot read the answer: {error}")))?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_volume_is_named_either_way() {
        let name = |line: &str| {
            let matches = command().try_get_matches_from(line.split(' ')).unwrap();
            let (_, create) = matches.subcommand().unwrap();
            name_of(create).map(|name| name.map(str::to_owned)).map_err(|failure| failure.message)
        };
        assert_eq!(name("volume create data"), Ok(Some("data".to_owned())));
        assert_eq!(name("volume create --name data"), Ok(Some("data".to_owned())));
        assert_eq!(name("volume create --name= data"), Ok(Some("data".to_owned())));
        assert_eq!(name("volume create"), Ok(None));
        assert!(name("volume create --name a b").unwrap_err().starts_with("conflicting options"));
    }
}
