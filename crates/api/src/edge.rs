//! What every request passes first and every answer last: the version in the path, Docker's headers.

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, header};
use axum::response::{IntoResponse, Response};
use tower_service::Service;

use crate::error::ApiError;
use crate::leftover::Leftover;

/// The newest minor version of API 1 that is spoken; what an unversioned path means.
pub(crate) const NEWEST: ApiVersion = ApiVersion { minor: 51 };
/// The oldest one.
pub(crate) const OLDEST: ApiVersion = ApiVersion { minor: 24 };

/// A version of the API that is spoken: 1.24 to 1.51. The major version has always been 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ApiVersion {
    pub(crate) minor: u16,
}

impl std::fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "1.{}", self.minor)
    }
}

impl ApiVersion {
    /// The oldest one that these settings let pass.
    pub(crate) fn oldest(settings: &dozen_settings::Settings) -> Self {
        settings.least_api_minor.map_or(OLDEST, |minor| Self { minor })
    }

    /// It is older than the settings let pass.
    pub(crate) fn too_old(self, oldest: Self) -> ApiError {
        ApiError::invalid(format!(
            "client version {self} is too old. Minimum supported API version is {oldest}, \
             please upgrade your client to a newer version"
        ))
    }
}

/// Takes `/v1.43` off the path. No version means the newest.
fn split_version(path: &str) -> Result<(ApiVersion, &str), ApiError> {
    let Some((version, rest)) = versioned(path) else { return Ok((NEWEST, path)) };
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    let (Some(Some(major)), Some(Some(minor))) = (parts.next(), parts.next().or(Some(Some(0)))) else {
        return Err(ApiError::invalid(format!("invalid API version {version:?}: want v{OLDEST} to v{NEWEST}")));
    };
    if (major, minor) > (1, u32::from(NEWEST.minor)) {
        return Err(ApiError::invalid(format!(
            "client version {version} is too new. Maximum supported API version is {NEWEST}"
        )));
    }
    if (major, minor) < (1, u32::from(OLDEST.minor)) {
        return Err(ApiError::invalid(format!(
            "client version {version} is too old. Minimum supported API version is {OLDEST}, \
             please upgrade your client to a newer version"
        )));
    }
    let minor = u16::try_from(minor).expect("at most the newest");
    Ok((ApiVersion { minor }, if rest.is_empty() { "/" } else { rest }))
}

/// `/v1.43/rest` → `1.43`, `/rest`.
fn versioned(path: &str) -> Option<(&str, &str)> {
    let after = path.strip_prefix("/v")?;
    let (version, rest) = after.split_at(after.find('/').unwrap_or(after.len()));
    (!version.is_empty() && version.bytes().all(|b| b.is_ascii_digit() || b == b'.')).then_some((version, rest))
}

/// Answers one request by `router`, whose routes have no version in them.
pub(crate) async fn respond(mut router: Router, mut request: Request<Body>) -> Response {
    let (body, leftover) = Leftover::of(std::mem::take(request.body_mut()));
    *request.body_mut() = body;
    let split = split_version(request.uri().path()).map(|(version, rest)| (version, rest.to_owned()));
    let mut response = match split {
        Ok((version, path)) => {
            let path_and_query = match request.uri().query() {
                Some(query) => format!("{path}?{query}"),
                None => path,
            };
            match Uri::try_from(path_and_query) {
                Ok(uri) => {
                    *request.uri_mut() = uri;
                    request.extensions_mut().insert(version);
                    match router.call(request).await {
                        Ok(response) => response,
                        Err(never) => match never {},
                    }
                }
                Err(_) => ApiError::page_not_found().into_response(),
            }
        }
        Err(error) => error.into_response(),
    };
    if response.status().is_client_error() || response.status().is_server_error() {
        leftover.drain().await;
    }
    add_headers(response.headers_mut());
    response
}

/// Docker's own headers; clients negotiate the version by the first.
pub(crate) fn add_headers(headers: &mut HeaderMap) {
    headers.insert(HeaderName::from_static("api-version"), HeaderValue::from_static("1.51"));
    headers.insert(HeaderName::from_static("docker-experimental"), HeaderValue::from_static("false"));
    headers.insert(HeaderName::from_static("ostype"), HeaderValue::from_static("linux"));
    headers.insert(header::SERVER, HeaderValue::from_static(concat!("Dozen/", env!("CARGO_PKG_VERSION"), " (linux)")));
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::StatusCode;
    use proptest::prelude::*;

    #[test]
    fn versions_are_split_off_or_refused() {
        #[track_caller]
        fn check(path: &str, want: Result<(u16, &str), &str>) {
            let got = split_version(path);
            match want {
                Ok((minor, rest)) => assert_eq!(got, Ok((ApiVersion { minor }, rest)), "{path}"),
                Err(words) => {
                    let message = got.unwrap_err().message;
                    assert!(message.contains(words), "{path}: {message}");
                }
            }
        }
        check("/_ping", Ok((51, "/_ping")));
        check("/v1.24/info", Ok((24, "/info")));
        check("/v1.51/containers/x/json", Ok((51, "/containers/x/json")));
        check("/v1.43", Ok((43, "/")));
        check("/volumes", Ok((51, "/volumes")));
        check("/version", Ok((51, "/version")));
        check("/v1.99/info", Err("client version 1.99 is too new. Maximum supported API version is 1.51"));
        check("/v2.0/info", Err("too new"));
        check("/v1.12/info", Err("client version 1.12 is too old. Minimum supported API version is 1.24"));
        check("/v1/info", Err("too old"));
        check("/v./info", Err("invalid API version"));
        check("/v99999999999.1/info", Err("invalid API version"));
    }

    #[tokio::test]
    async fn every_answer_has_dockers_headers() {
        let router = Router::new()
            .route("/x", axum::routing::get(|| async { "here" }))
            .fallback(|| async { ApiError::page_not_found() });
        for (path, status) in [("/v1.40/x", 200), ("/x", 200), ("/v1.40/y", 404), ("/v1.99/x", 400)] {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let response = respond(router.clone(), request).await;
            assert_eq!(response.status(), StatusCode::from_u16(status).unwrap(), "{path}");
            assert_eq!(response.headers()["api-version"], "1.51");
            assert_eq!(NEWEST.to_string(), "1.51", "the header and the constant are one");
            assert_eq!(response.headers()["ostype"], "linux");
        }
    }

    proptest! {
        #[test]
        fn splitting_never_panics(path in "/(v[0-9.]{0,12})?\\PC{0,40}") {
            let _ = split_version(&path);
        }
    }
}
