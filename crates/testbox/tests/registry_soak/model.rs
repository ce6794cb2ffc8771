//! What a registry has to have by what it has answered: plain data. Repositories, tags, blobs and manifests are numbers of a
//! pool; what was asked and answered comes in, and out comes what may be found.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::register::{Effect, Moment, Register};

/// What a manifest names, by numbers.
#[derive(Debug, Clone, Default)]
pub struct Shape {
    pub blobs: Vec<usize>,
    pub children: Vec<usize>,
    pub subject: Option<usize>,
}

/// What changes a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// By an upload, or a mount.
    GiveBlob {
        repository: usize,
        blob: usize,
    },
    DeleteBlob {
        repository: usize,
        blob: usize,
    },
    PutManifest {
        repository: usize,
        manifest: usize,
        tag: Option<usize>,
    },
    /// With its tags.
    DeleteManifest {
        repository: usize,
        manifest: usize,
    },
    DeleteTag {
        repository: usize,
        tag: usize,
    },
}

/// One that has begun.
#[derive(Debug, Clone, Copy)]
pub struct Ticket {
    id: u64,
    operation: Operation,
    pub begin: Moment,
}

/// Whether something is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    Must,
    May,
    MustNot,
}

impl Presence {
    /// Whether it may have been found so.
    pub fn allows(self, found: bool) -> bool {
        self != if found { Self::MustNot } else { Self::Must }
    }
}

/// What the server was told, as far as it matters here.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// What nothing names stays so long.
    pub grace: Duration,
    /// Repositories from this one on lose by rules of retention all but some tags, and what nothing needs.
    pub first_passing: usize,
    /// Tags below this one stay there.
    pub kept_tags: usize,
}

#[derive(Debug, Clone)]
struct Blob {
    held: Register<()>,
    /// When it was certainly brought, or asked for and found: the last ones.
    seen: VecDeque<Sighting>,
}

/// It was there at one moment between these two, and nobody knows at which.
#[derive(Debug, Clone, Copy)]
struct Sighting {
    begin: Moment,
    end: Moment,
}

/// Of a blob, so many are remembered: more than clients are at work.
const SIGHTINGS: usize = 16;

#[derive(Debug, Clone)]
struct Repository {
    blobs: Vec<Blob>,
    manifests: Vec<Register<()>>,
    tags: Vec<Register<usize>>,
}

/// What was found in a repository while nobody changed anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    pub tags: Vec<Option<usize>>,
    pub manifests: BTreeSet<usize>,
    pub blobs: BTreeSet<usize>,
}

/// See the module.
#[derive(Debug)]
pub struct Model {
    begun: Instant,
    last: Moment,
    ids: u64,
    terms: Terms,
    shapes: Vec<Shape>,
    repositories: Vec<Repository>,
}

impl Model {
    pub fn new(terms: Terms, shapes: Vec<Shape>, repositories: usize, blobs: usize, tags: usize) -> Self {
        let repository = Repository {
            blobs: vec![Blob { held: Register::new(None, 0), seen: VecDeque::new() }; blobs],
            manifests: vec![Register::new(None, 0); shapes.len()],
            tags: vec![Register::new(None, 0); tags],
        };
        let repositories = vec![repository; repositories];
        Self { begun: Instant::now(), last: 0, ids: 0, terms, shapes, repositories }
    }

    /// Later than all that was before.
    pub fn now(&mut self) -> Moment {
        let since = u64::try_from(self.begun.elapsed().as_micros()).expect("a soak ends before that");
        self.last = since.max(self.last + 1);
        self.last
    }

    /// Something is about to be asked.
    pub fn begin(&mut self, operation: Operation) -> Ticket {
        let now = self.now();
        self.begin_at(operation, now)
    }

    fn begin_at(&mut self, operation: Operation, now: Moment) -> Ticket {
        self.ids += 1;
        let id = self.ids;
        self.each(operation, Part::Begin(id, now));
        Ticket { id, operation, begin: now }
    }

    /// It was answered with success.
    pub fn done(&mut self, ticket: Ticket) {
        let now = self.now();
        self.done_at(ticket, now);
    }

    fn done_at(&mut self, ticket: Ticket, now: Moment) {
        self.each(ticket.operation, Part::Done(ticket.id, now));
        if let Operation::GiveBlob { repository, blob } = ticket.operation {
            self.see_at(repository, blob, ticket.begin, now);
        }
    }

    /// It was refused.
    pub fn refused(&mut self, ticket: Ticket) {
        self.each(ticket.operation, Part::Refused(ticket.id));
    }

