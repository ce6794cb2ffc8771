//! Blobs: layers and configurations, piece by piece, and on from where it stopped if a connection breaks.

use bytes::Bytes;
use dozen_fetch::Answer;
use dozen_model::Digest;
use http::{HeaderMap, HeaderValue, Method, header};

use crate::again::{Again, Failed, again};
use crate::client::{Asked, random};
use crate::elsewhere::Elsewhere;
use crate::error::why;
use crate::manifest::digest_of;
use crate::range::{Resumed, is_part, resumed};
use crate::{Endpoint, RegistryError, Repository};

/// A connection that has brought so much was no failure, whatever became of it.
const PROGRESS_BYTES: u64 = 4 * 1024 * 1024;

/// A blob that comes, or a part of one. It is the caller's to compare the digest: what comes is anything until then.
#[derive(Debug)]
pub struct Blob<'r> {
    repository: &'r Repository,
    source: Source,
    /// Where the next byte stands in the whole.
    at: u64,
    /// Where the last one does that is wanted, and one more.
    end: u64,
    answer: Answer,
    /// Of an answer that began anew: what is there already.
    skip_bytes: u64,
    failures: u32,
    failed_at: u64,
}

/// Where a blob comes from, each time that it is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    endpoint: Endpoint,
    /// `None`: the registry.
    elsewhere: Option<Elsewhere>,
    asked: Asked,
    pub(crate) size_bytes: u64,
}

impl Repository {
    /// Begins with a blob that has to have so many bytes.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn blob(&self, digest: &Digest, size_bytes: u64) -> Result<Blob<'_>, RegistryError> {
        let asked = self.asked_for_blob(digest);
        let begin = |endpoint: &Endpoint| {
            let source = Source { endpoint: endpoint.clone(), elsewhere: None, asked: asked.clone(), size_bytes };
            self.begin(source)
        };
        self.of_each(|endpoint| Box::pin(begin(endpoint))).await
    }

    /// The same from where a manifest says that it is.
    pub(crate) async fn blob_elsewhere(
        &self,
        endpoint: Endpoint,
        place: Elsewhere,
        digest: &Digest,
        size_bytes: u64,
    ) -> Result<Blob<'_>, RegistryError> {
        let asked = self.asked_for_blob(digest);
        self.begin(Source { endpoint, elsewhere: Some(place), asked, size_bytes }).await
    }

    fn asked_for_blob(&self, digest: &Digest) -> Asked {
        Asked {
            method: Method::GET,
            below: format!("{}/blobs/{digest}", self.name()),
            headers: HeaderMap::new(),
            what: format!("the blob {digest}"),
        }
    }

    async fn begin(&self, source: Source) -> Result<Blob<'_>, RegistryError> {
        let answer = self.ask_source(&source, None).await?;
        if let Some(found) = answer.length().filter(|length| *length != source.size_bytes) {
            return Err(wrong_size(&source, found));
        }
        let end = source.size_bytes;
        Ok(Blob { repository: self, source, at: 0, end, answer, skip_bytes: 0, failures: 0, failed_at: 0 })
    }

    /// A part of it alone; `None`: who is asked knows nothing of parts.
    pub(crate) async fn part(&self, source: Source, begin: u64, end: u64) -> Result<Option<Blob<'_>>, RegistryError> {
        let answer = self.ask_source(&source, Some((begin, end))).await?;
        if !is_part(answer.status.as_u16(), answer.field("content-range"), begin, end, source.size_bytes) {
            return Ok(None);
        }
        let part =
            Blob { repository: self, source, at: begin, end, answer, skip_bytes: 0, failures: 0, failed_at: begin };
        Ok(Some(part))
    }

    /// From some place to the end, however it is had: where nobody knows of parts, what is before it is read over.
    pub(crate) async fn rest(&self, source: Source, begin: u64) -> Result<Blob<'_>, RegistryError> {
        let end = source.size_bytes;
        let answer = self.ask_source(&source, Some((begin, end))).await?;
        let field = answer.field("content-range");
        let skip_bytes = match resumed(answer.status.as_u16(), field, begin, end) {
            Resumed::Goes => 0,
            Resumed::Again(bytes) => bytes,
            Resumed::Wrong(why) => return Err(self.broken(&source.endpoint, &source.asked.what, why.to_owned())),
        };
        Ok(Blob { repository: self, source, at: begin, end, answer, skip_bytes, failures: 0, failed_at: begin })
    }

    async fn ask_source(&self, source: &Source, part: Option<(u64, u64)>) -> Result<Answer, RegistryError> {
        let Source { endpoint, elsewhere, asked, size_bytes } = source;
        let mut asked = asked.clone();
        let field = part.map(|(begin, end)| match end == *size_bytes {
            true => format!("bytes={begin}-"),
            false => format!("bytes={begin}-{}", end - 1),
        });
        let field = field.and_then(|field| HeaderValue::from_str(&field).ok());
        asked.headers.extend(field.map(|field| (header::RANGE, field)));
        let Some(Elsewhere { address, reach }) = elsewhere else { return self.ask(endpoint, &asked).await };
        let once = || self.follow_from(endpoint, address.clone(), &asked, None, *reach);
        self.ask_until(endpoint, &asked, || Box::pin(once())).await
    }

    /// A small blob as a whole, verified.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn small_blob(
        &self,
        digest: &Digest,
        size_bytes: u64,
        limit_bytes: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        let what = format!("the blob {digest}");
        let host = || self.own_host().to_owned();
        if size_bytes > limit_bytes {
            return Err(RegistryError::TooLarge { what, host: host(), limit_bytes });
        }
        let mut blob = self.blob(digest, size_bytes).await?;
        let mut all = Vec::new();
        while let Some(piece) = blob.next_unverified().await? {
            all.extend_from_slice(&piece);
        }
        let found = digest_of(&all, digest.algorithm());
        match found == *digest {
            true => Ok(all),
            false => Err(RegistryError::Digest { what, host: host(), found }),
        }
    }
}

