//! What a registry says when it refuses: the body of an error (OCI distribution-spec, "Error Codes"), and which kind of
//! failure it is. Docker's words, which scripts match, are made of it.

use std::fmt;

use dozen_model::ErrorKind;
use serde::Deserialize;

/// More errors than that are not read.
const MOST_ERRORS: usize = 4;

/// An answer that is none, as a registry explains it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Of HTTP.
    pub status: u16,
    /// As it says them; empty if it does not say any in the words of the specification.
    pub errors: Vec<Said>,
}

/// One error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// `MANIFEST_UNKNOWN`.
    pub code: String,
    /// For people.
    pub message: String,
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    errors: Vec<Written>,
    /// Of token services that are no registries.
    #[serde(default)]
    details: Option<String>,
}

#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

impl Refusal {
    /// Of an answer's status and body. `clean` makes of a stranger's words what may be shown.
    pub fn read(status: u16, body: &[u8], clean: impl Fn(&str) -> String) -> Self {
        let body: Option<Body> = serde_json::from_slice(body).ok();
        let mut errors = Vec::new();
        if let Some(Body { errors: written, details }) = body {
            errors.extend(written.into_iter().take(MOST_ERRORS).map(|it| Said {
                code: clean(&it.code.unwrap_or_default()).to_ascii_uppercase(),
                message: clean(&it.message.unwrap_or_default()),
            }));
            if let (true, Some(details)) = (errors.is_empty(), details) {
                errors.push(Said { code: String::new(), message: clean(&details) });
            }
        }
        Self { status, errors }
    }

    /// Whether it says this.
    pub fn is(&self, code: &str) -> bool {
        self.errors.iter().any(|said| said.code == code)
    }

    /// What kind of failure it is: the code counts more than the status, of which some registries think little.
    pub fn kind(&self) -> ErrorKind {
        let code = self.errors.iter().find_map(|said| of_code(&said.code));
        code.unwrap_or(match self.status {
            401 => ErrorKind::Unauthorized,
            403 => ErrorKind::Forbidden,
            404 | 410 => ErrorKind::NotFound,
            429 | 500..=599 => ErrorKind::Unavailable,
            _ => ErrorKind::Invalid,
        })
    }
}

/// OCI distribution-spec, "Error Codes"; UNKNOWN and UNAVAILABLE are Docker's (docs/spec/api.md of distribution).
fn of_code(code: &str) -> Option<ErrorKind> {
    Some(match code {
        "BLOB_UNKNOWN" | "BLOB_UPLOAD_UNKNOWN" | "MANIFEST_BLOB_UNKNOWN" | "MANIFEST_UNKNOWN" | "NAME_UNKNOWN" => {
            ErrorKind::NotFound
        }
        "UNAUTHORIZED" => ErrorKind::Unauthorized,
        "DENIED" => ErrorKind::Forbidden,
        "TOOMANYREQUESTS" | "UNAVAILABLE" => ErrorKind::Unavailable,
        "BLOB_UPLOAD_INVALID"
        | "DIGEST_INVALID"
        | "MANIFEST_INVALID"
        | "NAME_INVALID"
        | "SIZE_INVALID"
        | "TAG_INVALID"
        | "UNSUPPORTED" => ErrorKind::Invalid,
        _ => return None,
    })
}

impl fmt::Display for Refusal {
    /// As Docker has it: `manifest unknown: manifest unknown`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.errors.iter().map(|said| {
            let code = said.code.to_ascii_lowercase().replace('_', " ");
            match (code.as_str(), said.message.as_str()) {
                ("", message) => message.to_owned(),
                (code, "") => code.to_owned(),
                (code, message) => format!("{code}: {message}"),
            }
        });
        let words: Vec<String> = words.filter(|words| !words.is_empty()).collect();
        if !words.is_empty() {
            return f.write_str(&words.join("; "));
        }
        match http::StatusCode::from_u16(self.status) {
            Ok(status) => write!(f, "it answers {status}"),
            Err(_) => write!(f, "it answers {}", self.status),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_read() {
        for (status, body, kind, words) in [
            (
                404,
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}"#,
                ErrorKind::NotFound,
                "manifest unknown: manifest unknown",
            ),
            (401, r#"{"errors":[{"code":"DENIED"}]}"#, ErrorKind::Forbidden, "denied"),
            (
                404,
                r#"{"errors":[{"code":"unauthorized","message":"m"},{}]}"#,
                ErrorKind::Unauthorized,
                "unauthorized: m",
            ),
            (
                401,
                r#"{"details":"incorrect username or password"}"#,
                ErrorKind::Unauthorized,
                "incorrect username or password",
            ),
            (429, r#"{"errors":[{"code":"ODD","message":"slow"}]}"#, ErrorKind::Unavailable, "odd: slow"),
            (503, "<html>", ErrorKind::Unavailable, "it answers 503 Service Unavailable"),
            (400, r#"{"errors":"x"}"#, ErrorKind::Invalid, "it answers 400 Bad Request"),
            (404, "", ErrorKind::NotFound, "it answers 404 Not Found"),
            (403, "{}", ErrorKind::Forbidden, "it answers 403 Forbidden"),
        ] {
            let refusal = Refusal::read(status, body.as_bytes(), str::to_owned);
            assert_eq!((refusal.kind(), refusal.to_string().as_str()), (kind, words), "{body}");
        }
    }

    #[test]
    fn no_more_is_read_than_makes_sense() {
        let body = format!(r#"{{"errors":[{}{{}}]}}"#, r#"{"code":"X"},"#.repeat(1000));
        assert_eq!(Refusal::read(400, body.as_bytes(), str::to_owned).errors.len(), MOST_ERRORS);
    }
}
