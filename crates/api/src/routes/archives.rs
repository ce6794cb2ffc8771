//! `load` and `save`, `import` and `export`: archives stream through, in bounded memory, between HTTP and blocking readers and writers.

use std::io::{self, Read, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use bytes::{Buf, Bytes, BytesMut};
use dozen_engine::image::ProgressEvent;
use dozen_engine::{Engine, EngineError, ImportOptions, Loaded, Progress};
use dozen_model::without_credentials;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{image_query, pull};
use crate::error::{Answer, ApiError, empty, join_failed};
use crate::extract::Query;

/// Pieces of an archive between the two sides; a piece is at most 256 KiB.
pub(super) const PIECES: usize = 16;
/// How much of an archive is gathered before it is sent.
const PIECE_BYTES: usize = 256 << 10;
/// How often progress is told. More often, a terminal shows nothing more.
const PROGRESS_PAUSE: Duration = Duration::from_millis(100);

type Pieces = mpsc::Sender<Result<Bytes, io::Error>>;

/// `POST /images/load`. The status is always 200: what goes wrong is said in the stream, as Docker says it.
pub(super) async fn load(State(engine): State<Engine>, query: Query, body: Body) -> Answer {
    let platform = image_query::platform(&query)?;
    let quiet = query.flag("quiet");
    let (archive, pieces) = mpsc::channel(PIECES);
    let (lines, answer) = mpsc::channel(PIECES);
    tokio::spawn(pump(body, archive));
    let said = lines.clone();
    let loading = tokio::task::spawn_blocking(move || {
        let progress = Lines::new(lines.clone(), quiet);
        match engine.load_images(&mut ChannelReader::new(pieces), platform.as_ref(), &progress) {
            Ok(loaded) => loaded.iter().flat_map(loaded_lines).for_each(|line| send(&lines, &line)),
            Err(error) => {
                let error = ApiError::from(error);
                let mut line = json!({ "errorDetail": { "message": error.message }, "error": error.message });
                if let Some(hint) = error.hint {
                    line["hint"] = json!(hint);
                }
                send(&lines, &line);
            }
        }
    });
    // An answer that just ends would be taken for success.
    tokio::spawn(async move {
        if let Err(error) = loading.await.map_err(join_failed) {
            let line = json!({ "errorDetail": { "message": error.message }, "error": error.message });
            let _ = said.send(Ok(format!("{line}\n").into())).await;
        }
    });
    let body = Body::from_stream(ReceiverStream::new(answer));
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

fn loaded_lines(loaded: &Loaded) -> Vec<Value> {
    if loaded.references.is_empty() {
        return vec![json!({ "stream": format!("Loaded image ID: {}\n", loaded.id) })];
    }
    loaded.references.iter().map(|name| json!({ "stream": format!("Loaded image: {}\n", name.familiar()) })).collect()
}

fn send(lines: &Pieces, line: &Value) {
    // A client that has gone reads no more; the load goes on to its end.
    let _ = lines.blocking_send(Ok(format!("{line}\n").into()));
}

/// Moves a body into the channel. When the reader has seen enough (an archive's padding, an error), the rest is
/// read and dropped: a client that is cut off while it sends would not read the answer.
pub(super) async fn pump(mut body: Body, archive: mpsc::Sender<Result<Bytes, io::Error>>) {
    let mut wanted = true;
    while let Some(frame) = body.frame().await {
        let piece = match frame.map(|frame| frame.into_data()) {
            Ok(Ok(data)) => Ok(data),
            Ok(Err(_trailers)) => continue,
            Err(error) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, error)),
        };
        let failed = piece.is_err();
        wanted = wanted && archive.send(piece).await.is_ok();
        if failed {
            return;
        }
    }
}

/// A channel of pieces as a blocking reader.
pub(super) struct ChannelReader {
    pieces: mpsc::Receiver<Result<Bytes, io::Error>>,
    current: Bytes,
}

impl ChannelReader {
    pub(super) fn new(pieces: mpsc::Receiver<Result<Bytes, io::Error>>) -> Self {
        Self { pieces, current: Bytes::new() }
    }
}

impl Read for ChannelReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.current = piece?,
                None => return Ok(0),
            }
        }
        let count = self.current.len().min(out.len());
        self.current.copy_to_slice(&mut out[..count]);
        Ok(count)
    }
}

