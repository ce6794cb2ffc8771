//! Images as the API sees them: the store does the work, and everyone who listens hears of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};

use dozen_image::{Image, ImageStore, ImportRequest, Loaded, Platform, Progress, Removal};
use dozen_model::{Digest, ImageId, Reference};
use jiff::Timestamp;

use super::Engine;
use crate::EngineError;
use crate::container::changes::Settings;
use crate::container::commit::{self, CommitOptions};
use crate::events::EventKind;
use crate::shared::Shared;

/// What becomes of a root file system that is imported.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "Docker's words")]
pub struct ImportOptions {
    pub reference: Option<Reference>,
    pub message: String,
    /// Dockerfile instructions, as [`CommitOptions`] has them.
    pub changes: Vec<String>,
    /// `None`: this host's.
    pub platform: Option<Platform>,
    /// `None`: now.
    pub created: Option<Timestamp>,
}
impl Engine {
    /// The image store, for reading (blocking calls: `list`, `find`, `history`).
    pub fn images(&self) -> &ImageStore {
        &self.shared.images
    }

    /// An image by name or id, without blocking the caller's thread.
    pub async fn image(&self, name: &str) -> Result<Image, EngineError> {
        let (shared, name) = (self.shared.clone(), name.to_owned());
        self.shared.blocking(move || Ok(shared.images.find(&name)?)).await
    }

    /// An image for a platform, without blocking the caller's thread.
    pub async fn image_for(&self, name: &str, platform: Option<Platform>) -> Result<Image, EngineError> {
        let (shared, name) = (self.shared.clone(), name.to_owned());
        self.shared.blocking(move || Ok(shared.images.find_for(&name, platform.as_ref())?)).await
    }

    /// The same for one that a container is made from: its layers are there afterwards.
    pub async fn image_to_run(&self, name: &str, platform: Option<Platform>) -> Result<Image, EngineError> {
        let (shared, name) = (self.shared.clone(), name.to_owned());
        self.shared.blocking(move || Ok(shared.images.prepare_for(&name, platform.as_ref())?)).await
    }

    /// Gives an image a further name.
    pub async fn tag_image(&self, source: &str, target: Reference) -> Result<(), EngineError> {
        let (shared, source) = (self.shared.clone(), source.to_owned());
        self.shared
            .blocking(move || {
                let image = shared.images.tag_found(&source, &target)?;
                emit_image(&shared, "tag", &image.id, &target.familiar());
                Ok(())
            })
            .await
    }

    /// Removes a name, or an image with its last name.
    pub async fn remove_image(&self, name: &str, force: bool, no_prune: bool) -> Result<Vec<Removal>, EngineError> {
        let (shared, name) = (self.shared.clone(), name.to_owned());
        self.shared
            .blocking(move || {
                // It, and those that it was made from, which may go with it.
                let parent = |image: &Image| shared.images.find(&image.parent.as_ref()?.to_string()).ok();
                let line: Vec<Image> = std::iter::successors(shared.images.find(&name).ok(), parent).collect();
                let removals = shared.images.remove(&name, force, no_prune, &|image| shared.image_user(image))?;
                emit_removals(&shared, &removals, &line);
                Ok(removals)
            })
            .await
    }

    /// Removes an image with its names if it may go as it is in that moment and nobody has it: `None`, it stays.
    pub async fn prune_image(
        &self,
        image: Image,
        may_go: impl Fn(&Image) -> bool + Send + 'static,
    ) -> Result<Option<Vec<Removal>>, EngineError> {
        let shared = self.shared.clone();
        self.shared
            .blocking(move || {
                let parent = |image: &Image| shared.images.find(&image.parent.as_ref()?.to_string()).ok();
                let line: Vec<Image> = std::iter::successors(Some(image), parent).collect();
                let removals = shared.images.prune(&line[0].id, &may_go, &|image| shared.image_user(image))?;
                emit_removals(&shared, removals.as_deref().unwrap_or_default(), &line);
                Ok(removals)
            })
            .await
    }

    /// Takes images from an archive, with all platforms that they are for or with one. Blocks.
    pub fn load_images(
        &self,
        archive: &mut dyn Read,
        platform: Option<&Platform>,
        progress: &dyn Progress,
    ) -> Result<Vec<Loaded>, EngineError> {
        let loaded = self.shared.images.load_for(archive, platform, progress)?;
        for image in &loaded {
            emit_image(&self.shared, "load", &image.id, &image.id.to_string());
        }
        Ok(loaded)
    }

