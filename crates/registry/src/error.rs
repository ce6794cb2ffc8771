//! Why a registry gave nothing. No URL in full, no password and no token is in any of these words: where a redirection led
//! may be a signed address, which is as good as a password.

use std::path::PathBuf;
use std::time::Duration;

use dozen_fetch::FetchError;
use dozen_model::{Classified, Digest, ErrorKind};

use crate::{DocumentError, Refusal};

/// See the module.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the words say it")]
pub enum RegistryError {
    #[error("cannot reach the registry {host}: {why}")]
    Unreachable { host: String, why: String },
    #[error("{what} from {host}: {why}")]
    Broken { what: String, host: String, why: String },
    #[error("{what} from {host}: {refusal}")]
    Refused { what: String, host: String, refusal: Refusal, pause: Option<Duration> },
    #[error("{host}: no basic auth credentials")]
    NoCredentials { host: String },
    #[error("{host} wants to be asked in a way that is not built: {scheme}")]
    Scheme { host: String, scheme: String },
    #[error("{host} sends us for a token to {realm:?}: {why}")]
    Realm { host: String, realm: String, why: String },
    #[error("the token service {service} of {host}: {why}")]
    NoToken { service: String, host: String, why: String, kind: ErrorKind },
    #[error("{host} redirects us to {to}: {why}")]
    Redirection { host: String, to: String, why: String },
    #[error("a manifest of {host} sends us for a layer to {to}: {why}")]
    Elsewhere { host: String, to: String, why: String },
    #[error("{what} from {host}: {source}")]
    Document { what: String, host: String, source: DocumentError },
    #[error("{what} from {host} is damaged: it has the digest {found}")]
    Digest { what: String, host: String, found: Digest },
    #[error("{what} from {host} has {found} bytes, where {wanted} were promised")]
    Size { what: String, host: String, wanted: u64, found: u64 },
    #[error("{what} from {host} is larger than {limit_bytes} bytes")]
    TooLarge { what: String, host: String, limit_bytes: u64 },
    #[error("the certificates cannot be read: {0}")]
    Certificates(String),
    #[error("cannot use {}: {why}", path.display())]
    Hosts { path: PathBuf, why: String },
    #[error("{registry}: its hosts.toml names no server that may be asked to {what}")]
    Nobody { registry: String, what: &'static str },
}

impl RegistryError {
    /// The registry's own words, if it refused.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal),
            _ => None,
        }
    }
}

impl Classified for RegistryError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } => ErrorKind::Unavailable,
            Self::Refused { refusal, .. } => refusal.kind(),
            Self::NoCredentials { .. } => ErrorKind::Unauthorized,
            Self::NoToken { kind, .. } => *kind,
            Self::Scheme { .. } => ErrorKind::NotBuilt,
            Self::Document { source: DocumentError::SchemaOne, .. } => ErrorKind::NotBuilt,
            _ => ErrorKind::Invalid,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Unreachable { why, host } if why.contains("certificate") => Some(format!(
                "put its authority into /etc/dozen/certs.d/{host}/ca.crt, or, if you trust it without: \
                     \"insecure-registries\": [\"{host}\"] in daemon.json"
            )),
            Self::Refused { pause: Some(pause), .. } => Some(format!("try again in {} seconds", pause.as_secs())),
            _ => None,
        }
    }
}

/// What went wrong on the way, without the address.
pub(crate) fn why(error: &FetchError) -> String {
    match error {
        FetchError::Broken { why, .. } | FetchError::Redirection { why, .. } => why.clone(),
        FetchError::Circles { .. } => "it redirects in circles".to_owned(),
        FetchError::Status { status, .. } => format!("it answers {status}"),
        FetchError::TooLarge { limit_bytes, .. } => format!("it sends more than {limit_bytes} bytes"),
        FetchError::Proxy(_)
        | FetchError::NoSuchHost { .. }
        | FetchError::OutOfReach { .. }
        | FetchError::Connect { .. } => error.to_string(),
    }
}
