//! `dozen rm`.

use clap::{ArgMatches, Command};

use super::{Context, container_path};
use crate::arguments::flags::{is_on, names, switch, texts, verb};
use crate::client::Query;
use crate::failure::{Failure, Outcome};
use crate::output;

pub fn command() -> Command {
    verb(
        "rm",
        "Remove one or more containers",
        "rm [OPTIONS] CONTAINER [CONTAINER...]",
        "dozen rm web\ndozen rm -f $(dozen ps -aq)",
    )
    .visible_alias("remove")
    .arg(switch("force", 'f', "Force the removal of a running container (uses SIGKILL)"))
    .arg(switch("volumes", 'v', "Remove anonymous volumes associated with the container"))
    .arg(names("CONTAINER"))
}

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let is_forced = is_on(matches, "force");
    let query = Query::new().with_flag("v", is_on(matches, "volumes")).with_flag("force", is_forced);
    let names = texts(matches, "names");
    let requests = names.iter().map(|name| {
        let path = container_path(name.trim_matches('/'), &query.to_string());
        async move { context.client.delete(&path).await }
    });
    let results = futures_util::future::join_all(requests).await;
    let mut failures = Vec::new();
    for (name, result) in names.iter().zip(results) {
        match result {
            Ok(_) => output::print_line(name)?,
            // With --force what is gone already is as it should be, as Docker has it since 23.
            Err(error) if is_forced && error.is_not_found() => output::say(&error.to_string()),
            Err(error) => failures.push(Failure::from(error)),
        }
    }
    Failure::all(failures)
}
