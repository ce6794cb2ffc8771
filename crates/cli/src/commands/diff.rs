//! `dozen diff`.

use clap::{ArgMatches, Command};
use serde::Deserialize;

use super::{Context, container_path};
use crate::arguments::flags::{name, required, verb};
use crate::failure::Outcome;
use crate::output;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Change {
    path: String,
    kind: u8,
}

pub fn command() -> Command {
    verb(
        "diff",
        "Inspect changes to files or directories on a container's filesystem",
        "diff CONTAINER",
        "dozen diff web",
    )
    .arg(name("container", "CONTAINER"))
}

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let path = container_path(required(matches, "container"), "/changes");
    let changes: Option<Vec<Change>> = context.client.get(&path).await?;
    let mut text = String::new();
    for Change { path, kind } in changes.into_iter().flatten() {
        let letter = match kind {
            0 => 'C',
            1 => 'A',
            _ => 'D',
        };
        text.extend([letter, ' ']);
        text += &path;
        text.push('\n');
    }
    output::print(&text)?;
    Ok(0)
}
