//! Named contexts (`--build-context`): files that came with the request, and images that stand for others.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use dozen_build::context::Context;
use dozen_dockerfile::named;
use dozen_model::Digest;

use super::failure::StepError;
use super::{BuildContext, context_failed};
use crate::failpoint::failpoint;
use crate::{Engine, EngineError};

/// By their names, as [`named::name_of`] gives them.
pub(super) type NamedContexts = BTreeMap<String, NamedContext>;

/// What stands in the place of a stage or an image.
#[derive(Debug, Clone)]
pub(super) enum NamedContext {
    /// Files that came with the request.
    Files(Arc<Context>),
    /// An image of this engine's, by its name or its id.
    Image(String),
    /// The caller has seen no use for it, and has not sent it.
    NotSent,
}

/// What files are taken from.
#[derive(Debug, Clone)]
pub(super) enum Taken {
    /// A context.
    Files(Arc<Context>),
    /// What layers make, lowest first.
    Layers(Vec<Digest>),
}

impl Engine {
    /// Takes in the archive of a named context, as [`Engine::build_context`] takes in the one without a name. Blocks.
    pub fn add_named_files(
        &self,
        context: &mut BuildContext,
        name: &str,
        archive: impl Read,
    ) -> Result<(), EngineError> {
        let files = Context::read(archive, context.site.nameless_file()?).map_err(context_failed)?;
        failpoint("build.context");
        context.add_named(name, NamedContext::Files(Arc::new(files)))
    }

    /// Takes in an archive with one image, which comes into the store without a name of its own. Blocks.
    pub fn add_named_layout(
        &self,
        context: &mut BuildContext,
        name: &str,
        archive: impl Read,
    ) -> Result<(), EngineError> {
        let loaded = self.shared.images.load(archive, &())?;
        let [image] = loaded.as_slice() else {
            let message = format!("the named context {name} has {} images, and one is wanted", loaded.len());
            return Err(EngineError::Invalid { message, hint: Some("choose one: oci-layout://DIRECTORY:TAG".into()) });
        };
        context.add_named(name, NamedContext::Image(image.id.to_string()))
    }
}

impl BuildContext {
    /// An image of the engine's stands for what has this name.
    pub fn add_named_image(&mut self, name: &str, image: &str) -> Result<(), EngineError> {
        self.add_named(name, NamedContext::Image(image.to_owned()))
    }

    /// There is one of this name, which does not come: a build that wants it all the same can say so.
    pub fn add_not_sent(&mut self, name: &str) -> Result<(), EngineError> {
        self.add_named(name, NamedContext::NotSent)
    }

    fn add_named(&mut self, name: &str, context: NamedContext) -> Result<(), EngineError> {
        let known = named::name_of(name).ok_or_else(|| EngineError::Invalid {
            message: format!("invalid context name {name}"),
            hint: Some("a context has the name of a stage or an image".into()),
        })?;
        self.named.insert(known, context);
        Ok(())
    }
}

/// Of something that is wanted.
pub(super) fn not_sent(name: &str) -> StepError {
    StepError::with_hint(
        format!("the named context {name} was not sent"),
        format!("only a trigger of a base image names it; name it in the Dockerfile, too: COPY --from={name} …"),
    )
}
