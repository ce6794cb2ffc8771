//! The tags of a repository, page by page (OCI distribution-spec, "Listing Tags").

use std::collections::BTreeSet;

use dozen_fetch::Answer;
use dozen_model::is_tag;
use http::{HeaderMap, Method, header};
use serde::Deserialize;

use crate::client::{Asked, Need};
use crate::pages::next_page;
use crate::{Endpoint, RegistryError, Repository};

/// Of one page.
const PAGE_BYTES: u64 = 4 * 1024 * 1024;
/// Of all pages together, whatever is in them.
const ALL_BYTES: usize = 16 * 1024 * 1024;
/// The same.
const MOST_TAGS: usize = 100_000;
/// A registry that leads us on without an end gives us none.
const MOST_PAGES: usize = 10_000;

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    tags: Option<Vec<String>>,
}

impl Repository {
    /// All of them, in order.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn tags(&self) -> Result<BTreeSet<String>, RegistryError> {
        self.of_each_able(Need::Resolve, |endpoint| Box::pin(self.tags_of(endpoint))).await
    }

    async fn tags_of(&self, endpoint: &Endpoint) -> Result<BTreeSet<String>, RegistryError> {
        let what = "the list of tags".to_owned();
        let first = format!("{}/tags/list", self.name());
        let mut asked =
            Asked { method: Method::GET, below: first.clone(), headers: HeaderMap::new(), what: what.clone() };
        let (mut all, mut bytes_before) = (BTreeSet::new(), 0);
        for _ in 0..MOST_PAGES {
            let mut answer = self.ask(endpoint, &asked).await?;
            let bytes = self.body(endpoint, &what, &mut answer, PAGE_BYTES).await?;
            bytes_before += bytes.len();
            if bytes_before > ALL_BYTES {
                return Err(self.broken(endpoint, &what, format!("there are more than {ALL_BYTES} bytes of them")));
            }
            let page: Page = serde_json::from_slice(&bytes)
                .map_err(|error| self.broken(endpoint, &what, format!("it is malformed: {error}")))?;
            let tags = page.tags.unwrap_or_default();
            if !tags.iter().all(|tag| is_tag(tag)) {
                return Err(self.broken(endpoint, &what, "it names something that is no tag".to_owned()));
            }
            all.extend(tags);
            if all.len() > MOST_TAGS {
                return Err(self.broken(endpoint, &what, format!("there are more than {MOST_TAGS}")));
            }
            match next(&answer, &first) {
                Some(next) if next == asked.below => {
                    return Err(self.broken(endpoint, &what, "its pages lead in a circle".to_owned()));
                }
                Some(next) => asked.below = next,
                None => return Ok(all),
            }
        }
        Err(self.broken(endpoint, &what, format!("it has more than {MOST_PAGES} pages")))
    }
}

/// The next page of this list, whatever host the reference names: only its query counts.
pub(crate) fn next(answer: &Answer, first: &str) -> Option<String> {
    let fields = answer.headers.get_all(header::LINK).iter().filter_map(|field| field.to_str().ok());
    let reference = next_page(fields)?;
    let (_, query) = reference.split_once('?')?;
    Some(format!("{first}?{query}"))
}