/// `POST /images/create`: `fromSrc` imports a root file system from the body; `fromImage` pulls.
pub(super) async fn create(State(engine): State<Engine>, query: Query, headers: HeaderMap, body: Body) -> Answer {
    let Some(source) = query.text("fromSrc") else { return pull::pull(&engine, &query, &headers).await };
    if source != "-" {
        return Err(ApiError::not_built(format_args!("importing from the address {:?}", without_credentials(source)))
            .with_hint("fetch it and import the file: dozen import FILE"));
    }
    let options = ImportOptions {
        reference: image_query::target(&query)?,
        message: query.text("message").unwrap_or("Imported from -").to_owned(),
        changes: image_query::changes(&query),
        platform: image_query::platform(&query)?,
        created: image_query::created(&query)?,
    };
    let (archive, pieces) = mpsc::channel(PIECES);
    tokio::spawn(pump(body, archive));
    let import = move || engine.import_image(&mut ChannelReader::new(pieces), options);
    let id = tokio::task::spawn_blocking(import).await.map_err(join_failed)??;
    let line = format!("{}\r\n", json!({ "status": id.to_string() }));
    Ok(([(header::CONTENT_TYPE, "application/json")], line).into_response())
}

/// Progress as Docker's lines, at most one per layer and pause. It never waits for the client.
struct Lines {
    lines: Pieces,
    quiet: bool,
    last: Mutex<Option<Instant>>,
}

impl Lines {
    fn new(lines: Pieces, quiet: bool) -> Self {
        Self { lines, quiet, last: Mutex::new(None) }
    }
}

impl Progress for Lines {
    fn report(&self, event: ProgressEvent<'_>) {
        // Docker says nothing of layers that are there already, nor of the bytes before the layers are known.
        let ProgressEvent::Unpacking { layer, bytes, blob_bytes } = event else { return };
        if self.quiet {
            return;
        }
        let now = Instant::now();
        let mut last = self.last.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if last.is_some_and(|last| now.duration_since(last) < PROGRESS_PAUSE) {
            return;
        }
        *last = Some(now);
        // A compressed blob is shorter than what comes out of it: then no total is said.
        let total = if bytes <= blob_bytes {
            json!({ "current": bytes, "total": blob_bytes })
        } else {
            json!({ "current": bytes })
        };
        let line = json!({ "status": "Loading layer", "progressDetail": total, "id": &layer.hex()[..12] });
        let _ = self.lines.try_send(Ok(format!("{line}\n").into()));
    }
}

/// `GET /images/get?names=a&names=b`.
pub(super) async fn save(State(engine): State<Engine>, query: Query) -> Answer {
    let names: Vec<String> = query.all("names").flat_map(|names| names.split(',')).map(str::to_owned).collect();
    if names.iter().all(String::is_empty) {
        return Err(ApiError::invalid("no image is named: the parameter \"names\" is missing"));
    }
    save_names(engine, names, &query).await
}

/// Streams an archive of these images. What is not there is said before the head is sent.
pub(super) async fn save_names(engine: Engine, names: Vec<String>, query: &Query) -> Answer {
    let platform = image_query::platform(query)?;
    stream("application/x-tar", move |out| engine.save_images(&names, platform.as_ref(), out)).await
}

/// `GET /containers/{id}/export`.
pub(super) async fn export(State(engine): State<Engine>, Path(id): Path<String>) -> Answer {
    let container = engine.container(&id)?;
    stream("application/octet-stream", move |out| container.export(out)).await
}

/// `GET /volumes/{name}/export`, ours: a volume as one archive.
pub(super) async fn export_volume(State(engine): State<Engine>, Path(name): Path<String>) -> Answer {
    engine.volume(&name)?;
    stream("application/x-tar", move |out| engine.export_volume(&name, out)).await
}

/// `PUT /volumes/{name}/import`, ours: an archive into an empty volume.
pub(super) async fn import_volume(State(engine): State<Engine>, Path(name): Path<String>, body: Body) -> Answer {
    let volume = engine.volume(&name)?.name;
    let claim = engine.claim_volume(&volume).await?;
    let (archive, pieces) = mpsc::channel(PIECES);
    tokio::spawn(pump(body, archive));
    let import = move || engine.import_volume(&volume, &claim, &mut ChannelReader::new(pieces));
    tokio::task::spawn_blocking(import).await.map_err(join_failed)??;
    empty(StatusCode::NO_CONTENT)
}

