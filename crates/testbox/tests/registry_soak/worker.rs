//! A client: what it does next is chosen by chance alone, so that a seed chooses the same again; what is answered is compared
//! with the model at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dozen_testbox::Random;

use crate::content::{REPOSITORIES, TAGS};
use crate::http::{Answer, Client, Outcome, Request};
use crate::life::PORT;
use crate::model::{Operation, Presence};
use crate::shared::Shared;
use crate::uploads::Session;

/// While there is no server.
const PAUSE: Duration = Duration::from_millis(15);

/// See the module.
pub struct Worker {
    pub shared: Arc<Shared>,
    pub chance: Random,
    name: String,
    client: Client,
    /// With which server it is connected.
    age: u64,
    /// Uploads that were begun and left.
    pub sessions: Vec<Session>,
}

/// What became of something that changes the registry.
#[derive(Debug)]
pub enum Acted {
    Done,
    Refused(Answer),
    /// Nobody knows.
    Unknown,
}

/// Short, and unlike others.
pub fn short(digest: &str) -> &str {
    &digest[..digest.len().min(19)]
}

impl Worker {
    pub fn new(shared: Arc<Shared>, name: &str, chance: Random) -> Self {
        let client = Client::new(shared.machine.clone(), PORT);
        Self { shared, chance, name: name.to_owned(), client, age: u64::MAX, sessions: Vec::new() }
    }

    /// Until it is enough.
    pub fn work(mut self) {
        while !self.shared.is_over() {
            self.step();
        }
    }

    fn step(&mut self) {
        let repository = self.chance.index(REPOSITORIES.len());
        let blob = self.chance.index(self.shared.pool.blobs.len());
        let manifest = self.chance.index(self.shared.pool.manifests.len());
        let tag = self.chance.index(TAGS.len());
        match self.chance.below(100) {
            0..=24 => self.push_image(repository, manifest, tag),
            25..=39 => self.give_blob(repository, blob),
            40..=44 => self.go_on(),
            45..=54 => self.pull_tag(repository, tag),
            55..=60 => self.read_manifest(repository, manifest),
            61..=68 => self.read_blob(repository, blob),
            69..=72 => self.look_for_blob(repository, blob),
            73..=76 => self.list_tags(repository),
            77..=80 => self.list_referrers(repository, manifest),
            81..=82 => self.list_repositories(),
            83..=86 => self.delete_blob(repository, blob),
            87..=90 => self.delete_tag(repository, tag),
            91..=94 => self.delete_manifest(repository, manifest),
            95..=97 => self.put_manifest(repository, manifest, Some(tag)),
            _ => self.give_wrong_blob(repository, blob),
        }
    }

