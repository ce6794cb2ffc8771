//! `--output`: what becomes of the image (docs.docker.com/reference/cli/docker/buildx/build, "--output").

use clap::ArgMatches;
use dozen_image::{CopyIn, Owner};
use http::Method;
use serde_json::{Value, json};

use super::statements::Statements;
use crate::arguments::flags::{invalid, is_on, texts};
use crate::client::Query;
use crate::commands::download::Download;
use crate::commands::pull::Wanted;
use crate::commands::{Context, container_path, pieces, push};
use crate::failure::Failure;
use crate::output::Stream;

/// What a build is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Product {
    /// An image in the engine, with these further names.
    Image { names: Vec<String> },
    /// The same, and all its names in their registries.
    Registry { names: Vec<String> },
    /// Its files, in a directory of this host.
    Directory(String),
    /// Its files as an archive; `None`: to stdout.
    Tar(Option<String>),
    /// The image as an archive, which is Docker's kind and an OCI layout in one.
    Archive(Option<String>),
}

impl Product {
    pub(super) fn read(matches: &ArgMatches) -> Result<Self, Failure> {
        let product = match texts(matches, "output").as_slice() {
            [] => Self::Image { names: Vec::new() },
            [text] => Self::parse(text)?,
            _ => return Err(Failure::not_built("more than one --output of 'dozen build'")),
        };
        match (product, is_on(matches, "push")) {
            (Self::Image { names } | Self::Registry { names }, true) => Ok(Self::Registry { names }),
            (_, true) => Err(Failure::not_built("--push of 'dozen build' beside an --output that is no image")
                .with_hint("push it afterwards: dozen push NAME")),
            (product, false) => Ok(product),
        }
    }

    fn parse(text: &str) -> Result<Self, Failure> {
        if !text.contains('=') {
            return Ok(if text == "-" { Self::Tar(None) } else { Self::Directory(text.to_owned()) });
        }
        let (mut kind, mut destination, mut names, mut is_pushed) = ("", None, Vec::new(), false);
        for field in text.split(',') {
            let Some((key, value)) = field.split_once('=') else {
                return Err(invalid(text, "output", format_args!("invalid value {field}")));
            };
            match key.trim().to_ascii_lowercase().as_str() {
                "type" => kind = value,
                "dest" => destination = Some(value.to_owned()),
                "name" if !value.is_empty() => names.push(value.to_owned()),
                "push" if value == "true" => is_pushed = true,
                // They are off unless somebody asks.
                "push" | "push-by-digest" | "unpack" if value == "false" => {}
                other => return Err(Failure::not_built(&format!("{other}={value} of --output"))),
            }
        }
        let file = destination.clone().filter(|path| path != "-");
        match (kind, destination) {
            ("registry", None) => Ok(Self::Registry { names }),
            ("image", None) if is_pushed => Ok(Self::Registry { names }),
            ("registry", Some(_)) => Err(invalid(text, "output", "dest is not for type=registry")),
            (other, _) if is_pushed => Err(invalid(text, "output", format_args!("push is not for type={other}"))),
            ("image", None) | ("docker", None) => Ok(Self::Image { names }),
            ("image", Some(_)) => Err(invalid(text, "output", "dest is not for type=image")),
            _ if !names.is_empty() => {
                Err(Failure::not_built(&format!("name= of --output with type={kind}"))
                    .with_hint("name the image with -t"))
            }
            ("local", Some(path)) => Ok(Self::Directory(path)),
            ("local", None) => Err(invalid(text, "output", "dest is required for local output")),
            ("tar", _) => Ok(Self::Tar(file)),
            ("oci" | "docker", _) => Ok(Self::Archive(file)),
            ("", _) => Err(invalid(text, "output", "type is required for output")),
            (other, _) => Err(Failure::not_built(&format!("--output type={other}"))
                .with_hint("there are image, registry, local, tar, oci and docker")),
        }
    }

    /// Stdout is for data.
    pub(super) fn is_on_stdout(&self) -> bool {
        matches!(self, Self::Tar(None) | Self::Archive(None))
    }

    /// Refuses before anything is built what has no name to be pushed by.
    pub(super) fn check_names(&self, names: &[String]) -> Result<(), Failure> {
        match self {
            Self::Registry { .. } if names.is_empty() => {
                Err(Failure::new("ERROR: tag is needed when pushing to registry")
                    .with_hint("name the image with its registry: -t registry.example:5000/team/app:1"))
            }
            _ => Ok(()),
        }
    }

    /// Refuses before anything is built what could not be written afterwards.
    pub(super) fn prepare(&self) -> Result<Prepared, Failure> {
        Ok(match self {
            Self::Image { .. } => Prepared::Nothing,
            Self::Registry { .. } => Prepared::Registry,
            Self::Directory(path) => Prepared::Directory(path.clone()),
            Self::Tar(path) => Prepared::Tar(Download::to(path.as_deref(), "build", FAILED)?),
            Self::Archive(path) => Prepared::Archive(Download::to(path.as_deref(), "build", FAILED)?),
        })
    }
}

const FAILED: &str = "failed to write the output";

/// Where it will go.
pub(super) enum Prepared {
    Nothing,
    Registry,
    Directory(String),
    Tar(Download),
    Archive(Download),
}

impl Prepared {
    /// Brings it there. The image stays in the engine too. Gives the digest by which a registry has it.
    pub(super) async fn take(
        self,
        context: &Context,
        image: &str,
        tags: &[String],
        statements: Statements,
        is_quiet: bool,
    ) -> Result<Option<String>, Failure> {
        if let Self::Registry = self {
            return push(context, tags, is_quiet).await;
        }
        self.write(context, image, tags, statements).await.map(|()| None)
    }

