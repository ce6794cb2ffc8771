//! Between two rounds nobody asks for anything: all that is there is read and compared, and what nothing names has to go,
//! from the lists, the files and the numbers.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dozen_testbox::{Random, patience, until};
use rustix::process::Signal;

use crate::content::{REPOSITORIES, TAGS};
use crate::http::{Client, Outcome, Request};
use crate::life::{GRACE, Life, METRICS_PORT, QUOTA_BYTES, UPLOAD_TIMEOUT};
use crate::model::{Found, Operation};
use crate::shared::Shared;
use crate::worker::{Acted, Worker};

/// After its time, whatever ought to go has gone after so long.
const LATE: Duration = Duration::from_secs(15);

/// See the module.
pub struct Audit {
    shared: Arc<Shared>,
    worker: Worker,
}

impl Audit {
    pub fn new(shared: &Arc<Shared>, chance: Random) -> Self {
        Self { shared: shared.clone(), worker: Worker::new(shared.clone(), "audit", chance) }
    }

    /// Looks through everything. `restart`: by another server, so that what was not answered is over.
    pub fn look(&mut self, life: &mut Life, restart: bool) {
        if restart {
            life.end_somehow();
            life.serve();
        }
        let mut found: Vec<Found> = (0..REPOSITORIES.len()).map(|repository| self.what_is_there(repository)).collect();
        for (repository, found) in found.iter_mut().enumerate() {
            self.read_all(repository, found);
        }
        for (repository, found) in found.iter().enumerate() {
            self.shared.model().settle(repository, found);
            self.lists(repository);
        }
        self.worker.list_repositories();
        self.rest(&found);
        if self.is_well() {
            let repository = self.worker.chance.index(REPOSITORIES.len());
            self.quota(repository, &found[repository]);
        }
        if self.is_well() {
            self.files_and_numbers(life, &found);
        }
    }

    fn is_well(&self) -> bool {
        self.shared.troubles().is_empty()
    }

