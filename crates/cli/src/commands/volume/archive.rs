//! `dozen volume export|import`.

use clap::{ArgMatches, Command};
use http::Method;

use super::super::download::Download;
use super::super::{Context, upload};
use crate::arguments::flags::{name, required, text, value, verb};
use crate::client::encode_segment;
use crate::failure::Outcome;

pub fn commands() -> [Command; 2] {
    [
        verb(
            "export",
            "Export what a volume holds as a tar archive",
            "volume export [OPTIONS] VOLUME",
            "dozen volume export -o data.tar data",
        )
        .arg(value("output", 'o', "string", "Write to a file, instead of STDOUT"))
        .arg(name("volume", "VOLUME")),
        verb(
            "import",
            "Fill an empty volume from a tar archive",
            "volume import VOLUME FILE|-",
            "dozen volume export data | dozen volume import copy -",
        )
        .arg(name("volume", "VOLUME"))
        .arg(name("source", "FILE|-")),
    ]
}

pub async fn export(context: &Context, matches: &ArgMatches) -> Outcome {
    let download = Download::to(text(matches, "output"), "volume export", "failed to export volume")?;
    let path = format!("/volumes/{}/export", encode_segment(required(matches, "volume")));
    let response = context.client.stream(Method::GET, &path, None).await?;
    download.take(response, "Exporting").await?;
    Ok(0)
}

pub async fn import(context: &Context, matches: &ArgMatches) -> Outcome {
    let path = format!("/volumes/{}/import", encode_segment(required(matches, "volume")));
    let file = Some(required(matches, "source")).filter(|source| *source != "-");
    let (body, bar) = upload::body(file, "volume import", "Importing", false).await?;
    let response = context.client.stream(Method::PUT, &path, Some(body)).await;
    bar.finish_and_clear();
    response?;
    Ok(0)
}