    /// Makes an image of a root file system in a tar archive. Blocks.
    pub fn import_image(&self, archive: &mut dyn Read, options: ImportOptions) -> Result<ImageId, EngineError> {
        let mut settings = Settings::default();
        settings.apply_all(&options.changes)?;
        let name = options.reference.as_ref().map(Reference::familiar);
        let request = ImportRequest {
            config: settings.into_config(),
            platform: options.platform.unwrap_or_else(Platform::host),
            message: options.message,
            reference: options.reference,
            created: options.created.unwrap_or_else(Timestamp::now),
        };
        let id = self.shared.images.import(archive, request)?;
        emit_image(&self.shared, "import", &id, &name.unwrap_or_else(|| id.to_string()));
        Ok(id)
    }

    /// Of which of these digests the bytes are there: layers' plain tar streams, and blobs as they came. They may be gone in
    /// the next moment.
    pub fn known_contents(&self, digests: Vec<Digest>) -> Vec<Digest> {
        self.shared.images.known_contents(digests)
    }

    /// Writes images as an archive, with all platforms that they are for or with one. Blocks.
    pub fn save_images(
        &self,
        names: &[String],
        platform: Option<&Platform>,
        out: &mut dyn Write,
    ) -> Result<(), EngineError> {
        self.shared.images.save_for(names, platform, out)?;
        let saved = names.iter().filter_map(|name| Some(self.shared.images.find(name).ok()?.id));
        for id in saved.collect::<BTreeSet<_>>() {
            emit_image(&self.shared, "save", &id, &id.to_string());
        }
        Ok(())
    }

    /// Makes an image from a container's changes.
    pub async fn commit(&self, container: &str, options: CommitOptions) -> Result<ImageId, EngineError> {
        let container = self.container(container)?;
        let hold = if options.pause { container.hold().await? } else { None };
        let snapshot = container.snapshot();
        let shared = self.shared.clone();
        self.shared
            .blocking(move || {
                let name = options.reference.as_ref().map(Reference::familiar);
                let comment = options.comment.clone().unwrap_or_default();
                let image = commit::commit(&shared, &snapshot, options, hold)?;
                if let Some(name) = &name {
                    emit_image(&shared, "tag", &image, name);
                }
                let reference = name.unwrap_or_default();
                let more = [("comment", comment), ("imageID", image.to_string()), ("imageRef", reference)];
                shared.announce(&snapshot, "commit", more.map(|(name, value)| (name.to_owned(), value)));
                Ok(image)
            })
            .await
    }
}

/// As Docker, with the image's labels. Blocks.
pub(crate) fn emit_image(shared: &Shared, action: &str, id: &ImageId, name: &str) {
    let mut attributes = shared.images.find(&id.to_string()).map(|image| labels_of(&image)).unwrap_or_default();
    attributes.insert("name".into(), name.to_owned());
    shared.emit(EventKind::Image, action, id.to_string(), attributes);
}

/// The same of one that was pulled: there its name stands in the id's place, with Docker. Blocks.
pub(crate) fn emit_pull(shared: &Shared, id: &ImageId, name: &Reference) {
    emit_by_name(shared, "pull", id, name);
}

/// And of one that was pushed. Blocks.
pub(crate) fn emit_push(shared: &Shared, id: &ImageId, name: &Reference) {
    emit_by_name(shared, "push", id, name);
}

fn emit_by_name(shared: &Shared, action: &str, id: &ImageId, name: &Reference) {
    let mut attributes = shared.images.find(&id.to_string()).map(|image| labels_of(&image)).unwrap_or_default();
    attributes.insert("name".into(), name.familiar_name());
    shared.emit(EventKind::Image, action, name.familiar(), attributes);
}

/// What has gone of these images.
pub(crate) fn emit_removals(shared: &Shared, removals: &[Removal], images: &[Image]) {
    for removal in removals {
        let (action, image, name) = match removal {
            Removal::Untagged(name) => ("untag", images.first(), name),
            Removal::Deleted(id) => ("delete", images.iter().find(|image| image.id.to_string() == *id), id),
        };
        // A layer is nothing that Docker tells of.
        let Some(image) = image else { continue };
        let mut attributes = labels_of(image);
        attributes.insert("name".into(), name.clone());
        shared.emit(EventKind::Image, action, image.id.to_string(), attributes);
    }
}

fn labels_of(image: &Image) -> BTreeMap<String, String> {
    let labels = image.config.config().as_ref().and_then(|config| config.labels().clone());
    labels.unwrap_or_default().into_iter().collect()
}