    /// Of one with rules, what is there once they have been carried out.
    fn what_is_there(&mut self, repository: usize) -> Found {
        let begun = Instant::now();
        loop {
            let mut found = Found::default();
            let listed = self.worker.tags_now(repository).unwrap_or_default();
            for (tag, name) in TAGS.iter().enumerate() {
                let leads = self.worker.tag_now(repository, tag).flatten();
                if leads.is_some() != listed.contains(&tag) && !self.shared.model().is_passing(repository) {
                    let what = format!(
                        "{}:{} leads to {leads:?}, and the list has {listed:?}",
                        REPOSITORIES[repository], name
                    );
                    self.shared.trouble(&[REPOSITORIES[repository], name], what);
                }
                found.tags.push(leads);
            }
            for manifest in 0..self.shared.pool.manifests.len() {
                if self.worker.manifest_now(repository, manifest) == Some(true) {
                    found.manifests.insert(manifest);
                }
            }
            let model = self.shared.model();
            let is_settled = !model.is_passing(repository)
                || model.left_by_rules(&found) == found.manifests
                    && found.tags[crate::content::KEPT_TAGS..].iter().all(Option::is_none);
            let left = model.left_by_rules(&found);
            drop(model);
            if is_settled || !self.is_well() {
                return found;
            }
            if begun.elapsed() > patience(LATE) {
                let what =
                    format!("rules of {} leave {found:?}, and ought to leave {left:?}", REPOSITORIES[repository]);
                self.shared.trouble(&[REPOSITORIES[repository]], what);
                return found;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Everything that is named, to the last byte.
    fn read_all(&mut self, repository: usize, found: &mut Found) {
        let shared = self.shared.clone();
        let tagged: BTreeSet<usize> = found.tags.iter().copied().flatten().collect();
        if !tagged.is_subset(&found.manifests) {
            let what = format!("tags of {} lead to what is not there: {found:?}", REPOSITORIES[repository]);
            shared.trouble(&[REPOSITORIES[repository]], what);
        }
        for manifest in &found.manifests {
            found.blobs.extend(&shared.pool.manifests[*manifest].shape.blobs);
        }
        for blob in found.blobs.clone() {
            let name = format!("{} of {}", shared.pool.blobs[blob].digest, REPOSITORIES[repository]);
            if self.worker.blob_now(repository, blob, None) != Some(true) {
                shared.trouble(
                    &[REPOSITORIES[repository], crate::worker::short(&name)],
                    format!("a manifest names {name}, which is not there"),
                );
            }
            self.worker.read_blob(repository, blob);
            self.worker.look_for_blob(repository, blob);
        }
    }

    fn lists(&mut self, repository: usize) {
        self.worker.list_tags(repository);
        for subject in 0..self.shared.pool.manifests.len() {
            let is_subject = self.shared.pool.manifests.iter().any(|about| about.shape.subject == Some(subject));
            if is_subject {
                self.worker.list_referrers(repository, subject);
            }
        }
    }

    /// What nothing names goes, and so do uploads.
    fn rest(&mut self, found: &[Found]) {
        let begun = Instant::now();
        let mut left: Vec<(usize, usize)> = Vec::new();
        for (repository, found) in found.iter().enumerate() {
            let all = 0..self.shared.pool.blobs.len();
            left.extend(all.filter(|blob| !found.blobs.contains(blob)).map(|blob| (repository, blob)));
        }
        let longest = GRACE.max(UPLOAD_TIMEOUT) + patience(LATE);
        while self.is_well() {
            left.retain(|(repository, blob)| {
                let path = format!("/v2/{}/blobs/{}", REPOSITORIES[*repository], self.shared.pool.blobs[*blob].digest);
                // No HEAD: who asks so is about to push, and has the blob stay.
                self.worker.read(&Request::new("GET", path)).is_none_or(|answer| answer.status != 404)
            });
            let uploads = self.number("uploads_open");
            if left.is_empty() && uploads == Some(0) {
                return;
            }
            if begun.elapsed() > longest {
                let what =
                    format!("{left:?} (repository, blob) and {uploads:?} uploads have not gone after {longest:?}");
                return self.shared.trouble(&[], what);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn used_bytes(&self, found: &Found) -> u64 {
        let pool = &self.shared.pool;
        let blobs = found.blobs.iter().map(|blob| pool.blobs[*blob].bytes.len());
        let manifests = found.manifests.iter().map(|manifest| pool.manifests[*manifest].bytes.len());
        blobs.chain(manifests).sum::<usize>() as u64
    }

    /// What there is room for is taken, and not a byte more: a blob of the pool that the repository does not have decides it.
    fn quota(&mut self, repository: usize, found: &Found) {
        let used = self.used_bytes(found);
        if used > QUOTA_BYTES {
            let what = format!("{} has {used} bytes, more than it may", REPOSITORIES[repository]);
            return self.shared.trouble(&[REPOSITORIES[repository]], what);
        }
        let room = usize::try_from(QUOTA_BYTES - used).expect("a quota of memory's size");
        for (length, status) in [(room + 1, 403), (room, 201)] {
            let bytes = vec![b'q'; length];
            let digest = crate::content::digest(&bytes, false);
            let path = format!("/v2/{}/blobs/uploads/?digest={digest}", REPOSITORIES[repository]);
            let answer = self.worker.read(&Request::new("POST", path).with(&bytes));
            let answered = answer.as_ref().map(|answer| answer.status);
            if answered != Some(status) {
                let what = format!(
                    "{} has {used} bytes of {QUOTA_BYTES}, and {length} more are answered with {answer:?}",
                    REPOSITORIES[repository]
                );
                self.shared.trouble(&[REPOSITORIES[repository]], what);
            }
            if answered == Some(201) {
                let path = format!("/v2/{}/blobs/{digest}", REPOSITORIES[repository]);
                let gone = self.worker.read(&Request::new("DELETE", path)).map(|answer| answer.status);
                if gone != Some(202) {
                    self.shared.trouble(&[REPOSITORIES[repository]], format!("it is not deleted: {gone:?}"));
                }
            }
        }
    }

    /// With the server down, and up again: a number may be a minute old.
    fn files_and_numbers(&mut self, life: &mut Life, found: &[Found]) {
        let pool = &self.shared.pool;
        let all: BTreeSet<usize> = found.iter().flat_map(|found| &found.blobs).copied().collect();
        let bytes: u64 = all.iter().map(|blob| pool.blobs[*blob].bytes.len() as u64).sum();
        let expected = (all.len(), bytes);
        // A collection takes the files away after their rows.
        let begun = Instant::now();
        while files(&life.blobs()) != expected && begun.elapsed() < patience(LATE) {
            std::thread::sleep(Duration::from_millis(50));
        }
        life.end(Signal::TERM);
        let on_disk = files(&life.blobs());
        if on_disk != expected {
            self.shared.trouble(&[], format!("{on_disk:?} files and bytes lie there, and {expected:?} ought to"));
        }
        let uploads = files(&life.uploads());
        if uploads != (0, 0) {
            self.shared.trouble(&[], format!("{uploads:?} files and bytes of uploads lie there"));
        }
        let (is_well, said) = life.check();
        let line = format!("{} blobs of {bytes} bytes read, 0 problems", all.len());
        if !is_well || !said.contains(&line) {
            self.shared.trouble(&[], format!("a check says {said}, and ought to say {line}"));
        }
        life.serve();
        let manifests = found.iter().map(|found| found.manifests.len()).sum::<usize>();
        let tags = found.iter().map(|found| found.tags.iter().flatten().count()).sum::<usize>();
        let repositories = found.iter().filter(|found| !found.manifests.is_empty()).count();
        let expected = [
            ("blobs", all.len() as u64),
            ("stored_bytes", bytes),
            ("manifests", manifests as u64),
            ("tags", tags as u64),
            ("repositories", repositories as u64),
            ("lost_blobs", 0),
            ("damaged_files", 0),
            ("uploads_open", 0),
        ];
        for (name, expected) in expected {
            // It listens for those who ask for numbers a moment later.
            let told = until("the server tells numbers", || self.number(name));
            if told != expected {
                self.shared.trouble(&[], format!("{name} is {told}, and ought to be {expected}"));
            }
        }
    }

    /// One of the server's numbers.
    fn number(&self, name: &str) -> Option<u64> {
        let mut client = Client::new(self.shared.machine.clone(), METRICS_PORT);
        let Outcome::Answered(answer) = client.ask(&Request::new("GET", "/metrics")) else { return None };
        let text = String::from_utf8(answer.body).ok()?;
        let name = format!("dozen_registry_{name} ");
        text.lines().find_map(|line| line.strip_prefix(&name))?.trim().parse().ok()
    }

    /// A manifest with a blob, in the first repository: something that is certainly there.
    pub fn put_something(&mut self) -> bool {
        let blobs = self.shared.pool.manifests[0].shape.blobs.clone();
        for blob in blobs {
            let digest = self.shared.pool.blobs[blob].digest.clone();
            let shared = self.shared.clone();
            let path = format!("/v2/{}/blobs/uploads/?digest={digest}", REPOSITORIES[0]);
            let request = Request::new("POST", path).with(&shared.pool.blobs[blob].bytes);
            let given = self.worker.act(Operation::GiveBlob { repository: 0, blob }, 201, &request, |_, _, _, _| None);
            if !matches!(given, Acted::Done) {
                return false;
            }
        }
        self.worker.put_manifest(0, 0, None);
        true
    }
}

/// How many there are below this directory, and how long they are.
pub fn files(directory: &Path) -> (usize, u64) {
    let mut sum = (0, 0);
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        let more = if metadata.is_dir() { files(&entry.path()) } else { (1, metadata.len()) };
        sum = (sum.0 + more.0, sum.1 + more.1);
    }
    sum
}