    /// It was not answered.
    pub fn lost(&mut self, ticket: Ticket) {
        self.each(ticket.operation, Part::Lost(ticket.id));
    }

    /// A blob was asked for after this moment, and was there.
    pub fn see(&mut self, repository: usize, blob: usize, begin: Moment) {
        let now = self.now();
        self.see_at(repository, blob, begin, now);
    }

    fn see_at(&mut self, repository: usize, blob: usize, begin: Moment, end: Moment) {
        let seen = &mut self.repositories[repository].blobs[blob].seen;
        if seen.len() == SIGHTINGS {
            seen.pop_front();
        }
        seen.push_back(Sighting { begin, end });
    }

    /// The server is over.
    pub fn ended(&mut self) {
        let now = self.now();
        self.ended_at(now);
    }

    fn ended_at(&mut self, now: Moment) {
        for repository in &mut self.repositories {
            repository.blobs.iter_mut().for_each(|blob| blob.held.ended(now));
            repository.manifests.iter_mut().for_each(|manifest| manifest.ended(now));
            repository.tags.iter_mut().for_each(|tag| tag.ended(now));
        }
    }

    /// Nobody changes anything, and this is there: from now on it is what was answered.
    pub fn settle(&mut self, repository: usize, found: &Found) {
        let now = self.now();
        let settled = &mut self.repositories[repository];
        for (number, blob) in settled.blobs.iter_mut().enumerate() {
            blob.held = Register::new(found.blobs.contains(&number).then_some(()), now);
        }
        for (number, manifest) in settled.manifests.iter_mut().enumerate() {
            *manifest = Register::new(found.manifests.contains(&number).then_some(()), now);
        }
        for (tag, value) in settled.tags.iter_mut().zip(&found.tags) {
            *tag = Register::new(*value, now);
        }
    }

    fn each(&mut self, operation: Operation, part: Part) {
        match operation {
            Operation::GiveBlob { repository, blob } => {
                part.apply(&mut self.repositories[repository].blobs[blob].held, Effect::Set(Some(())));
            }
            Operation::DeleteBlob { repository, blob } => {
                part.apply(&mut self.repositories[repository].blobs[blob].held, Effect::Set(None));
            }
            Operation::PutManifest { repository, manifest, tag } => {
                part.apply(&mut self.repositories[repository].manifests[manifest], Effect::Set(Some(())));
                if let Some(tag) = tag {
                    part.apply(&mut self.repositories[repository].tags[tag], Effect::Set(Some(manifest)));
                }
            }
            Operation::DeleteManifest { repository, manifest } => {
                let repository = &mut self.repositories[repository];
                part.apply(&mut repository.manifests[manifest], Effect::Set(None));
                repository.tags.iter_mut().for_each(|tag| part.apply(tag, Effect::Clear(manifest)));
            }
            Operation::DeleteTag { repository, tag } => {
                part.apply(&mut self.repositories[repository].tags[tag], Effect::Set(None));
            }
        }
    }

    /// What a tag may lead to between two moments.
    pub fn tag(&self, repository: usize, tag: usize, begin: Moment, end: Moment) -> BTreeSet<Option<usize>> {
        let mut possible = self.repositories[repository].tags[tag].possible(begin, end);
        if repository >= self.terms.first_passing && tag >= self.terms.kept_tags {
            possible.insert(None);
        }
        possible
    }

    /// Whether a manifest is there.
    pub fn manifest(&self, repository: usize, manifest: usize, begin: Moment, end: Moment) -> Presence {
        let possible = self.repositories[repository].manifests[manifest].possible(begin, end);
        if !possible.contains(&Some(())) {
            return Presence::MustNot;
        }
        let must = match repository >= self.terms.first_passing {
            true => self.kept(repository, begin, end).contains(&manifest),
            false => !possible.contains(&None),
        };
        if must { Presence::Must } else { Presence::May }
    }

    /// What certainly stays in a repository that has rules: what has a tag that stays, and what that names.
    fn kept(&self, repository: usize, begin: Moment, end: Moment) -> BTreeSet<usize> {
        let tags = &self.repositories[repository].tags[..self.terms.kept_tags];
        let mut rest: Vec<usize> = Vec::new();
        for tag in tags {
            let possible = tag.possible(begin, end);
            if possible.len() == 1 {
                rest.extend(possible.into_iter().flatten());
            }
        }
        let mut kept = BTreeSet::new();
        while let Some(manifest) = rest.pop() {
            if kept.insert(manifest) {
                rest.extend(&self.shapes[manifest].children);
            }
        }
        kept
    }

