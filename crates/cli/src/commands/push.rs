//! `dozen push`.

use clap::{ArgMatches, Command};
use dozen_model::Reference;
use http::Method;
use serde_json::Value;

use super::pull::{Wanted, is_bare};
use super::sign::{self, Signer};
use super::{Context, image_path, upload};
use crate::arguments::flags::{is_on, name, required, switch, text, value, verb};
use crate::client::{JsonLines, Query};
use crate::context::store::Store;
use crate::credentials;
use crate::failure::{Failure, Outcome};
use crate::output::layers::Layers;
use crate::output::{self, Stream};

pub fn command() -> Command {
    let command = verb(
        "push",
        "Upload an image to a registry",
        "push [OPTIONS] NAME[:TAG]",
        "dozen push registry.example:5000/team/app:1\ndozen push --all-tags registry.example:5000/team/app",
    )
    .arg(switch("all-tags", 'a', "Push all tags of an image to the repository"))
    .arg(value(
        "compression",
        None,
        "string",
        "Compress layers with gzip or zstd; those that are here otherwise are compressed anew, and the image gets a \
         manifest of its own",
    ).alias("compression-format"))
    .arg(value("compression-level", None, "int", "Compress all layers anew at this level (gzip: 1 to 9, zstd: 1 to 19)"))
    .arg(switch("force-compression", None, "Compress layers anew that are compressed so already"))
    .arg(value(
        "platform",
        None,
        "string",
        "Push a platform-specific manifest as a single-platform image to the registry. Image index won't be pushed, \
         meaning that other manifests, including attestations won't be preserved.",
    ))
    .arg(switch("quiet", 'q', "Suppress verbose output"))
    .arg(name("image", "NAME[:TAG]"));
    sign::flags(command)
}

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let typed = required(matches, "image");
    let reference: Reference = typed.parse().map_err(|error| Failure::new(format!("{error}")))?;
    if reference.digest().is_some() {
        return Err(Failure::new("cannot push a digest reference"));
    }
    let (all_tags, is_quiet, is_bare) =
        (is_on(matches, "all-tags"), is_on(matches, "quiet"), is_bare(typed, &reference));
    if all_tags && !is_bare {
        return Err(Failure::new("tag can't be used with --all-tags/-a"));
    }
    if is_bare && !all_tags && !is_quiet {
        output::print_line("Using default tag: latest")?;
    }
    let wanted = Wanted { reference: &reference, all_tags, platform: text(matches, "platform") };
    let compression = Compression {
        format: text(matches, "compression"),
        level: text(matches, "compression-level"),
        is_forced: is_on(matches, "force-compression"),
    };
    let signer = Signer::of(matches)?;
    let pushed = push(context, &wanted, &compression, (!is_quiet).then_some(Stream::Stdout)).await?;
    let mut unsigned = Vec::new();
    if let Some(signer) = &signer {
        for (tag, digest) in &pushed.tags {
            unsigned.extend(sign_one(context, signer, &reference, tag, digest, is_quiet).await.err());
        }
    }
    if is_quiet {
        let full = reference.to_string();
        output::print_line(if all_tags {
            full.rsplit_once(':').map_or(full.as_str(), |(name, _)| name)
        } else {
            &full
        })?;
    }
    for note in pushed.notes {
        output::print_line(&format!("\n i Info → {note}"))?;
    }
    all_of(unsigned).map_or(Ok(0), Err)
}

/// Several failures as one: with the hint and the exit code of the first.
fn all_of(failures: Vec<Failure>) -> Option<Failure> {
    let messages = failures.iter().map(|failure| failure.message.as_str()).filter(|message| !message.is_empty());
    let messages: Vec<_> = messages.map(str::to_owned).collect();
    let first = failures.into_iter().next()?;
    Some(Failure { message: messages.join("\n"), ..first })
}

