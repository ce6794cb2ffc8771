//! `dozen import`.

use clap::{ArgMatches, Command};
use http::Method;
use serde_json::Value;

use super::tag::repository_and_tag;
use super::{Context, upload};
use crate::arguments::flags::{list, name, required, text, texts, value, verb};
use crate::client::{JsonLines, Query};
use crate::failure::Outcome;
use crate::output;

pub fn command() -> Command {
    verb(
        "import",
        "Import the contents from a tarball to create a filesystem image",
        "import [OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
        "dozen import -c 'CMD [\"sh\"]' rootfs.tar.gz my-root:1.0\ndozen export web | dozen import - flat:1.0",
    )
    .arg(list("change", 'c', "Apply Dockerfile instruction to the created image"))
    .arg(value("message", 'm', "string", "Set commit message for imported image"))
    .arg(value("platform", None, "string", "Set platform if server is multi-platform capable"))
    .arg(name("source", "file|URL|-"))
    .arg(clap::Arg::new("target").value_name("REPOSITORY[:TAG]"))
}

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let source = required(matches, "source");
    let is_address = ["http://", "https://"].iter().any(|scheme| source.starts_with(scheme));
    let mut query = Query::new().with("fromSrc", if is_address { source } else { "-" });
    if let Some(target) = text(matches, "target") {
        let (repository, tag) = repository_and_tag(target)?;
        query = query.with("repo", &repository).with("tag", &tag);
    }
    query = query.with_some("message", text(matches, "message")).with_some("platform", text(matches, "platform"));
    query = texts(matches, "change").into_iter().fold(query, |query, change| query.with("changes", change));
    query = query.with_some("sourceDateEpoch", super::source_date_epoch()?.as_deref());
    let path = format!("/images/create{query}");
    let response = match is_address {
        // The engine's to refuse.
        true => context.client.stream(Method::POST, &path, None).await?,
        false => {
            let file = Some(source).filter(|source| *source != "-");
            let (body, bar) = upload::body(file, "import", "Importing", false).await?;
            let response = context.client.stream(Method::POST, &path, Some(body)).await;
            bar.finish_and_clear();
            response?
        }
    };
    let mut messages = JsonLines::new(response, "POST /images/create");
    while let Some(message) = messages.next().await? {
        upload::check(&message)?;
        if let Some(status) = message.get("status").and_then(Value::as_str) {
            output::print_line(status)?;
        }
    }
    Ok(0)
}
