//! `dozen artifact`: files that lie in registries beside images, with podman's words (podman-artifact(1)); and what a registry
//! has about an image.

mod add;
mod extract;
mod referrers;

use std::io::IsTerminal;

use clap::{Arg, ArgMatches, Command};
use dozen_model::Reference;
use http::Method;
use serde::Deserialize;
use serde_json::Value;

use super::{Context, inspect, upload};
use crate::arguments::flags::{
    format, inspect_format, is_on, list, name, names, required, switch, switch_value, text, texts, value, verb,
};
use crate::client::{JsonLines, Query, encode_segment};
use crate::context::store::Store;
use crate::credentials::{self, RegistryAuth};
use crate::failure::{Failure, Outcome};
use crate::output::layers::Layers;
use crate::output::listing::{self, Layout};
use crate::output::{self, Stream, json, size};
use crate::template::Row;

pub fn command() -> Command {
    Command::new("artifact")
        .about("Manage OCI artifacts")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([
        verb(
            "add",
            "Make an artifact of files",
            "artifact add [OPTIONS] ARTIFACT PATH [PATH...]",
            "dozen artifact add --type application/vnd.example.model registry.example:5000/team/model:1 weights.bin\n\
                 dozen artifact add --append registry.example:5000/team/model:1 README.md\n\
                 dozen artifact add --subject registry.example:5000/app:1 registry.example:5000/app:1-sbom sbom.json",
        )
        .arg(list("annotation", None, "Set an annotation for the files of the artifact (NAME=TEXT)"))
        .arg(switch("append", 'a', "Append files to an existing artifact"))
        .arg(value("file-type", None, "string", "Set the media type of the files, instead of what they look like"))
        .arg(switch("replace", None, "Replace an existing artifact of this name"))
        .arg(value("subject", None, "string", "What it is about: an image that lies in the same repository"))
        .arg(tls_verify())
        .arg(value("type", None, "string", "Set the type of the artifact"))
        .arg(name("artifact", "ARTIFACT"))
        .arg(names("PATH")),
        verb(
            "extract",
            "Write the files of an artifact to a file or a directory",
            "artifact extract [OPTIONS] ARTIFACT PATH",
            "mkdir model; dozen artifact extract registry.example:5000/team/model:1 model\n\
                 dozen artifact extract --title weights.bin registry.example:5000/team/model:1 weights.bin",
        )
        .arg(value("digest", None, "string", "Only extract the file with the given digest"))
        .arg(value("title", None, "string", "Only extract the file with the given title"))
        .arg(name("artifact", "ARTIFACT"))
        .arg(name("path", "PATH")),
        verb(
            "inspect",
            "Display the manifest of an artifact",
            "artifact inspect [OPTIONS] ARTIFACT",
            "dozen artifact inspect registry.example:5000/team/model:1\n\
                 dozen artifact inspect --format '{{.Digest}}' registry.example:5000/team/model:1",
        )
        .arg(inspect_format())
        .arg(name("artifact", "ARTIFACT")),
        verb("ls", "List artifacts", "artifact ls [OPTIONS]", "dozen artifact ls --no-trunc")
            .visible_alias("list")
            .arg(format())
            .arg(switch("no-trunc", None, "Don't truncate output"))
            .arg(switch("noheading", 'n', "Do not print column headings"))
            .arg(switch("quiet", 'q', "Only show digests")),
        verb(
            "pull",
            "Download an artifact from a registry",
            "artifact pull [OPTIONS] ARTIFACT",
            "dozen artifact pull registry.example:5000/team/model:1",
        )
        .arg(switch("quiet", 'q', "Only print the digest"))
        .arg(tls_verify())
        .arg(name("artifact", "ARTIFACT")),
        verb(
            "push",
            "Upload an artifact to a registry",
            "artifact push [OPTIONS] ARTIFACT",
            "dozen artifact push registry.example:5000/team/model:1",
        )
        .arg(value("digestfile", None, "string", "Write the digest of the pushed artifact to the file"))
        .arg(switch("quiet", 'q', "Suppress output"))
        .arg(tls_verify())
        .arg(name("artifact", "ARTIFACT")),
        verb(
            "referrers",
            "List what a registry has about an image",
            "artifact referrers [OPTIONS] IMAGE",
            "dozen artifact referrers registry.example:5000/app:1\n\
                 dozen artifact referrers --artifact-type application/vnd.example.sbom registry.example:5000/app:1",
        )
        .visible_alias("discover")
        .arg(value("artifact-type", None, "string", "Only list what has this type"))
        .arg(format())
        .arg(switch("no-trunc", None, "Don't truncate output"))
        .arg(value("platform", None, "string", "Of a multi-platform image the manifest for this platform"))
        .arg(switch("quiet", 'q', "Only show digests"))
        .arg(tls_verify())
        .arg(name("image", "IMAGE")),
        verb(
            "rm",
            "Remove one or more artifacts",
            "artifact rm [OPTIONS] ARTIFACT...",
            "dozen artifact rm registry.example:5000/team/model:1\ndozen artifact rm --all",
        )
        .visible_alias("remove")
        .arg(switch("all", 'a', "Remove all artifacts"))
        .arg(switch("ignore", 'i', "Ignore artifacts that do not exist"))
        .arg(Arg::new("names").value_name("ARTIFACT").num_args(0..)),
    ])
}

