//! `dozen pull`, and the pull of an image that `run` and `create` want.

use clap::{ArgMatches, Command};
use dozen_model::Reference;
use http::Method;

use super::{Context, upload};
use crate::arguments::flags::{is_on, name, required, switch, text, verb};
use crate::client::{JsonLines, Query};
use crate::context::store::Store;
use crate::credentials;
use crate::failure::{Failure, Outcome};
use crate::output::layers::Layers;
use crate::output::{self, Stream};

pub fn command() -> Command {
    verb(
        "pull",
        "Download an image from a registry",
        "pull [OPTIONS] NAME[:TAG|@DIGEST]",
        "dozen pull debian:bookworm-slim\ndozen pull --platform linux/arm64 registry.example:5000/team/app",
    )
    .arg(switch("all-tags", 'a', "Download all tagged images in the repository"))
    .arg(crate::arguments::flags::value("platform", None, "string", "Set platform if server is multi-platform capable"))
    .arg(switch("quiet", 'q', "Suppress verbose output"))
    .arg(name("image", "NAME[:TAG|@DIGEST]"))
}

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let typed = required(matches, "image");
    let reference: Reference = typed.parse().map_err(|error| Failure::new(format!("{error}")))?;
    let all_tags = is_on(matches, "all-tags");
    let is_bare = is_bare(typed, &reference);
    if all_tags && !is_bare {
        return Err(Failure::new("tag can't be used with --all-tags/-a"));
    }
    let is_quiet = is_on(matches, "quiet");
    if is_bare && !all_tags && !is_quiet {
        output::print_line("Using default tag: latest")?;
    }
    let wanted = Wanted { reference: &reference, all_tags, platform: text(matches, "platform") };
    pull(context, &wanted, (!is_quiet).then_some(Stream::Stdout)).await?;
    let full = reference.to_string();
    output::print_line(if all_tags { full.rsplit_once(':').map_or(full.as_str(), |(name, _)| name) } else { &full })?;
    Ok(0)
}

/// Neither tag nor digest was typed.
pub(super) fn is_bare(typed: &str, reference: &Reference) -> bool {
    let last = typed.rsplit('/').next().unwrap_or_default();
    reference.digest().is_none() && !last.contains(':')
}

/// What is to be pulled, or pushed.
pub struct Wanted<'a> {
    /// With a tag or a digest.
    pub reference: &'a Reference,
    /// All of the repository's tags instead.
    pub all_tags: bool,
    /// `None`: what runs on the engine's machine.
    pub platform: Option<&'a str>,
}

/// Pulls; shows it on one of our streams, or nowhere.
pub async fn pull(context: &Context, wanted: &Wanted<'_>, stream: Option<Stream>) -> Result<(), Failure> {
    let reference = wanted.reference;
    let store = Store::of(&|name| std::env::var(name).ok());
    let auth = credentials::of_registry(store.directory(), reference.registry())?;
    let query = Query::new().with("fromImage", &format!("{}/{}", reference.registry(), reference.path()));
    let tag = reference.digest().map(dozen_model::Digest::as_str).or_else(|| reference.tag());
    let query = if wanted.all_tags { query } else { query.with_some("tag", tag) };
    let query = query.with_some("platform", wanted.platform);
    let fields: Vec<_> = auth.iter().map(|auth| ("X-Registry-Auth", auth.header())).collect();
    let response = context.client.stream_with(Method::POST, &format!("/images/create{query}"), &fields).await?;
    let mut messages = JsonLines::new(response, "POST /images/create");
    let mut layers = stream.map(Layers::new);
    while let Some(message) = messages.next().await? {
        upload::check(&message)?;
        if let Some(layers) = &mut layers {
            layers.show(&message)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_typed_counts() {
        let digest = format!("a@sha256:{}", "0".repeat(64));
        for (typed, want) in [
            ("alpine", true),
            ("alpine:latest", false),
            ("localhost:5000/alpine", true),
            ("localhost:5000/alpine:1", false),
            (digest.as_str(), false),
        ] {
            assert_eq!(is_bare(typed, &typed.parse().unwrap()), want, "{typed}");
        }
    }
}