async fn sign_one(
    context: &Context,
    signer: &Signer,
    repository: &Reference,
    tag: &str,
    digest: &str,
    is_quiet: bool,
) -> Result<(), Failure> {
    let name = repository.with_tag(tag).map_err(|error| Failure::new(format!("{error}")))?;
    let signed = signer.sign(context, &name, digest, false).await;
    let signed = signed.map_err(|failure| sign::after_push(&name, failure))?;
    for digest in signed.iter().filter(|_| !is_quiet) {
        output::print_line(&format!("{tag}: signed: {digest}"))?;
    }
    Ok(())
}

/// How layers are to be compressed; by default as the engine likes.
#[derive(Default)]
pub struct Compression<'a> {
    format: Option<&'a str>,
    level: Option<&'a str>,
    is_forced: bool,
}

/// What came of it.
#[derive(Default)]
pub struct Pushed {
    /// What is to be said in the end.
    pub notes: Vec<String>,
    /// Of the last tag's manifest or index.
    pub digest: Option<String>,
    /// All tags, each with what it leads to now.
    pub tags: Vec<(String, String)>,
}

/// Pushes; shows it on one of our streams, or nowhere.
pub async fn push(
    context: &Context,
    wanted: &Wanted<'_>,
    compression: &Compression<'_>,
    stream: Option<Stream>,
) -> Result<Pushed, Failure> {
    let reference = wanted.reference;
    let store = Store::of(&|name| std::env::var(name).ok());
    let auth = credentials::of_registry(store.directory(), reference.registry())?;
    let query = Query::new().with_some("tag", reference.tag().filter(|_| !wanted.all_tags));
    let query = query.with_some("platform", wanted.platform);
    // As podman's API has them.
    let query = query.with_some("compressionFormat", compression.format);
    let query = query.with_some("compressionLevel", compression.level);
    let query = query.with_flag("forceCompressionFormat", compression.is_forced);
    let name = format!("{}/{}", reference.registry(), reference.path());
    let path = image_path(&name, &format!("/push{query}"));
    let fields: Vec<_> = auth.iter().map(|auth| ("X-Registry-Auth", auth.header())).collect();
    let response = context.client.stream_with(Method::POST, &path, &fields).await?;
    let mut messages = JsonLines::new(response, "POST /images/NAME/push");
    let mut layers = stream.map(Layers::new);
    let mut pushed = Pushed::default();
    while let Some(message) = messages.next().await? {
        upload::check(&message)?;
        match (message.get("aux"), &mut layers) {
            (Some(aux), _) => {
                pushed.notes.extend(note(aux));
                if let (Some(tag), Some(digest)) = (aux["Tag"].as_str(), aux["Digest"].as_str()) {
                    pushed.tags.push((tag.to_owned(), digest.to_owned()));
                    pushed.digest = Some(digest.to_owned());
                }
            }
            (None, Some(layers)) => layers.show(&message)?,
            (None, None) => {}
        }
    }
    Ok(pushed)
}

/// docker's words.
fn note(aux: &Value) -> Option<String> {
    aux.get("manifestPushedInsteadOfIndex").filter(|said| **said == Value::Bool(true))?;
    let digest = |of: &str| output::cell(aux[of]["digest"].as_str().unwrap_or_default()).into_owned();
    Some(format!(
        "Not all multiplatform-content is present and only the available single-platform image was pushed\n         {} -> {}",
        digest("originalIndex"),
        digest("selectedManifest")
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_several_failures_none_is_left_out() {
        let failures = vec![Failure::new("a is not signed").with_hint("sign it"), Failure::new("b is not signed")];
        let all = all_of(failures).unwrap();
        assert_eq!((all.message.as_str(), all.hint.as_deref()), ("a is not signed\nb is not signed", Some("sign it")));
        assert_eq!(all_of(Vec::new()), None);
    }

    #[test]
    fn what_was_not_pushed_is_said() {
        let aux = json!({
            "manifestPushedInsteadOfIndex": true,
            "originalIndex": { "digest": "sha256:a" }, "selectedManifest": { "digest": "sha256:b" },
        });
        assert!(note(&aux).unwrap().ends_with("was pushed\n         sha256:a -> sha256:b"));
        assert_eq!(note(&json!({ "Tag": "1", "Digest": "sha256:a", "Size": 5 })), None);
    }
}
