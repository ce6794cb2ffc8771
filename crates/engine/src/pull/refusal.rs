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

/// What has this name is no image: how it is pulled as what it is. That stands in the message, since docker's clients show
/// nothing else.
pub(super) fn artifact(name: &Reference, artifact_type: &str) -> PullFailure {
    let name = name.familiar();
    let kind: String = artifact_type.chars().filter(|letter| !letter.is_control()).take(200).collect();
    let kind = if kind.is_empty() { String::new() } else { format!(" of type {kind}") };
    let message = format!("{name} is an artifact{kind} and no image; pull it with: dozen artifact pull {name}");
    PullFailure { kind: ErrorKind::Invalid, message, hint: None }
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
