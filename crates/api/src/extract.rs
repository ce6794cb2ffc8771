//! Reading a request: query parameters as leniently as Docker reads them, bodies with a bound.

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header;
use axum::http::request::Parts;
use serde_json::Value;

use crate::error::ApiError;

/// The longest JSON body that is read. The largest honest one is a create request with a seccomp profile.
pub(crate) const BODY_LIMIT_BYTES: usize = 4 << 20;

/// A request's query parameters, in order, decoded.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// The first value of this name; `None` if it is absent or empty.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// All values of this name.
    pub(crate) fn all<'a, 'b: 'a>(&'a self, name: &'b str) -> impl Iterator<Item = &'a str> + use<'a, 'b> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Docker's rule (httputils.BoolValue): everything is true but these words.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.flag_or(name, false)
    }

    /// The same with a default for an absent one.
    pub(crate) fn flag_or(&self, name: &str, default: bool) -> bool {
        self.all(name).next().map_or(default, Self::is_on)
    }

    /// The same rule for a value.
    pub(crate) fn is_on(value: &str) -> bool {
        !matches!(value.trim().to_ascii_lowercase().as_str(), "" | "0" | "no" | "false" | "none")
    }

    /// A whole number.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        self.text(name)
            .map(|text| {
                text.parse::<T>()
                    .map_err(|_| ApiError::invalid(format!("invalid value for {name:?}: {text:?}: want a number")))
            })
            .transpose()
    }

    /// A parameter that dozen does not act on: refused when it is set to anything that asks for something.
    pub(crate) fn refuse(&self, name: &str) -> Result<(), ApiError> {
        if self.text(name).is_some() && self.flag(name) {
            return Err(ApiError::not_built(format_args!("the parameter {name:?}")));
        }
        Ok(())
    }
}

impl From<&str> for Query {
    fn from(query: &str) -> Self {
        let uri = axum::http::Uri::builder().path_and_query(format!("/?{query}")).build();
        let pairs = uri.ok().and_then(|uri| axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&uri).ok());
        Self(pairs.map(|axum::extract::Query(pairs)| pairs).unwrap_or_default())
    }
}

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map(|axum::extract::Query(pairs)| Self(pairs))
            .map_err(|error| ApiError::invalid(format!("invalid query: {error}")))
    }
}

/// A JSON body, or null where there is none.
#[derive(Debug)]
pub(crate) struct Json(pub(crate) Value);

impl<S: Sync> FromRequest<S> for Json {
    type Rejection = ApiError;
    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let content_type = request.headers().get(header::CONTENT_TYPE).cloned();
        let body = read_body(request.into_body()).await?;
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self(Value::Null));
        }
        // A form on somebody's web page can send text, and no JSON.
        if let Some(content_type) = content_type.filter(|content_type| !is_json(content_type.as_bytes())) {
            let shown: String = String::from_utf8_lossy(content_type.as_bytes()).chars().take(100).collect();
            return Err(ApiError::invalid(format!(
                "unsupported Content-Type header ({shown}): must be 'application/json'"
            )));
        }
        serde_json::from_slice(&body)
            .map(Self)
            .map_err(|error| ApiError::invalid(format!("invalid JSON in the request's body: {error}")))
    }
}

/// RFC 9110, 8.3.1: in any case, with parameters or without.
fn is_json(content_type: &[u8]) -> bool {
    let kind = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
    kind.trim_ascii().eq_ignore_ascii_case(b"application/json")
}

async fn read_body(body: Body) -> Result<bytes::Bytes, ApiError> {
    axum::body::to_bytes(body, BODY_LIMIT_BYTES).await.map_err(|error| {
        ApiError::invalid(format!("cannot read the request's body, of at most {BODY_LIMIT_BYTES} bytes: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn booleans_are_read_as_docker_reads_them() {
        let query = Query::from("a=1&b=0&c=&d=false&e=yes&f=None&g=no&h=true&i");
        for (name, want) in [
            ("a", true),
            ("b", false),
            ("c", false),
            ("d", false),
            ("e", true),
            ("f", false),
            ("g", false),
            ("h", true),
        ] {
            assert_eq!(query.flag(name), want, "{name}");
        }
        assert!(!query.flag("i") && !query.flag("absent") && query.flag_or("absent", true));
    }

    #[test]
    fn numbers_and_repeated_values() {
        let query = Query::from("t=-1&h=x&names=a&names=b%3A1&empty=");
        assert_eq!(query.number::<i64>("t"), Ok(Some(-1)));
        assert_eq!(query.number::<i64>("empty"), Ok(None));
        assert_eq!(query.number::<u16>("h").unwrap_err().message, "invalid value for \"h\": \"x\": want a number");
        assert_eq!(query.all("names").collect::<Vec<_>>(), ["a", "b:1"]);
    }

    #[tokio::test]
    async fn a_body_is_bounded_and_may_be_missing() {
        let json = |body: Vec<u8>| async { Json::from_request(Request::new(Body::from(body)), &()).await };
        assert_eq!(json(vec![]).await.unwrap().0, Value::Null);
        assert_eq!(json(b"{\"a\":1}".to_vec()).await.unwrap().0["a"], 1);
        assert!(json(b"{".to_vec()).await.unwrap_err().message.contains("invalid JSON"));
        for (kind, is_taken) in
            [("application/json", true), ("Application/JSON; charset=utf-8", true), ("text/plain", false)]
        {
            let request = axum::http::Request::builder().header("content-type", kind).body(Body::from("{}")).unwrap();
            assert_eq!(Json::from_request(request, &()).await.is_ok(), is_taken, "{kind}");
        }
        assert!(json(vec![b' '; BODY_LIMIT_BYTES + 1]).await.unwrap_err().message.contains("at most"));
    }

    proptest! {
        #[test]
        fn no_query_panics(text in "[ -~]{0,80}") {
            let query = Query::from(text.as_str());
            let _ = (query.flag("a"), query.number::<i64>("a"), query.refuse("a"));
        }
    }
}
