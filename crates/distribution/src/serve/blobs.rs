//! Blobs: given, in part if that is wanted, and deleted.

use std::os::unix::fs::FileExt;

use dozen_model::Digest;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use super::body::Body;
use super::socket::Outbox;
use super::{Answer, Server, header, set};
use crate::metrics::{Cached, Kept};
use crate::name::RepositoryName;
use crate::range::{Part, part};
use crate::refusal::{Kind, Refusal};
use crate::store::{Content, lend, pieces_of};
use crate::upstream::{Arriving, Coming};
use crate::webhook::What;

/// What is no longer goes out with the head, by one write.
const SMALL_BYTES: u64 = 16 << 10;

/// What is shorter comes sooner from here than by another connection.
const REDIRECTED_BYTES: u64 = 64 << 10;

/// Where a blob is read.
enum Found {
    Here(Content),
    Coming(Coming),
}

impl Server {
    /// `GET` and `HEAD`.
    pub(super) async fn read_blob(
        &self,
        request: &Request<Incoming>,
        name: &RepositoryName,
        digest: &Digest,
        outbox: &Outbox,
    ) -> Answer {
        let etag = format!("\"{digest}\"");
        let mut response = Response::new(Body::empty());
        set(&mut response, "content-type", "application/octet-stream");
        set(&mut response, "docker-content-digest", digest.as_str());
        set(&mut response, "etag", &etag);
        set(&mut response, "accept-ranges", "bytes");
        // What is called by its digest never changes.
        set(&mut response, "cache-control", "private, max-age=31536000, immutable");
        if request.method() == Method::HEAD {
            let upstreams = &self.options.upstreams;
            let size = if self.options.read_only {
                self.store.open_blob(name, digest).await.map(|(_, size)| size)
            } else {
                self.store.blob_size(name, digest).await
            };
            let size = match size {
                Err(refusal) if refusal.kind == Kind::BlobUnknown => match self.source(name).zip(upstreams.as_ref()) {
                    Some((_, upstreams)) => {
                        upstreams.promised_bytes(&self.store, name, digest).await?.ok_or(refusal)?
                    }
                    None => return Err(refusal),
                },
                size => size?,
            };
            set(&mut response, "content-length", &size.to_string());
            return Ok(response);
        }
        let (content, size) = self.find_blob(name, digest).await?;
        if let Found::Here(Content::Object(bucket, file)) = &content
            && self.options.redirects
            && size >= REDIRECTED_BYTES
        {
            let mut response = self.sent_there(&lend(bucket, file).await?);
            let what = What { digest: Some(digest.to_string()), size_bytes: Some(size), ..What::default() };
            self.note(&mut response, "pull", name, what);
            return Ok(response);
        }
        // RFC 9110, section 13.1.5: of another blob than the client thinks, all is wanted.
        let wants_part = header(request, "if-range").is_none_or(|tag| tag == etag);
        let (first, length) = match part(header(request, "range").filter(|_| wants_part), size) {
            Part::Whole => (0, size),
            Part::Bytes { first, length } => {
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                set(&mut response, "content-range", &format!("bytes {first}-{}/{size}", first + length - 1));
                (first, length)
            }
            Part::Nothing => {
                let refusal = Refusal::new(Kind::RangeUnsatisfiable, format!("the blob has {size} bytes"));
                return Err(refusal.with_field("content-range", format!("bytes */{size}")));
            }
        };
        set(&mut response, "content-length", &length.to_string());
        *response.body_mut() = match content {
            _ if length == 0 => Body::empty(),
            Found::Coming(coming) => Body::arriving(coming.pieces(first..first + length), length),
            Found::Here(Content::Object(bucket, file)) => {
                Body::arriving(pieces_of(&bucket, &file, first..first + length).await?, length)
            }
            Found::Here(Content::File(file)) if length <= SMALL_BYTES => {
                Body::whole(read_small(file, first, length).await?)
            }
            Found::Here(Content::File(file)) => {
                Body::file(file, first, length, Some(outbox.clone()).filter(|_| !self.has_tls))
            }
        };
        let what = What { digest: Some(digest.to_string()), size_bytes: Some(size), ..What::default() };
        self.note(&mut response, "pull", name, what);
        Ok(response)
    }

    /// What he asks for, a part of it perhaps, he asks for there again (RFC 9110, section 15.4.8).
    fn sent_there(&self, address: &str) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
        set(&mut response, "location", address);
        set(&mut response, "content-length", "0");
        // The address is good for a while, and for him.
        set(&mut response, "cache-control", "no-store");
        response
    }

    /// Here, or on its way from an upstream.
    async fn find_blob(&self, name: &RepositoryName, digest: &Digest) -> Result<(Found, u64), Refusal> {
        let here = self.store.open_blob(name, digest).await;
        let here = here.map(|(content, size)| (Found::Here(content), size));
        let (Some(upstreams), Some(source)) = (&self.options.upstreams, self.source(name)) else { return here };
        let (found, how) = match here {
            Err(refusal) if refusal.kind == Kind::BlobUnknown => {
                let arriving = upstreams.blob(&self.store, &source, name, digest).await;
                (self.arrived(arriving, name, digest).await, Cached::Miss)
            }
            found => (found, Cached::Hit),
        };
        match &found {
            Ok((_, size)) => self.options.watch.metrics.cached(Kept::Blob, how, *size),
            Err(_) => self.options.watch.metrics.cached(Kept::Blob, Cached::Failed, 0),
        }
        found
    }

    async fn arrived(
        &self,
        arriving: Result<Arriving, Refusal>,
        name: &RepositoryName,
        digest: &Digest,
    ) -> Result<(Found, u64), Refusal> {
        match arriving? {
            Arriving::Coming(coming) => {
                let size = coming.size_bytes;
                Ok((Found::Coming(coming), size))
            }
            Arriving::Arrived => {
                self.store.open_blob(name, digest).await.map(|(content, size)| (Found::Here(content), size))
            }
        }
    }

    /// `DELETE`.
    pub(super) async fn delete_blob(&self, name: &RepositoryName, digest: &Digest) -> Answer {
        self.store.delete_blob(name, digest).await?;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::ACCEPTED;
        self.note(&mut response, "delete", name, What { digest: Some(digest.to_string()), ..What::default() });
        Ok(response)
    }
}

async fn read_small(file: std::fs::File, first: u64, length: u64) -> Result<Vec<u8>, Refusal> {
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        file.read_exact_at(&mut bytes, first).map(|()| bytes)
    });
    let read = read.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    read.map_err(|error| Refusal::of_disk("read", std::path::Path::new("a blob"), &error))
}
