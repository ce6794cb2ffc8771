//! `dozen create`, and the half of `run` that creates.

use std::fs::OpenOptions;
use std::io::Write;

use clap::{ArgMatches, Command};
use serde::Deserialize;

use super::Context;
use crate::arguments::container::{self, CreateRequest};
use crate::arguments::flags::{is_on, text, verb};
use crate::arguments::security::Surroundings;
use crate::client::{ClientError, Query};
use crate::failure::{ENGINE_FAILED, Failure, Outcome};
use crate::output;
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
    let pull = text(matches, "pull").unwrap_or("missing");
    match pull {
        "missing" | "never" => {}
        "always" => {
            return Err(Failure::not_built("--pull always")
                .with_hint("'dozen load' brings images in")
                .with_exit_code(ENGINE_FAILED));
        }
        other => {
            return Err(Failure {
                is_prefixed: true,
                exit_code: ENGINE_FAILED,
                ..Failure::new(format!(
                    "invalid pull option: '{other}': must be one of \"always\", \"missing\" or \"never\""
                ))
            });
        }
    }
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
    let created = context.client.post::<Created>(&format!("/containers/create{query}"), Some(&request.body)).await;
    let created = match created {
        Ok(created) => created,
        Err(error) => {
            if let Some((_, path)) = &id_file {
                // Empty and ours: it would only stand in the way of the next try.
                let _ = std::fs::remove_file(path);
            }
            return Err(failure(error, &request.image, pull == "missing" && !is_on(matches, "quiet"))
                .with_exit_code(ENGINE_FAILED)
                .of_verb(called));
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

/// An image that is not here is said in Docker's words; there is no pulling yet that could follow them.
fn failure(error: ClientError, image: &str, says_so: bool) -> Failure {
    let is_image = error.is_not_found() && error.to_string().to_ascii_lowercase().contains("no such image");
    if !is_image {
        return error.into();
    }
    let full = image.parse::<dozen_model::Reference>().map_or_else(|_| image.to_owned(), |name| name.familiar());
    if says_so {
        output::say(&format!("Unable to find image '{full}' locally"));
    }
    let hint = error.hint().unwrap_or_else(|| {
        "pulling is not built yet: bring it in with 'dozen load -i FILE', or make it with 'dozen commit'".to_owned()
    });
    Failure::new(error.to_string()).with_hint(hint)
}
