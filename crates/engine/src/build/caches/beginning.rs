//! What a new cache mount begins with: nothing, or files of a stage or an image (`from=`, `source=`). Another beginning is
//! another cache, as with BuildKit: so nobody finds the files of an image that is not the one he named.

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::Path;

use dozen_build::key;
use dozen_dockerfile::Owner;
use dozen_model::Digest;

use crate::EngineError;
use crate::shared::Shared;

/// See the module.
#[derive(Debug, Clone)]
pub(in crate::build) enum Beginning {
    /// An empty directory.
    Nothing,
    /// A directory of these layers, lowest first, which whoever asks holds; its path in them is relative, empty for all.
    Files { layers: Vec<Digest>, part: String },
}

impl Beginning {
    /// What the cache is known by.
    pub(in crate::build) fn name(&self, id: &str) -> String {
        match self {
            Self::Nothing => id.to_owned(),
            Self::Files { layers, part } => format!("{id}@{}", key::of_part(&key::of_layers(layers), part)),
        }
    }

    /// Makes the directory, which is not there yet, with all that is to be in it: on the disk, so that it may be given its
    /// name. What a failure leaves is the caller's to remove. Blocks.
    pub(super) fn make(&self, shared: &Shared, directory: &Path, owner: Owner) -> Result<(), EngineError> {
        let failed = || format!("make the directory {}", directory.display());
        DirBuilder::new().mode(0o700).create(directory).map_err(EngineError::system(failed))?;
        let has_files = match self {
            Self::Nothing => false,
            Self::Files { layers, part } => {
                let copied = shared.images.copy_layers_up(layers, &Path::new("/").join(part), directory)?;
                // Of `scratch` there is nothing but its root.
                if !copied && (!layers.is_empty() || !part.is_empty()) {
                    return Err(EngineError::Invalid {
                        message: format!("a cache mount cannot begin with \"/{part}\": there is no such directory"),
                        hint: Some("source= is a directory of what from= names".into()),
                    });
                }
                copied
            }
        };
        // What is not said is as in the image.
        let own = |value| if has_files { None } else { Some(value) };
        let dressed = chown(directory, owner.user.or(own(0)), owner.group.or(own(0))).and_then(|()| {
            let mode = owner.mode.or(own(0o755));
            mode.map_or(Ok(()), |mode| std::fs::set_permissions(directory, PermissionsExt::from_mode(mode)))
        });
        dressed.map_err(EngineError::system(failed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_beginning_is_another_cache() {
        let layer = |digit: &str| format!("sha256:{}", digit.repeat(64)).parse::<Digest>().unwrap();
        let files = |digit, part: &str| Beginning::Files { layers: vec![layer(digit)], part: part.into() };
        let names = [Beginning::Nothing, files("a", ""), files("b", ""), files("a", "etc")].map(|it| it.name("id"));
        assert_eq!(names[0], "id");
        assert!(names[1].starts_with("id@sha256:"));
        assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
        assert_eq!(names[3], files("a", "etc").name("id"));
    }
}
