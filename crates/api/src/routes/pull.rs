//! `POST /images/create?fromImage=…`: a pull, told in Docker's words. What goes wrong before anything is told is the answer's
//! status; afterwards it stands in the stream. The answer's body owns its part in the pull, which ends with the last client.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use dozen_engine::{Credentials, Engine, LayerStep, PullEvent, PullRequest};
use dozen_model::Reference;
use serde_json::{Value, json};

use super::image_query;
pub(super) use super::registry_auth::credentials;
use crate::error::{Answer, ApiError};
use crate::extract::Query;

/// Of the short form of a digest.
pub(super) const ID_LETTERS: usize = 12;

/// See the module.
pub(super) async fn pull(engine: &Engine, query: &Query, headers: &HeaderMap) -> Answer {
    let request = request(query, credentials(headers))?;
    let mut pull = engine.pull(request);
    let first = pull.next().await?;
    let stream = futures_util::stream::unfold((first, Some(pull)), |(first, pull)| async move {
        let mut pull = pull?;
        let event = match first {
            Some(event) => Ok(Some(event)),
            None => pull.next().await,
        };
        match event {
            Ok(event) => Some((Ok::<_, std::convert::Infallible>(lines(&event?)), (None, Some(pull)))),
            Err(error) => Some((Ok(failure(ApiError::from(error))), (None, None))),
        }
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from_stream(stream)).into_response())
}

fn request(query: &Query, credentials: Option<Credentials>) -> Result<PullRequest, ApiError> {
    let image = query.text("fromImage").ok_or_else(|| ApiError::invalid("image name cannot be blank"))?;
    let name: Reference = image.parse()?;
    let tag = query.text("tag");
    let reference = match tag {
        None => name.clone(),
        Some(digest) if digest.contains(':') => format!("{}@{digest}", name.familiar_name()).parse()?,
        Some(tag) => name.with_tag(tag)?,
    };
    // A name without anything behind it is that of a whole repository.
    let is_bare =
        tag.is_none() && name.digest().is_none() && !image.ends_with(&format!(":{}", name.tag().unwrap_or("")));
    let platform = image_query::platform(query)?;
    Ok(PullRequest { reference, all_tags: is_bare, platform, is_beside: false, credentials })
}

/// Docker's words for an event.
pub(super) fn lines(event: &PullEvent) -> Bytes {
    let all = match event {
        PullEvent::Begins { what, repository } => {
            vec![json!({ "status": format!("Pulling from {repository}"), "id": what })]
        }
        PullEvent::Layer { digest, step } => {
            let id = &digest.hex()[..ID_LETTERS];
            steps(*step).into_iter().map(|(status, bytes)| layer(id, &status, bytes)).collect()
        }
        PullEvent::Left { remaining, limit, window_s } => {
            vec![json!({ "status": left(*remaining, *limit, *window_s) })]
        }
        PullEvent::Resolved(digest) => vec![json!({ "status": format!("Digest: {digest}") })],
        PullEvent::Done { name, is_new } => {
            let words = if *is_new { "Downloaded newer image" } else { "Image is up to date" };
            vec![json!({ "status": format!("Status: {words} for {name}") })]
        }
    };
    all.iter().map(|line| format!("{line}\r\n")).collect::<String>().into()
}

/// What the registry still gives. Docker says nothing of it.
fn left(remaining: u64, limit: Option<u64>, window_s: Option<u64>) -> String {
    let of = limit.map(|limit| format!(" of {limit}")).unwrap_or_default();
    let every = match window_s {
        None => String::new(),
        Some(seconds) if seconds % 3600 == 0 => format!(" every {} h", seconds / 3600),
        Some(seconds) => format!(" every {seconds} s"),
    };
    format!("Pulls left: {remaining}{of}{every}")
}

