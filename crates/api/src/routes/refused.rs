//! What Docker's API has and dozen has not: each endpoint by its name.

use axum::Router;
use axum::routing::{MethodFilter, on};
use dozen_model::ErrorKind;

use crate::error::ApiError;

/// Method, path, and what the user would call it.
const NOT_BUILT: &[(MethodFilter, &str, &str)] = &[
    (MethodFilter::POST, "/session", "a build session"),
    (MethodFilter::POST, "/grpc", "the build service (BuildKit)"),
    (MethodFilter::GET, "/containers/{id}/checkpoints", "checkpoints"),
    (MethodFilter::POST, "/containers/{id}/checkpoints", "checkpoints"),
    (MethodFilter::DELETE, "/containers/{id}/checkpoints/{checkpoint}", "checkpoints"),
    (MethodFilter::POST, "/plugins/{*rest}", "plugins"),
    (MethodFilter::DELETE, "/plugins/{*rest}", "plugins"),
    (MethodFilter::GET, "/debug/{*rest}", "debug data"),
];

/// Swarm's resources: Docker itself answers these so where there is no swarm.
const SWARM: &[&str] = &["/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs"];
const NOT_A_MANAGER: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to \
                             connect this node to swarm and try again.";

/// Of the one thing that a node without a swarm is asked about itself.
const NOT_IN_A_SWARM: &str = "This node is not part of a swarm";

/// Adds them to the routes that are built.
pub(crate) fn add<S: Clone + Send + Sync + 'static>(mut router: Router<S>) -> Router<S> {
    for (method, path, what) in NOT_BUILT {
        let what = *what;
        router = router.route(path, on(*method, move || async move { ApiError::not_built(what) }));
    }
    let swarm = || async {
        ApiError::new(ErrorKind::Unavailable, NOT_A_MANAGER)
            .with_hint("dozen has no swarm: it runs containers on one host")
    };
    let leave = || async { ApiError::new(ErrorKind::Unavailable, NOT_IN_A_SWARM) };
    router = router.route("/swarm/leave", on(MethodFilter::POST, leave));
    for resource in SWARM {
        router = router
            .route(resource, axum::routing::any(swarm))
            .route(&format!("{resource}/{{*rest}}"), axum::routing::any(swarm));
    }
    router
}

/// `GET /plugins`: there is none, and there never is one.
pub(crate) async fn no_plugins() -> axum::Json<[(); 0]> {
    axum::Json([])
}

/// `GET /plugins/{name}/json`: `docker inspect` asks here last, and takes only "not found" for an answer.
pub(crate) async fn no_such_plugin(axum::extract::Path(rest): axum::extract::Path<String>) -> ApiError {
    let name = rest.strip_suffix("/json").unwrap_or(&rest);
    ApiError::new(ErrorKind::NotFound, format!("plugin {name:?} not found"))
}

/// `PUT /volumes/{name}`.
pub(crate) async fn volume_update() -> ApiError {
    ApiError::not_built("updating a volume")
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn what_is_not_built_is_refused_by_name() {
        let router = add(Router::new()).fallback(|| async { ApiError::page_not_found() });
        for (method, path, status, words) in [
            ("POST", "/v1.41/session", 501, "a build session is not built yet"),
            ("GET", "/v1.51/swarm", 503, "This node is not a swarm manager"),
            ("POST", "/services/create", 503, "This node is not a swarm manager"),
            ("POST", "/swarm/leave", 503, "This node is not part of a swarm"),
            ("GET", "/nonsense", 404, "page not found"),
            ("GET", "/v1.41/", 404, "page not found"),
        ] {
            let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
            let response = crate::edge::respond(router.clone(), request).await;
            assert_eq!(response.status(), status, "{method} {path}");
            let body = response.into_body().collect().await.unwrap().to_bytes();
            if method != "HEAD" {
                let message = serde_json::from_slice::<serde_json::Value>(&body).unwrap()["message"].to_string();
                assert!(message.replace("\\\"", "\"").contains(words), "{path}: {message}");
            }
        }
    }
}
