//! The root that a step stands upon, or that files are taken from: what its layers make, seen and not written to.

use std::sync::Arc;

use dozen_build::copy::owner;
use dozen_build::tree::{LiveTree, PlainTree, Tree};
use dozen_model::Digest;

use super::failure::StepError;
use super::job::Job;

/// What is read of an image's /etc/passwd and /etc/group.
const NAMES_LIMIT_BYTES: u64 = 8 << 20;

/// See the module.
pub(super) enum Root {
    /// Without a layer there is nothing.
    Empty(PlainTree),
    Layers(LiveTree),
}

impl Job {
    /// Mounted where nobody else sees it. Blocks.
    pub(super) fn root_of(&self, layers: &[Digest]) -> Result<Root, StepError> {
        Ok(match layers {
            [] => Root::Empty(PlainTree::empty()),
            layers => Root::Layers(LiveTree::new(self.site.root_of(&self.shared, layers)?)),
        })
    }
}

impl Root {
    pub(super) fn tree(&self) -> &dyn Tree {
        match self {
            Self::Empty(tree) => tree,
            Self::Layers(tree) => tree,
        }
    }

    pub(super) fn into_tree(self) -> Arc<dyn Tree> {
        match self {
            Self::Empty(tree) => Arc::new(tree),
            Self::Layers(tree) => Arc::new(tree),
        }
    }

    /// User and group, by name in the root's own files or by number. Blocks.
    pub(super) fn owner(&self, text: &str) -> Result<(u32, u32), StepError> {
        let names = |path: &str| -> Result<Vec<u8>, StepError> {
            Ok(match self {
                Self::Empty(_) => Vec::new(),
                Self::Layers(tree) => tree.beginning(path, NAMES_LIMIT_BYTES)?.unwrap_or_default(),
            })
        };
        Ok(owner::resolve(text, &names("etc/passwd")?, &names("etc/group")?)?)
    }
}