fn wrong_size(source: &Source, found: u64) -> RegistryError {
    let (what, host) = (source.asked.what.clone(), source.endpoint.host.clone());
    RegistryError::Size { what, host, wanted: source.size_bytes, found }
}

impl Blob<'_> {
    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    /// The next piece; `None` once as many bytes have come as there have to be. Their digest nobody has compared.
    ///
    /// # Errors
    /// More come, or the rest does not, however often it is asked for.
    pub async fn next_unverified(&mut self) -> Result<Option<Bytes>, RegistryError> {
        loop {
            let stopped = match self.answer.next().await {
                Ok(Some(mut piece)) => {
                    let skipped = self.skip_bytes.min(piece.len() as u64);
                    self.skip_bytes -= skipped;
                    let piece = piece.split_off(usize::try_from(skipped).unwrap_or(usize::MAX));
                    if piece.is_empty() {
                        continue;
                    }
                    self.at += piece.len() as u64;
                    if self.at > self.end {
                        return Err(wrong_size(&self.source, self.at));
                    }
                    return Ok(Some(piece));
                }
                Ok(None) if self.at == self.end => return Ok(None),
                Ok(None) => "it stops before its end".to_owned(),
                Err(error) => why(&error),
            };
            self.go_on(stopped).await?;
        }
    }

    /// Asks for the rest.
    async fn go_on(&mut self, mut stopped: String) -> Result<(), RegistryError> {
        let (endpoint, what) = (&self.source.endpoint, &self.source.asked.what);
        loop {
            if self.at >= self.failed_at + PROGRESS_BYTES {
                self.failures = 0;
            }
            (self.failures, self.failed_at) = (self.failures + 1, self.at);
            let most = self.repository.attempts();
            let Again::After(pause) = again(Failed::Connection, self.failures, most, random()) else {
                return Err(self.repository.broken(endpoint, what, stopped));
            };
            tracing::info!(host = endpoint.host, what, why = stopped, "asking for the rest");
            self.repository.pause(&self.source.asked.below, pause).await;
            let answer = match self.repository.ask_source(&self.source, Some((self.at, self.end))).await {
                Ok(answer) => answer,
                Err(error @ (RegistryError::Unreachable { .. } | RegistryError::Broken { .. })) => {
                    stopped = error.to_string();
                    continue;
                }
                Err(error) => return Err(error),
            };
            let field = answer.field("content-range");
            match resumed(answer.status.as_u16(), field, self.at, self.source.size_bytes) {
                Resumed::Goes => self.skip_bytes = 0,
                // All of it follows upon the part that is wanted.
                Resumed::Again(_) if self.end < self.source.size_bytes => {
                    return Err(self.repository.broken(endpoint, what, "it sends no part any more".to_owned()));
                }
                Resumed::Again(bytes) => self.skip_bytes = bytes,
                Resumed::Wrong(why) => {
                    return Err(self.repository.broken(endpoint, what, why.to_owned()));
                }
            }
            self.answer = answer;
            return Ok(());
        }
    }
}
