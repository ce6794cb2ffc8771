//! Lists of upstreams: the tags of a repository, and what is about a manifest (distribution-spec 1.1, "Listing Tags" and
//! "Listing Referrers").
//!
//! **The rule.** A list is the upstream's, asked for as a whole and fresh for as long as a tag is. Pages of it go on with the
//! one that the first was of. Where the upstream cannot be asked, or says what cannot be, the last one is told with what is
//! here beside it; where no last one is known, what is here; where nothing is, that it cannot be had: an empty list would say
//! that nobody has signed an image.
//!
//! What a list of referrers names is a stranger's word until it is fetched by its digest, as any manifest. How long a list is
//! kept, `shelf.rs` says.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use dozen_model::Digest;
use serde_json::json;
use tokio::sync::OwnedMutexGuard;

use super::asking::Told;
use super::shelf::{Listed, Listing, Shelf};
use super::{FetchedReferrer, Inner, Source, UpstreamError, UpstreamErrorKind, Upstreams};
use crate::metrics::Cached;
use crate::name::{RepositoryName, Tag};
use crate::page::Page;
use crate::refusal::{Kind, Refusal};
use crate::store::{Referrer, Store};

/// The tags of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct TagsOf(RepositoryName);

/// What a repository has about a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ReferrersOf(RepositoryName, Digest);

impl TagsOf {
    pub(super) fn new(repository: RepositoryName) -> Self {
        Self(repository)
    }
}

impl fmt::Display for TagsOf {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the tags of {}", self.0)
    }
}

impl fmt::Display for ReferrersOf {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the referrers of {}@{}", self.0, self.1)
    }
}

impl Listing for TagsOf {
    type Entry = Box<str>;

    fn shelf(inner: &Inner) -> &Shelf<Self> {
        &inner.tags
    }

    fn repository(&self) -> &RepositoryName {
        &self.0
    }

    async fn ask(&self, source: &Source) -> Result<Vec<Box<str>>, UpstreamError> {
        let there = source.plan.there(&self.0).unwrap_or_default();
        let mut tags = source.question_of_tags(source.client.tags(&there)).await?;
        if tags.iter().any(|tag| tag.parse::<Tag>().is_err()) {
            return Err(UpstreamError::wrong("it names something that is no tag"));
        }
        tags.sort_unstable();
        tags.dedup();
        Ok(tags.into_iter().map(Into::into).collect())
    }

    fn bytes(tag: &Box<str>) -> usize {
        size_of::<Box<str>>() + tag.len()
    }
}

impl Listing for ReferrersOf {
    type Entry = Referrer;

    fn shelf(inner: &Inner) -> &Shelf<Self> {
        &inner.referrers
    }

    fn repository(&self) -> &RepositoryName {
        &self.0
    }

    async fn ask(&self, source: &Source) -> Result<Vec<Referrer>, UpstreamError> {
        let there = source.plan.there(&self.0).unwrap_or_default();
        let told = match source.question_of_referrers(source.client.referrers(&there, &self.1)).await {
            // One that has no such repository has nothing about it.
            Err(error) if error.kind == UpstreamErrorKind::Missing => Vec::new(),
            told => told?,
        };
        let mut referrers: Vec<Referrer> = told.into_iter().map(referrer).collect();
        referrers.sort_unstable_by(|one, other| one.digest.cmp(&other.digest));
        referrers.dedup_by(|one, other| one.digest == other.digest);
        Ok(referrers)
    }

    fn bytes(referrer: &Referrer) -> usize {
        size_of::<Referrer>() + referrer.told_bytes()
    }
}

fn referrer(told: FetchedReferrer) -> Referrer {
    Referrer {
        digest: told.digest.to_string(),
        media_type: told.media_type,
        size_bytes: told.size_bytes,
        artifact_type: told.artifact_type.filter(|text| !text.is_empty()),
        annotations: json!(told.annotations).to_string(),
    }
}

impl Upstreams {
    /// A page of the tags of a repository, with one more where there is a next one.
    pub(crate) async fn tags(
        &self,
        store: &Store,
        source: &Arc<Source>,
        repository: &RepositoryName,
        page: &Page,
    ) -> Result<(Vec<String>, Cached), Refusal> {
        let limit = page.count.saturating_add(1);
        let listed = self.listed(source, TagsOf::new(repository.clone()), !page.after.is_empty()).await;
        let listed = listed.map_err(|error| source.refusal(&error, Kind::NameUnknown))?;
        let here = match listed.failure {
            None => Vec::new(),
            Some(_) => match store.index.tags(repository, page.after.clone(), limit).await {
                Err(refusal) if refusal.kind == Kind::NameUnknown => Vec::new(),
                here => here?,
            },
        };
        match (&listed.known, listed.failure) {
            (None, Some(failure)) if here.is_empty() && page.after.is_empty() => {
                Err(source.refusal(&failure, Kind::NameUnknown))
            }
            (known, _) => Ok((tags_of(known.as_deref().unwrap_or_default(), here, &page.after, limit), listed.how)),
        }
    }

