//! `dozen save`.

use clap::{ArgMatches, Command};
use http::Method;

use super::Context;
use super::download::Download;
use crate::arguments::flags::{names, text, texts, value, verb};
use crate::client::Query;
use crate::failure::Outcome;

pub fn command() -> Command {
    verb(
        "save",
        "Save one or more images to a tar archive (streamed to STDOUT by default)",
        "save [OPTIONS] IMAGE [IMAGE...]",
        "dozen save -o app.tar my-app:1.0\ndozen save --platform linux/arm64 -o app-arm64.tar my-app:1.0\ndozen save my-app | gzip > app.tar.gz",
    )
    .arg(value("output", 'o', "string", "Write to a file, instead of STDOUT"))
    .arg(value("platform", None, "string", "Save only the given platform (os/arch[/variant])"))
    .arg(names("IMAGE"))
}

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let download = Download::to(text(matches, "output"), "save", "failed to save image")?;
    let query = texts(matches, "names").into_iter().fold(Query::new(), |query, name| query.with("names", name));
    let query = query.with_some("platform", text(matches, "platform"));
    let response = context.client.stream(Method::GET, &format!("/images/get{query}"), None).await?;
    download.take(response, "Saving").await?;
    Ok(0)
}
