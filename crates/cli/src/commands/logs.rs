//! `dozen logs`.

mod follow;

use clap::{ArgMatches, Command};
use futures_util::TryStreamExt;
use http::{Method, Response, header};
use http_body_util::BodyStream;
use jiff::Zoned;
use tokio_util::io::StreamReader;

use super::{Context, container_path};
use crate::arguments::flags::{is_on, name, required, switch, text, value, verb};
use crate::arguments::time;
use crate::attach::copy_output;
use crate::failure::{Failure, Outcome};

pub fn command() -> Command {
    verb(
        "logs",
        "Fetch the logs of a container",
        "logs [OPTIONS] CONTAINER",
        "dozen logs -f --tail 20 web\ndozen logs --since 10m -t web",
    )
    .arg(switch("details", None, "Show extra details provided to logs"))
    .arg(switch("follow", 'f', "Follow log output"))
    .arg(value(
        "since",
        None,
        "string",
        "Show logs since timestamp (e.g. \"2013-01-02T13:23:37Z\") or relative (e.g. \"42m\" for 42 minutes)",
    ))
    .arg(value("tail", 'n', "string", "Number of lines to show from the end of the logs (default \"all\")"))
    .arg(switch("timestamps", 't', "Show timestamps"))
    .arg(value("until", None, "string", "Show logs before a timestamp or relative, as --since"))
    .arg(name("container", "CONTAINER"))
}

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let moment = |flag: &str| match text(matches, flag) {
        None | Some("") => Ok(None),
        Some(moment) => time::parse(moment, &Zoned::now())
            .map(Some)
            .map_err(|why| Failure::new(format!("invalid value for \"{flag}\": {why}"))),
    };
    let name = required(matches, "container");
    let wanted = follow::Wanted {
        details: is_on(matches, "details"),
        timestamps: is_on(matches, "timestamps"),
        since: moment("since")?,
        until: moment("until")?,
        tail: text(matches, "tail").unwrap_or("all").to_owned(),
    };
    if is_on(matches, "follow") && follow::follow(context, name, &wanted).await? {
        return Ok(0);
    }
    let query = wanted.query().with_flag("timestamps", wanted.timestamps).with_flag("follow", is_on(matches, "follow"));
    let path = container_path(name, &format!("/logs{query}"));
    let response = context.client.stream(Method::GET, &path, None).await?;
    let is_raw = is_raw(&response);
    let chunks = BodyStream::new(response.into_body())
        .map_err(std::io::Error::other)
        .try_filter_map(|frame| std::future::ready(Ok(frame.into_data().ok())));
    let reader = StreamReader::new(Box::pin(chunks));
    copy_output(reader, is_raw, tokio::io::stdout(), tokio::io::stderr()).await?;
    Ok(0)
}

/// Since API 1.42 the answer says which of the two formats it has.
fn is_raw<B>(response: &Response<B>) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes() == b"application/vnd.docker.raw-stream")
}
