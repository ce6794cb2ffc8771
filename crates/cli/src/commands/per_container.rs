//! `stop`, `kill`, `restart` and `rename`: one request for each container.

use clap::{ArgMatches, Command, value_parser};

use super::{Context, container_path};
use crate::arguments::flags::{name, names, required, text, texts, value, verb};
use crate::client::Query;
use crate::failure::{Failure, Outcome};
use crate::output;

pub fn stop_command() -> Command {
    verb(
        "stop",
        "Stop one or more running containers",
        "stop [OPTIONS] CONTAINER [CONTAINER...]",
        "dozen stop web\ndozen stop -t 30 db",
    )
    .arg(value("signal", 's', "string", "Signal to send to the container"))
    .arg(timeout())
    .arg(names("CONTAINER"))
}

pub fn restart_command() -> Command {
    verb("restart", "Restart one or more containers", "restart [OPTIONS] CONTAINER [CONTAINER...]", "dozen restart web")
        .arg(value("signal", 's', "string", "Signal to send to the container"))
        .arg(timeout())
        .arg(names("CONTAINER"))
}

pub fn kill_command() -> Command {
    verb(
        "kill",
        "Kill one or more running containers",
        "kill [OPTIONS] CONTAINER [CONTAINER...]",
        "dozen kill web\ndozen kill -s HUP web",
    )
    .arg(value("signal", 's', "string", "Signal to send to the container"))
    .arg(names("CONTAINER"))
}

pub fn rename_command() -> Command {
    verb("rename", "Rename a container", "rename CONTAINER NEW_NAME", "dozen rename web old-web")
        .arg(name("container", "CONTAINER"))
        .arg(name("new-name", "NEW_NAME"))
}

fn timeout() -> clap::Arg {
    value("timeout", 't', "int", "Seconds to wait before killing the container")
        .value_parser(value_parser!(i64))
        .alias("time")
}

pub async fn stop(context: &Context, matches: &ArgMatches) -> Outcome {
    each(context, matches, "/stop", &stop_query(matches)).await
}

pub async fn restart(context: &Context, matches: &ArgMatches) -> Outcome {
    each(context, matches, "/restart", &stop_query(matches)).await
}

pub async fn kill(context: &Context, matches: &ArgMatches) -> Outcome {
    each(context, matches, "/kill", &Query::new().with_some("signal", text(matches, "signal"))).await
}

pub async fn rename(context: &Context, matches: &ArgMatches) -> Outcome {
    let query = Query::new().with("name", required(matches, "new-name"));
    let path = container_path(required(matches, "container"), &format!("/rename{query}"));
    context.client.post_for_nothing(&path, None).await?;
    Ok(0)
}

fn stop_query(matches: &ArgMatches) -> Query {
    let timeout = matches.get_one::<i64>("timeout").map(ToString::to_string);
    Query::new().with_some("signal", text(matches, "signal")).with_some("t", timeout.as_deref())
}

/// All at once, because stopping takes its time; names are printed in the order given.
pub(super) async fn each(context: &Context, matches: &ArgMatches, action: &str, query: &Query) -> Outcome {
    let names = texts(matches, "names");
    let requests = names.iter().map(|name| {
        let path = container_path(name, &format!("{action}{query}"));
        async move { context.client.post_for_nothing(&path, None).await }
    });
    let results = futures_util::future::join_all(requests).await;
    let mut failures = Vec::new();
    for (name, result) in names.iter().zip(results) {
        match result {
            Ok(()) => output::print_line(name)?,
            Err(error) => failures.push(Failure::from(error)),
        }
    }
    Failure::all(failures)
}