fn tls_verify() -> Arg {
    switch("tls-verify", None, "Require HTTPS and verify certificates when contacting registries (default true)")
}

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let (verb, matches) = matches.subcommand().expect("clap wants one");
    match verb {
        "add" => add::execute(context, matches).await,
        "extract" => extract::execute(context, matches).await,
        "inspect" => show(context, matches).await,
        "ls" => list_all(context, matches).await,
        "pull" => pull(context, matches).await,
        "push" => push(context, matches).await,
        "referrers" => referrers::execute(context, matches).await,
        _ => remove(context, matches).await,
    }
}

/// As the engine describes one.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Artifact {
    name: String,
    digest: String,
    manifest: Value,
}

impl Artifact {
    fn layers(&self) -> impl Iterator<Item = &Value> {
        self.manifest["layers"].as_array().into_iter().flatten()
    }

    fn size_bytes(&self) -> i64 {
        self.layers().filter_map(|layer| layer["size"].as_i64()).fold(0, i64::saturating_add)
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Moved {
    artifact_digest: String,
}

/// A digest as podman shows it: its digits, all of them or the first twelve.
fn digits(digest: &str, truncates: bool) -> &str {
    let digits = digest.split_once(':').map_or(digest, |(_, digits)| digits);
    if truncates { digits.get(..12).unwrap_or(digits) } else { digits }
}

/// `/libpod/artifacts/NAME/suffix`.
fn path(name: &str, suffix: &str) -> String {
    format!("/libpod/artifacts/{}{suffix}", encode_segment(name))
}

fn reference(name: &str) -> Result<Reference, Failure> {
    name.parse().map_err(|error| Failure::new(format!("{error}")))
}

/// Who one is for a registry.
fn auth_for(registry: &str) -> Result<Option<RegistryAuth>, Failure> {
    let store = Store::of(&|name| std::env::var(name).ok());
    credentials::of_registry(store.directory(), registry)
}

/// `tlsVerify`, if it was said.
fn with_tls(query: Query, matches: &ArgMatches) -> Query {
    query.with_some("tlsVerify", switch_value(matches, "tls-verify").map(|on| if on { "true" } else { "false" }))
}

async fn pull(context: &Context, matches: &ArgMatches) -> Outcome {
    let name = reference(required(matches, "artifact"))?;
    let query = with_tls(Query::new().with("name", &name.to_string()), matches);
    let auth = auth_for(name.registry())?;
    let fields: Vec<_> = auth.iter().map(|auth| ("X-Registry-Auth", auth.header())).collect();
    let pulled = moved(context, "/libpod/artifacts/pull", query, &fields, is_on(matches, "quiet")).await?;
    output::print_line(digits(&pulled, false))?;
    Ok(0)
}

/// Carries one over; gives its digest. What happens is shown on a terminal, beside the result.
async fn moved(
    context: &Context,
    path: &str,
    query: Query,
    fields: &[(&'static str, &str)],
    is_quiet: bool,
) -> Result<String, Failure> {
    if is_quiet || !std::io::stderr().is_terminal() {
        let moved: Moved = context.client.read_with(Method::POST, &format!("{path}{query}"), fields).await?;
        return Ok(moved.artifact_digest);
    }
    let query = query.with_flag("progress", true);
    let response = context.client.stream_with(Method::POST, &format!("{path}{query}"), fields).await?;
    let (mut messages, mut layers) = (JsonLines::new(response, "POST /libpod/artifacts"), Layers::new(Stream::Stderr));
    let mut digest = None;
    while let Some(message) = messages.next().await? {
        upload::check(&message)?;
        // An engine that tells nothing of it answers at once.
        let last = [&message["aux"], &message].into_iter().find_map(|said| said["ArtifactDigest"].as_str());
        match last {
            Some(last) => digest = Some(last.to_owned()),
            None => layers.show(&message)?,
        }
    }
    digest.ok_or_else(|| Failure::new("the engine did not say whether it has arrived"))
}

async fn push(context: &Context, matches: &ArgMatches) -> Outcome {
    let wanted = required(matches, "artifact");
    // It may be named by its digest: where it goes, and who one is there, its name says.
    let found: Artifact = context.client.get(&path(wanted, "/json")).await?;
    let auth = auth_for(reference(&found.name)?.registry())?;
    let fields: Vec<_> = auth.iter().map(|auth| ("X-Registry-Auth", auth.header())).collect();
    let is_quiet = is_on(matches, "quiet");
    let pushed = moved(context, &path(wanted, "/push"), with_tls(Query::new(), matches), &fields, is_quiet).await?;
    if let Some(file) = text(matches, "digestfile") {
        let failed = |error| Failure::new(format!("write {file}: {}", super::system_words(&error)));
        std::fs::write(file, &pushed).map_err(failed)?;
    }
    if !is_quiet {
        output::print_line(&format!("{}: digest: {}", found.name, pushed))?;
    }
    Ok(0)
}

async fn remove(context: &Context, matches: &ArgMatches) -> Outcome {
    let names = texts(matches, "names");
    // podman's words.
    match (is_on(matches, "all"), names.is_empty()) {
        (true, false) => {
            let words = "when using the --all switch, you may not pass any artifact names or digests";
            return Err(Failure::new(words));
        }
        (false, true) => return Err(Failure::new("an artifact name or digest must be specified")),
        _ => {}
    }
    let query = Query::new().with_flag("all", is_on(matches, "all")).with_flag("ignore", is_on(matches, "ignore"));
    let query = names.into_iter().fold(query, |query, name| query.with("artifacts", name));
    let removed = context.client.delete(&format!("/libpod/artifacts/remove{query}")).await?;
    for digest in removed["ArtifactDigests"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        output::print_line(digits(digest, false))?;
    }
    Ok(0)
}

async fn show(context: &Context, matches: &ArgMatches) -> Outcome {
    let document = context.client.get_text(&path(required(matches, "artifact"), "/json")).await?;
    match text(matches, "format").filter(|format| !format.is_empty() && *format != "json") {
        // One document, and no list of them, as podman shows it.
        None => output::print(&(json::indent(&document) + "\n"))?,
        Some(template) => output::print(&inspect::show(&[document], Some(template))?)?,
    }
    Ok(0)
}

const LAYOUT: Layout = Layout {
    table: "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.Size}}",
    quiet: "Digest",
    headings: &[("Repository", "REPOSITORY"), ("Tag", "TAG"), ("Digest", "DIGEST"), ("Size", "SIZE")],
};

async fn list_all(context: &Context, matches: &ArgMatches) -> Outcome {
    let all: Vec<Artifact> = context.client.get("/libpod/artifacts/json").await?;
    let truncates = !is_on(matches, "no-trunc");
    let rows = all.iter().map(|artifact| row(artifact, truncates)).collect::<Result<Vec<_>, Failure>>()?;
    let (format, is_quiet) = (text(matches, "format"), is_on(matches, "quiet"));
    let shown = listing::render(&LAYOUT, format, is_quiet, rows)?;
    let is_table = !is_quiet && format.is_none_or(|format| format.is_empty() || format.starts_with("table"));
    match is_on(matches, "noheading") && is_table {
        true => output::print(shown.split_once('\n').map_or("", |(_, rows)| rows))?,
        false => output::print(&shown)?,
    }
    Ok(0)
}

fn row(artifact: &Artifact, truncates: bool) -> Result<Row, Failure> {
    let name = reference(&artifact.name)?;
    let columns = vec![
        ("Repository", name.familiar_name()),
        ("Tag", name.tag().unwrap_or("<none>").to_owned()),
        ("Digest", digits(&artifact.digest, truncates).to_owned()),
        ("Size", size::human(artifact.size_bytes())),
    ];
    Ok(Row { columns, labels: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_artifact_is_a_line() {
        let artifact: Artifact = serde_json::from_str(
            r#"{"Name":"localhost:5000/notes:1","Digest":"sha256:0123456789abcdef","Manifest":{"layers":[{"size":12000},{"size":345}]}}"#,
        )
        .unwrap();
        let shown =
            |truncates| listing::render(&LAYOUT, None, false, vec![row(&artifact, truncates).unwrap()]).unwrap();
        assert_eq!(
            shown(true),
            "REPOSITORY             TAG       DIGEST         SIZE\n\
             localhost:5000/notes   1         0123456789ab   12.35kB\n"
        );
        assert!(shown(false).contains("0123456789abcdef"));
    }
}
