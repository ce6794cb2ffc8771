//! A request that is not done, as the client sees it: one kind of refusal, one status and one code of the specification's,
//! decided here and nowhere else (distribution-spec 1.1, "Error Codes").

use dozen_ledger::{LedgerError, rusqlite};
use dozen_model::{Classified, ErrorKind, error_chain};
use http::StatusCode;
use serde_json::{Value, json};

use crate::store::{BucketError, BucketErrorKind};

/// Why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The repository has no such blob.
    BlobUnknown,
    /// Manifests name the blob: it is not deleted.
    BlobInUse,
    /// The upload's own words contradict each other.
    UploadInvalid,
    /// There is no such upload in this repository.
    UploadUnknown,
    /// A chunk does not begin where the one before has ended.
    OutOfOrder,
    /// Another request goes on with the upload.
    TakenOver,
    /// The body does not come.
    Stalled,
    /// No part of the blob lies in the range.
    RangeUnsatisfiable,
    /// No digest, or not that of the content.
    DigestInvalid,
    /// Not as long as was said.
    SizeInvalid,
    /// What a manifest names is not in the repository.
    ManifestBlobUnknown,
    /// It is no manifest.
    ManifestInvalid,
    /// Nor one of a size that anybody takes.
    ManifestTooLarge,
    /// There is none of this tag or digest.
    ManifestUnknown,
    /// No name of a repository.
    NameInvalid,
    /// There is no such repository.
    NameUnknown,
    /// No such path.
    PathUnknown,
    /// A parameter of the query cannot be right.
    QueryInvalid,
    /// Name and password are missing or wrong.
    Unauthorized,
    /// A rule forbids it.
    Denied,
    /// The repository would become larger than it may.
    QuotaExceeded,
    /// Nobody may do this here.
    Unsupported,
    /// Too much at once.
    TooMany,
    /// The disk is full.
    DiskFull,
    /// The server ends.
    Ending,
    /// The store that has the data cannot be reached, or does not let us.
    StoreUnavailable,
    /// The registry whose images are kept here cannot be reached, or says what cannot be.
    UpstreamFailed,
    /// A fault of the server's, told in its log.
    Internal,
}

