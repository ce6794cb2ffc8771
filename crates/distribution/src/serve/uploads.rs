//! Uploads: at once, in one stream, or in chunks, and mounts in their place (distribution-spec 1.1, "Pushing blobs").

use dozen_model::Digest;
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;

use super::body::Body;
use super::intake::next_batch;
use super::{Answer, Server, header, query, set};
use crate::access::caller::Caller;
use crate::hasher::Algorithm;
use crate::name::{RepositoryName, UploadId};
use crate::range::{ChunkRange, received};
use crate::refusal::{Kind, Refusal};
use crate::route::{parameter, parse_digest};
use crate::store::Writer;
use crate::webhook::What;

impl Server {
    /// `POST`: begins one; with `digest` the body is all of it; with `mount` it may not be needed.
    pub(super) async fn begin_upload(
        &self,
        request: &mut Request<Incoming>,
        name: &RepositoryName,
        caller: &Caller,
    ) -> Answer {
        if let Some(digest) = parameter(query(request), "mount") {
            let digest = parse_digest(&digest)?;
            let from = match parameter(query(request), "from") {
                None => None,
                Some(from) => {
                    let invalid = |()| Refusal::new(Kind::NameInvalid, "from is no name of a repository");
                    Some(from.parse::<RepositoryName>().map_err(invalid)?)
                }
            };
            if caller.may_mount(from.as_ref()) && self.store.mount(name, &digest, from.as_ref()).await? {
                let mut response = created(name, &digest);
                let from = from.map(|from| from.to_string());
                let what = What { digest: Some(digest.to_string()), from, ..What::default() };
                self.note(&mut response, "mount", name, what);
                return Ok(response);
            }
        } else if let Some(digest) = parameter(query(request), "digest") {
            return self.upload_at_once(request, name, &parse_digest(&digest)?).await;
        }
        let algorithm = match parameter(query(request), "digest-algorithm") {
            None => Algorithm::Sha256,
            Some(text) => Algorithm::parse(&text).ok_or_else(|| {
                Refusal::new(Kind::DigestInvalid, format!("digests of {text:?} are not known: sha256 and sha512 are"))
            })?,
        };
        let upload = self.store.begin_upload(name, algorithm, true).await?;
        Ok(accepted(name, &upload.id, 0))
    }

    async fn upload_at_once(&self, request: &mut Request<Incoming>, name: &RepositoryName, digest: &Digest) -> Answer {
        let upload = self.store.begin_upload(name, Algorithm::of(digest), false).await?;
        let discard = Discard { server: self, upload: Some(upload.clone()) };
        let writer = self.take_in(request, upload.write().await?).await?;
        let length = writer.length();
        self.store.finish(writer, digest).await?;
        discard.not_needed();
        Ok(self.pushed(name, digest, length))
    }

    /// `GET`: how far it is.
    pub(super) fn upload_status(&self, name: &RepositoryName, id: &UploadId) -> Answer {
        let upload = self.store.upload(name, id)?;
        let mut response = accepted(name, id, upload.length());
        *response.status_mut() = StatusCode::NO_CONTENT;
        Ok(response)
    }

    /// `PATCH`: the next chunk, or a stream of any length.
    pub(super) async fn append(&self, request: &mut Request<Incoming>, name: &RepositoryName, id: &UploadId) -> Answer {
        let writer = self.store.upload(name, id)?.write().await?;
        self.check_chunk(request, name, &writer)?;
        let writer = self.take_in(request, writer).await?;
        Ok(accepted(name, id, writer.length()))
    }

    /// `PUT`: the last chunk, if there is one more, and the digest of all.
    pub(super) async fn finish(&self, request: &mut Request<Incoming>, name: &RepositoryName, id: &UploadId) -> Answer {
        let upload = self.store.upload(name, id)?;
        let digest = parameter(query(request), "digest");
        let digest =
            digest.ok_or_else(|| Refusal::new(Kind::DigestInvalid, "say ?digest=… of all that was uploaded"))?;
        let digest = parse_digest(&digest)?;
        let writer = upload.write().await?;
        self.check_chunk(request, name, &writer)?;
        let writer = self.take_in(request, writer).await?;
        let length = writer.length();
        self.store.finish(writer, &digest).await?;
        Ok(self.pushed(name, &digest, length))
    }