type Step = (Cow<'static, str>, Option<(u64, u64)>);

fn steps(step: LayerStep) -> Vec<Step> {
    let plain = |words: &'static str| (Cow::Borrowed(words), None);
    match step {
        LayerStep::Exists => vec![plain("Already exists")],
        LayerStep::Found => vec![plain("Pulling fs layer")],
        LayerStep::Downloading { bytes, of_bytes } => vec![("Downloading".into(), Some((bytes, of_bytes)))],
        LayerStep::Retrying { seconds } => {
            let plural = if seconds == 1 { "" } else { "s" };
            vec![(format!("Retrying in {seconds} second{plural}").into(), None)]
        }
        LayerStep::Downloaded => vec![plain("Verifying Checksum"), plain("Download complete")],
        LayerStep::Extracting { bytes, of_bytes } => vec![("Extracting".into(), Some((bytes, of_bytes)))],
        LayerStep::Complete => vec![plain("Pull complete")],
    }
}

pub(super) fn layer(id: &str, status: &str, bytes: Option<(u64, u64)>) -> Value {
    let Some((current, total)) = bytes else { return json!({ "status": status, "progressDetail": {}, "id": id }) };
    json!({
        "status": status,
        "progressDetail": { "current": current, "total": total },
        "progress": bar(current, total),
        "id": id,
    })
}

/// As Docker draws it (its pkg/jsonmessage): fifty places.
fn bar(current: u64, total: u64) -> String {
    const PLACES: usize = 50;
    let share = usize::try_from(current.min(total) * PLACES as u64 / total.max(1)).unwrap_or(PLACES);
    let arrow = if share < PLACES { ">" } else { "" };
    let blank = " ".repeat(PLACES - share - arrow.len());
    format!("[{}{arrow}{blank}]  {}/{}", "=".repeat(share), human(current), human(total))
}

/// As Docker writes sizes: powers of a thousand, four digits.
fn human(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let places = match value {
        value if value >= 1000.0 => 0,
        value if value >= 100.0 => 1,
        value if value >= 10.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.places$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS[unit])
}

pub(super) fn failure(error: ApiError) -> Bytes {
    let mut line = json!({ "errorDetail": { "message": error.message }, "error": error.message });
    if let Some(hint) = error.hint {
        line["hint"] = json!(hint);
    }
    format!("{line}\r\n").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_read() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (query, want, all_tags) in [
            ("fromImage=alpine&tag=3".to_owned(), "alpine:3".to_owned(), false),
            ("fromImage=alpine".into(), "alpine:latest".into(), true),
            ("fromImage=alpine:latest".into(), "alpine:latest".into(), false),
            ("fromImage=localhost:5000/a".into(), "localhost:5000/a:latest".into(), true),
            (format!("fromImage=a&tag={digest}"), format!("a@{digest}"), false),
            (format!("fromImage=a@{digest}"), format!("a@{digest}"), false),
        ] {
            let read = request(&Query::from(query.as_str()), None).unwrap();
            assert_eq!((read.reference.familiar(), read.all_tags), (want, all_tags), "{query}");
        }
        for query in ["", "fromImage=A", "fromImage=a&tag=b%2Fc", "fromImage=a&tag=b&platform=x/y/z/w"] {
            assert!(request(&Query::from(query), None).is_err(), "{query}");
        }
    }

    #[test]
    fn what_is_left_is_told() {
        for (limit, window_s, want) in [
            (Some(100), Some(21600), "Pulls left: 76 of 100 every 6 h"),
            (Some(100), Some(90), "Pulls left: 76 of 100 every 90 s"),
            (None, None, "Pulls left: 76"),
        ] {
            assert_eq!(left(76, limit, window_s), want);
        }
    }

    #[test]
    fn sizes_are_dockers() {
        for (bytes, want) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1_048_576, "1.049MB"),
            (31_406_123, "31.41MB"),
            (500_000_000, "500MB"),
            (123_456_789_012, "123.5GB"),
        ] {
            assert_eq!(human(bytes), want);
        }
    }

    #[test]
    fn a_layer_is_told_in_dockers_words() {
        let digest: dozen_model::Digest = format!("sha256:{}", "a".repeat(64)).parse().unwrap();
        let of = |step| String::from_utf8(lines(&PullEvent::Layer { digest: digest.clone(), step }).to_vec()).unwrap();
        let detail = r#""progressDetail":{}"#;
        assert_eq!(
            of(LayerStep::Exists),
            format!("{{\"id\":\"aaaaaaaaaaaa\",{detail},\"status\":\"Already exists\"}}\r\n")
        );
        assert_eq!(of(LayerStep::Downloaded).lines().count(), 2);
        for (seconds, words) in [(1, "Retrying in 1 second\""), (5, "Retrying in 5 seconds\"")] {
            assert!(of(LayerStep::Retrying { seconds }).contains(words));
        }
        let half = of(LayerStep::Downloading { bytes: 500, of_bytes: 1000 });
        let arrow = format!("[{}>{}]  500B/1kB", "=".repeat(25), " ".repeat(24));
        assert!(half.contains(&arrow) && half.contains(r#""current":500,"total":1000"#), "{half}");
        assert_eq!(bar(0, 0).len(), bar(9, 9).len());
        assert_eq!(bar(u64::MAX / 100, 1).matches('=').count(), 50);
    }
}
