//! Networks: those that every engine has, and those of the user's own.

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use dozen_engine::{Engine, EventKind, Network};
use dozen_model::{ErrorKind, moment};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::convert::endpoints::{self, CONNECT, Connect, DISCONNECT, Disconnect};
use crate::convert::network_request::{self, CreateNetwork, NETWORK};
use crate::convert::networks::inspect as render;
use crate::convert::request;
use crate::edge::ApiVersion;
use crate::error::{Answer, ApiError, empty, ok, reply};
use crate::extract::{Json, Query};
use crate::filters::Filters;
use crate::shims;

pub(super) async fn list(
    State(engine): State<Engine>,
    Extension(version): Extension<ApiVersion>,
    query: Query,
) -> Answer {
    let filters = Filters::read(&query, &["dangling", "driver", "id", "label", "label!", "name", "scope", "type"])?;
    let dangling = filters.flag("dangling")?;
    if let Some(wanted) = filters.get("type").iter().find(|wanted| !matches!(wanted.as_str(), "builtin" | "custom")) {
        return Err(ApiError::invalid(format!("invalid filter: 'type'='{wanted}'")));
    }
    let is_dangling = |network: &Network| !network.is_predefined() && engine.containers_on(&network.id).is_empty();
    let networks: Vec<Value> = engine
        .networks()
        .iter()
        .filter(|network| wanted(&filters, network) && dangling.is_none_or(|dangling| is_dangling(network) == dangling))
        .map(|network| {
            let mut shown = render(network, None);
            shims::network(version, &mut shown);
            shown
        })
        .collect();
    ok(&Value::Array(networks))
}

fn wanted(filters: &Filters, network: &Network) -> bool {
    let kind = if network.is_predefined() { "builtin" } else { "custom" };
    (!filters.has("name") || filters.matches("name", &network.name))
        && filters.any("id", |wanted| network.id.as_str().starts_with(wanted))
        && filters.any("driver", |wanted| network.driver() == wanted)
        && filters.any("scope", |wanted| wanted == "local")
        && filters.any("type", |wanted| wanted == kind)
        && filters.labels(&network.spec.labels)
}

pub(super) async fn create(
    State(engine): State<Engine>,
    Extension(version): Extension<ApiVersion>,
    Json(body): Json,
) -> Answer {
    let mut request: CreateNetwork = request::read(body, NETWORK)?;
    shims::network_request(version, &mut request);
    let network = engine.create_network(network_request::network(request)?).await?;
    Ok(reply(StatusCode::CREATED, &json!({ "Id": network.id.as_str(), "Warning": "" })))
}

pub(super) async fn inspect(
    State(engine): State<Engine>,
    Extension(version): Extension<ApiVersion>,
    Path(name): Path<String>,
    query: Query,
) -> Answer {
    if let Some(scope) = query.text("scope").filter(|scope| *scope != "local") {
        return Err(ApiError::new(ErrorKind::NotFound, format!("network {name} not found in scope {scope}")));
    }
    let mut shown = render(&engine.network(&name)?, Some(&engine.containers()));
    shims::network(version, &mut shown);
    ok(&shown)
}

pub(super) async fn remove(State(engine): State<Engine>, Path(name): Path<String>) -> Answer {
    engine.remove_network(&name).await?;
    empty(StatusCode::NO_CONTENT)
}

/// Networks of the user's own that no running container is on.
pub(super) async fn prune(State(engine): State<Engine>, query: Query) -> Answer {
    let filters = Filters::read(&query, &["label", "label!", "until"])?;
    let until = until(&filters)?;
    let mut deleted = Vec::new();
    for network in engine.networks() {
        let Some(created) = network.created else { continue };
        let wanted = filters.labels(&network.spec.labels) && until.is_none_or(|until| created <= until);
        if !wanted || !engine.containers_on(&network.id).is_empty() {
            continue;
        }
        match engine.remove_network(network.id.as_str()).await {
            Ok(network) => deleted.push(network.name),
            // A container may have come to it in between: that is not this request's failure.
            Err(error) => tracing::warn!(network = network.name, %error, "a network was not pruned"),
        }
    }
    engine.announce_prune(EventKind::Network, 0);
    ok(&json!({ "NetworksDeleted": if deleted.is_empty() { Value::Null } else { json!(deleted) } }))
}

pub(super) async fn connect(State(engine): State<Engine>, Path(name): Path<String>, Json(body): Json) -> Answer {
    let request: Connect = request::read(body, CONNECT)?;
    let network = engine.network(&name)?;
    let container = engine.container(&request.container)?;
    if matches!(network.driver(), "host" | "null") {
        let why = match network.driver() {
            "host" => "container cannot be disconnected from host network or connected to host network",
            _ => "container cannot be connected to multiple networks with one of the networks in private (none) mode",
        };
        return Err(ApiError::new(ErrorKind::Forbidden, why));
    }
    engine.connect(&container, endpoints::place(&network, &request.endpoint_config)?).await?;
    empty(StatusCode::OK)
}

/// By force or not, the container goes off the network: nothing of it is left behind that would need force.
pub(super) async fn disconnect(State(engine): State<Engine>, Path(name): Path<String>, Json(body): Json) -> Answer {
    let request: Disconnect = request::read(body, DISCONNECT)?;
    let container = match engine.container(&request.container) {
        // Docker takes a container that is gone off the network if it is asked to by force.
        Err(dozen_engine::EngineError::NoSuchContainer(_)) if request.force => return empty(StatusCode::OK),
        container => container?,
    };
    engine.disconnect(&container, &name).await?;
    empty(StatusCode::OK)
}

fn until(filters: &Filters) -> Result<Option<Timestamp>, ApiError> {
    match filters.get("until") {
        [] => Ok(None),
        [text] => moment::parse(text, &jiff::Zoned::now())
            .map(Some)
            .ok_or_else(|| ApiError::invalid(format!("invalid filter 'until={text}': want a time or how long ago"))),
        _ => Err(ApiError::invalid("more than one until filter specified")),
    }
}
