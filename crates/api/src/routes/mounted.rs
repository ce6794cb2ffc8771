//! What a request's mounts need to be looked up before they can be converted.

use std::path::Path;

use dozen_engine::Engine;
use dozen_model::{ErrorKind, ImageId};

use crate::convert::mounts::wanted_files;
use crate::convert::request::Mount;
use crate::edge::ApiVersion;
use crate::error::ApiError;
use crate::shims;

/// Finds the images and artifacts that are mounted, and brings the others into the newest version's form.
pub(super) async fn prepare(
    engine: &Engine,
    version: ApiVersion,
    image: &ImageId,
    mounts: &mut [Mount],
) -> Result<(), ApiError> {
    // Not as "not found": clients take that for the container's own image, and would pull it.
    let invalid = |error| ApiError { kind: ErrorKind::Invalid, ..ApiError::from(error) };
    for mount in mounts {
        match mount.r#type.as_str() {
            "image" if !mount.source.is_empty() => {
                let found = engine.image_to_run(&mount.source, None).await;
                mount.image = Some(found.map_err(invalid)?.id);
            }
            "artifact" if !mount.source.is_empty() => {
                let wanted = wanted_files(mount)?;
                let target = Path::new(&mount.target);
                let found = engine.artifact_to_mount(image, target, &mount.source, wanted).await;
                mount.artifact = Some(found.map_err(invalid)?);
            }
            "bind" if shims::read_only_binds_are_shallow(version) => {
                let options = mount.bind_options.get_or_insert_default();
                options.read_only_non_recursive = true;
                options.read_only_force_recursive = false;
            }
            _ => {}
        }
    }
    Ok(())
}
