//! `export`: a container's root as a tar stream, whether it runs or not.

use std::io::Write;

use crate::EngineError;
use crate::build;
use crate::container::Container;
use crate::container::snapshot::Phase;

impl Container {
    /// Writes what the container has as its root, without what is mounted in it. Blocks. It may run: files that change
    /// while they are read are taken as they are at that moment. One that is removed meanwhile is an error.
    pub fn export(&self, out: &mut dyn Write) -> Result<(), EngineError> {
        let snapshot = self.snapshot();
        build::check_no_step(&snapshot)?;
        self.check_whole()?;
        let exported = self.shared.images.export(&snapshot.spec.image, &snapshot.directory.join("upper"), out);
        // What was found while it went away is neither an archive of it nor an error of its own.
        self.check_whole()?;
        exported?;
        self.shared.announce(&snapshot, "export", None);
        Ok(())
    }

    /// A removal is published before the first file goes.
    fn check_whole(&self) -> Result<(), EngineError> {
        let entry = self.shared.registry.get(&self.id);
        if entry.is_some_and(|entry| !matches!(entry.snapshot().phase, Phase::Removing { .. })) {
            return Ok(());
        }
        Err(EngineError::Conflict {
            message: format!("cannot export container {}: it is being removed", self.snapshot().name),
            hint: None,
        })
    }
}
