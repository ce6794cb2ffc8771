//! `dozen create`, and the half of `run` that creates.

use std::fs::OpenOptions;
use std::io::Write;

use clap::{ArgMatches, Command};
use dozen_model::Reference;
use serde::Deserialize;

use super::Context;
use super::pull::{self, Wanted};
use crate::arguments::container::{self, CreateRequest};
use crate::arguments::flags::{is_on, text, verb};
use crate::arguments::security::Surroundings;
use crate::client::{ClientError, Query};
use crate::failure::{ENGINE_FAILED, Failure, Outcome};
use crate::output::{self, Stream};
use crate::terminal;

pub fn command() -> Command {
    container::with_flags(verb(
        "create",
        "Create a new container",
        "create [OPTIONS] IMAGE [COMMAND] [ARG...]",
        "dozen create --name web -p 8080:80 nginx\n\
         dozen start web",
    ))
}

pub async fn execute(context: &Context, matches: &ArgMatches, called: &str) -> Outcome {
    let request = request(matches, false)?;
    let id = create(context, matches, &request, called).await?;
    output::print_line(&id)?;
    Ok(0)
}

/// What the flags ask for, in our surroundings.
pub fn request(matches: &ArgMatches, is_detached: bool) -> Result<CreateRequest, Failure> {
    let directory = super::directory();
    let around = Surroundings {
        environment: &|name| std::env::var(name).ok(),
        directory: &directory,
        read_file: &super::read_file,
    };
    let size = terminal::size().map(|size| (size.rows, size.columns));
    container::request(matches, is_detached, size, &around)
}

#[derive(Deserialize)]
struct Created {
    #[serde(rename = "Id")]
    id: String,
    #[serde(rename = "Warnings", default)]
    warnings: Option<Vec<String>>,
}

/// Creates the container and returns its id. `called` is how the verb was called: `run`, `container create`.
pub async fn create(
    context: &Context,
    matches: &ArgMatches,
    request: &CreateRequest,
    called: &str,
) -> Result<String, Failure> {
    let pull = Pull::of(text(matches, "pull").unwrap_or("missing"))?;
    // The file is made first: a second run with the same file must not create anything.
    let mut id_file = match &request.id_file {
        None => None,
        Some(path) => {
            let file = OpenOptions::new().write(true).create_new(true).open(path).map_err(|error| {
                let words = match error.kind() {
                    std::io::ErrorKind::AlreadyExists => format!(
                        "container ID file found, make sure the other container isn't running or delete {}",
                        path.display()
                    ),
                    _ => format!("failed to create the container ID file {}: {error}", path.display()),
                };
                Failure { is_prefixed: true, ..Failure::new(words) }.with_exit_code(ENGINE_FAILED)
            })?;
            Some((file, path))
        }
    };
    let query =
        Query::new().with_some("name", request.name.as_deref()).with_some("platform", text(matches, "platform"));
    let path = format!("/containers/create{query}");
    let created = match created_from(context, matches, request, &path, pull).await {
        Ok(created) => created,
        Err(failure) => {
            if let Some((_, path)) = &id_file {
                // Empty and ours: it would only stand in the way of the next try.
                let _ = std::fs::remove_file(path);
            }
            return Err(failure.with_exit_code(ENGINE_FAILED).of_verb(called));
        }
    };
    for warning in created.warnings.into_iter().flatten() {
        output::say(&format!("WARNING: {warning}"));
    }
    if let Some((file, path)) = &mut id_file {
        file.write_all(created.id.as_bytes()).map_err(|error| {
            Failure::new(format!("failed to write the container ID file {}: {error}", path.display()))
                .with_hint(format!("the container is there: {}", created.id))
                .with_exit_code(ENGINE_FAILED)
        })?;
    }
    Ok(created.id)
}

/// `--pull`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pull {
    Always,
    Missing,
    Never,
}

impl Pull {
    fn of(text: &str) -> Result<Self, Failure> {
        match text {
            "always" => Ok(Self::Always),
            "missing" | "" => Ok(Self::Missing),
            "never" => Ok(Self::Never),
            other => Err(Failure {
                is_prefixed: true,
                exit_code: ENGINE_FAILED,
                ..Failure::new(format!(
                    "invalid pull option: '{other}': must be one of \"always\", \"missing\" or \"never\""
                ))
            }),
        }
    }
}

/// The container, of an image that is pulled first if that is wanted, or if it is missing.
async fn created_from(
    context: &Context,
    matches: &ArgMatches,
    request: &CreateRequest,
    path: &str,
    pull: Pull,
) -> Result<Created, Failure> {
    let is_quiet = is_on(matches, "quiet");
    let bring = async || {
        let reference = request.image.parse().map_err(|error| Failure::new(format!("{error}")))?;
        let wanted = Wanted { reference: &reference, all_tags: false, platform: text(matches, "platform") };
        // Stdout is the container's.
        pull::pull(context, &wanted, (!is_quiet).then_some(Stream::Stderr)).await
    };
    if pull == Pull::Always {
        bring().await?;
    }
    match context.client.post::<Created>(path, Some(&request.body)).await {
        Err(error) if pull == Pull::Missing && is_missing_image(&error, &request.image) => {
            if !is_quiet {
                let name = request.image.parse::<Reference>();
                let name = name.map_or_else(|_| request.image.clone(), |name| name.familiar());
                output::say(&format!("Unable to find image '{name}' locally"));
            }
            bring().await?;
            Ok(context.client.post(path, Some(&request.body)).await?)
        }
        created => Ok(created?),
    }
}

/// It is the container's own image that is missing, or that is here for other platforms: no other comes by this pull.
fn is_missing_image(error: &ClientError, image: &str) -> bool {
    let name = image.parse::<Reference>().map_or_else(|_| image.to_owned(), |name| name.familiar());
    let words = error.to_string();
    error.is_not_found() && (words.ends_with(&format!("No such image: {name}")) || words.contains("has no image for"))
}
