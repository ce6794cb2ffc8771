//! `dozen save`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::{ArgMatches, Command};
use http::{Method, Response, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::Context;
use crate::arguments::flags::{names, text, texts, value, verb};
use crate::client::Query;
use crate::failure::{Failure, Outcome};
use crate::output::progress;

pub fn command() -> Command {
    verb(
        "save",
        "Save one or more images to a tar archive (streamed to STDOUT by default)",
        "save [OPTIONS] IMAGE [IMAGE...]",
        "dozen save -o app.tar my-app:1.0\ndozen save my-app | gzip > app.tar.gz",
    )
    .arg(value("output", 'o', "string", "Write to a file, instead of STDOUT"))
    .arg(names("IMAGE"))
}

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let target = text(matches, "output").filter(|path| !path.is_empty()).map(PathBuf::from);
    if target.is_none() && std::io::stdout().is_terminal() {
        return Err(Failure::new("cowardly refusing to save to a terminal. Use the -o flag or redirect"));
    }
    let query = texts(matches, "names").into_iter().fold(Query::new(), |query, name| query.with("names", name));
    let response = context.client.stream(Method::GET, &format!("/images/get{query}"), None).await?;
    match target {
        None => {
            let mut stdout = tokio::io::stdout();
            copy(response, &mut stdout).await?;
        }
        Some(path) => to_file(response, &path).await?,
    }
    Ok(0)
}

/// Writes beside the target and renames at the end: a file of that name is whole, or not there.
async fn to_file(response: Response<Incoming>, path: &Path) -> Result<(), Failure> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    let failed = |error: std::io::Error| Failure::new(format!("failed to save image: {}: {error}", path.display()));
    let mut file = tokio::fs::File::create(&part).await.map_err(failed)?;
    let result = async {
        copy(response, &mut file).await?;
        file.flush().await.map_err(failed)?;
        tokio::fs::rename(&part, path).await.map_err(failed)
    }
    .await;
    if result.is_err() {
        let _ = tokio::fs::remove_file(&part).await;
    }
    result
}

async fn copy(response: Response<Incoming>, to: &mut (impl AsyncWrite + Unpin)) -> Result<(), Failure> {
    let length = response.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let bar = progress::bytes("Saving", length, false);
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::new(format!("the archive ended early: {error}")))?;
        if let Ok(data) = frame.into_data() {
            to.write_all(&data).await?;
            bar.inc(data.len() as u64);
        }
    }
    to.flush().await?;
    bar.finish_and_clear();
    Ok(())
}
