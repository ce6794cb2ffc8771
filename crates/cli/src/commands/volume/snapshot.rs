//! `dozen volume snapshot create|ls|restore|rm`.

use clap::{Arg, ArgMatches, Command};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::Context;
use crate::arguments::flags::{format, is_on, name, names, required, switch, switch_value, text, texts, verb};
use crate::client::encode_segment;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::output::listing::{self, Layout};
use crate::template::Row;

pub fn command() -> Command {
    Command::new("snapshot")
        .about("Manage snapshots of volumes, where the file system shares blocks between files (XFS, btrfs)")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([
            verb(
                "create",
                "Keep what a volume holds now",
                "volume snapshot create [OPTIONS] VOLUME [SNAPSHOT]",
                "dozen volume snapshot create data before-upgrade",
            )
            .arg(switch(
                "pause",
                'p',
                "Containers that run with the volume stand still meanwhile; without it, only each file is of one moment \
                 (default true)",
            ))
            .arg(name("volume", "VOLUME"))
            .arg(Arg::new("snapshot").value_name("SNAPSHOT")),
            verb("ls", "List the snapshots of a volume", "volume snapshot ls [OPTIONS] VOLUME", "dozen volume snapshot ls data")
                .visible_alias("list")
                .arg(format())
                .arg(switch("quiet", 'q', "Only display the names of snapshots"))
                .arg(name("volume", "VOLUME")),
            verb(
                "restore",
                "Have a volume that no running container has hold what it held then",
                "volume snapshot restore VOLUME SNAPSHOT",
                "dozen volume snapshot restore data before-upgrade",
            )
            .arg(name("volume", "VOLUME"))
            .arg(name("snapshot", "SNAPSHOT")),
            verb(
                "rm",
                "Remove snapshots of a volume",
                "volume snapshot rm VOLUME SNAPSHOT [SNAPSHOT...]",
                "dozen volume snapshot rm data before-upgrade",
            )
            .visible_alias("remove")
            .arg(name("volume", "VOLUME"))
            .arg(names("SNAPSHOT")),
        ])
}

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    match matches.subcommand() {
        Some(("create", matches)) => create(context, matches).await,
        Some(("ls", matches)) => show(context, matches).await,
        Some(("restore", matches)) => restore(context, matches).await,
        Some(("rm", matches)) => remove(context, matches).await,
        _ => unreachable!("clap knows no other verb"),
    }
}

fn path(matches: &ArgMatches) -> String {
    format!("/volumes/{}/snapshots", encode_segment(required(matches, "volume")))
}

async fn create(context: &Context, matches: &ArgMatches) -> Outcome {
    let is_paused = switch_value(matches, "pause").unwrap_or(true);
    let body = json!({ "Name": text(matches, "snapshot").unwrap_or_default(), "Pause": is_paused });
    let created: Value = context.client.post(&path(matches), Some(&body)).await?;
    output::print_line(created.get("Name").and_then(Value::as_str).unwrap_or_default())?;
    Ok(0)
}

async fn restore(context: &Context, matches: &ArgMatches) -> Outcome {
    let snapshot = required(matches, "snapshot");
    let restore = format!("{}/{}/restore", path(matches), encode_segment(snapshot));
    context.client.post_for_nothing(&restore, None).await?;
    output::print_line(snapshot)?;
    Ok(0)
}

async fn remove(context: &Context, matches: &ArgMatches) -> Outcome {
    let mut failures = Vec::new();
    for name in texts(matches, "names") {
        match context.client.delete(&format!("{}/{}", path(matches), encode_segment(name))).await {
            Ok(_) => output::print_line(name)?,
            Err(error) => failures.push(Failure::from(error)),
        }
    }
    Failure::all(failures)
}

const LAYOUT: Layout = Layout {
    table: "{{.Name}}\t{{.CreatedAt}}",
    quiet: "Name",
    headings: &[("Name", "SNAPSHOT"), ("CreatedAt", "CREATED"), ("Volume", "VOLUME")],
};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Snapshots {
    snapshots: Vec<Snapshot>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Snapshot {
    volume: String,
    name: String,
    created_at: String,
}

async fn show(context: &Context, matches: &ArgMatches) -> Outcome {
    let answer: Snapshots = context.client.get(&path(matches)).await?;
    let rows = answer.snapshots.into_iter().map(|snapshot| Row {
        columns: vec![("Name", snapshot.name), ("CreatedAt", snapshot.created_at), ("Volume", snapshot.volume)],
        labels: None,
    });
    let (format, quiet) = (text(matches, "format"), is_on(matches, "quiet"));
    output::print(&listing::render(&LAYOUT, format, quiet, rows.collect())?)?;
    Ok(0)
}
