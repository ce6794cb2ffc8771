//! A failed request as the client sees it: one status per kind of error, decided here and nowhere else.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dozen_engine::EngineError;
use dozen_model::{Classified, ErrorKind, error_chain};
use serde_json::json;

/// What a handler fails with: `{"message": …, "hint": …}`, where only `message` is Docker's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) kind: ErrorKind,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

/// What a handler gives.
pub(crate) type Answer = Result<Response, ApiError>;

impl ApiError {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }

    /// The request itself is wrong.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// `<what> is not built yet`.
    pub(crate) fn not_built(what: impl std::fmt::Display) -> Self {
        Self::new(ErrorKind::NotBuilt, format!("{what} is not built yet"))
    }

    /// No such route.
    pub(crate) fn page_not_found() -> Self {
        Self::new(ErrorKind::NotFound, "page not found")
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Puts words before the message: `cannot kill container: web: …`.
    pub(crate) fn context(mut self, before: impl std::fmt::Display) -> Self {
        self.message = format!("{before}: {}", self.message);
        self
    }

    pub(crate) fn status(&self) -> StatusCode {
        status(self.kind)
    }
}

/// Kind of error → status, as Docker has them (its `errdefs` to status table).
pub(crate) fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        ErrorKind::Unauthorized => StatusCode::UNAUTHORIZED,
        ErrorKind::Forbidden => StatusCode::FORBIDDEN,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::NotBuilt => StatusCode::NOT_IMPLEMENTED,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Exhausted | ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        Self { kind: error.kind(), message: error_chain(&error), hint: error.hint() }
    }
}

macro_rules! invalid_from {
    ($($error:ty),*) => { $(impl From<$error> for ApiError {
        fn from(error: $error) -> Self {
            Self::invalid(error.to_string())
        }
    })* };
}
invalid_from!(
    dozen_model::NameError,
    dozen_model::ReferenceError,
    dozen_model::SignalError,
    dozen_model::UserSpecError,
    dozen_model::PortError,
    dozen_model::CgroupParentError,
    dozen_model::InterfaceSysctlError
);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if self.status().is_server_error() && self.kind != ErrorKind::NotBuilt {
            tracing::warn!(message = %self.message, "request failed");
        }
        let mut body = json!({ "message": self.message });
        if let Some(hint) = &self.hint {
            body["hint"] = json!(hint);
        }
        reply(self.status(), &body)
    }
}

/// A JSON answer.
pub(crate) fn reply(status: StatusCode, body: &serde_json::Value) -> Response {
    json_text(status, body.to_string().into_bytes())
}

/// The same of one that is written already.
pub(crate) fn json_text(status: StatusCode, mut text: Vec<u8>) -> Response {
    text.push(b'\n');
    let mut response = (status, text).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Blocking work of the engine that panicked, or was ended with it.
pub(crate) fn join_failed(error: tokio::task::JoinError) -> ApiError {
    ApiError::new(ErrorKind::Internal, format!("a task of the engine failed: {error}"))
}

/// A JSON answer with status 200.
pub(crate) fn ok(body: &serde_json::Value) -> Answer {
    Ok(reply(StatusCode::OK, body))
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Answer {
    Ok(status.into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Layered(Option<Box<Layered>>, &'static str);
    impl std::fmt::Display for Layered {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.1)
        }
    }
    impl std::error::Error for Layered {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            self.0.as_deref().map(|e| e as _)
        }
    }

    #[test]
    fn the_chain_is_one_line_without_repetition() {
        let inner = Layered(None, "no space");
        let middle = Layered(Some(Box::new(inner)), "cannot write /x: no space");
        let outer = Layered(Some(Box::new(middle)), "cannot create");
        assert_eq!(error_chain(&outer), "cannot create: cannot write /x: no space");
    }

    #[test]
    fn engine_errors_keep_their_words_kind_and_hint() {
        let error = ApiError::from(EngineError::NoSuchContainer("web".into()));
        assert_eq!((error.status(), error.message.as_str()), (StatusCode::NOT_FOUND, "No such container: web"));
        let error = ApiError::from(EngineError::NotRunning("web".into()));
        assert_eq!((error.status(), error.hint.as_deref()), (StatusCode::CONFLICT, Some("dozen start web")));
    }
}
