//! `cp`: a path in a container as a tar stream, and a tar stream into a directory of it.

use std::io::{Read, Write};
use std::os::fd::AsFd;

use dozen_image::{CopyIn, LiveError, LivePath, Owner, PathStat};
use dozen_model::{Classified, ErrorKind, IdRange, UserSpec};
use dozen_monitor::protocol::Failure;

use crate::EngineError;
use crate::container::Container;
use crate::container::snapshot::Phase;
use crate::container::view::View;
use crate::failpoint::failpoint;

/// How an archive is unpacked in a container.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExtractOptions {
    /// A directory is not replaced by something else, nor the other way round.
    pub keep_kinds: bool,
    /// All becomes the user's that the container runs as, if it names one.
    pub users: bool,
}

/// A path in a container, found.
pub struct ContainerPath {
    container: Container,
    view: View,
    path: LivePath,
}

impl Container {
    /// Finds a path as the container sees it.
    pub async fn path(&self, path: &str) -> Result<ContainerPath, EngineError> {
        if path.is_empty() {
            return Err(EngineError::Invalid { message: "bad parameter: path cannot be empty".into(), hint: None });
        }
        let path = LivePath::new(path.as_bytes()).map_err(|error| self.explain(error))?;
        Ok(ContainerPath { container: self.clone(), view: self.view().await?, path })
    }

    fn explain(&self, error: LiveError) -> EngineError {
        let message = match &error {
            // Docker's words, which its client looks for.
            LiveError::NoSuchPath(path) => {
                format!("Could not find the file {path} in container {}", self.snapshot().name)
            }
            error => dozen_model::error_chain(error),
        };
        Failure { kind: error.kind(), message, hint: error.hint() }.into()
    }

    /// A removal is published before the first file goes.
    fn is_whole(&self) -> bool {
        let entry = self.shared.registry.get(&self.id);
        entry.is_some_and(|entry| !matches!(entry.snapshot().phase, Phase::Removing { .. }))
    }
}

impl ContainerPath {
    /// What stands there. Blocks.
    pub fn stat(&self) -> Result<PathStat, EngineError> {
        dozen_image::path_stat(self.view.as_fd(), &self.path).map_err(|error| self.container.explain(error))
    }

    /// Writes what stands there, and all below it, as a tar stream. Blocks.
    pub fn archive(&self, out: &mut dyn Write) -> Result<(), EngineError> {
        let copied = dozen_image::copy_out(self.view.as_fd(), &self.path, None, self.ids(), out);
        // What was found while it went away is neither an archive of it nor an error of its own.
        self.check_whole()?;
        copied.map_err(|error| self.container.explain(error))?;
        self.container.shared.announce(&self.container.snapshot(), "archive-path", None);
        Ok(())
    }

    /// Unpacks a tar stream in the directory that stands there. Blocks.
    pub fn extract(&self, options: ExtractOptions, archive: &mut (dyn Read + Send)) -> Result<(), EngineError> {
        let snapshot = self.container.snapshot();
        let user = &snapshot.spec.process.user;
        let owner = match options.users && *user != UserSpec::default() {
            true => {
                let (uid, gid) = dozen_runtime::user_in(self.view.as_fd(), user)?;
                Owner::Fixed(uid, gid)
            }
            false => Owner::OfEntries,
        };
        let ids = self.ids();
        let how = CopyIn { keep_kinds: options.keep_kinds, owner, renamed: None, ids };
        let copy = || dozen_image::copy_in(self.view.as_fd(), &self.path, &how, archive);
        let copied = match ids {
            None => copy(),
            // Who is nobody in there makes no files.
            Some(ids) => dozen_runtime::as_user(ids.first(), ids.first(), copy)
                .map_err(EngineError::system(|| "copy as the container's root".to_owned()))?,
        };
        failpoint("archive.extracted");
        self.check_whole()?;
        copied.map_err(|error| self.container.explain(error))?;
        self.container.shared.announce(&snapshot, "extract-to-dir", None);
        Ok(())
    }

    /// Of one that runs we see its own mounts, with the owners that they have outside of its user namespace.
    fn ids(&self) -> Option<IdRange> {
        match &self.view {
            View::Running { .. } => self.container.snapshot().spec.user_namespace.ids(),
            View::Stopped(_) => None,
        }
    }

    fn check_whole(&self) -> Result<(), EngineError> {
        if self.container.is_whole() {
            return Ok(());
        }
        let message = format!("container {} was removed meanwhile", self.container.snapshot().name);
        Err(Failure { kind: ErrorKind::Conflict, message, hint: None }.into())
    }
}