    /// What is about a manifest, sorted by digest: those after one, until they have so many bytes together; and whether there
    /// are more.
    pub(crate) async fn referrers(
        &self,
        store: &Store,
        source: &Arc<Source>,
        (repository, subject): (&RepositoryName, &Digest),
        artifact_type: Option<&str>,
        after: &str,
        limit_bytes: usize,
    ) -> Result<((Vec<Referrer>, bool), Cached), Refusal> {
        let list = ReferrersOf(repository.clone(), subject.clone());
        let listed = self.listed(source, list, !after.is_empty()).await;
        let listed = listed.map_err(|error| source.refusal(&error, Kind::NameUnknown))?;
        let (here, is_more) = match listed.failure {
            None => (Vec::new(), false),
            Some(_) => {
                let (wanted, after) = (artifact_type.map(str::to_owned), after.to_owned());
                store.index.referrers(repository, subject, wanted, after, limit_bytes).await?
            }
        };
        match (&listed.known, listed.failure) {
            (None, Some(failure)) if here.is_empty() && after.is_empty() => {
                Err(source.refusal(&failure, Kind::NameUnknown))
            }
            (known, _) => {
                let known = known.as_deref().unwrap_or_default();
                let told = known.iter().filter(|it| {
                    it.digest.as_str() > after && artifact_type.is_none_or(|is| it.artifact_type.as_deref() == Some(is))
                });
                Ok((referrers_of(told, (here, is_more), limit_bytes), listed.how))
            }
        }
    }

    /// A list, as it is known or as it is told now.
    async fn listed<L: Listing>(
        &self,
        source: &Arc<Source>,
        list: L,
        goes_on: bool,
    ) -> Result<Listed<L::Entry>, UpstreamError> {
        let shelf = L::shelf(&self.0);
        if let Some(listed) = shelf.at_hand(&list, goes_on, Instant::now()) {
            return Ok(listed);
        }
        let what = list.to_string();
        if let Some(error) = self.0.refusals.of(&what) {
            return Err(error);
        }
        let (turn, arrived) = (self.0.turns.of(what), Instant::now());
        let last = turn.lock_owned().await;
        if let Some(listed) = shelf.at_hand(&list, goes_on, Instant::now()) {
            return Ok(listed);
        }
        match last.as_ref().and_then(|told| told.since(arrived)) {
            Some(Err(error)) => return Err(error.clone()),
            Some(Ok(())) => {
                if let Some(listed) = shelf.newest(&list, Instant::now()) {
                    return Ok(listed);
                }
            }
            None => {}
        }
        // It goes on if who wants it goes away: it may take longer than his patience, and be there when he comes again.
        let (all, source) = (self.clone(), source.clone());
        let asked = tokio::spawn(async move { all.ask_for_list(&source, list, last).await });
        asked.await.unwrap_or_else(|_| Err(UpstreamError::wrong("the question failed: the log says why")))
    }

    async fn ask_for_list<L: Listing>(
        &self,
        source: &Source,
        list: L,
        mut last: OwnedMutexGuard<Option<Told>>,
    ) -> Result<Listed<L::Entry>, UpstreamError> {
        let repository = list.repository().clone();
        let told = match source.rests() && L::shelf(&self.0).knows(&list) {
            true => Err(UpstreamError {
                kind: UpstreamErrorKind::Unreachable,
                words: "it could not be reached a moment ago".to_owned(),
            }),
            false => list.ask(source).await.map(Into::into),
        };
        if let Err(error) = &told {
            self.refused(source, &repository, list.to_string(), error);
        }
        match told {
            Err(error) if !error.is_silence() => {
                *last = Some(Told::now(Err(error.clone())));
                Err(error)
            }
            told => {
                *last = Some(Told::now(Ok(())));
                let is_wanted = || self.is_of(source, &repository);
                Ok(L::shelf(&self.0).put(list, told, source.plan.fresh, Instant::now(), is_wanted))
            }
        }
    }
}

/// Both are sorted. `here` begins after `after`.
fn tags_of(known: &[Box<str>], here: Vec<String>, after: &str, limit: usize) -> Vec<String> {
    let first = known.partition_point(|tag| &**tag <= after);
    let mut all: Vec<String> = known[first..].iter().take(limit).map(|tag| tag.to_string()).collect();
    all.extend(here);
    all.sort_unstable();
    all.dedup();
    all.truncate(limit);
    all
}

