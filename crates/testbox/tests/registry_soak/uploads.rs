//! Ways in which a blob comes to a repository: at once, in one stream, in chunks, after a connection that broke, by another
//! repository's; with a wrong digest, and not to its end.

use std::sync::atomic::Ordering;
use std::time::Instant;

use dozen_testbox::Random;

use crate::content::REPOSITORIES;
use crate::http::{Answer, Manner, Request};
use crate::life::UPLOAD_TIMEOUT;
use crate::model::{Operation, Presence};
use crate::shared::Shared;
use crate::worker::{Acted, Worker};

/// Left uploads that a client remembers; of further ones it forgets the first.
const SESSIONS: usize = 4;

/// An upload that was begun.
#[derive(Debug, Clone)]
pub struct Session {
    repository: usize,
    blob: usize,
    location: String,
    /// So much was answered.
    known: usize,
    /// So much may have come.
    sent: usize,
    since: Since,
    /// Nobody has heard how a request of it was answered: if there was no room for it, the upload is over.
    may_be_refused: bool,
}

/// Since when an upload may be idle, and in which directory it is.
#[derive(Debug, Clone, Copy)]
struct Since {
    touched: Instant,
    moves: u64,
}

impl Since {
    /// Before something is asked: the server does it later.
    fn now(shared: &Shared) -> Self {
        Self { touched: Instant::now(), moves: shared.moves.load(Ordering::SeqCst) }
    }
}

impl Session {
    /// Whether the server may not know of it any more.
    fn may_be_gone(&self, shared: &Shared) -> bool {
        // A server that is slow to collect has it for longer; one that is quick never sooner than it says.
        let margin = std::time::Duration::from_millis(100);
        self.may_be_refused
            || self.since.touched.elapsed() + margin >= UPLOAD_TIMEOUT
            || self.since.moves != shared.moves.load(Ordering::SeqCst)
    }
}

impl Worker {
    pub fn give_blob(&mut self, repository: usize, blob: usize) {
        let way = self.chance.split();
        self.give_blob_by(repository, blob, way);
    }

    pub fn give_blob_by(&mut self, repository: usize, blob: usize, mut way: Random) {
        match way.below(12) {
            0..=2 => self.give_at_once(repository, blob, Manner::Whole),
            3 => self.give_at_once(repository, blob, Manner::Chunked),
            4 => {
                let length = self.shared.pool.blobs[blob].bytes.len();
                let manner = if way.once_in(2) { Manner::Away } else { Manner::Cut(way.index(length + 1)) };
                // All of it may have come.
                self.give_at_once(repository, blob, manner);
            }
            5 | 6 => self.mount(repository, blob, &mut way),
            _ => {
                if let Some(session) = self.begin_upload(repository, blob) {
                    self.upload(session, &mut way);
                }
            }
        }
    }

    fn give_at_once(&mut self, repository: usize, blob: usize, manner: Manner) {
        let shared = self.shared.clone();
        let given = &shared.pool.blobs[blob];
        let path = format!("/v2/{}/blobs/uploads/?digest={}", REPOSITORIES[repository], given.digest);
        let request = Request::new("POST", path).with(&given.bytes).manner(manner);
        self.act(Operation::GiveBlob { repository, blob }, 201, &request, |_, _, _, answer| taken(answer, &[403, 429]));
    }

    fn mount(&mut self, repository: usize, blob: usize, way: &mut Random) {
        let shared = self.shared.clone();
        let digest = &shared.pool.blobs[blob].digest;
        let from = (!way.once_in(4)).then(|| way.index(REPOSITORIES.len()));
        let mut path = format!("/v2/{}/blobs/uploads/?mount={digest}", REPOSITORIES[repository]);
        if let Some(from) = from {
            path += &format!("&from={}", REPOSITORIES[from].replace('/', "%2F"));
        }
        let request = Request::new("POST", path);
        let since = Since::now(&shared);
        let acted = self.act(Operation::GiveBlob { repository, blob }, 201, &request, |shared, begin, end, answer| {
            let model = shared.model();
            let sources = from.map_or(0..REPOSITORIES.len(), |from| from..from + 1);
            // One that brings it here at this moment is a source, too, if none was said.
            let there: Vec<Presence> = sources.map(|source| model.blob(source, blob, begin, end)).collect();
            match answer.status {
                201 if there.iter().all(|there| *there == Presence::MustNot) => Some("nobody has it".to_owned()),
                202 if there.contains(&Presence::Must) => Some("it is there".to_owned()),
                202 => None,
                _ => taken(answer, &[403, 429]),
            }
        });
        if let Acted::Refused(answer) = acted
            && answer.status == 202
            && let Some(session) = session(repository, blob, since, &answer)
        {
            self.upload(session, way);
        }
    }

    fn begin_upload(&mut self, repository: usize, blob: usize) -> Option<Session> {
        let path = format!("/v2/{}/blobs/uploads/", REPOSITORIES[repository]);
        let since = Since::now(&self.shared);
        let answer = self.read(&Request::new("POST", path))?;
        // Many are left open.
        if !matches!(answer.status, 202 | 429) {
            self.shared.trouble(&[REPOSITORIES[repository]], format!("an upload does not begin: {answer:?}"));
        }
        if answer.status == 202 { session(repository, blob, since, &answer) } else { None }
    }

