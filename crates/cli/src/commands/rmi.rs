//! `dozen rmi`, `dozen image rm`.

use clap::{ArgMatches, Command};
use serde_json::Value;

use super::{Context, image_path};
use crate::arguments::flags::{is_on, names, switch, texts, verb};
use crate::client::Query;
use crate::failure::{Failure, Outcome};
use crate::output;

pub fn command(name: &'static str) -> Command {
    verb(name, "Remove one or more images", "rmi [OPTIONS] IMAGE [IMAGE...]", "dozen rmi my-app:old")
        .arg(switch("force", 'f', "Force removal of the image"))
        .arg(switch("no-prune", None, "Do not delete untagged parents"))
        .arg(names("IMAGE"))
}

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let is_forced = is_on(matches, "force");
    let query = Query::new().with_flag("force", is_forced).with_flag("noprune", is_on(matches, "no-prune"));
    let mut failures = Vec::new();
    for name in texts(matches, "names") {
        match context.client.delete(&image_path(name, &query.to_string())).await {
            Ok(removed) => {
                for entry in removed.as_array().into_iter().flatten() {
                    for (key, word) in [("Untagged", "Untagged"), ("Deleted", "Deleted")] {
                        if let Some(what) = entry.get(key).and_then(Value::as_str).filter(|what| !what.is_empty()) {
                            output::print_line(&format!("{word}: {what}"))?;
                        }
                    }
                }
            }
            Err(error) if is_forced && error.is_not_found() => output::say(&error.to_string()),
            Err(error) => failures.push(Failure::from(error)),
        }
    }
    Failure::all(failures)
}