    /// What stays of this in a repository that has rules, once these have been carried out (`retention.rs` of the server's).
    pub fn left_by_rules(&self, found: &Found) -> BTreeSet<usize> {
        let mut rest: Vec<usize> = found.tags[..self.terms.kept_tags].iter().copied().flatten().collect();
        let mut left = BTreeSet::new();
        while let Some(manifest) = rest.pop() {
            if found.manifests.contains(&manifest) && left.insert(manifest) {
                rest.extend(&self.shapes[manifest].children);
                rest.extend(self.shapes[manifest].subject);
                rest.extend(found.manifests.iter().filter(|about| self.shapes[**about].subject == Some(manifest)));
            }
        }
        left
    }

    /// Whether rules of retention count for it.
    pub fn is_passing(&self, repository: usize) -> bool {
        repository >= self.terms.first_passing
    }

    /// Whether a repository has a blob.
    pub fn blob(&self, repository: usize, blob: usize, begin: Moment, end: Moment) -> Presence {
        if self.names(repository, blob, begin, end) == Presence::Must {
            return Presence::Must;
        }
        let Blob { held, seen } = &self.repositories[repository].blobs[blob];
        let possible = held.possible(begin, end);
        if !possible.contains(&Some(())) {
            return Presence::MustNot;
        }
        // The server counts whole seconds.
        let certain = self.terms.grace.saturating_sub(Duration::from_secs(1));
        let certain = u64::try_from(certain.as_micros()).expect("seconds");
        let stays = !possible.contains(&None) && seen.iter().any(|seen| seen.end < begin && end < seen.begin + certain);
        if stays { Presence::Must } else { Presence::May }
    }

    /// Whether manifests of the repository name a blob.
    pub fn names(&self, repository: usize, blob: usize, begin: Moment, end: Moment) -> Presence {
        let naming = self.shapes.iter().enumerate().filter(|(_, shape)| shape.blobs.contains(&blob));
        let mut names = Presence::MustNot;
        for (manifest, _) in naming {
            match self.manifest(repository, manifest, begin, end) {
                Presence::Must => return Presence::Must,
                Presence::May => names = Presence::May,
                Presence::MustNot => {}
            }
        }
        names
    }

    /// Whether all is there that a manifest needs to be taken.
    pub fn takes(&self, repository: usize, manifest: usize, begin: Moment, end: Moment) -> Presence {
        let shape = &self.shapes[manifest];
        let blobs = shape.blobs.iter().map(|blob| self.blob(repository, *blob, begin, end));
        let children = shape.children.iter().map(|child| self.manifest(repository, *child, begin, end));
        let mut all = Presence::Must;
        for needed in blobs.chain(children) {
            match needed {
                Presence::MustNot => return Presence::MustNot,
                Presence::May => all = Presence::May,
                Presence::Must => {}
            }
        }
        all
    }

    /// Why a manifest's blobs have to be there, for people.
    pub fn why(&self, repository: usize, manifest: usize, begin: Moment, end: Moment) -> String {
        let mut why = String::new();
        for blob in &self.shapes[manifest].blobs {
            let naming = self.shapes.iter().enumerate().filter(|(_, shape)| shape.blobs.contains(blob));
            let naming = naming.map(|(other, _)| (other, self.manifest(repository, other, begin, end)));
            let naming: Vec<_> = naming.filter(|(_, presence)| *presence != Presence::MustNot).collect();
            let seen = &self.repositories[repository].blobs[*blob].seen;
            why += &format!("blob {blob} was seen at {seen:?}, named by {naming:?}, looked for in {begin}-{end}; ");
        }
        why
    }

    /// Whether the list of all repositories has this one.
    pub fn is_listed(&self, repository: usize, begin: Moment, end: Moment) -> Presence {
        let all = (0..self.shapes.len()).map(|manifest| self.manifest(repository, manifest, begin, end));
        all.fold(Presence::MustNot, |known, manifest| match (known, manifest) {
            (Presence::Must, _) | (_, Presence::Must) => Presence::Must,
            (Presence::May, _) | (_, Presence::May) => Presence::May,
            _ => Presence::MustNot,
        })
    }
}

/// What becomes of a write in each register that it changes.
#[derive(Debug, Clone, Copy)]
enum Part {
    Begin(u64, Moment),
    Done(u64, Moment),
    Refused(u64),
    Lost(u64),
}

impl Part {
    fn apply<V: Copy + Ord>(self, register: &mut Register<V>, effect: Effect<V>) {
        match self {
            Self::Begin(id, now) => register.begin(id, effect, now),
            Self::Done(id, now) => register.done(id, now),
            Self::Refused(id) => register.refused(id),
            Self::Lost(id) => register.lost(id),
        }
    }
}

#[cfg(test)]
mod tests;
