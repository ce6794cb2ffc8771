//! `dozen update`.

use clap::{ArgMatches, Command};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Context, container_path};
use crate::arguments::flags::{list, names, texts, verb};
use crate::arguments::{container, resources, restart};
use crate::failure::{Failure, Outcome};
use crate::output;

pub fn command() -> Command {
    verb(
        "update",
        "Update configuration of one or more containers",
        "update [OPTIONS] CONTAINER [CONTAINER...]",
        "dozen update --memory 512m --memory-swap 1g web\ndozen update --restart unless-stopped web db\n\
         dozen update --log-opt max-size=50m --log-opt max-file=5 web",
    )
    .args(resources::shared_flags())
    .arg(restart::flag())
    .arg(list("log-opt", None, "Log driver options that change (NAME=VALUE; NAME= takes one away)"))
    .arg(names("CONTAINER"))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Updated {
    warnings: Option<Vec<String>>,
}

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let mut body = Map::new();
    resources::apply_shared(matches, &mut body)?;
    restart::put(matches, &mut body)?;
    let log = container::log_options(matches)?;
    if !log.is_empty() {
        body.insert("LogConfig".to_owned(), json!({ "Config": log }));
    }
    if body.is_empty() {
        return Err(Failure::new("you must provide one or more flags when using this command"));
    }
    let body = Value::Object(body);
    let (mut failures, mut warnings) = (Vec::new(), Vec::new());
    for name in texts(matches, "names") {
        match context.client.post::<Updated>(&container_path(name, "/update"), Some(&body)).await {
            Ok(updated) => {
                output::print_line(name)?;
                warnings.extend(updated.warnings.into_iter().flatten());
            }
            Err(error) => failures.push(Failure::from(error)),
        }
    }
    warnings.iter().for_each(|warning| output::say(warning));
    Failure::all(failures)
}
