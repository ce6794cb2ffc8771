//! `dozen wait`.

use clap::{ArgMatches, Command};

use super::run::Waited;
use super::{Context, container_path};
use crate::arguments::flags::{names, texts, verb};
use crate::failure::{Failure, Outcome};
use crate::output;

pub fn command() -> Command {
    verb(
        "wait",
        "Block until one or more containers stop, then print their exit codes",
        "wait CONTAINER [CONTAINER...]",
        "dozen wait job",
    )
    .arg(names("CONTAINER"))
}

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let mut failures = Vec::new();
    for name in texts(matches, "names") {
        match context.client.post::<Waited>(&container_path(name, "/wait"), None).await {
            Ok(waited) => output::print_line(&waited.status_code.to_string())?,
            Err(error) => failures.push(Failure::from(error)),
        }
    }
    Failure::all(failures)
}
