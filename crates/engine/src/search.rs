//! `search`: images of a registry by a word. Nothing of them is here afterwards.

use dozen_model::{Classified, ErrorKind, Reference, error_chain};
pub use dozen_registry::FoundImage;
use dozen_registry::{Credentials, RegistryError};

use crate::pull::{PullFailure, terms};
use crate::{Engine, EngineError};

/// Docker Hub.
const HUB: &str = "docker.io";

impl Engine {
    /// What a registry has for a term: `nginx` is Docker Hub's to find, `registry.example:5000/nginx` that registry's. So many
    /// at the most.
    ///
    /// # Errors
    /// The term is none; the registry does not answer, or has no search.
    pub async fn search(
        &self,
        term: &str,
        most: usize,
        credentials: Option<Credentials>,
    ) -> Result<Vec<FoundImage>, EngineError> {
        let (registry, word) = split(term).map_err(|message| EngineError::Invalid { message, hint: None })?;
        let terms = terms(&self.shared, credentials).await?;
        let found = self.shared.pulls.client().search(registry, word, most, terms).await;
        found.map_err(|error| failed(registry, &error).into())
    }
}

/// Docker's words, with what the registry said.
fn failed(registry: &str, error: &RegistryError) -> PullFailure {
    let hint = match error.kind() {
        ErrorKind::Unauthorized => Some(format!("log in to {registry} first")),
        ErrorKind::NotFound => Some("of registries but Docker Hub only some have a search".to_owned()),
        _ => error.hint(),
    };
    let message = match error.refusal() {
        Some(refusal) => format!("Unexpected status code {}: {}", refusal.status, error_chain(error)),
        None => error_chain(error),
    };
    PullFailure { kind: error.kind(), message, hint }
}

/// The registry, and what it is asked for.
fn split(term: &str) -> Result<(&str, &str), String> {
    if term.contains("://") {
        return Err(format!("invalid repository name: repository name ({term}) should not have a scheme"));
    }
    let (registry, word) = match term.split_once('/') {
        Some((host, word)) if host.contains(['.', ':']) || host == "localhost" => (host, word),
        _ => (HUB, term),
    };
    if matches!(registry, "index.docker.io" | "registry-1.docker.io" | HUB) {
        // What is pulled by this name is found by the shorter one.
        return Ok((HUB, word.strip_prefix("library/").unwrap_or(word)));
    }
    let name: Result<Reference, _> = format!("{registry}/x").parse();
    match name {
        Ok(name) if name.registry() == registry => Ok((registry, word)),
        _ => Err(format!("invalid index name ({registry})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_names_its_registry() {
        for (term, want) in [
            ("nginx", Ok((HUB, "nginx"))),
            ("library/nginx", Ok((HUB, "nginx"))),
            ("team/web", Ok((HUB, "team/web"))),
            ("docker.io/library/nginx", Ok((HUB, "nginx"))),
            ("registry.example/team/web", Ok(("registry.example", "team/web"))),
            ("localhost/web", Ok(("localhost", "web"))),
            ("127.0.0.1:5000/web", Ok(("127.0.0.1:5000", "web"))),
            ("a b.c/web", Err("invalid index name (a b.c)")),
            (
                "https://a.example/web",
                Err("invalid repository name: repository name (https://a.example/web) should not have a scheme"),
            ),
        ] {
            assert_eq!(split(term), want.map_err(str::to_owned), "{term}");
        }
    }
}