impl Kind {
    /// Status and code.
    pub fn told(self) -> (StatusCode, &'static str) {
        match self {
            Self::BlobUnknown => (StatusCode::NOT_FOUND, "BLOB_UNKNOWN"),
            Self::BlobInUse => (StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
            Self::UploadInvalid => (StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID"),
            Self::UploadUnknown => (StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN"),
            Self::OutOfOrder => (StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID"),
            Self::TakenOver => (StatusCode::CONFLICT, "BLOB_UPLOAD_INVALID"),
            Self::Stalled => (StatusCode::REQUEST_TIMEOUT, "BLOB_UPLOAD_INVALID"),
            Self::RangeUnsatisfiable => (StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID"),
            Self::DigestInvalid => (StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
            Self::SizeInvalid => (StatusCode::BAD_REQUEST, "SIZE_INVALID"),
            Self::ManifestBlobUnknown => (StatusCode::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN"),
            Self::ManifestInvalid => (StatusCode::BAD_REQUEST, "MANIFEST_INVALID"),
            Self::ManifestTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "MANIFEST_INVALID"),
            Self::ManifestUnknown => (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
            Self::NameInvalid => (StatusCode::BAD_REQUEST, "NAME_INVALID"),
            Self::NameUnknown => (StatusCode::NOT_FOUND, "NAME_UNKNOWN"),
            Self::PathUnknown => (StatusCode::NOT_FOUND, "UNSUPPORTED"),
            Self::QueryInvalid => (StatusCode::BAD_REQUEST, "UNSUPPORTED"),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "UNAUTHORIZED"),
            Self::Denied | Self::QuotaExceeded => (StatusCode::FORBIDDEN, "DENIED"),
            Self::Unsupported => (StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
            Self::TooMany => (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS"),
            Self::DiskFull => (StatusCode::INSUFFICIENT_STORAGE, "UNKNOWN"),
            Self::Ending | Self::StoreUnavailable => (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
            Self::UpstreamFailed => (StatusCode::BAD_GATEWAY, "UNAVAILABLE"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN"),
        }
    }
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Why.
    pub kind: Kind,
    /// In words, for people.
    pub message: String,
    /// What a client may read, or null.
    pub detail: Value,
    /// Further fields of the answer's head.
    pub fields: Vec<(&'static str, String)>,
}

impl Refusal {
    /// Without detail.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), detail: Value::Null, fields: Vec::new() }
    }

    /// With it.
    pub fn with_detail(mut self, detail: Value) -> Self {
        self.detail = detail;
        self
    }

    /// With a further field.
    pub fn with_field(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// A file or directory of the store's. The log is told where, the client is not.
    pub(crate) fn of_disk(what: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        tracing::error!("cannot {what} {}: {error}", path.display());
        match error.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => {
                Self::new(Kind::DiskFull, format!("cannot {what} it: the registry's disk is full"))
            }
            _ => Self::new(Kind::Internal, format!("cannot {what} it: the registry's log says why")),
        }
    }

    /// An object of the store's. The log is told what it says and what may help, the client is not.
    pub(crate) fn of_bucket(what: &str, name: &str, error: &BucketError) -> Self {
        use BucketErrorKind::{Denied, Failed, Missing, Unavailable};
        let hint = match error.kind {
            Unavailable => "; it is tried again with the next request: see whether the store is up and not too busy",
            Denied => "; see whether the keys are right and may read, write, delete and list there",
            Missing | Failed => "",
        };
        tracing::error!("cannot {what} {name} in the store: {error}{hint}");
        match error.kind {
            Unavailable | Denied => {
                let words = "the registry's store cannot be used at the moment: its log says why";
                Self::new(Kind::StoreUnavailable, words).with_field("Retry-After", "5")
            }
            Missing | Failed => Self::new(Kind::Internal, format!("cannot {what} it: the registry's log says why")),
        }
    }

    /// A task of ours: it panicked, or there is nobody any more who could run it.
    pub(crate) fn of_task(error: &tokio::task::JoinError) -> Self {
        if error.is_cancelled() {
            return Self::new(Kind::Ending, "the registry is going down");
        }
        tracing::error!(%error, "a task of the registry failed");
        Self::new(Kind::Internal, "the registry failed: its log says why")
    }

    /// Whether it is for this server's end alone: nothing is wrong.
    pub fn is_for_ending(&self) -> bool {
        self.kind == Kind::Ending
    }

    /// The body that tells it.
    pub fn body(&self) -> String {
        let mut error = json!({ "code": self.kind.told().1, "message": self.message });
        if !self.detail.is_null() {
            error["detail"] = self.detail.clone();
        }
        let mut text = json!({ "errors": [error] }).to_string();
        text.push('\n');
        text
    }
}

impl From<LedgerError> for Refusal {
    fn from(error: LedgerError) -> Self {
        match error.kind() {
            ErrorKind::Exhausted => {
                tracing::error!("{}", error_chain(&error));
                Self::new(Kind::DiskFull, "the registry's disk is full")
            }
            ErrorKind::Unavailable => Self::new(Kind::Ending, "the registry is going down"),
            _ => {
                tracing::error!("{}", error_chain(&error));
                Self::new(Kind::Internal, "the registry's index failed: its log says why")
            }
        }
    }
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        LedgerError::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_nobody_runs_any_more_is_no_fault() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let task = runtime.spawn(std::future::pending::<()>());
        drop(runtime);
        let other = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let error = other.block_on(task).unwrap_err();
        assert!(Refusal::of_task(&error).is_for_ending());
        let panicked = other.block_on(async { tokio::spawn(async { panic!("on purpose") }).await }).unwrap_err();
        assert_eq!(Refusal::of_task(&panicked).kind, Kind::Internal);
    }

    #[test]
    fn a_refusal_is_told_in_the_specifications_form() {
        let refusal = Refusal::new(Kind::BlobUnknown, "no such blob").with_detail(json!({ "digest": "d" }));
        let body: Value = serde_json::from_str(&refusal.body()).unwrap();
        let error = json!({ "code": "BLOB_UNKNOWN", "message": "no such blob", "detail": { "digest": "d" } });
        assert_eq!(body, json!({ "errors": [error] }));
        assert!(!Refusal::new(Kind::Denied, "no").body().contains("detail"));
    }
}
