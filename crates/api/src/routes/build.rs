//! `POST /build`: an archive comes in, the build begins, and what it tells goes out, in Docker's words or in ours.

pub(super) mod agent;
pub(super) mod carried;
mod classic;
mod contexts;
mod events;
mod frames;
mod held;
mod intake;
mod pieces;
mod remote_caches;

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use dozen_engine::{Build, BuildEvent, BuildFailure, BuildName, Engine};
use dozen_model::{Digest, ErrorKind, ImageId, Reference};
use tokio::sync::mpsc;
use tokio_stream::Stream;

use self::classic::Classic;
use self::events::Events;
use super::archives::{ChannelReader, PIECES, pump};
use super::specify::specify;
use super::{image_query, registry_auth};
use crate::convert::create::ImageDefaults;
use crate::convert::request::Create;
use crate::convert::{build as convert, defaults as engine_defaults};
use crate::error::{Answer, ApiError, empty, join_failed};
use crate::extract::Query;
use crate::listening::Way;

/// What is told is gathered to so much, if it comes fast.
const GATHERED_BYTES: usize = 64 << 10;

/// `POST /build`. A client that goes away takes the build with it: the answer's body owns it, and while there is no answer
/// yet this future does.
pub(super) async fn build(
    State(engine): State<Engine>,
    Extension(way): Extension<Way>,
    headers: HeaderMap,
    query: Query,
    body: Body,
) -> Answer {
    let platform = image_query::platform(&query)?;
    let created = image_query::created(&query)?;
    let mut warnings = Vec::new();
    let container = |mut wanted: Create| {
        engine_defaults::merge(&mut wanted, &engine.settings());
        let nobody = ImageId::new(Digest::from_sha256([0; 32]));
        let made = specify(&engine, &wanted, nobody, &ImageDefaults::default())?;
        warnings.extend(made.warnings);
        Ok((made.spec, made.own_ids))
    };
    let name = match query.text("buildid") {
        Some(id) => engine.name_build(id)?,
        None => BuildName::default(),
    };
    let mut request = convert::request(&query, platform.as_ref(), created, container)?;
    if request.debug_shell && !events::are_wanted(&headers) {
        return Err(ApiError::invalid(
            "a shell where a step fails (\"debugshell\") is for who reads the build's events",
        )
        .with_hint("dozen build --debug-shell"));
    }
    let tags: Vec<String> = request.tags.iter().map(Reference::familiar).collect();
    request.credentials = registry_auth::by_registry(&headers);
    let has_head = intake::has_head(&headers);
    let (archive, pieces) = mpsc::channel(PIECES);
    let pumping = tokio::spawn(pump(body, archive));
    let taking_in = engine.clone();
    let remote = query.text("remote").map(str::to_owned);
    let take_in = move || -> Result<_, ApiError> {
        let mut archive = intake::buffered(ChannelReader::new(pieces));
        let head = if has_head { intake::read_head(&mut archive, way)? } else { intake::Head::default() };
        let context = contexts::take_in(&taking_in, archive, remote.as_deref(), &head.contexts)?;
        Ok((head, context))
    };
    let taken = tokio::select! {
        taken = tokio::task::spawn_blocking(take_in) => taken.map_err(join_failed).and_then(|taken| taken),
        () = name.cancelled() => Err(refusal(BuildFailure::cancelled())),
    };
    // What is still being sent others read, and drop; whoever waits for it here is to wait no more.
    let (head, context) = taken.inspect_err(|_| pumping.abort())?;
    request.name = name;
    request.cache_steps = head.cache_steps;
    (request.cache_sources, request.cache_destinations) = (head.cache_from, head.cache_to);
    request.secrets = head.secrets;
    for (id, name) in head.agents {
        let agent = engine.take_agent(&name).ok_or_else(|| {
            ApiError::invalid(format!("the agent {id:?} has no connection"))
                .with_hint("a client opens it (POST /build/agent) before it builds, and keeps it until the end")
        })?;
        request.agents.insert(id, agent);
    }
    request.authorities = head.authorities;
    if let Some(dockerfile) = head.dockerfile {
        request.dockerfile = dockerfile;
    }
    let wants_events = events::are_wanted(&headers);
    if (request.is_cache_taken || !request.cache_steps.is_empty()) && !(wants_events && query.text("buildid").is_some())
    {
        return Err(ApiError::invalid(
            "a build whose client carries its cache needs buildid=, and events for its answer",
        ));
    }
    let mut build = engine.build(request, context);
    let (kind, mut teller) = if wants_events {
        (events::MEDIA_TYPE, Teller::Events(Events::default()))
    } else {
        ("application/json", Teller::Classic(Classic::new(query.flag("q"), tags)))
    };
    let mut said = Vec::new();
    for warning in warnings {
        teller.tell(BuildEvent::Warning(warning), &mut said);
    }
    if let Teller::Classic(_) = teller {
        // Docker says with a status what is wrong before anything has begun: a fault in the Dockerfile.
        match build.events.recv().await {
            Some(BuildEvent::Failed(failure)) => return Err(refusal(failure)),
            Some(event) => teller.tell(event, &mut said),
            None => return Err(refusal(ended_early())),
        }
    }
    let told = Told { build, teller, said, is_over: false };
    Ok(([(header::CONTENT_TYPE, kind)], Body::from_stream(told)).into_response())
}

/// `POST /build/cancel?id=`: what it does has begun when this answers, and is over when the build's own answer ends.
pub(super) async fn cancel(State(engine): State<Engine>, query: Query) -> Answer {
    let id = query.text("id").ok_or_else(|| ApiError::invalid("build ID not provided"))?;
    engine.cancel_build(id)?;
    empty(StatusCode::OK)
}

fn refusal(failure: BuildFailure) -> ApiError {
    ApiError { kind: ErrorKind::Invalid, message: failure.message, hint: failure.hint }
}

fn ended_early() -> BuildFailure {
    BuildFailure {
        message: "the build ended without a result".into(),
        excerpt: None,
        hint: Some("the engine's log may say more".into()),
        ..BuildFailure::default()
    }
}

/// In whose words a build is told.
enum Teller {
    Classic(Classic),
    Events(Events),
}

impl Teller {
    fn tell(&mut self, event: BuildEvent, said: &mut Vec<u8>) {
        match self {
            Self::Classic(classic) => classic.tell(event, said),
            Self::Events(events) => events.tell(event, said),
        }
    }
}

/// The answer's body.
struct Told {
    build: Build,
    teller: Teller,
    said: Vec<u8>,
    is_over: bool,
}

impl Stream for Told {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        while !this.is_over && this.said.len() < GATHERED_BYTES {
            let event = match this.build.events.poll_recv(context) {
                Poll::Ready(Some(event)) => event,
                // An answer that just ends would be taken for success.
                Poll::Ready(None) => BuildEvent::Failed(ended_early()),
                Poll::Pending if this.said.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            };
            this.is_over = matches!(event, BuildEvent::Built(_) | BuildEvent::Failed(_));
            this.teller.tell(event, &mut this.said);
        }
        let said = std::mem::take(&mut this.said);
        Poll::Ready((!said.is_empty()).then(|| Ok(said.into())))
    }
}

#[cfg(test)]
mod tests;
