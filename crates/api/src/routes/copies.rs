//! `HEAD`, `GET` and `PUT /containers/{id}/archive`: what `cp` is made of.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use dozen_engine::image::PathStat;
use dozen_engine::{ContainerPath, Engine, ExtractOptions};
use dozen_model::base64;
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::mpsc;

use super::archives::{ChannelReader, PIECES, pump, stream};
use crate::error::{Answer, ApiError, empty, join_failed};
use crate::extract::Query;

/// What stands at the path, as JSON in base 64.
const STAT_HEADER: &str = "x-docker-container-path-stat";

pub(super) async fn stat(State(engine): State<Engine>, Path(id): Path<String>, query: Query) -> Answer {
    let path = find(&engine, &id, &query).await?;
    let stat = tokio::task::spawn_blocking(move || path.stat()).await.map_err(join_failed)??;
    Ok(described(StatusCode::OK.into_response(), &stat))
}

pub(super) async fn get(State(engine): State<Engine>, Path(id): Path<String>, query: Query) -> Answer {
    let path = find(&engine, &id, &query).await?;
    let looked = move || path.stat().map(|stat| (stat, path));
    let (stat, path) = tokio::task::spawn_blocking(looked).await.map_err(join_failed)??;
    let response = stream("application/x-tar", move |out| path.archive(out)).await?;
    Ok(described(response, &stat))
}

pub(super) async fn put(State(engine): State<Engine>, Path(id): Path<String>, query: Query, body: Body) -> Answer {
    let options = ExtractOptions { keep_kinds: query.flag("noOverwriteDirNonDir"), users: query.flag("copyUIDGID") };
    let path = find(&engine, &id, &query).await?;
    let (archive, pieces) = mpsc::channel(PIECES);
    tokio::spawn(pump(body, archive));
    let extract = move || path.extract(options, &mut ChannelReader::new(pieces));
    tokio::task::spawn_blocking(extract).await.map_err(join_failed)??;
    empty(StatusCode::OK)
}

async fn find(engine: &Engine, id: &str, query: &Query) -> Result<ContainerPath, ApiError> {
    Ok(engine.container(id)?.path(query.text("path").unwrap_or_default()).await?)
}

fn described(mut response: Response, stat: &PathStat) -> Response {
    let encoded = base64::encode(shown(stat).to_string().as_bytes());
    let value = HeaderValue::try_from(encoded).expect("base 64 is ASCII");
    response.headers_mut().insert(STAT_HEADER, value);
    response
}

/// Docker's ContainerPathStat.
fn shown(stat: &PathStat) -> serde_json::Value {
    let modified = Timestamp::new(stat.modified.0, stat.modified.1.try_into().unwrap_or(0)).unwrap_or_default();
    json!({
        "name": stat.name,
        "size": stat.size_bytes,
        "mode": file_mode(stat.mode),
        "mtime": modified.to_string(),
        "linkTarget": stat.link_target.as_deref().unwrap_or(""),
    })
}

/// Go's os.FileMode, from stat(2)'s: permissions below, kinds from the top (pkg.go.dev/io/fs, FileMode).
fn file_mode(mode: u32) -> u32 {
    let kind = match mode & 0o170_000 {
        0o040_000 => 1 << 31,
        0o120_000 => 1 << 27,
        0o060_000 => 1 << 26,
        0o020_000 => 1 << 26 | 1 << 21,
        0o010_000 => 1 << 25,
        0o140_000 => 1 << 24,
        _ => 0,
    };
    let special = [(0o4000, 23), (0o2000, 22), (0o1000, 20)];
    let special = special.iter().filter(|(bit, _)| mode & bit != 0).fold(0, |bits, (_, place)| bits | 1 << place);
    kind | special | mode & 0o777
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_gos() {
        for (mode, expected) in [
            (0o100_644, 0o644),
            (0o041_777, 0x8000_0000 | 0x10_0000 | 0o777),
            (0o120_777, 0x0800_0000 | 0o777),
            (0o104_755, 0x80_0000 | 0o755),
            (0o102_755, 0x40_0000 | 0o755),
            (0o020_666, 0x0420_0000 | 0o666),
            (0o060_660, 0x0400_0000 | 0o660),
            (0o010_600, 0x0200_0000 | 0o600),
            (0o140_755, 0x0100_0000 | 0o755),
        ] {
            assert_eq!(file_mode(mode), expected, "{mode:o}");
        }
    }

    #[test]
    fn a_stat_has_dockers_shape() {
        let stat = PathStat {
            name: "link".into(),
            size_bytes: 4,
            mode: 0o120_777,
            modified: (1_700_000_000, 5_000_000),
            link_target: Some("/etc".into()),
        };
        assert_eq!(
            shown(&stat),
            json!({
                "name": "link", "size": 4, "mode": 0x0800_01ffu32, "mtime": "2023-11-14T22:13:20.005Z",
                "linkTarget": "/etc",
            })
        );
    }
}
