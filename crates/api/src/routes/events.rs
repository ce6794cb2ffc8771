//! `GET /events`: a line of JSON for each, until the client leaves or `until` has come.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use dozen_engine::{Engine, Event, EventKind, EventStream, EventsQuery};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::error::ApiError;
use crate::extract::Query;
use crate::filters::Filters;
use crate::time;

/// Docker's filters. Those of kinds that dozen has not (plugin, service, …) match nothing.
const FILTERS: [&str; 15] = [
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "label!",
    "name",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
];
/// Lines between the engine and a slow client; the engine itself drops a client that is slower still.
const LINES: usize = 64;

pub(super) async fn events(State(engine): State<Engine>, query: Query) -> Result<Response, ApiError> {
    let known: Vec<&str> = FILTERS.into_iter().chain(["volume"]).collect();
    let filters = Filters::read(&query, &known)?;
    let wanted = EventsQuery { since: time::moment(&query, "since")?, until: time::moment(&query, "until")? };
    if let (Some(since), Some(until)) = (wanted.since, wanted.until)
        && until < since
    {
        return Err(ApiError::invalid("`since` time cannot be after `until` time"));
    }
    let events = engine.events(wanted);
    let (sender, lines) = mpsc::channel::<Result<Bytes, std::io::Error>>(LINES);
    tokio::spawn(forward(events, wanted.until, filters, sender));
    let headers = [(header::CONTENT_TYPE, "application/json")];
    Ok((headers, Body::from_stream(ReceiverStream::new(lines))).into_response())
}

async fn forward(
    mut events: EventStream,
    until: Option<Timestamp>,
    filters: Filters,
    sender: mpsc::Sender<Result<Bytes, std::io::Error>>,
) {
    let left = until.map(|until| Duration::try_from(until.duration_since(Timestamp::now())).unwrap_or_default());
    let deadline = left.map(|left| tokio::time::Instant::now() + left);
    let ended = async {
        match deadline {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    };
    let mut ended = std::pin::pin!(ended);
    loop {
        // Remembered events come before the end, even an end that has passed.
        let event = tokio::select! {
            biased;
            () = sender.closed() => return,
            event = events.recv() => event,
            () = &mut ended => return,
        };
        let Some(event) = event else { return };
        if until.is_none_or(|until| event.time <= until) && matches(&filters, &event) {
            let mut line = render(&event).to_string();
            line.push('\n');
            if sender.send(Ok(line.into())).await.is_err() {
                return;
            }
        }
    }
}

fn matches(filters: &Filters, event: &Event) -> bool {
    let attribute = |name: &str| event.attributes.get(name).map(String::as_str);
    let is = |kind: EventKind, wanted: &str| {
        event.kind == kind && (event.id.starts_with(wanted) || attribute("name") == Some(wanted))
    };
    let image = |wanted: &str| {
        let name =
            if event.kind == EventKind::Image { attribute("name").or(Some(&event.id)) } else { attribute("image") };
        name.is_some_and(|name| name == wanted || name.split_once(':').is_some_and(|(bare, _)| bare == wanted))
            || (event.kind == EventKind::Image && event.id == wanted)
    };
    let nothing = |_: &str| false;
    filters.any("type", |wanted| event.kind.as_str() == wanted)
        && filters.any("event", |wanted| {
            event.action == wanted || event.action.split_once(':').is_some_and(|(action, _)| action == wanted)
        })
        && filters.any("container", |wanted| is(EventKind::Container, wanted))
        && filters.any("volume", |wanted| is(EventKind::Volume, wanted))
        && filters.any("network", |wanted| is(EventKind::Network, wanted))
        && filters.any("image", image)
        && filters.any("name", |wanted| attribute("name") == Some(wanted))
        && filters.any("scope", |wanted| wanted == "local")
        && filters.labels(&event.attributes)
        && filters.any("daemon", |wanted| is(EventKind::Daemon, wanted))
        && ["config", "node", "plugin", "secret", "service"].iter().all(|name| filters.any(name, nothing))
}

fn render(event: &Event) -> Value {
    let mut value = json!({
        "Type": event.kind.as_str(),
        "Action": event.action,
        "Actor": { "ID": event.id, "Attributes": event.attributes },
        "scope": "local",
        "time": event.time.as_second(),
        "timeNano": i64::try_from(event.time.as_nanosecond()).unwrap_or(i64::MAX),
    });
    // What clients read before there were types.
    if matches!(event.kind, EventKind::Container | EventKind::Image) {
        value["status"] = json!(event.action);
        if !event.id.is_empty() {
            value["id"] = json!(event.id);
        }
        if let Some(image) = event.attributes.get("image") {
            value["from"] = json!(image);
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn event(action: &str, name: &str) -> Event {
        let attributes = [("name", name), ("image", "debian:12"), ("app", "shop")];
        Event {
            time: Timestamp::from_second(5).unwrap(),
            kind: EventKind::Container,
            action: action.into(),
            id: "abcdef".into(),
            attributes: attributes.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        }
    }

    #[test]
    fn filters_choose() {
        #[track_caller]
        fn check(filters: Value, want: bool) {
            let encoded: String = filters.to_string().bytes().map(|b| format!("%{b:02X}")).collect();
            let query = Query::from(format!("filters={encoded}").as_str());
            let known: Vec<&str> = FILTERS.into_iter().chain(["volume"]).collect();
            let filters = Filters::read(&query, &known).unwrap();
            assert_eq!(matches(&filters, &event("exec_start: sh", "web")), want);
        }
        check(json!({}), true);
        check(json!({"event": ["exec_start"]}), true);
        check(json!({"event": ["start", "die"]}), false);
        check(json!({"container": ["web"]}), true);
        check(json!({"container": ["abc"]}), true);
        check(json!({"container": ["db"]}), false);
        check(json!({"image": ["debian"]}), true);
        check(json!({"image": ["alpine"]}), false);
        check(json!({"label": ["app=shop"], "type": ["container"]}), true);
        check(json!({"type": ["image"]}), false);
        check(json!({"volume": ["web"]}), false);
        check(json!({"service": ["web"]}), false);
    }

    #[tokio::test]
    async fn an_end_in_the_past_gives_what_is_remembered_and_ends() {
        let (events, stream) = mpsc::channel(4);
        events.send(Arc::new(event("start", "web"))).await.unwrap();
        let mut late = event("die", "web");
        late.time = Timestamp::from_second(50).unwrap();
        events.send(Arc::new(late)).await.unwrap();
        let (sender, mut lines) = mpsc::channel(4);
        forward(stream, Timestamp::from_second(10).ok(), Filters::default(), sender).await;
        let line: Value = serde_json::from_slice(&lines.recv().await.unwrap().unwrap()).unwrap();
        assert_eq!(
            (&line["status"], &line["from"], &line["timeNano"]),
            (&json!("start"), &json!("debian:12"), &json!(5_000_000_000_i64))
        );
        assert!(lines.recv().await.is_none());
    }
}
