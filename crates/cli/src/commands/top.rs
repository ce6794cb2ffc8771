//! `dozen top`.

use clap::{ArgMatches, Command};
use serde::Deserialize;

use super::{Context, container_path};
use crate::arguments::flags::{owned, verb, words};
use crate::client::Query;
use crate::failure::Outcome;
use crate::output::{self, table};

pub fn command() -> Command {
    verb(
        "top",
        "Display the running processes of a container",
        "top CONTAINER [ps OPTIONS]",
        "dozen top web\ndozen top web -eo pid,cmd",
    )
    .arg(words("CONTAINER [ps OPTIONS]", 1))
}

#[derive(Deserialize)]
struct Processes {
    #[serde(rename = "Titles")]
    titles: Vec<String>,
    #[serde(rename = "Processes", default)]
    processes: Option<Vec<Vec<String>>>,
}

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let words = owned(matches, "words");
    let (name, options) = words.split_first().expect("clap refuses a command line without a container");
    let query = match options {
        [] => Query::new(),
        options => Query::new().with("ps_args", &options.join(" ")),
    };
    let answer: Processes = context.client.get(&container_path(name, &format!("/top{query}"))).await?;
    let lines = std::iter::once(&answer.titles).chain(answer.processes.iter().flatten());
    let text: String =
        lines.map(|cells| cells.iter().map(|cell| output::cell(cell)).collect::<Vec<_>>().join("\t") + "\n").collect();
    output::print(&table::align_with(&text, 20))?;
    Ok(0)
}
