//! A volume as one tar archive, and from one.

use std::io::{Read, Write};

use dozen_model::VolumeName;

use super::{Claim, read_directory};
use crate::EngineError;
use crate::engine::Engine;
use crate::shared::Shared;

impl Engine {
    /// Writes what a volume holds. Blocks. Containers may use it meanwhile: files that change while they are read are taken
    /// as they are at that moment; stop who writes to it for a moment that is one.
    pub fn export_volume(&self, name: &str, out: &mut dyn Write) -> Result<(), EngineError> {
        let volume = self.volume(name)?;
        let _visit = self.shared().volumes.visit(&volume)?;
        Ok(dozen_image::export_directory(&volume.mountpoint, out)?)
    }

    /// Fills an empty volume that no running container has with an archive's content: all of it, or, whatever fails or
    /// dies, nothing, also in a volume that is another file system. Blocks, but for the claim, which is the
    /// caller's.
    pub fn import_volume(&self, name: &VolumeName, claim: &Claim, archive: &mut dyn Read) -> Result<(), EngineError> {
        let shared = self.shared();
        let volume = shared.volumes.find(name.as_str())?;
        check_unused(shared, name)?;
        let _visit = shared.volumes.visit(&volume)?;
        let full = || EngineError::Conflict {
            message: format!("import {name}: the volume is not empty"),
            hint: Some("make a new one: dozen volume create".into()),
        };
        shared.volumes.finish_filling(name)?;
        if !shared.volumes.content(name)?.is_empty() {
            return Err(full());
        }
        shared.volumes.fill(name, false, claim, |into| {
            let free =
                rustix::fs::statvfs(into).map_err(EngineError::system(|| format!("look at {}", into.display())))?;
            dozen_image::import_directory(archive, into, free.f_bavail.saturating_mul(free.f_frsize))?;
            // What a container that was started meanwhile has made there is not mixed with it.
            check_unused(shared, name)?;
            if shared.volumes.content(name)?.is_empty() { Ok(true) } else { Err(full()) }
        })
    }

    /// What an import begins with.
    pub async fn claim_volume(&self, name: &VolumeName) -> Result<Claim, EngineError> {
        let shared = self.shared();
        let claim = shared.volumes.claim([name.clone()]).await;
        let volume = shared.volumes.find(name.as_str())?;
        // What is in another file system is seen when that is mounted.
        if !volume.options.is_empty() || read_directory(&volume.mountpoint)?.is_empty() {
            return Ok(claim);
        }
        Err(EngineError::Conflict {
            message: format!("import {name}: the volume is not empty"),
            hint: Some("make a new one: dozen volume create".into()),
        })
    }
}

fn check_unused(shared: &Shared, name: &VolumeName) -> Result<(), EngineError> {
    let runs = |id: &dozen_model::ContainerId| {
        shared.registry.get(id).is_some_and(|entry| entry.snapshot().phase.run().is_some())
    };
    match shared.volume_users(name).into_iter().find(runs) {
        Some(user) => Err(EngineError::Conflict {
            message: format!("import {name}: volume is in use - [{user}]"),
            hint: Some(format!("dozen stop {} first", user.short())),
        }),
        None => Ok(()),
    }
}
