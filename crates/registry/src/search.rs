//! Images found by a word, as registries of version 1 are asked for them, Docker Hub among them: `GET /v1/search?q=…&n=…`
//! (docs.docker.com, "docker search"). Of those of version 2 only some have it.

use dozen_fetch::Connections;
use http::{HeaderMap, HeaderValue, Method};
use serde::Deserialize;

use crate::authorization::Query;
use crate::client::Asked;
use crate::endpoint::HUB_SERVER;
use crate::{Client, Endpoint, RegistryError, Repository, Scope, Terms};

/// Who searches Docker Hub.
const HUB_INDEX: &str = "index.docker.io";
/// Of an answer: a hundred images, each described.
const ANSWER_BYTES: u64 = 4 * 1024 * 1024;

/// An image that was found, as the registry describes it: any words.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct FoundImage {
    /// As `pull` takes it, without the registry.
    pub name: String,
    #[expect(missing_docs, reason = "plain")]
    #[serde(default)]
    pub description: String,
    /// How many people like it.
    #[serde(default)]
    pub star_count: i64,
    /// It is one of Docker's own.
    #[serde(default)]
    pub is_official: bool,
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    results: Option<Vec<FoundImage>>,
}

impl Client {
    /// What a registry has for a word, in its order: so many at the most.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn search(
        &self,
        registry: &str,
        word: &str,
        most: usize,
        terms: Terms,
    ) -> Result<Vec<FoundImage>, RegistryError> {
        let mut endpoints = crate::endpoints(registry, &terms.settings);
        endpoints.retain(|endpoint| !endpoint.is_mirror);
        let scope = Scope::parse("registry:catalog:search");
        let repository = Repository::new(self, String::new(), endpoints, scope, terms, Connections::default());
        let server = repository.server().await?;
        let host = if server.host == HUB_SERVER { HUB_INDEX.to_owned() } else { server.host.clone() };
        let endpoint =
            Endpoint { host, path: "/v1".to_owned(), is_path_whole: true, namespace: None, ..server.clone() };
        let mut query = Query::default();
        query.add("q", word);
        query.add("n", &most.to_string());
        let mut headers = HeaderMap::new();
        // The index gives the whole answer only to who says so.
        headers.insert("x-docker-token", HeaderValue::from_static("true"));
        let (method, what) = (Method::GET, "the search".to_owned());
        let asked = Asked { method, below: format!("search?{}", query.text()), headers, what: what.clone() };
        let mut answer = repository.ask(&endpoint, &asked).await?;
        let bytes = repository.body(&endpoint, &what, &mut answer, ANSWER_BYTES).await?;
        let page: Page = serde_json::from_slice(&bytes)
            .map_err(|error| repository.broken(&endpoint, &what, format!("it is malformed: {error}")))?;
        let mut found = page.results.unwrap_or_default();
        found.truncate(most);
        Ok(found)
    }
}