    fn pushed(&self, name: &RepositoryName, digest: &Digest, length: u64) -> Response<Body> {
        let mut response = created(name, digest);
        let what = What { digest: Some(digest.to_string()), size_bytes: Some(length), ..What::default() };
        self.note(&mut response, "push", name, what);
        response
    }

    /// `DELETE`.
    pub(super) async fn cancel(&self, name: &RepositoryName, id: &UploadId) -> Answer {
        let writer = self.store.upload(name, id)?.write().await?;
        self.store.cancel(writer).await?;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        Ok(response)
    }

    /// Of a chunk that says which one it is: whether it is the next.
    fn check_chunk(&self, request: &Request<Incoming>, name: &RepositoryName, writer: &Writer) -> Result<(), Refusal> {
        let Some(text) = request.headers().get("content-range") else { return Ok(()) };
        let checked = ChunkRange::parse(text.to_str().unwrap_or_default())
            .and_then(|range| range.check(writer.length(), request.body().size_hint().exact()));
        // With what the client needs to go on.
        checked.map_err(|refusal| {
            refusal
                .with_field("location", location(name, &writer.upload().id))
                .with_field("range", received(writer.length()))
        })
    }

    /// Writes the body to the upload.
    async fn take_in(&self, request: &mut Request<Incoming>, mut writer: Writer) -> Result<Writer, Refusal> {
        let repository = writer.upload().repository.clone();
        let used_bytes = self.store.used_bytes(&repository).await?;
        // What is too long by its own words is refused before it comes.
        if let Err(refusal) = self.store.check_room(&repository, used_bytes, request.body().size_hint().lower()) {
            return Err(self.give_up(writer, refusal).await);
        }
        let promised = match header(request, "content-range").map(ChunkRange::parse) {
            Some(Ok(range)) => Some(writer.length() + range.length()),
            _ => None,
        };
        loop {
            let batch = tokio::select! {
                batch = next_batch(request.body_mut(), self.options.stall) => batch,
                refusal = writer.overtaken() => return Err(refusal),
            };
            let length: usize = batch.bytes.iter().map(bytes::Bytes::len).sum();
            if let Err(refusal) = self.store.check_room(&repository, used_bytes, length as u64) {
                return Err(self.give_up(writer, refusal).await);
            }
            if promised.is_some_and(|promised| writer.length() + length as u64 > promised) {
                return Err(Refusal::new(Kind::SizeInvalid, "the chunk is longer than its Content-Range"));
            }
            if length > 0 {
                writer = self.store.append(writer, batch.bytes).await?;
            }
            match batch.end {
                None => {}
                Some(Ok(())) => break,
                Some(Err(refusal)) => return Err(refusal),
            }
        }
        if promised.is_some_and(|promised| writer.length() != promised) {
            return Err(Refusal::new(Kind::SizeInvalid, "the chunk is shorter than its Content-Range"));
        }
        Ok(writer)
    }

    /// There is no room for the rest of it. What has come would count until its time is over, whatever is deleted meanwhile, and
    /// clients begin anew.
    async fn give_up(&self, writer: Writer, refusal: Refusal) -> Refusal {
        // What resists goes with its time.
        let _ = self.store.cancel(writer).await;
        refusal
    }
}

/// An upload that ends with its request: nobody knows what it is called.
struct Discard<'a> {
    server: &'a Server,
    upload: Option<std::sync::Arc<crate::store::Upload>>,
}

impl Discard<'_> {
    fn not_needed(mut self) {
        self.upload = None;
    }
}

impl Drop for Discard<'_> {
    fn drop(&mut self) {
        let Some(upload) = self.upload.take() else { return };
        let store = self.server.store.clone();
        tokio::spawn(async move {
            // One that is over already is nobody's to give up.
            if let Ok(writer) = upload.write().await {
                let _ = store.cancel(writer).await;
            }
        });
    }
}

fn location(name: &RepositoryName, id: &UploadId) -> String {
    format!("/v2/{name}/blobs/uploads/{id}")
}

fn accepted(name: &RepositoryName, id: &UploadId, length: u64) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::ACCEPTED;
    set(&mut response, "location", &location(name, id));
    set(&mut response, "range", &received(length));
    set(&mut response, "docker-upload-uuid", id.as_str());
    response
}

fn created(name: &RepositoryName, digest: &Digest) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::CREATED;
    set(&mut response, "location", &format!("/v2/{name}/blobs/{digest}"));
    set(&mut response, "docker-content-digest", digest.as_str());
    response
}
