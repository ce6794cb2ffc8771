//! `pause` and `unpause`.

use clap::{ArgMatches, Command};

use super::Context;
use super::per_container::each;
use crate::arguments::flags::{names, verb};
use crate::client::Query;
use crate::failure::Outcome;

pub fn pause_command() -> Command {
    verb(
        "pause",
        "Pause all processes within one or more containers",
        "pause CONTAINER [CONTAINER...]",
        "dozen pause web",
    )
    .arg(names("CONTAINER"))
}

pub fn unpause_command() -> Command {
    verb(
        "unpause",
        "Unpause all processes within one or more containers",
        "unpause CONTAINER [CONTAINER...]",
        "dozen unpause web",
    )
    .arg(names("CONTAINER"))
}

pub async fn pause(context: &Context, matches: &ArgMatches) -> Outcome {
    each(context, matches, "/pause", &Query::new()).await
}

pub async fn unpause(context: &Context, matches: &ArgMatches) -> Outcome {
    each(context, matches, "/unpause", &Query::new()).await
}
