//! `diff`: what a container has changed of its image.

use std::collections::BTreeMap;

use dozen_image::ChangeKind;

use crate::EngineError;
use crate::build;
use crate::container::{Container, files};

/// Places of mounts that every container has, made in its layer where the image has none. Docker has them in a layer of
/// its own, which its diff does not show either.
pub(crate) const MADE: [&str; 10] = [
    "dev",
    "dev/console",
    "dev/mqueue",
    "dev/pts",
    "dev/shm",
    "proc",
    "sys",
    "sys/fs/cgroup",
    "etc/mtab",
    ".dockerenv",
];

impl Container {
    /// What it has changed, by path, which begins with a slash. What is mounted in it is no part of it. Blocks.
    pub fn changes(&self) -> Result<BTreeMap<Vec<u8>, ChangeKind>, EngineError> {
        let snapshot = self.snapshot();
        build::check_no_step(&snapshot)?;
        let hidden = |path: &[u8]| {
            let is_bound = |target: &str| target.as_bytes().strip_prefix(b"/") == Some(path);
            MADE.iter().any(|made| made.as_bytes() == path) || files::BOUND.iter().any(|(_, target)| is_bound(target))
        };
        let upper = snapshot.directory.join("upper");
        let changes = self.shared.images.changes(&snapshot.spec.image, &upper, &hidden)?;
        Ok(changes.into_iter().map(|(path, kind)| ([b"/", path.as_slice()].concat(), kind)).collect())
    }
}
