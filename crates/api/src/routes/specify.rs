//! What a request for a container comes to, with what the engine knows: its image, its networks, the containers that it
//! names.

use dozen_engine::Engine;
use dozen_model::{ContainerSpec, ErrorKind, ImageId};

use crate::convert::create::{self, ImageDefaults};
use crate::convert::request::Create;
use crate::convert::{endpoints, sharing, user_namespace};
use crate::error::ApiError;

/// A container that can be made.
pub(super) struct Specified {
    pub(super) spec: ContainerSpec,
    /// How many users of its own it is to have.
    pub(super) own_ids: Option<u32>,
    pub(super) warnings: Vec<String>,
}

/// Of a request in which the engine's defaults are. What it names and is not there is no "not found": for clients that means
/// that the image is, and they would pull it.
pub(super) fn specify(
    engine: &Engine,
    request: &Create,
    image: ImageId,
    defaults: &ImageDefaults,
) -> Result<Specified, ApiError> {
    let invalid = |error| ApiError { kind: ErrorKind::Invalid, ..ApiError::from(error) };
    let find = |name: &str| engine.container(name).map(|container| container.id().clone()).map_err(invalid);
    let (mut spec, warnings) = create::spec(request, image, defaults, &find)?;
    let spec_of = |name: &str| find(name).and_then(|id| Ok(engine.container(id.as_str())?.snapshot().spec.clone()));
    sharing::add_volumes_from(&mut spec, &spec_of)?;
    let both_of = |name: &str| find(name).and_then(|id| Ok((id.clone(), spec_of(id.as_str())?)));
    let users = engine.settings().containers.users;
    let own_ids = user_namespace::decide(&request.host_config.userns_mode, &mut spec, &users, &both_of)?;
    let find = |name: &str| engine.network(name).map_err(invalid);
    spec.endpoints = Some(endpoints::places(request, &spec.network, &find)?);
    Ok(Specified { spec, own_ids, warnings })
}