    /// Brings the rest, in a way that chance says; perhaps not to its end.
    fn upload(&mut self, mut session: Session, way: &mut Random) {
        let shared = self.shared.clone();
        let content = &shared.pool.blobs[session.blob].bytes;
        let chunks = way.below(4);
        for _ in 0..chunks {
            let left = content.len() - session.known;
            if left < 2 {
                break;
            }
            // Of one byte nobody can tell by its range that it is there.
            let length = 2 + way.index(left - 1).min(left - 2);
            let chunk = &content[session.known..session.known + length];
            let mut request = Request::new("PATCH", session.location.clone()).with(chunk);
            match way.below(8) {
                0 | 1 => request = request.manner(Manner::Chunked),
                2 => request = request.manner(Manner::Cut(way.index(length))),
                3 => request = request.manner(Manner::Away),
                _ => {
                    let range = format!("{}-{}", session.known, session.known + length - 1);
                    request = request.field("Content-Range", range);
                }
            }
            let asked = Instant::now();
            let answer = self.read(&request);
            session.sent = session.sent.max(session.known + length);
            match answer {
                Some(answer) if answer.status == 202 => {
                    session.known += length;
                    session.since.touched = asked;
                }
                Some(answer) => return self.judge_refused(&session, &answer),
                // It went away, or the server did.
                None => {
                    session.may_be_refused = true;
                    return self.leave(session);
                }
            }
        }
        match way.below(10) {
            0 => self.leave(session),
            1 => {
                let answer = self.read(&Request::new("DELETE", session.location.clone()));
                if let Some(answer) = answer.filter(|answer| answer.status != 204) {
                    self.judge_refused(&session, &answer);
                }
            }
            _ => self.finish(session, way.once_in(8)),
        }
    }

    fn finish(&mut self, session: Session, goes_away: bool) {
        let shared = self.shared.clone();
        let Session { repository, blob, .. } = session;
        let given = &shared.pool.blobs[blob];
        let path = format!("{}?digest={}", session.location, given.digest);
        let manner = if goes_away { Manner::Away } else { Manner::Whole };
        let request = Request::new("PUT", path).with(&given.bytes[session.known..]).manner(manner);
        self.act(Operation::GiveBlob { repository, blob }, 201, &request, |shared, _, _, answer| match answer.status {
            404 if session.may_be_gone(shared) => None,
            _ => taken(answer, &[403, 429]),
        });
    }

    fn leave(&mut self, session: Session) {
        if self.sessions.len() == SESSIONS {
            self.sessions.remove(0);
        }
        self.sessions.push(session);
    }

    /// With an upload that was left, as far as it has come; it may have been another server's.
    pub fn go_on(&mut self) {
        let mut way = self.chance.split();
        if self.sessions.is_empty() {
            return self.list_repositories();
        }
        let mut session = self.sessions.remove(0);
        let Some(answer) = self.read(&Request::new("GET", session.location.clone())) else {
            return self.sessions.push(session);
        };
        if answer.status != 204 {
            return self.judge_refused(&session, &answer);
        }
        let range = answer.field("range").and_then(|range| range.strip_prefix("0-")?.parse::<usize>().ok());
        let there = range.map(|last| if last == 0 { 0 } else { last + 1 });
        match there {
            // Whoever was cut off may still be writing: it is asked again another time.
            Some(there) if (session.known..=session.sent.max(session.known)).contains(&there) => {
                let is_whole = there == session.sent.max(session.known);
                session.known = there;
                if is_whole { self.upload(session, &mut way) } else { self.upload_at(session) }
            }
            _ => {
                let what =
                    format!("an upload has come as far as {there:?}, and of {session:?} was answered what it says");
                self.shared.trouble(&[&session.location.clone()], what);
            }
        }
    }

    /// The same, where more may come of what was cut off: refused if it has.
    fn upload_at(&mut self, session: Session) {
        let shared = self.shared.clone();
        let given = &shared.pool.blobs[session.blob];
        let rest = &given.bytes[session.known..];
        let (repository, blob) = (session.repository, session.blob);
        let path = format!("{}?digest={}", session.location, given.digest);
        let mut request = Request::new("PUT", path).with(rest);
        if !rest.is_empty() {
            request = request.field("Content-Range", format!("{}-{}", session.known, given.bytes.len() - 1));
        }
        self.act(Operation::GiveBlob { repository, blob }, 201, &request, |shared, _, _, answer| match answer.status {
            404 if session.may_be_gone(shared) => None,
            416 => None,
            _ => taken(answer, &[403, 429]),
        });
    }

    /// An upload is refused for being gone, or for want of room.
    fn judge_refused(&mut self, session: &Session, answer: &Answer) {
        let is_right = match answer.status {
            404 => session.may_be_gone(&self.shared),
            403 => true,
            _ => false,
        };
        if !is_right {
            let what = format!("an upload is refused: {} {}, {session:?}", answer.status, answer.text());
            self.shared.trouble(&[&session.location], what);
        }
    }

    /// What has another digest than is said is no blob.
    pub fn give_wrong_blob(&mut self, repository: usize, blob: usize) {
        let shared = self.shared.clone();
        let other = (blob + 1) % shared.pool.blobs.len();
        let path = format!("/v2/{}/blobs/uploads/?digest={}", REPOSITORIES[repository], shared.pool.blobs[blob].digest);
        let request = Request::new("POST", path).with(&shared.pool.blobs[other].bytes);
        if let Some(answer) = self.read(&request).filter(|answer| !matches!(answer.status, 400 | 403 | 429)) {
            shared.trouble(&[REPOSITORIES[repository]], format!("what is wrong is taken: {answer:?}"));
        }
    }
}

fn session(repository: usize, blob: usize, since: Since, answer: &Answer) -> Option<Session> {
    let location = answer.field("location")?.to_owned();
    Some(Session { repository, blob, location, known: 0, sent: 0, since, may_be_refused: false })
}

/// Nothing, if it was taken, or refused so.
fn taken(answer: &Answer, refusals: &[u16]) -> Option<String> {
    let is_right = answer.status == 201 || refusals.contains(&answer.status);
    (!is_right).then(|| "nobody answers so".to_owned())
}
