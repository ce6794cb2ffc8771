//! `dozen export`.

use clap::{ArgMatches, Command};
use http::Method;

use super::download::Download;
use super::{Context, container_path};
use crate::arguments::flags::{name, required, text, value, verb};
use crate::failure::Outcome;

pub fn command() -> Command {
    verb(
        "export",
        "Export a container's filesystem as a tar archive",
        "export [OPTIONS] CONTAINER",
        "dozen export -o web.tar web\ndozen export web | dozen import - flat:1.0",
    )
    .arg(value("output", 'o', "string", "Write to a file, instead of STDOUT"))
    .arg(name("container", "CONTAINER"))
}

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let download = Download::to(text(matches, "output"), "export", "failed to export container")?;
    let path = container_path(required(matches, "container"), "/export");
    let response = context.client.stream(Method::GET, &path, None).await?;
    download.take(response, "Exporting").await?;
    Ok(0)
}
