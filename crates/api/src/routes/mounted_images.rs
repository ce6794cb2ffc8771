//! What a request's mounts need to be looked up before they can be converted.

use dozen_engine::Engine;
use dozen_model::ErrorKind;

use crate::convert::request::Mount;
use crate::edge::ApiVersion;
use crate::error::ApiError;
use crate::shims;

/// Finds the images that are mounted, and brings the others into the newest version's form.
pub(super) async fn prepare(engine: &Engine, version: ApiVersion, mounts: &mut [Mount]) -> Result<(), ApiError> {
    for mount in mounts {
        match mount.r#type.as_str() {
            "image" if !mount.source.is_empty() => {
                let found = engine.image_to_run(&mount.source, None).await;
                // Not as "not found": clients take that for the container's own image, and would pull it.
                let invalid = |error| ApiError { kind: ErrorKind::Invalid, ..ApiError::from(error) };
                mount.image = Some(found.map_err(invalid)?.id);
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
