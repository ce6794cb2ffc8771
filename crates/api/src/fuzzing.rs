//! A way in for the fuzzer (`fuzz/`), and the test that runs what it has found again.

use dozen_model::{ContainerId, Digest, ImageId};
use serde_json::Value;

use crate::convert::create::{self, ImageDefaults};
use crate::convert::{fields, request};
use crate::error::ApiError;

/// A create request and an image's configuration, with an RS byte (0x1e) between them, as the route takes them:
/// environment, ports, mounts, limits and all other words of a container.
pub fn create(data: &[u8]) {
    let mut parts = data.split(|byte| *byte == 0x1e);
    let mut json = || parts.next().and_then(|part| serde_json::from_slice::<Value>(part).ok());
    let Some(body) = json() else { return };
    let defaults = json().map_or_else(|| Ok(ImageDefaults::default()), |image| ImageDefaults::of(&image));
    let (Ok(request), Ok(defaults)) = (request::read::<request::Create>(body, fields::CREATE), defaults) else {
        return;
    };
    let image = ImageId::new(Digest::from_sha256([0; 32]));
    let nobody = |name: &str| -> Result<ContainerId, ApiError> { Err(ApiError::invalid(format!("no {name}"))) };
    let Ok((spec, _)) = create::spec(&request, image, &defaults, &nobody) else { return };
    for mount in &spec.mounts {
        let inside = mount.target.is_absolute() && !mount.target.components().any(|part| part.as_os_str() == "..");
        assert!(inside, "{mount:?}");
    }
    for variable in &spec.process.environment {
        assert!(!variable.contains('\0'), "{variable:?}");
    }
}

/// What a WebSocket's client sends, behind a byte that says how it is cut.
pub fn websocket(data: &[u8]) {
    let Some((cut, bytes)) = data.split_first() else { return };
    let passed = crate::stream::websocket::decoded(bytes.chunks(usize::from(*cut).max(1)));
    assert_eq!(passed, crate::stream::websocket::decoded([bytes].into_iter()), "cutting shows");
    assert!(passed.len() <= bytes.len());
}

#[cfg(test)]
mod tests {
    include!("../../../fuzz/replay.rs");

    #[test]
    fn creates() {
        replay("create", super::create);
    }

    #[test]
    fn websockets() {
        replay("websocket", super::websocket);
    }
}