/// All are sorted. Of `here` there may be more behind its last one, before which nothing is left out.
fn referrers_of<'a>(
    told: impl Iterator<Item = &'a Referrer>,
    (here, is_more_here): (Vec<Referrer>, bool),
    limit_bytes: usize,
) -> (Vec<Referrer>, bool) {
    let end = here.last().filter(|_| is_more_here).map(|last| last.digest.clone());
    let mut here: BTreeMap<String, Referrer> = here.into_iter().map(|it| (it.digest.clone(), it)).collect();
    let (mut found, mut bytes): (Vec<Referrer>, usize) = (Vec::new(), 0);
    let mut told = told.peekable();
    loop {
        // What is here is known better.
        let next_here = here.first_entry().map(|it| it.key().clone());
        let next = match (told.peek(), next_here) {
            (None, None) => return (found, is_more_here),
            (Some(theirs), ours) if ours.as_ref().is_none_or(|ours| theirs.digest < *ours) => told.next().cloned(),
            (theirs, ours) => {
                if theirs.is_some_and(|theirs| Some(&theirs.digest) == ours.as_ref()) {
                    told.next();
                }
                here.pop_first().map(|(_, it)| it)
            }
        };
        let Some(next) = next else { return (found, is_more_here) };
        bytes += next.told_bytes();
        let is_behind = end.as_ref().is_some_and(|end| next.digest > *end);
        if is_behind || bytes > limit_bytes && !found.is_empty() {
            return (found, true);
        }
        found.push(next);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::sync::mpsc;

    use super::*;
    use crate::store::StoreOptions;
    use crate::upstream::{Asked, FetchedManifest, Upstream, lock, read_upstreams};

    fn failure() -> UpstreamError {
        UpstreamError::wrong("so it is")
    }

    /// One tag, whose name is how often it was asked for.
    #[derive(Debug, Default)]
    struct Counting(std::sync::Mutex<usize>);

    impl Upstream for Counting {
        fn resolve<'a>(&'a self, _: &'a str, _: &'a str) -> Asked<'a, Option<Digest>> {
            Box::pin(async { Err(failure()) })
        }

        fn manifest<'a>(&'a self, _: &'a str, _: &'a str) -> Asked<'a, FetchedManifest> {
            Box::pin(async { Err(failure()) })
        }

        fn blob<'a>(&'a self, _: &'a str, _: &'a Digest, _: u64, _: mpsc::Sender<Bytes>) -> Asked<'a, ()> {
            Box::pin(async { Err(failure()) })
        }

        fn tags<'a>(&'a self, _: &'a str) -> Asked<'a, Vec<String>> {
            Box::pin(async {
                let mut asked = lock(&self.0);
                *asked += 1;
                Ok(vec![asked.to_string()])
            })
        }

        fn referrers<'a>(&'a self, _: &'a str, _: &'a Digest) -> Asked<'a, Vec<FetchedReferrer>> {
            Box::pin(async { Err(failure()) })
        }
    }

    #[tokio::test]
    async fn who_wants_what_somebody_asks_for_is_told_what_he_is() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path(), StoreOptions::default()).await.unwrap();
        let file = root.path().join("upstreams");
        std::fs::write(&file, "[[upstream]]\nrepositories = \"**\"\nurl = \"https://r\"\nfresh = \"0s\"\n").unwrap();
        let plan = read_upstreams(&file).unwrap().remove(0);
        let upstreams = Upstreams::new(vec![Source::new(plan, Arc::new(Counting::default()))]);
        let name = "a".parse().unwrap();
        let source = upstreams.source(&name).unwrap();
        let page = Page::parse("").unwrap();
        let ask = async || upstreams.tags(&store, &source, &name, &page).await.unwrap().0;
        // All three are there before the first one is answered.
        assert_eq!(tokio::join!(ask(), ask(), ask()), (vec!["1".into()], vec!["1".into()], vec!["1".into()]));
        assert_eq!(ask().await, ["2"]);
    }

    #[test]
    fn a_page_of_tags_has_both_in_order() {
        let known = ["1", "3", "5"].map(Box::from);
        for (here, after, limit, want) in [
            (vec![], "", 9, vec!["1", "3", "5"]),
            (vec!["2", "3"], "", 9, vec!["1", "2", "3", "5"]),
            (vec!["2", "3"], "1", 2, vec!["2", "3"]),
            (vec![], "3", 9, vec!["5"]),
            (vec![], "4", 9, vec!["5"]),
            (vec!["9"], "5", 9, vec!["9"]),
        ] {
            let here = here.into_iter().map(str::to_owned).collect();
            assert_eq!(tags_of(&known, here, after, limit), want, "{after} {limit}");
        }
    }

    #[test]
    fn a_page_of_referrers_leaves_none_out() {
        let one = |digest: &str| Referrer {
            digest: digest.to_owned(),
            media_type: String::new(),
            size_bytes: 1,
            artifact_type: None,
            annotations: "{}".to_owned(),
        };
        let each = one("a").told_bytes();
        for (told, here, is_more, most, want, goes_on) in [
            ("ac", "", false, 9, "ac", false),
            ("ac", "bcd", false, 9, "abcd", false),
            ("", "b", false, 9, "b", false),
            ("abc", "", false, 2, "ab", true),
            ("ab", "", false, 2, "ab", false),
            ("abc", "", false, 0, "a", true),
            // Behind the last one of here there may be others, before the next one of there.
            ("ad", "b", true, 9, "ab", true),
            ("a", "b", true, 9, "ab", true),
            ("ad", "b", true, 1, "a", true),
        ] {
            let all = |text: &str| text.chars().map(|letter| one(&letter.to_string())).collect::<Vec<_>>();
            let (found, more) = referrers_of(all(told).iter(), (all(here), is_more), most * each);
            let found: String = found.iter().map(|it| it.digest.as_str()).collect();
            assert_eq!((found.as_str(), more), (want, goes_on), "{told} {here} {is_more} {most}");
        }
    }
}