    async fn write(
        self,
        context: &Context,
        image: &str,
        tags: &[String],
        statements: Statements,
    ) -> Result<(), Failure> {
        match self {
            Self::Nothing | Self::Registry => Ok(()),
            Self::Archive(download) => {
                let own = [image.to_owned()];
                let names = if tags.is_empty() { &own } else { tags };
                let query = names.iter().fold(Query::new(), |query, name| query.with("names", name));
                let response = context.client.stream(Method::GET, &format!("/images/get{query}"), None).await?;
                download.take(response, "Saving").await
            }
            Self::Tar(download) => {
                let container = Files::of(context, image).await?;
                let taken = match container.export(context).await {
                    // What is said of the image comes first.
                    Ok(response) => download.after(statements.archived()).take(response, "Exporting").await,
                    Err(failure) => Err(failure),
                };
                container.remove(context, taken).await
            }
            Self::Directory(path) => {
                let made = std::fs::create_dir_all(&path);
                made.map_err(|error| {
                    Failure::new(format!("{FAILED}: {path}: {}", crate::commands::system_words(&error)))
                })?;
                let container = Files::of(context, image).await?;
                let how = CopyIn { keep_kinds: true, owner: Owner::Caller, renamed: None, ids: None };
                let taken = match container.export(context).await {
                    Ok(response) => pieces::unpack(response, &path, how).await.and_then(|_| {
                        let written = statements.write(std::path::Path::new(&path));
                        written.map_err(|why| Failure::new(format!("{FAILED}: {why}")))
                    }),
                    Err(failure) => Err(failure),
                };
                container.remove(context, taken).await
            }
        }
    }
}

/// One name after the other: what they have in common goes once.
async fn push(context: &Context, names: &[String], is_quiet: bool) -> Result<Option<String>, Failure> {
    let mut digest = None;
    for name in names {
        let failed = |why: &dyn std::fmt::Display| Failure::new(format!("ERROR: failed to push {name}: {why}"));
        let reference = name.parse().map_err(|error: dozen_model::ReferenceError| failed(&error))?;
        let wanted = Wanted { reference: &reference, all_tags: false, platform: None };
        let pushed =
            push::push(context, &wanted, &push::Compression::default(), (!is_quiet).then_some(Stream::Stderr)).await;
        let pushed = pushed.map_err(|failure| Failure { message: failed(&failure.message).message, ..failure })?;
        digest = pushed.digest.or(digest);
    }
    Ok(digest)
}

/// A container of the image that is never started: an engine gives files out of those.
struct Files(String);

impl Files {
    async fn of(context: &Context, image: &str) -> Result<Self, Failure> {
        // An image for its files alone need not say what to run.
        let request = json!({ "Image": image, "Entrypoint": ["-"], "HostConfig": { "NetworkMode": "none" } });
        let made: Value = context.client.post("/containers/create", Some(&request)).await?;
        made["Id"]
            .as_str()
            .map(|id| Self(id.to_owned()))
            .ok_or_else(|| Failure::new("the engine gave the container no id"))
    }

    async fn export(&self, context: &Context) -> Result<http::Response<hyper::body::Incoming>, Failure> {
        Ok(context.client.stream(Method::GET, &container_path(&self.0, "/export"), None).await?)
    }

    /// However it went.
    async fn remove(self, context: &Context, taken: Result<(), Failure>) -> Result<(), Failure> {
        let removed = context.client.delete(&container_path(&self.0, "?v=1&force=1")).await;
        taken?;
        removed?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_read_or_refused_by_name() {
        let image = |names: &[&str]| Product::Image { names: names.iter().map(ToString::to_string).collect() };
        let path = |path: &str| Some(path.to_owned());
        for (text, product) in [
            ("out", Product::Directory("out".into())),
            ("-", Product::Tar(None)),
            ("type=local,dest=out", Product::Directory("out".into())),
            ("type=tar,dest=out.tar", Product::Tar(path("out.tar"))),
            ("type=tar", Product::Tar(None)),
            ("type=tar,dest=-", Product::Tar(None)),
            ("type=oci,dest=o.tar", Product::Archive(path("o.tar"))),
            ("type=docker,dest=-", Product::Archive(None)),
            ("type=docker", image(&[])),
            ("type=image,name=a:1,push=false", image(&["a:1"])),
            ("type=image,name=a:1,push=true", Product::Registry { names: vec!["a:1".into()] }),
            ("type=registry", Product::Registry { names: vec![] }),
        ] {
            assert_eq!(Product::parse(text).map_err(|failure| failure.message), Ok(product), "{text}");
        }
        for (text, words) in [
            ("type=image,push-by-digest=true", "push-by-digest=true of --output is not built yet"),
            ("type=registry,x=1", "x=1 of --output is not built yet"),
            ("type=registry,dest=x", "dest is not for type=registry"),
            ("type=oci,dest=x,push=true", "push is not for type=oci"),
            ("type=local", "dest is required for local output"),
            ("type=image,dest=x", "dest is not for type=image"),
            ("type=oci,name=x", "name= of --output with type=oci is not built yet"),
            ("dest=x", "type is required"),
            ("type=tar,x", "invalid value x"),
            ("type=oci,compression=zstd", "compression=zstd of --output is not built yet"),
        ] {
            let said = Product::parse(text).unwrap_err().message;
            assert!(said.contains(words), "{text}: {said}");
        }
    }
}