/// Streams what is written. What goes wrong before the first byte is the answer.
pub(super) async fn stream(
    content_type: &'static str,
    write: impl FnOnce(&mut ChannelWriter) -> Result<(), EngineError> + Send + 'static,
) -> Answer {
    let (sender, mut pieces) = mpsc::channel::<Result<Bytes, io::Error>>(PIECES);
    let writing = tokio::task::spawn_blocking(move || {
        let mut out = ChannelWriter { pieces: sender.clone(), gathered: BytesMut::with_capacity(PIECE_BYTES) };
        match write(&mut out).map_err(ApiError::from) {
            Ok(()) => out.flush().map_err(|_| None),
            // Cutting the stream is all that can be said after the head; before it, the error is the answer.
            Err(error) => {
                let _ = sender.blocking_send(Err(io::Error::other(error.message.clone())));
                Err(Some(error))
            }
        }
    });
    let first = match pieces.recv().await {
        Some(Ok(first)) => first,
        _ => {
            return Err(match writing.await.map_err(join_failed)? {
                Err(Some(error)) => error,
                _ => ApiError::new(dozen_model::ErrorKind::Internal, "the archive is empty"),
            });
        }
    };
    let body = tokio_stream::StreamExt::chain(tokio_stream::once(Ok(first)), ReceiverStream::new(pieces));
    Ok(([(header::CONTENT_TYPE, content_type)], Body::from_stream(body)).into_response())
}

/// A blocking writer into a channel of pieces.
pub(super) struct ChannelWriter {
    pieces: Pieces,
    gathered: BytesMut,
}

impl Write for ChannelWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(PIECE_BYTES - self.gathered.len());
        self.gathered.extend_from_slice(&bytes[..count]);
        if self.gathered.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.gathered, BytesMut::with_capacity(PIECE_BYTES)).freeze();
        self.pieces
            .blocking_send(Ok(piece))
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the client has gone"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_reaches_a_blocking_reader_whole() {
        let (archive, pieces) = mpsc::channel(2);
        let body: Vec<Result<Bytes, io::Error>> = (0..50u8).map(|n| Ok(Bytes::from(vec![n; 1000]))).collect();
        tokio::spawn(pump(Body::from_stream(tokio_stream::iter(body)), archive));
        let read = tokio::task::spawn_blocking(move || {
            let mut all = Vec::new();
            ChannelReader::new(pieces).read_to_end(&mut all).map(|_| all)
        });
        let all = read.await.unwrap().unwrap();
        assert_eq!(all.len(), 50_000);
        assert!(all.chunks(1000).enumerate().all(|(n, chunk)| chunk.iter().all(|byte| usize::from(*byte) == n)));
    }

    #[tokio::test]
    async fn a_broken_body_is_an_error_and_not_an_end() {
        let (archive, pieces) = mpsc::channel(2);
        let body = vec![Ok(Bytes::from_static(b"half")), Err(io::Error::other("gone"))];
        tokio::spawn(pump(Body::from_stream(tokio_stream::iter(body)), archive));
        let read = tokio::task::spawn_blocking(move || io::read_to_string(ChannelReader::new(pieces)));
        assert_eq!(read.await.unwrap().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn what_the_reader_leaves_is_drained() {
        let (archive, pieces) = mpsc::channel(1);
        drop(pieces);
        let body: Vec<Result<Bytes, io::Error>> = (0..50u8).map(|_| Ok(Bytes::from_static(b"padding"))).collect();
        pump(Body::from_stream(tokio_stream::iter(body)), archive).await;
    }

    #[tokio::test]
    async fn a_writer_gathers_pieces_and_notices_a_client_that_goes() {
        let (sender, mut pieces) = mpsc::channel(PIECES);
        let writing = tokio::task::spawn_blocking(move || {
            let mut out = ChannelWriter { pieces: sender, gathered: BytesMut::new() };
            out.write_all(&vec![7; PIECE_BYTES + 1])?;
            out.flush()
        });
        assert_eq!(pieces.recv().await.unwrap().unwrap().len(), PIECE_BYTES);
        assert_eq!(pieces.recv().await.unwrap().unwrap().len(), 1);
        writing.await.unwrap().unwrap();
        let (sender, pieces) = mpsc::channel(1);
        drop(pieces);
        let writing = tokio::task::spawn_blocking(move || {
            let mut out = ChannelWriter { pieces: sender, gathered: BytesMut::new() };
            out.write_all(b"x").and_then(|()| out.flush())
        });
        assert_eq!(writing.await.unwrap().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
