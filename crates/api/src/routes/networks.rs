//! The three networks that are there. Others are refused by name.

use axum::extract::{Path, State};
use dozen_engine::Engine;
use dozen_model::ErrorKind;
use serde_json::Value;

use crate::convert::networks::{NAMES, find, id, inspect as render};
use crate::error::{Answer, ApiError, ok};
use crate::extract::Query;
use crate::filters::Filters;

pub(super) async fn list(State(engine): State<Engine>, query: Query) -> Answer {
    let filters = Filters::read(&query, &["dangling", "driver", "id", "label", "label!", "name", "scope", "type"])?;
    let bridge = engine.bridge();
    let networks: Vec<Value> = NAMES
        .into_iter()
        .filter(|name| wanted(&filters, name))
        .map(|name| render(name, bridge.as_ref(), None))
        .collect();
    ok(&Value::Array(networks))
}

fn wanted(filters: &Filters, name: &str) -> bool {
    let driver = if name == "none" { "null" } else { name };
    filters.any("name", |wanted| name.contains(wanted))
        && filters.any("id", |wanted| id(name).starts_with(wanted))
        && filters.any("driver", |wanted| driver == wanted)
        && filters.any("scope", |wanted| wanted == "local")
        && filters.any("type", |wanted| wanted == "builtin")
        // Docker never counts these three as dangling.
        && filters.any("dangling", |wanted| matches!(wanted, "false" | "0"))
        && filters.labels(&Default::default())
}

pub(super) async fn inspect(State(engine): State<Engine>, Path(name): Path<String>) -> Answer {
    match find(&name) {
        Some(name) => ok(&render(name, engine.bridge().as_ref(), Some(&engine.containers()))),
        None => Err(no_such(&name)),
    }
}

pub(super) async fn remove(Path(name): Path<String>) -> Answer {
    match find(&name) {
        Some(name) => {
            Err(ApiError::new(ErrorKind::Forbidden, format!("{name} is a pre-defined network and cannot be removed")))
        }
        None => Err(no_such(&name)),
    }
}

fn no_such(name: &str) -> ApiError {
    ApiError::new(ErrorKind::NotFound, format!("network {name} not found"))
        .with_hint("networks of your own are not built yet; there are bridge, host and none")
}