    /// What is asked, with what no server may answer.
    pub fn ask(&mut self, request: &Request<'_>) -> Outcome {
        let age = self.shared.age();
        if age != self.age {
            (self.client, self.age) = (Client::new(self.shared.machine.clone(), PORT), age);
        }
        let outcome = self.client.ask(request);
        let was_there = self.shared.was_there_since(age);
        let told = match &outcome {
            Outcome::Answered(answer) => {
                format!("{} {}", answer.status, if answer.status >= 400 { answer.text() } else { String::new() })
            }
            other => format!("{other:?}"),
        };
        let path = &request.path;
        let line = format!(
            "{} {} {path} [{} {:?}] {}",
            self.name,
            request.method,
            request.body.len(),
            request.manner,
            told.trim()
        );
        self.shared.note(&line);
        // Of a connection that broke the cause may be what was asked before.
        let broken = |what: &str| self.shared.trouble(&[&self.name], format!("{what}: {line}"));
        match &outcome {
            Outcome::Answered(answer) => {
                self.shared.answered.fetch_add(1, Ordering::Relaxed);
                if answer.status >= 500 && (was_there || answer.status != 503) {
                    self.shared.trouble(&about(path), format!("a fault of the server's: {line}"));
                }
            }
            Outcome::Silent => broken("no answer"),
            _ if matches!(request.manner, crate::http::Manner::Cut(_) | crate::http::Manner::Away) => {}
            _ if was_there => broken("the connection broke, and nobody had ended the server"),
            Outcome::NotSent => std::thread::sleep(PAUSE),
            Outcome::Lost => {
                self.shared.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
        outcome
    }

    /// An answer to something that changes nothing.
    pub fn read(&mut self, request: &Request<'_>) -> Option<Answer> {
        match self.ask(request) {
            Outcome::Answered(answer) if answer.status < 500 => Some(answer),
            _ => None,
        }
    }

    /// Something that changes the registry. Before the model knows of it, `judge` compares the answer with what it knows.
    pub fn act(
        &mut self,
        operation: Operation,
        success: u16,
        request: &Request<'_>,
        judge: impl FnOnce(&Shared, u64, u64, &Answer) -> Option<String>,
    ) -> Acted {
        let ticket = self.shared.model().begin(operation);
        let outcome = self.ask(request);
        let mut model = self.shared.model();
        let (acted, judged) = match outcome {
            Outcome::NotSent => {
                model.refused(ticket);
                return Acted::Unknown;
            }
            Outcome::Answered(answer) if answer.status == success => (Acted::Done, Some(answer)),
            Outcome::Answered(answer) if (400..500).contains(&answer.status) => {
                model.refused(ticket);
                (Acted::Refused(answer.clone()), Some(answer))
            }
            Outcome::Answered(answer) if answer.status < 400 => {
                // What a mount begins in its place.
                model.refused(ticket);
                (Acted::Refused(answer.clone()), Some(answer))
            }
            _ => {
                model.lost(ticket);
                return Acted::Unknown;
            }
        };
        let now = model.now();
        drop(model);
        let answer = judged.expect("there is an answer");
        let wrong = judge(&self.shared, ticket.begin, now, &answer);
        if matches!(acted, Acted::Done) {
            self.shared.model().done(ticket);
        }
        if let Some(wrong) = wrong {
            let told =
                format!("{} {} answered {} {}: {wrong}", request.method, request.path, answer.status, answer.text());
            // Of a manifest that is refused it is what it names.
            let text = String::from_utf8_lossy(&answer.body);
            let missing = text.split("\"digest\":\"").nth(1).and_then(|rest| rest.split('"').next());
            match missing.filter(|_| answer.status == 400) {
                Some(missing) => self.shared.trouble(&[about(&request.path)[0], short(missing)], told),
                None => self.shared.trouble(&about(&request.path), told),
            }
        }
        acted
    }

    pub fn moment(&self) -> u64 {
        self.shared.model().now()
    }

    fn delete_blob(&mut self, repository: usize, blob: usize) {
        let path = format!("/v2/{}/blobs/{}", REPOSITORIES[repository], self.shared.pool.blobs[blob].digest);
        let operation = Operation::DeleteBlob { repository, blob };
        self.act(operation, 202, &Request::new("DELETE", path), |shared, begin, end, answer| {
            let model = shared.model();
            let (is_named, is_there) =
                (model.names(repository, blob, begin, end), model.blob(repository, blob, begin, end));
            let is_right = match answer.status {
                202 => is_named != Presence::Must && is_there != Presence::MustNot,
                404 => is_there != Presence::Must,
                405 => is_named != Presence::MustNot,
                _ => false,
            };
            (!is_right).then(|| format!("the blob is there: {is_there:?}, it is named: {is_named:?}"))
        });
    }

    fn delete_tag(&mut self, repository: usize, tag: usize) {
        let path = format!("/v2/{}/manifests/{}", REPOSITORIES[repository], TAGS[tag]);
        let operation = Operation::DeleteTag { repository, tag };
        self.act(operation, 202, &Request::new("DELETE", path), |shared, begin, end, answer| {
            let possible = shared.model().tag(repository, tag, begin, end);
            let is_right = match answer.status {
                202 => possible.iter().any(Option::is_some),
                404 => possible.contains(&None),
                _ => false,
            };
            (!is_right).then(|| format!("the tag leads to one of {possible:?}"))
        });
    }

    fn delete_manifest(&mut self, repository: usize, manifest: usize) {
        // What rules keep there is known only as long as nobody else takes any of it.
        if self.shared.model().is_passing(repository) {
            return self.list_tags(repository);
        }
        let path =
            format!("/v2/{}/manifests/{}", REPOSITORIES[repository], self.shared.pool.manifests[manifest].digest);
        let operation = Operation::DeleteManifest { repository, manifest };
        self.act(operation, 202, &Request::new("DELETE", path), |shared, begin, end, answer| {
            let is_there = shared.model().manifest(repository, manifest, begin, end);
            let is_right = match answer.status {
                202 => is_there.allows(true),
                404 => is_there.allows(false),
                _ => false,
            };
            (!is_right).then(|| format!("the manifest is there: {is_there:?}"))
        });
    }

    /// A manifest, and before it whatever it needs.
    fn push_image(&mut self, repository: usize, manifest: usize, tag: usize) {
        let shape = self.shared.pool.manifests[manifest].shape.clone();
        for child in shape.children {
            let blobs = self.shared.pool.manifests[child].shape.blobs.clone();
            blobs.into_iter().for_each(|blob| self.bring_blob(repository, blob));
            self.put_manifest(repository, child, None);
        }
        shape.blobs.into_iter().for_each(|blob| self.bring_blob(repository, blob));
        let tag = (!self.chance.once_in(4)).then_some(tag);
        self.put_manifest(repository, manifest, tag);
    }

    /// As clients do: what is there is not pushed.
    fn bring_blob(&mut self, repository: usize, blob: usize) {
        let asks = !self.chance.once_in(3);
        let way = self.chance.split();
        if !(asks && self.look_for_blob_now(repository, blob)) {
            self.give_blob_by(repository, blob, way);
        }
    }

    pub fn put_manifest(&mut self, repository: usize, manifest: usize, tag: Option<usize>) {
        let shared = self.shared.clone();
        let pushed = &shared.pool.manifests[manifest];
        let tag = tag.filter(|_| pushed.may_have_tag());
        let reference = tag.map_or(pushed.digest.as_str(), |tag| TAGS[tag]);
        let path = format!("/v2/{}/manifests/{reference}", REPOSITORIES[repository]);
        let request = Request::new("PUT", path).with(&pushed.bytes).field("Content-Type", pushed.media_type);
        shared.note(&format!("{} is about to put {} there: {}", self.name, short(&pushed.digest), request.path));
        let operation = Operation::PutManifest { repository, manifest, tag };
        self.act(operation, 201, &request, |shared, begin, end, answer| {
            let model = shared.model();
            let takes = model.takes(repository, manifest, begin, end);
            // One that is there already is not looked through again.
            let is_new = model.manifest(repository, manifest, begin - 1, begin - 1) == Presence::MustNot;
            match answer.status {
                201 if is_new && takes == Presence::MustNot => Some("something that it names is not there".to_owned()),
                201 if answer.field("docker-content-digest") != Some(&pushed.digest) => {
                    Some("another digest".to_owned())
                }
                201 => None,
                // Room there may be or not.
                403 => None,
                400 if takes != Presence::Must => None,
                400 => Some(format!("all that it names is there: {}", model.why(repository, manifest, begin, end))),
                _ => Some("nobody answers so".to_owned()),
            }
        });
    }
}

/// Words by which a line is about the same: the repository, and what of it.
fn about(path: &str) -> Vec<&str> {
    let path = path.strip_prefix("/v2/").unwrap_or(path);
    let split = path.split_once("/blobs/").or_else(|| path.split_once("/manifests/"));
    let (repository, rest) = split.unwrap_or((path, ""));
    let rest = rest.rsplit(['/', '=']).next().unwrap_or(rest);
    vec![repository, short(rest)]
}
