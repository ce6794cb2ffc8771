//! What a build is made of: the Dockerfile, found in the context or given beside it, and the context without what its
//! ignore file leaves out.

use std::path::Path;

use dozen_build::context::Context;
use dozen_dockerfile::ignore::{self, IgnoreFile};

use super::failure::StepError;
use super::remote_context::Came;
use super::site::Site;
use super::{DockerfileSource, EngineError};

/// The largest Dockerfile and the largest ignore file that are read.
pub(super) const LIMIT_BYTES: u64 = 4 << 20;

/// A Dockerfile and the files that it may take.
pub(super) struct Source {
    /// For messages.
    pub(super) name: String,
    pub(super) text: String,
    pub(super) context: Context,
}

/// Reads both. What is ignored is left out here too, whoever has packed the context: docker's client sends the Dockerfile
/// and the ignore file in any case, and archives may come from anywhere. Blocks.
pub(super) fn read(wanted: &DockerfileSource, context: &Context) -> Result<Source, StepError> {
    match wanted {
        // The client has found the ignore file, which may lie elsewhere, and has packed by it.
        DockerfileSource::Text { name, text } => {
            Ok(Source { name: name.clone(), text: text.clone(), context: context.clone() })
        }
        DockerfileSource::InContext(path) => {
            let Some(text) = file(context, path)? else {
                return Err(StepError::with_hint(
                    format!("failed to read dockerfile: open {path}: no such file or directory"),
                    "name it with -f, as a path below the context",
                ));
            };
            if text.trim().is_empty() {
                return Err(StepError::said(format!("the Dockerfile ({path}) cannot be empty")));
            }
            let context = ignoring(context, path)?;
            Ok(Source { name: path.clone(), text, context })
        }
    }
}

/// The same where the engine has fetched the context itself: then nobody has packed it by any ignore file. Blocks.
pub(super) fn read_fetched(wanted: &DockerfileSource, came: Came, site: &Site) -> Result<Source, StepError> {
    let nothing = || -> Result<Context, EngineError> { Ok(Context::empty(site.nameless_file()?)) };
    match (wanted, came) {
        (DockerfileSource::Text { name, text }, Came::Files(context)) => {
            Ok(Source { name: name.clone(), text: text.clone(), context: ignoring(&context, "Dockerfile")? })
        }
        (DockerfileSource::Text { name, text }, Came::Dockerfile(_)) => {
            Ok(Source { name: name.clone(), text: text.clone(), context: nothing()? })
        }
        (DockerfileSource::InContext(_), Came::Files(context)) => read(wanted, &context),
        (DockerfileSource::InContext(_), Came::Dockerfile(text)) => {
            Ok(Source { name: "Dockerfile".to_owned(), text, context: nothing()? })
        }
    }
}

/// By the Dockerfile's own ignore file, or else by the context's.
fn ignoring(context: &Context, dockerfile: &str) -> Result<Context, StepError> {
    for candidate in ignore::candidates(Path::new(dockerfile), Path::new("")) {
        let name = candidate.display().to_string();
        let Some(text) = file(context, &name)? else { continue };
        let read = IgnoreFile::parse(&text).map_err(|error| {
            StepError::said(format!("failed to read {name}: line {}: {}", error.line, error.message))
        })?;
        return Ok(context.ignoring(&read));
    }
    Ok(context.clone())
}

fn file(context: &Context, path: &str) -> Result<Option<String>, StepError> {
    let bytes = context.file(path, LIMIT_BYTES).map_err(super::context_failed)?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}
