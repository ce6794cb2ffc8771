//! `dozen update`.

use clap::{ArgMatches, Command};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Context, container_path};
use crate::arguments::flags::{names, texts, verb};
use crate::arguments::{resources, restart};
use crate::failure::{Failure, Outcome};
use crate::output;

pub fn command() -> Command {
    verb(
        "update",
        "Update configuration of one or more containers",
        "update [OPTIONS] CONTAINER [CONTAINER...]",
        "dozen update --memory 512m --memory-swap 1g web\ndozen update --restart unless-stopped web db",
    )
    .args(resources::shared_flags())
    .arg(restart::flag())
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
