//! Blobs: layers and configurations, piece by piece, and on from where it stopped if a connection breaks.

use bytes::Bytes;
use dozen_fetch::Answer;
use dozen_model::Digest;
use http::{HeaderMap, HeaderValue, Method, header};

use crate::again::{Again, Failed, again};
use crate::client::{Asked, random};
use crate::error::why;
use crate::manifest::digest_of;
use crate::range::{Resumed, resumed};
use crate::{Endpoint, RegistryError, Repository};

/// A connection that has brought so much was no failure, whatever became of it.
const PROGRESS_BYTES: u64 = 4 * 1024 * 1024;

/// A blob that comes. It is the caller's to compare the digest: what comes is anything until then.
#[derive(Debug)]
pub struct Blob<'r> {
    repository: &'r Repository,
    endpoint: &'r Endpoint,
    asked: Asked,
    size_bytes: u64,
    /// Of what has come.
    at: u64,
    answer: Answer,
    /// Of an answer that began anew: what is there already.
    skip_bytes: u64,
    failures: u32,
    failed_at: u64,
}

impl Repository {
    /// Begins with a blob that has to have so many bytes.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn blob(&self, digest: &Digest, size_bytes: u64) -> Result<Blob<'_>, RegistryError> {
        let asked = Asked {
            method: Method::GET,
            below: format!("{}/blobs/{digest}", self.name()),
            headers: HeaderMap::new(),
            what: format!("the blob {digest}"),
        };
        self.of_each(|endpoint| Box::pin(self.begin(endpoint, &asked, size_bytes))).await
    }

    async fn begin<'r>(
        &'r self,
        endpoint: &'r Endpoint,
        asked: &Asked,
        size_bytes: u64,
    ) -> Result<Blob<'r>, RegistryError> {
        let answer = self.ask(endpoint, asked).await?;
        if let Some(found) = answer.length().filter(|length| *length != size_bytes) {
            return Err(self.wrong_size(endpoint, asked, size_bytes, found));
        }
        Ok(Blob {
            repository: self,
            endpoint,
            asked: asked.clone(),
            size_bytes,
            at: 0,
            answer,
            skip_bytes: 0,
            failures: 0,
            failed_at: 0,
        })
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

    fn wrong_size(&self, endpoint: &Endpoint, asked: &Asked, wanted: u64, found: u64) -> RegistryError {
        RegistryError::Size { what: asked.what.clone(), host: endpoint.host.clone(), wanted, found }
    }
}

impl Blob<'_> {
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
                    if self.at > self.size_bytes {
                        let (wanted, found) = (self.size_bytes, self.at);
                        return Err(self.repository.wrong_size(self.endpoint, &self.asked, wanted, found));
                    }
                    return Ok(Some(piece));
                }
                Ok(None) if self.at == self.size_bytes => return Ok(None),
                Ok(None) => "it stops before its end".to_owned(),
                Err(error) => why(&error),
            };
            self.go_on(stopped).await?;
        }
    }

    /// Asks for the rest.
    async fn go_on(&mut self, mut stopped: String) -> Result<(), RegistryError> {
        loop {
            if self.at >= self.failed_at + PROGRESS_BYTES {
                self.failures = 0;
            }
            (self.failures, self.failed_at) = (self.failures + 1, self.at);
            let most = self.repository.attempts();
            let Again::After(pause) = again(Failed::Connection, self.failures, most, random()) else {
                return Err(self.repository.broken(self.endpoint, &self.asked.what, stopped));
            };
            tracing::info!(host = self.endpoint.host, what = self.asked.what, why = stopped, "asking for the rest");
            self.repository.pause(&self.asked.below, pause).await;
            let mut rest = self.asked.clone();
            let range = HeaderValue::from_str(&format!("bytes={}-", self.at));
            rest.headers.extend(range.map(|range| (header::RANGE, range)));
            let answer = match self.repository.ask(self.endpoint, &rest).await {
                Ok(answer) => answer,
                Err(error @ (RegistryError::Unreachable { .. } | RegistryError::Broken { .. })) => {
                    stopped = error.to_string();
                    continue;
                }
                Err(error) => return Err(error),
            };
            match resumed(answer.status.as_u16(), answer.field("content-range"), self.at, self.size_bytes) {
                Resumed::Goes => self.skip_bytes = 0,
                Resumed::Again(bytes) => self.skip_bytes = bytes,
                Resumed::Wrong(why) => {
                    return Err(self.repository.broken(self.endpoint, &self.asked.what, why.to_owned()));
                }
            }
            self.answer = answer;
            return Ok(());
        }
    }
}
