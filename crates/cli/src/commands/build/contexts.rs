//! `--build-context`: what stands for stages and images of its name
//! (docs.docker.com/reference/cli/docker/buildx/build, "--build-context").

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use dozen_build::carried::Descriptor;
use dozen_dockerfile::ignore::IgnoreFile;
use dozen_dockerfile::named;
use dozen_dockerfile::scope::Given;
use dozen_model::Reference;
use serde_json::{Value, json};

use super::layout::{Choice, Layout, PackLayoutError};
use super::packing::{self, PackError};
use super::source;
use crate::commands::system_words;
use crate::failure::Failure;

/// What comes by the network, which nothing of ours does yet.
const REMOTE: [&str; 6] = ["http://", "https://", "git://", "ssh://", "git@", "github.com/"];

/// By their names, as [`named::name_of`] gives them.
pub(super) type Contexts = BTreeMap<String, Named>;

/// What stands for the name.
#[derive(Debug)]
pub(super) enum Named {
    /// A directory, with what its own ignore file leaves of it.
    Directory { path: PathBuf, ignore: IgnoreFile },
    /// One image of an OCI layout.
    Layout(Layout, Descriptor),
    /// An image of the engine's.
    Image(String),
    /// The Dockerfile has no use for it.
    Unused,
}

/// All of them. Given again, the last one counts.
pub(super) fn read(texts: &[&str]) -> Result<Contexts, Failure> {
    let mut contexts = Contexts::new();
    for text in texts {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| Failure::new(format!("ERROR: invalid context value: {text}, expected key=value")))?;
        let known = named::name_of(name).ok_or_else(|| {
            Failure::new(format!("ERROR: invalid context name {name}: invalid reference format"))
                .with_hint("a context has the name of a stage or of an image")
        })?;
        contexts.insert(known, parse(name, value)?);
    }
    Ok(contexts)
}

fn parse(name: &str, value: &str) -> Result<Named, Failure> {
    let failed = |why: String| Failure::new(format!("ERROR: failed to get build context {name}: {why}"));
    if let Some(image) = value.strip_prefix("docker-image://") {
        let read: Result<Reference, _> = image.parse();
        return read.map(|_| Named::Image(image.to_owned())).map_err(|error| failed(error.to_string()));
    }
    if let Some(text) = value.strip_prefix("oci-layout://") {
        let (path, choice) = Choice::split(text).map_err(failed)?;
        let layout = Layout::new(path);
        let descriptor = layout.find(&choice).map_err(failed)?;
        return Ok(Named::Layout(layout, descriptor));
    }
    if REMOTE.iter().any(|prefix| value.starts_with(prefix)) {
        return Err(Failure::not_built(&format!("a build context from an address ({name}={value})"))
            .with_hint("fetch it, and name the directory"));
    }
    if let Some((kind @ ("target" | "input"), _)) = value.split_once(':') {
        return Err(Failure::not_built(&format!("a build context that is a {kind} of a bake file ({name}={value})"))
            .with_hint("name the stage with FROM or COPY --from"));
    }
    let path = PathBuf::from(value);
    match std::fs::metadata(&path) {
        Err(error) => return Err(failed(format!("stat {value}: {}", system_words(&error)))),
        Ok(metadata) if !metadata.is_dir() => return Err(failed(format!("{value}: not a directory"))),
        Ok(_) => {}
    }
    let ignore = source::ignore_file(&[path.join(".dockerignore")])?;
    Ok(Named::Directory { path, ignore })
}

/// What the Dockerfile does not name need not be sent. One that cannot be read is the engine's to refuse.
pub(super) fn leave_out_unused(contexts: &mut Contexts, text: &str, given: &Given) {
    let Ok(file) = dozen_dockerfile::parse(text) else { return };
    let Ok(wanted) = named::wanted(&file, given, contexts) else { return };
    for (name, context) in contexts {
        if !wanted.contains(name) {
            *context = Named::Unused;
        }
    }
}

/// For the line before the archives.
pub(super) fn described(contexts: &Contexts) -> Vec<Value> {
    let what = |context: &Named| match context {
        Named::Directory { .. } => json!("Files"),
        Named::Layout(..) => json!("Layout"),
        Named::Image(image) => json!({ "Image": image }),
        Named::Unused => json!("NotSent"),
    };
    contexts.iter().map(|(name, context)| json!({ "Name": name, "What": what(context) })).collect()
}

impl Named {
    /// It is sent as an archive.
    pub(super) fn is_archive(&self) -> bool {
        matches!(self, Self::Directory { .. } | Self::Layout(..))
    }

    /// Writes its archive.
    pub(super) fn pack(&self, mut out: impl Write) -> Result<(), PackError> {
        match self {
            Self::Directory { path, ignore } => packing::pack(path, ignore, out),
            Self::Layout(layout, descriptor) => layout.pack(descriptor, &mut out).map_err(|error| match error {
                PackLayoutError::Layout(why) => PackError::Context(Failure::new(format!("ERROR: {why}"))),
                PackLayoutError::Out(error) => PackError::Out(error),
            }),
            Self::Image(_) | Self::Unused => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::tests::put;
    use super::*;

    #[test]
    fn each_kind_is_known_or_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().display().to_string();
        let manifest = put(directory.path(), "m", b"{}");
        let index = json!({ "manifests": [manifest] }).to_string();
        std::fs::write(directory.path().join("index.json"), index).unwrap();
        let texts =
            [format!("src={at}"), "alpine:latest=docker-image://debian:12".into(), format!("l=oci-layout://{at}")];
        let contexts = read(&texts.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
        let shown: Vec<_> = described(&contexts).iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                r#"{"Name":"alpine","What":{"Image":"debian:12"}}"#,
                r#"{"Name":"l","What":"Layout"}"#,
                r#"{"Name":"src","What":"Files"}"#
            ]
        );
        for (text, words) in [
            ("src".to_owned(), "invalid context value: src, expected key=value"),
            ("A b=x".to_owned(), "invalid context name A b"),
            ("scratch=x".to_owned(), "invalid context name scratch"),
            ("a=/nowhere".to_owned(), "failed to get build context a: stat /nowhere: no such file or directory"),
            (format!("a={at}/index.json"), "index.json: not a directory"),
            ("a=docker-image://A".to_owned(), "failed to get build context a: invalid reference format"),
            (format!("a=oci-layout://{at}/none"), "index.json: no such file"),
            (format!("a=oci-layout://{at}@x"), "invalid digest"),
            ("a=https://example.org/x.git".to_owned(), "a build context from an address"),
            ("a=target:base".to_owned(), "a target of a bake file"),
        ] {
            let said = read(&[&text]).unwrap_err().message;
            assert!(said.contains(words), "{text}: {said}");
        }
    }

    #[test]
    fn what_nothing_names_is_not_sent() {
        let contexts = || {
            let mut contexts = Contexts::new();
            for name in ["used", "unused"] {
                contexts.insert(name.into(), Named::Image("x".into()));
            }
            contexts
        };
        let sent = |text: &str| {
            let mut contexts = contexts();
            leave_out_unused(&mut contexts, text, &Given::default());
            let sent = contexts.iter().filter(|(_, context)| !matches!(context, Named::Unused));
            sent.map(|(name, _)| name.clone()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(sent("FROM a\nCOPY --from=used b c\n"), "used");
        assert_eq!(sent("FROM used\n"), "used");
        // What is wrong with it is said elsewhere.
        assert_eq!(sent("FORM used\n"), "unused used");
    }
}
