//! What a client reads, compared to the bit with what was pushed, and with what the model says may be there.

use serde_json::Value;

use crate::content::{REPOSITORIES, TAGS};
use crate::http::{Answer, Request};
use crate::worker::{Worker, short};

impl Worker {
    /// What a tag leads to. `None`: nobody has answered.
    pub fn pull_tag(&mut self, repository: usize, tag: usize) {
        self.tag_now(repository, tag);
    }

    pub fn tag_now(&mut self, repository: usize, tag: usize) -> Option<Option<usize>> {
        let begin = self.moment();
        let path = format!("/v2/{}/manifests/{}", REPOSITORIES[repository], TAGS[tag]);
        let method = if self.chance.once_in(4) { "HEAD" } else { "GET" };
        let answer = self.read(&Request::new(method, path))?;
        let found = match answer.status {
            200 => self.which_manifest(repository, &answer, method)?.into(),
            _ => None,
        };
        let mut model = self.shared.model();
        let now = model.now();
        let possible = model.tag(repository, tag, begin, now);
        drop(model);
        if !possible.contains(&found) || !matches!(answer.status, 200 | 404) {
            let what = format!(
                "{}:{} leads to {found:?} ({}), and may lead to {possible:?}",
                REPOSITORIES[repository], TAGS[tag], answer.status
            );
            self.shared.trouble(&[REPOSITORIES[repository], TAGS[tag]], what);
        }
        Some(found)
    }

    pub fn read_manifest(&mut self, repository: usize, manifest: usize) {
        self.manifest_now(repository, manifest);
    }

    /// Whether it is there.
    pub fn manifest_now(&mut self, repository: usize, manifest: usize) -> Option<bool> {
        let begin = self.moment();
        let digest = self.shared.pool.manifests[manifest].digest.clone();
        let path = format!("/v2/{}/manifests/{digest}", REPOSITORIES[repository]);
        let method = if self.chance.once_in(4) { "HEAD" } else { "GET" };
        let answer = self.read(&Request::new(method, path))?;
        let is_found = answer.status == 200;
        let is_other = is_found && self.which_manifest(repository, &answer, method)? != manifest;
        let mut model = self.shared.model();
        let now = model.now();
        let is_there = model.manifest(repository, manifest, begin, now);
        drop(model);
        if !is_there.allows(is_found) || is_other || !matches!(answer.status, 200 | 404) {
            let what =
                format!("{}@{digest}: {}, and it is there: {is_there:?}", REPOSITORIES[repository], answer.status);
            self.shared.trouble(&[REPOSITORIES[repository], short(&digest)], what);
        }
        Some(is_found)
    }

    /// Which manifest of the pool an answer has, to the last byte.
    fn which_manifest(&self, repository: usize, answer: &Answer, method: &str) -> Option<usize> {
        let digest = answer.field("docker-content-digest").unwrap_or_default();
        let found = self.shared.pool.manifest_of(digest);
        let is_right = found.is_some_and(|found| {
            let pushed = &self.shared.pool.manifests[found];
            answer.field("content-type") == Some(pushed.media_type)
                && answer.field("content-length") == Some(&pushed.bytes.len().to_string())
                && (method == "HEAD" || answer.body == pushed.bytes)
        });
        if !is_right {
            let what = format!("a manifest of {} is not what was pushed: {answer:?}", REPOSITORIES[repository]);
            self.shared.trouble(&[REPOSITORIES[repository], short(digest)], what);
        }
        found.filter(|_| is_right)
    }

    /// All of it, or a part.
    pub fn read_blob(&mut self, repository: usize, blob: usize) {
        let size = self.shared.pool.blobs[blob].bytes.len();
        let range = (size > 1 && self.chance.once_in(2)).then(|| {
            let first = self.chance.index(size);
            (first, first + self.chance.index(size - first))
        });
        self.blob_now(repository, blob, range);
    }

    /// Whether it is there.
    pub fn blob_now(&mut self, repository: usize, blob: usize, range: Option<(usize, usize)>) -> Option<bool> {
        let begin = self.moment();
        let shared = self.shared.clone();
        let pushed = &shared.pool.blobs[blob];
        let mut request = Request::new("GET", format!("/v2/{}/blobs/{}", REPOSITORIES[repository], pushed.digest));
        let (mut expected, mut status) = (&pushed.bytes[..], 200);
        if let Some((first, last)) = range {
            request = request.field("Range", format!("bytes={first}-{last}"));
            (expected, status) = (&pushed.bytes[first..=last], 206);
        }
        let answer = self.read(&request)?;
        if answer.status == status && answer.body != expected {
            let what = format!("the blob {} of {} is another one", pushed.digest, REPOSITORIES[repository]);
            shared.trouble(&[REPOSITORIES[repository], short(&pushed.digest)], what);
        }
        self.judge_blob(repository, blob, begin, &answer, status)
    }

    pub fn look_for_blob(&mut self, repository: usize, blob: usize) {
        self.look_for_blob_now(repository, blob);
    }

    /// As a client does that is about to push it: whether it is there, and stays for a while.
    pub fn look_for_blob_now(&mut self, repository: usize, blob: usize) -> bool {
        let begin = self.moment();
        let shared = self.shared.clone();
        let pushed = &shared.pool.blobs[blob];
        let request = Request::new("HEAD", format!("/v2/{}/blobs/{}", REPOSITORIES[repository], pushed.digest));
        let Some(answer) = self.read(&request) else { return false };
        if answer.status == 200 && answer.field("content-length") != Some(&pushed.bytes.len().to_string()) {
            let what = format!("the blob {} has another length: {answer:?}", pushed.digest);
            shared.trouble(&[REPOSITORIES[repository], short(&pushed.digest)], what);
        }
        let is_there = self.judge_blob(repository, blob, begin, &answer, 200) == Some(true);
        if is_there {
            shared.model().see(repository, blob, begin);
        }
        is_there
    }

