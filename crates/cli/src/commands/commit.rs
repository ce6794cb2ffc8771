//! `dozen commit`.

use clap::{ArgMatches, Command};
use serde_json::{Value, json};

use super::Context;
use super::tag::repository_and_tag;
use crate::arguments::flags::{list, name, required, switch, switch_value, text, texts, value, verb};
use crate::client::Query;
use crate::failure::{Failure, Outcome};
use crate::output;

pub fn command() -> Command {
    verb(
        "commit",
        "Create a new image from a container's changes",
        "commit [OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
        "dozen commit web my-app:1.0\n\
         dozen commit -c 'CMD [\"python\", \"app.py\"]' -m 'with flask' work my-app",
    )
    .arg(value("author", 'a', "string", "Author (e.g., \"Jane Doe <jane@example.com>\")"))
    .arg(list("change", 'c', "Apply Dockerfile instruction to the created image"))
    .arg(value("message", 'm', "string", "Commit message"))
    .arg(switch("pause", 'p', "Pause container during commit (default true)"))
    .arg(name("container", "CONTAINER"))
    .arg(clap::Arg::new("target").value_name("REPOSITORY[:TAG]"))
}

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let mut query = Query::new().with("container", required(matches, "container"));
    if let Some(target) = text(matches, "target") {
        let (repository, tag) = repository_and_tag(target)?;
        query = query.with("repo", &repository).with("tag", &tag);
    }
    query = query.with_some("comment", text(matches, "message")).with_some("author", text(matches, "author"));
    if switch_value(matches, "pause") == Some(false) {
        query = query.with("pause", "0");
    }
    query = query.with_some("sourceDateEpoch", super::source_date_epoch()?.as_deref());
    let changes = texts(matches, "change");
    if !changes.is_empty() {
        query = query.with("changes", &changes.join("\n"));
    }
    let answer: Value = context.client.post(&format!("/commit{query}"), Some(&json!({}))).await?;
    let id = answer.get("Id").and_then(Value::as_str).ok_or_else(|| Failure::new("the engine's answer has no Id"))?;
    output::print_line(id)?;
    Ok(0)
}
