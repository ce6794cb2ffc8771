//! What a crash left behind, and nobody owns.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::store::{ImageStore, Inner, delete};
use crate::{ImageError, tree};

impl ImageStore {
    /// Deletes layers without an image, and files without a row. What resists stays until the next start.
    pub(crate) fn collect_leftovers(&self) -> Result<(), ImageError> {
        let _change = self.0.lock_change();
        self.0.collect_layers()?;
        for path in self.0.strays()? {
            tracing::info!(path = %path.display(), "deleting what a crash left behind");
            delete(&path);
        }
        for path in paths_in(&self.0.tmp)? {
            tracing::info!(path = %path.display(), "deleting what a crash left behind");
            delete(&path);
        }
        Ok(())
    }
}

impl Inner {
    /// Layers and files below `content/` that have no row. The change lock is held: what is being put in place is none.
    pub(crate) fn strays(&self) -> Result<Vec<PathBuf>, ImageError> {
        let (layers, contents) = {
            let state = self.read_state();
            let layers: BTreeSet<_> = state.layers.values().map(|layer| layer.directory.clone()).collect();
            let mut contents: BTreeSet<_> = state.layers.values().map(|layer| layer.content_name()).collect();
            contents.extend(state.blobs.keys().map(|digest| digest.hex().to_owned()));
            let images = state.images.keys().chain(state.removed.keys()).chain(state.unreadable.keys());
            contents.extend(images.map(|id| id.digest().hex().to_owned()));
            (layers, contents)
        };
        let mut strays = Vec::new();
        for (directory, owned) in [(&self.layers, layers), (&self.content, contents)] {
            let is_owned = |path: &PathBuf| {
                path.file_name().and_then(|name| name.to_str()).is_some_and(|name| owned.contains(name))
            };
            strays.extend(paths_in(directory)?.into_iter().filter(|path| !is_owned(path)));
        }
        Ok(strays)
    }
}

/// Everything in one directory.
fn paths_in(directory: &Path) -> Result<Vec<PathBuf>, ImageError> {
    use std::os::fd::AsFd;
    use std::os::unix::ffi::OsStringExt;
    let names = tree::open_root(directory).and_then(|fd| tree::names(fd.as_fd()));
    let names = names.map_err(ImageError::io("read", directory.display()))?;
    Ok(names.into_iter().map(|name| directory.join(std::ffi::OsString::from_vec(name))).collect())
}
