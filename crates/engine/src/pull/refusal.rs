//! A registry's refusal in Docker's words, by which scripts and clients know it (moby, daemon/internal/distribution/errors.go).

use dozen_model::{Classified, ErrorKind, Reference, error_chain};
use dozen_registry::RegistryError;

use super::PullFailure;

/// What went wrong when an image of this name was asked for.
pub(crate) fn failure(name: &Reference, error: &RegistryError) -> PullFailure {
    let (familiar, repository) = (name.familiar(), name.familiar_name());
    let said = |refusal: &dozen_registry::Refusal| refusal.to_string();
    let (kind, message) = match error.refusal() {
        Some(refusal) if refusal.is("DENIED") => {
            let words = "repository does not exist or may require 'docker login'";
            (ErrorKind::NotFound, format!("pull access denied for {repository}, {words}: {}", said(refusal)))
        }
        Some(refusal) if refusal.is("MANIFEST_UNKNOWN") => {
            (ErrorKind::NotFound, format!("manifest for {familiar} not found: {}", said(refusal)))
        }
        Some(refusal) if refusal.is("NAME_UNKNOWN") => {
            (ErrorKind::NotFound, format!("repository {repository} not found: {}", said(refusal)))
        }
        _ => (error.kind(), error_chain(error)),
    };
    let hint = error
        .hint()
        .or_else(|| (kind == ErrorKind::Unauthorized).then(|| format!("log in to {} first", name.registry())));
    PullFailure { kind, message, hint }
}

/// The same of a login.
pub(super) fn not_let_in(registry: &str, error: &RegistryError) -> PullFailure {
    let message = match error.refusal() {
        Some(refusal) if refusal.status == 401 => {
            format!("login attempt to {registry} failed with status: 401 Unauthorized: {refusal}")
        }
        _ => error_chain(error),
    };
    PullFailure { kind: error.kind(), message, hint: error.hint() }
}
