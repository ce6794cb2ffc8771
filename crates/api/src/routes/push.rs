//! `POST /images/{name}/push`: a push, told in Docker's words. What is asked wrongly is the answer's status; all else stands in
//! the stream, which Docker has begun by then. The answer's body owns the push, which ends with its client.

use axum::body::Body;
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use dozen_engine::image::{LayerForm, Recompression};
use dozen_engine::{Credentials, Engine, PushEvent, PushRequest, PushStep};
use dozen_model::Reference;
use serde_json::{Value, json};

use super::image_query;
use super::pull::{ID_LETTERS, credentials, failure, layer};
use crate::error::{Answer, ApiError};
use crate::extract::Query;

/// See the module.
pub(super) async fn push(engine: &Engine, name: &str, query: &Query, headers: &HeaderMap) -> Answer {
    let push = engine.push(request(name, query, credentials(headers))?);
    let stream = futures_util::stream::unfold(Some(push), |push| async move {
        let mut push = push?;
        match push.next().await {
            Ok(event) => Some((Ok::<_, std::convert::Infallible>(lines(&event?)), Some(push))),
            Err(error) => Some((Ok(failure(ApiError::from(error))), None)),
        }
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from_stream(stream)).into_response())
}

/// Without `tag` all of them are meant.
fn request(name: &str, query: &Query, credentials: Option<Credentials>) -> Result<PushRequest, ApiError> {
    let reference: Reference = name.parse()?;
    if reference.digest().is_some() {
        return Err(ApiError::invalid("cannot push a digest reference"));
    }
    let tag = query.text("tag").filter(|tag| !tag.is_empty());
    // The name itself may have one, as older clients send it.
    let is_named = name.ends_with(&format!(":{}", reference.tag().unwrap_or_default()));
    let all_tags = tag.is_none() && !is_named;
    let reference = match tag {
        Some(tag) => reference.with_tag(tag)?,
        None => reference,
    };
    let (platform, recompression) = (image_query::platform(query)?, recompression(query)?);
    Ok(PushRequest { reference, all_tags, platform, recompression, credentials })
}

/// `compressionFormat`, `compressionLevel` and `forceCompressionFormat`, as podman's API has them; Docker's has none of them.
/// A level counts for all layers, so those that are packed already are packed once more.
fn recompression(query: &Query) -> Result<Option<Recompression>, ApiError> {
    let (format, level) = (query.text("compressionFormat"), query.number::<i64>("compressionLevel")?);
    let is_forced = query.flag("forceCompressionFormat") || level.is_some();
    if format.is_none() && !is_forced {
        return Ok(None);
    }
    let form = LayerForm::read(format.unwrap_or("gzip"), level).map_err(ApiError::invalid)?;
    Ok(Some(Recompression { form, is_forced }))
}

/// Docker's words for an event.
pub(super) fn lines(event: &PushEvent) -> Bytes {
    let all = match event {
        PushEvent::Begins { repository } => {
            vec![json!({ "status": format!("The push refers to repository [{repository}]") })]
        }
        PushEvent::Layer { id, step } => {
            let (status, bytes) = words(step);
            vec![layer(&id.hex()[..ID_LETTERS], &status, bytes)]
        }
        PushEvent::Done { digest, size_bytes, tag } => vec![
            json!({ "status": format!("{tag}: digest: {digest} size: {size_bytes}") }),
            aux(json!({ "Tag": tag, "Digest": digest, "Size": size_bytes })),
        ],
        PushEvent::InsteadOfIndex { index, manifest } => vec![aux(json!({
            "manifestPushedInsteadOfIndex": true, "originalIndex": index, "selectedManifest": manifest,
        }))],
    };
    all.iter().map(|line| format!("{line}\r\n")).collect::<String>().into()
}

pub(super) fn aux(aux: Value) -> Value {
    json!({ "progressDetail": {}, "aux": aux })
}

