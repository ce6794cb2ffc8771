//! The contexts of a build: the one without a name, and those that have one.

use std::io::{self, BufRead, Read};

use dozen_engine::{BuildContext, Engine, EngineError};
use serde::Deserialize;

use super::frames::Frames;
use crate::error::ApiError;

/// A context with a name, as the body's first line has it. If any of them is an archive, all archives are framed: the one of
/// the build first, then these, in order.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct Named {
    name: String,
    what: What,
}

#[derive(Debug, Deserialize)]
enum What {
    /// An archive of files.
    Files,
    /// An archive that is an OCI layout, with one image in it.
    Layout,
    /// An image of the engine's.
    Image(String),
    /// The client sees no use for it.
    NotSent,
}

/// Why they cannot be taken in.
#[derive(Debug)]
struct Broken(ApiError);

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self(ApiError::invalid(format!("the build context broke off: {error}")))
    }
}

impl From<EngineError> for Broken {
    fn from(error: EngineError) -> Self {
        Self(error.into())
    }
}

/// Takes all of them in. `remote`: where the one without a name is, whose place in the body is then passed over. Blocks.
pub(super) fn take_in(
    engine: &Engine,
    body: impl BufRead,
    remote: Option<&str>,
    named: &[Named],
) -> Result<BuildContext, ApiError> {
    if !named.iter().any(|it| matches!(it.what, What::Files | What::Layout)) {
        let mut context = own(engine, body, remote)?;
        for Named { name, what } in named {
            match what {
                What::Image(image) => context.add_named_image(name, image)?,
                _ => context.add_not_sent(name)?,
            }
        }
        return Ok(context);
    }
    framed(engine, body, remote, named).map_err(|Broken(error)| error)
}

/// The one without a name.
fn own(engine: &Engine, archive: impl Read, remote: Option<&str>) -> Result<BuildContext, EngineError> {
    match remote {
        Some(address) => engine.remote_context(address),
        None => engine.build_context(archive),
    }
}

fn framed(engine: &Engine, body: impl BufRead, remote: Option<&str>, named: &[Named]) -> Result<BuildContext, Broken> {
    let mut frames = Frames::new(body);
    let mut context = frames.next(|archive| Ok::<_, Broken>(own(engine, archive, remote)?))?;
    for Named { name, what } in named {
        // What is wrong is wrong with this one.
        let of_this =
            |error: EngineError| Broken(ApiError::from(error).context(format_args!("the named context {name}")));
        match what {
            What::Image(image) => context.add_named_image(name, image)?,
            What::NotSent => context.add_not_sent(name)?,
            What::Files => {
                frames.next(|archive| engine.add_named_files(&mut context, name, archive).map_err(of_this))?
            }
            What::Layout => {
                frames.next(|archive| engine.add_named_layout(&mut context, name, archive).map_err(of_this))?
            }
        }
    }
    Ok(context)
}
