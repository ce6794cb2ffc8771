//! The routes, a file per resource. A handler reads the request, asks the engine, and writes what it said.

use axum::Extension;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use dozen_engine::Engine;

use crate::edge::ApiVersion;
use crate::error::ApiError;
use crate::listening::Way;
use crate::web_pages;

mod archives;
mod artifacts;
mod attach;
mod build;
mod build_cache;
mod cache_mounts;
mod collection;
mod containers;
mod copies;
mod disk_usage;
mod distribution;
mod events;
mod exec;
mod housekeeping;
mod image_query;
mod images;
mod layers;
mod login;
mod logs;
mod mounted;
mod networks;
mod pause;
mod pull;
mod push;
mod reach;
mod refused;
mod registry_auth;
mod search;
mod signature;
mod snapshots;
mod specify;
mod stats;
mod system;
mod update;
mod volumes;

/// All routes, without the version in the path.
pub(crate) fn router(engine: Engine) -> Router {
    let old = axum::middleware::from_fn_with_state(engine.clone(), refuse_old);
    let pages = axum::middleware::from_fn_with_state(engine.clone(), refuse_web_pages);
    routes().layer(old).layer(pages).with_state(engine)
}

/// Before anything else: who asks is none that somebody's web page has sent.
async fn refuse_web_pages(
    State(engine): State<Engine>,
    Extension(way): Extension<Way>,
    request: Request,
    next: Next,
) -> Response {
    let settings = engine.settings();
    match web_pages::check(way, request.headers(), &settings.allowed_hosts) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

/// `min-api-version`: what is before it is refused, whatever is asked.
async fn refuse_old(
    State(engine): State<Engine>,
    Extension(version): Extension<ApiVersion>,
    request: Request,
    next: Next,
) -> Response {
    let oldest = ApiVersion::oldest(&engine.settings());
    if version < oldest { version.too_old(oldest).into_response() } else { next.run(request).await }
}

fn routes() -> Router<Engine> {
    let built = Router::new()
        .route("/_ping", get(system::ping).head(system::ping))
        .route("/version", get(system::version))
        .route("/auth", post(login::log_in))
        .route("/info", get(system::info))
        .route("/events", get(events::events))
        .route("/system/df", get(disk_usage::disk_usage))
        .route("/system/gc", post(collection::collect))
        .route("/system/ports", get(reach::ports))
        .route("/system/firewall", get(reach::firewall))
        .route("/system/firewall/allow", post(reach::allow))
        .route("/system/firewall/forget", post(reach::forget))
        .route("/containers/json", get(containers::list))
        .route("/containers/create", post(containers::create))
        .route("/build", post(build::build))
        .route("/build/agent", post(build::agent::agent))
        .route("/build/cancel", post(build::cancel))
        .route(
            "/build/carried/layer",
            get(build::carried::take).put(build::carried::bring).delete(build::carried::lack),
        )
        .route("/build/carried/taken", post(build::carried::taken))
        .route("/build/prune", post(build_cache::prune))
        .route("/build/caches", get(cache_mounts::list).delete(cache_mounts::remove))
        .route("/build/caches/export", get(cache_mounts::export))
        .route("/build/caches/import", axum::routing::put(cache_mounts::import))
        .route("/containers/prune", post(housekeeping::prune_containers))
        .route("/containers/{id}/changes", get(housekeeping::changes))
        .route("/containers/{id}", delete(containers::remove))
        .route("/containers/{id}/json", get(containers::inspect))
        .route("/containers/{id}/start", post(containers::start))
        .route("/containers/{id}/stop", post(containers::stop))
        .route("/containers/{id}/restart", post(containers::restart))
        .route("/containers/{id}/kill", post(containers::kill))
        .route("/containers/{id}/pause", post(pause::pause))
        .route("/containers/{id}/unpause", post(pause::unpause))
        .route("/containers/{id}/wait", post(containers::wait))
        .route("/containers/{id}/rename", post(containers::rename))
        .route("/containers/{id}/resize", post(containers::resize))
        .route("/containers/{id}/attach", post(attach::attach))
        .route("/containers/{id}/attach/ws", get(attach::attach_websocket))
        .route("/containers/{id}/top", get(containers::top))
        .route("/containers/{id}/export", get(archives::export))
        .route("/containers/{id}/archive", get(copies::get).head(copies::stat).put(copies::put))
        .route("/containers/{id}/logs", get(logs::logs))
        .route("/containers/{id}/exec", post(exec::create))
        .route("/containers/{id}/update", post(update::update))
        .route("/containers/{id}/stats", get(stats::stats))
        .route("/exec/{id}/start", post(exec::start))
        .route("/exec/{id}/resize", post(exec::resize))
        .route("/exec/{id}/json", get(exec::inspect))
        .route("/commit", post(images::commit))
        .route("/images/json", get(images::list))
        .route("/images/create", post(archives::create))
        .route("/images/load", post(archives::load))
        .route("/images/get", get(archives::save))
        .route("/distribution/{*rest}", get(distribution::inspect).post(distribution::post))
        .route("/layers/known", post(layers::known))
        .route("/libpod/artifacts/{*rest}", get(artifacts::get).post(artifacts::post).delete(artifacts::delete))
        // An image's name has slashes in it: what follows `/images/` is taken apart by hand.
        .route("/images/{*rest}", get(images::get).post(images::post).delete(images::delete))
        .route("/volumes", get(volumes::list))
        .route("/volumes/create", post(volumes::create))
        .route("/volumes/prune", post(volumes::prune))
        .route("/volumes/{name}", get(volumes::inspect).delete(volumes::remove).put(refused::volume_update))
        .route("/volumes/{name}/snapshots", get(snapshots::list).post(snapshots::create))
        .route("/volumes/{name}/snapshots/{snapshot}", axum::routing::delete(snapshots::remove))
        .route("/volumes/{name}/snapshots/{snapshot}/restore", post(snapshots::restore))
        .route("/volumes/{name}/export", get(archives::export_volume))
        .route("/volumes/{name}/import", axum::routing::put(archives::import_volume))
        .route("/plugins", get(refused::no_plugins))
        .route("/plugins/{*rest}", get(refused::no_such_plugin))
        .route("/networks", get(networks::list))
        // Docker's own client has a slash here for its oldest versions.
        .route("/networks/", get(networks::list))
        .route("/networks/create", post(networks::create))
        .route("/networks/prune", post(networks::prune))
        .route("/networks/{name}/connect", post(networks::connect))
        .route("/networks/{name}/disconnect", post(networks::disconnect))
        .route("/networks/{name}", get(networks::inspect).delete(networks::remove));
    refused::add(built)
        .method_not_allowed_fallback(|| async { ApiError::page_not_found() })
        .fallback(|| async { ApiError::page_not_found() })
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_two_routes_contradict_each_other() {
        // axum panics at the second of them.
        assert!(super::routes().has_routes());
    }
}
