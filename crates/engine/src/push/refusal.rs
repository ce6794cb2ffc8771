//! A registry's refusal in Docker's words, by which scripts and clients know it: of a push they are the registry's own.

use dozen_model::{Classified, ErrorKind, Reference, error_chain};
use dozen_registry::RegistryError;

use crate::PullFailure;

/// What went wrong when an image of this name was sent.
pub(crate) fn failure(name: &Reference, error: &RegistryError) -> PullFailure {
    let kind = error.kind();
    let message = match error.refusal() {
        Some(refusal) if refusal.is("DENIED") || refusal.is("UNAUTHORIZED") => refusal.to_string(),
        // A server that says nothing more (docker's words for these).
        Some(refusal) if refusal.errors.is_empty() && refusal.status == 401 => {
            "unauthorized: authentication required".to_owned()
        }
        Some(refusal) if refusal.errors.is_empty() && refusal.status == 403 => {
            "denied: requested access to the resource is denied".to_owned()
        }
        _ => error_chain(error),
    };
    let is_login = matches!(kind, ErrorKind::Unauthorized | ErrorKind::Forbidden);
    let login = || match name.registry() {
        "docker.io" => "dozen login".to_owned(),
        registry => format!("dozen login {registry}"),
    };
    let hint =
        error.hint().or_else(|| is_login.then(|| format!("log in as somebody who may write there: {}", login())));
    PullFailure { kind, message, hint }
}

#[cfg(test)]
mod tests {
    use dozen_registry::{Refusal, Said};

    use super::*;

    #[test]
    fn the_registrys_words_are_dockers() {
        let name: Reference = "r.example:5000/a:1".parse().unwrap();
        let refused = |status, code: &str, message: &str| {
            let said = Said { code: code.into(), message: message.into() };
            let errors = if code.is_empty() { vec![] } else { vec![said] };
            let (what, host) = ("the answer to the manifest 1".to_owned(), "r.example:5000".to_owned());
            let error = RegistryError::Refused { what, host, refusal: Refusal { status, errors }, pause: None };
            let failure = failure(&name, &error);
            (failure.message, failure.hint.is_some())
        };
        for (status, code, message, words, has_hint) in [
            (
                403,
                "DENIED",
                "requested access to the resource is denied",
                "denied: requested access to the resource is denied",
                true,
            ),
            (401, "UNAUTHORIZED", "authentication required", "unauthorized: authentication required", true),
            (401, "", "", "unauthorized: authentication required", true),
            (403, "", "", "denied: requested access to the resource is denied", true),
            (
                400,
                "MANIFEST_INVALID",
                "manifest invalid",
                "the answer to the manifest 1 from r.example:5000: manifest invalid: manifest invalid",
                false,
            ),
        ] {
            assert_eq!(refused(status, code, message), (words.to_owned(), has_hint));
        }
    }
}