fn words(step: &PushStep) -> (String, Option<(u64, u64)>) {
    match step {
        PushStep::Preparing => ("Preparing".to_owned(), None),
        PushStep::Waiting => ("Waiting".to_owned(), None),
        PushStep::Pushing { bytes, of_bytes } => ("Pushing".to_owned(), Some((*bytes, *of_bytes))),
        PushStep::Pushed => ("Pushed".to_owned(), None),
        PushStep::Exists => ("Layer already exists".to_owned(), None),
        PushStep::Mounted { from } => (format!("Mounted from {from}"), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_read() {
        for (name, query, want, all_tags) in [
            ("alpine", "tag=3", "alpine:3", false),
            ("alpine", "", "alpine:latest", true),
            ("alpine", "tag=", "alpine:latest", true),
            ("alpine:3", "", "alpine:3", false),
            ("localhost:5000/a", "", "localhost:5000/a:latest", true),
            ("localhost:5000/a/b", "tag=1&platform=linux/arm64", "localhost:5000/a/b:1", false),
        ] {
            let read = request(name, &Query::from(query), None).unwrap();
            assert_eq!((read.reference.familiar().as_str(), read.all_tags), (want, all_tags), "{name} {query}");
            assert_eq!(read.platform.is_some(), query.contains("platform"));
        }
        let digest = format!("a@sha256:{}", "0".repeat(64));
        for (name, query) in [(digest.as_str(), ""), ("A", ""), ("a", "tag=b%2Fc"), ("a", "platform=x/y/z/w")] {
            assert_eq!(request(name, &Query::from(query), None).unwrap_err().status(), 400, "{name} {query}");
        }
    }

    #[test]
    fn a_compression_is_read_or_refused() {
        let of =
            |query: &str| recompression(&Query::from(query)).map(|read| read.map(|read| (read.form, read.is_forced)));
        let gzip = LayerForm::default();
        for (query, want) in [
            ("", None),
            ("forceCompressionFormat=0", None),
            ("compressionFormat=gzip", Some((gzip, false))),
            ("compressionFormat=zstd", Some((LayerForm::Zstd(3), false))),
            ("compressionFormat=zstd&compressionLevel=9", Some((LayerForm::Zstd(9), true))),
            ("forceCompressionFormat=1", Some((gzip, true))),
        ] {
            assert_eq!(of(query).unwrap(), want, "{query}");
        }
        for query in
            ["compressionFormat=xz", "compressionFormat=zstd%3Achunked", "compressionLevel=0", "compressionLevel=x"]
        {
            assert_eq!(of(query).unwrap_err().status(), 400, "{query}");
        }
    }

    #[test]
    fn a_push_is_told_in_dockers_words() {
        let digest: dozen_model::Digest = format!("sha256:{}", "a".repeat(64)).parse().unwrap();
        let text = |event| String::from_utf8(lines(&event).to_vec()).unwrap();
        let of = |step| text(PushEvent::Layer { id: digest.clone(), step });
        let detail = r#""progressDetail":{}"#;
        assert_eq!(
            of(PushStep::Exists),
            format!("{{\"id\":\"aaaaaaaaaaaa\",{detail},\"status\":\"Layer already exists\"}}\r\n")
        );
        assert!(of(PushStep::Mounted { from: "library/busybox".into() }).contains("\"Mounted from library/busybox\""));
        let half = of(PushStep::Pushing { bytes: 500, of_bytes: 1000 });
        assert!(half.contains(r#""current":500,"total":1000"#) && half.contains("500B/1kB"), "{half}");
        let done = text(PushEvent::Done { digest: digest.clone(), size_bytes: 527, tag: "1".into() });
        assert_eq!(
            done,
            format!(
                "{{\"status\":\"1: digest: {digest} size: 527\"}}\r\n\
                 {{\"aux\":{{\"Digest\":\"{digest}\",\"Size\":527,\"Tag\":\"1\"}},{detail}}}\r\n"
            )
        );
    }
}
