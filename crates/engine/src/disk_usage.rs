//! How much of the disk everything takes, as du(1) counts: blocks, each file once.

mod rest;

use std::collections::BTreeMap;

use dozen_image::{DiskUsage, disk_bytes};
use dozen_model::{ContainerId, VolumeName};

pub use self::rest::EngineUsage;
use crate::{Engine, EngineError};

impl Engine {
    /// Images: all layers and what is kept beside them.
    pub async fn image_usage(&self) -> Result<DiskUsage, EngineError> {
        let images = self.images().clone();
        self.measure(move || images.measured_usage()).await
    }

    /// What each container has written.
    pub async fn container_usage(&self) -> Result<BTreeMap<ContainerId, u64>, EngineError> {
        let containers: Vec<_> = self
            .containers()
            .into_iter()
            .map(|snapshot| (snapshot.id.clone(), snapshot.directory.join("upper")))
            .collect();
        self.measure(move || containers.into_iter().map(|(id, upper)| (id, content_bytes(&upper))).collect()).await
    }

    /// What is in each volume that is a directory of the engine's.
    pub async fn volume_usage(&self) -> Result<BTreeMap<VolumeName, u64>, EngineError> {
        // What others' file systems hold is not ours to count, and may be on a server: as Docker.
        let own = self.volumes().into_iter().filter(|volume| volume.options.is_empty());
        let volumes: Vec<_> = own.map(|volume| (volume.name, volume.mountpoint)).collect();
        self.measure(move || volumes.into_iter().map(|(name, path)| (name, content_bytes(&path))).collect()).await
    }

    /// What the snapshots of each volume that has some hold beside it: how many, and the bytes that go if all of them do.
    /// What they share with the volume is the volume's, and what they share among themselves is counted once.
    pub async fn snapshot_usage(&self) -> Result<BTreeMap<VolumeName, (usize, u64)>, EngineError> {
        let shared = self.shared().clone();
        self.measure(move || shared.volumes.snapshot_usage()).await
    }

    pub(crate) async fn measure<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, EngineError> {
        let failed = |error| EngineError::System { action: "measure".into(), source: std::io::Error::other(error) };
        tokio::task::spawn_blocking(work).await.map_err(failed)
    }
}

/// Without the directory itself: nothing in it is 0, as Docker has it.
fn content_bytes(directory: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let own = std::fs::symlink_metadata(directory).map_or(0, |metadata| metadata.blocks() * 512);
    disk_bytes(directory).saturating_sub(own)
}