    fn judge_blob(
        &mut self,
        repository: usize,
        blob: usize,
        begin: u64,
        answer: &Answer,
        success: u16,
    ) -> Option<bool> {
        let is_found = answer.status == success;
        let mut model = self.shared.model();
        let now = model.now();
        let is_there = model.blob(repository, blob, begin, now);
        drop(model);
        if !is_there.allows(is_found) || !(is_found || answer.status == 404) {
            let digest = &self.shared.pool.blobs[blob].digest;
            let what = format!(
                "the blob {digest} of {}: {} {}, and it is there: {is_there:?}",
                REPOSITORIES[repository],
                answer.status,
                answer.field("content-type").unwrap_or_default()
            );
            self.shared.trouble(&[REPOSITORIES[repository], short(digest)], what);
        }
        Some(is_found)
    }

    pub fn list_tags(&mut self, repository: usize) {
        self.tags_now(repository);
    }

    /// All of them, perhaps in pages.
    pub fn tags_now(&mut self, repository: usize) -> Option<Vec<usize>> {
        let begin = self.moment();
        let name = REPOSITORIES[repository];
        let found = self.names(&format!("/v2/{name}/tags/list"), "tags")?;
        let tags: Vec<usize> = found.iter().filter_map(|tag| TAGS.iter().position(|known| known == tag)).collect();
        let mut model = self.shared.model();
        let now = model.now();
        let possible: Vec<_> = (0..TAGS.len()).map(|tag| model.tag(repository, tag, begin, now)).collect();
        drop(model);
        for (tag, possible) in possible.iter().enumerate() {
            let is_right = match tags.contains(&tag) {
                true => possible.iter().any(Option::is_some),
                false => possible.contains(&None),
            };
            if !is_right {
                let what = format!("the tags of {name} are {found:?}, and {} may lead to {possible:?}", TAGS[tag]);
                self.shared.trouble(&[name, TAGS[tag]], what);
            }
        }
        if tags.len() != found.len() {
            self.shared.trouble(&[name], format!("the tags of {name} are {found:?}"));
        }
        Some(tags)
    }

    pub fn list_repositories(&mut self) {
        let begin = self.moment();
        let Some(found) = self.names("/v2/_catalog", "repositories") else { return };
        let mut model = self.shared.model();
        let now = model.now();
        let is_listed: Vec<_> = (0..REPOSITORIES.len()).map(|number| model.is_listed(number, begin, now)).collect();
        drop(model);
        for (name, is_listed) in REPOSITORIES.iter().zip(is_listed) {
            if !is_listed.allows(found.iter().any(|found| found == name)) {
                let what = format!("the repositories are {found:?}, and {name} is one: {is_listed:?}");
                self.shared.trouble(&[name], what);
            }
        }
    }

    /// A list that may come in pages.
    fn names(&mut self, path: &str, key: &str) -> Option<Vec<String>> {
        let mut next = if self.chance.once_in(2) { format!("{path}?n=2") } else { path.to_owned() };
        let mut all = Vec::new();
        loop {
            let answer = self.read(&Request::new("GET", next))?;
            match answer.status {
                200 => {}
                // Nobody has pushed anything there, or it has gone again.
                404 => return Some(all),
                _ => {
                    self.shared.trouble(&[path], format!("no list: {answer:?}"));
                    return None;
                }
            }
            let list: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let Some(names) = list[key].as_array() else {
                self.shared.trouble(&[path], format!("no list: {}", answer.text()));
                return None;
            };
            all.extend(names.iter().filter_map(|name| name.as_str().map(str::to_owned)));
            let link = answer.field("link").and_then(|link| link.strip_prefix('<')?.split_once('>'));
            match link {
                Some((path, _)) => next = path.to_owned(),
                None => return Some(all),
            }
        }
    }

    /// What is about a manifest, whether that is there or not.
    pub fn list_referrers(&mut self, repository: usize, subject: usize) {
        let begin = self.moment();
        let shared = self.shared.clone();
        let (name, digest) = (REPOSITORIES[repository], &shared.pool.manifests[subject].digest);
        let kind = self.chance.once_in(3).then(|| format!("application/vnd.soak.{}", self.chance.below(2)));
        let mut path = format!("/v2/{name}/referrers/{digest}");
        if let Some(kind) = &kind {
            path += &format!("?artifactType={kind}");
        }
        let Some(answer) = self.read(&Request::new("GET", path)) else { return };
        let list: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let found = list["manifests"].as_array().cloned().unwrap_or_default();
        let mut model = shared.model();
        let now = model.now();
        let mut wrong = Vec::new();
        let mut expected = 0;
        for (number, manifest) in shared.pool.manifests.iter().enumerate() {
            let is_about = manifest.shape.subject == Some(subject)
                && kind.as_ref().is_none_or(|kind| manifest.descriptor["artifactType"] == kind.as_str());
            let is_found = found.contains(&manifest.descriptor);
            expected += usize::from(is_found);
            let is_there = model.manifest(repository, number, begin, now);
            if is_found && !is_about || is_about && !is_there.allows(is_found) {
                wrong.push(format!("{} is there: {is_there:?}", manifest.digest));
            }
        }
        drop(model);
        if answer.status != 200 || expected != found.len() || !wrong.is_empty() {
            let what = format!("what is about {name}@{digest}: {} {list}, but {wrong:?}", answer.status);
            shared.trouble(&[name, short(digest)], what);
        }
    }
}
