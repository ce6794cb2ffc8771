//! Whether a name and a password are right: the question that every registry answers (OCI distribution-spec, "Determining
//! Support"), asked by who has them.

use dozen_fetch::Connections;
use http::{HeaderMap, Method};

use crate::client::Asked;
use crate::{Client, RegistryError, Repository, Terms};

impl Client {
    /// Succeeds if the registry lets in who has these credentials, or anybody.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn log_in(&self, registry: &str, terms: Terms) -> Result<(), RegistryError> {
        let registry = Repository::whole(self, registry, terms);
        let asked = Asked {
            method: Method::GET,
            below: String::new(),
            headers: HeaderMap::new(),
            what: "the answer to a login".to_owned(),
        };
        registry.of_each(|endpoint| Box::pin(registry.ask(endpoint, &asked))).await.map(drop)
    }
}

impl Repository {
    /// None of a registry's in particular. Mirrors are no part of it.
    fn whole(client: &Client, registry: &str, terms: Terms) -> Self {
        let mut endpoints = crate::endpoints(registry, &terms.settings);
        endpoints.retain(|endpoint| !endpoint.is_mirror);
        Self::new(client, String::new(), endpoints, crate::Scope::default(), terms, Connections::default())
    }
}
