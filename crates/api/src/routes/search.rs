//! `GET /images/search`: images of a registry by a word, filtered here, as Docker does it.

use axum::http::HeaderMap;
use dozen_engine::{Engine, FoundImage};
use serde_json::{Value, json};

use super::registry_auth;
use crate::error::{Answer, ApiError, ok};
use crate::extract::Query;
use crate::filters::Filters;

/// Of results, if the client does not say; and the most that may be asked for.
const USUAL: u64 = 25;
const MOST: u64 = 100;

/// See the module.
pub(super) async fn search(engine: &Engine, query: &Query, headers: &HeaderMap) -> Answer {
    let wanted = Wanted::read(query)?;
    let term = query.text("term").ok_or_else(|| ApiError::invalid("no term is given (\"term\")"))?;
    if wanted.is_nothing {
        return ok(&json!([]));
    }
    let found = engine.search(term, wanted.most, registry_auth::credentials(headers)).await?;
    ok(&found.iter().filter(|image| wanted.is_met(image)).map(described).collect())
}

#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    most: usize,
    is_official: Option<bool>,
    stars: i64,
    /// What nothing is any more: built by Docker Hub itself.
    is_nothing: bool,
}

impl Wanted {
    fn read(query: &Query) -> Result<Self, ApiError> {
        let filters = Filters::read(query, &["is-automated", "is-official", "stars"])?;
        let mut stars = 0;
        for text in filters.get("stars") {
            let count = text.parse::<i64>();
            stars = stars.max(count.map_err(|_| ApiError::invalid(format!("invalid filter 'stars={text}'")))?);
        }
        let limit = query.text("limit").map(|text| text.parse::<i64>().ok().filter(|limit| *limit >= 0));
        let limit = match limit {
            None | Some(Some(0)) => USUAL,
            Some(None) => return Err(ApiError::invalid("invalid limit specified")),
            Some(Some(limit)) => limit.unsigned_abs(),
        };
        if limit > MOST {
            return Err(ApiError::invalid(format!("limit {limit} is outside the range of [1, {MOST}]")));
        }
        Ok(Self {
            most: usize::try_from(limit).unwrap_or_default(),
            is_official: filters.flag("is-official")?,
            stars,
            is_nothing: filters.flag("is-automated")? == Some(true),
        })
    }

    fn is_met(&self, image: &FoundImage) -> bool {
        self.is_official.is_none_or(|wanted| wanted == image.is_official) && image.star_count >= self.stars
    }
}

fn described(image: &FoundImage) -> Value {
    json!({
        "name": image.name, "description": image.description, "star_count": image.star_count,
        "is_official": image.is_official, "is_automated": false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Wanted, String> {
        Wanted::read(&Query::from(query)).map_err(|error| error.message)
    }

    #[test]
    fn what_is_wanted_is_read() {
        let wanted = |most, is_official, stars, is_nothing| Ok(Wanted { most, is_official, stars, is_nothing });
        let filters =
            |json: &str| format!("filters={}", json.replace('{', "%7B").replace('}', "%7D").replace('"', "%22"));
        for (query, want) in [
            (String::new(), wanted(25, None, 0, false)),
            ("limit=0".into(), wanted(25, None, 0, false)),
            ("limit=100".into(), wanted(100, None, 0, false)),
            (filters(r#"{"is-official":["true"],"stars":["3","5"]}"#), wanted(25, Some(true), 5, false)),
            (filters(r#"{"is-official":{"false":true}}"#), wanted(25, Some(false), 0, false)),
            (filters(r#"{"is-automated":["true"]}"#), wanted(25, None, 0, true)),
            ("limit=101".into(), Err("limit 101 is outside the range of [1, 100]".to_owned())),
            ("limit=-1".into(), Err("invalid limit specified".to_owned())),
            ("limit=x".into(), Err("invalid limit specified".to_owned())),
            (filters(r#"{"stars":["many"]}"#), Err("invalid filter 'stars=many'".to_owned())),
            (filters(r#"{"color":["red"]}"#), Err("invalid filter 'color'".to_owned())),
        ] {
            assert_eq!(read(&query), want, "{query}");
        }
    }

    #[test]
    fn filters_hold() {
        let image = |is_official, star_count| FoundImage {
            name: "a".into(),
            description: String::new(),
            star_count,
            is_official,
        };
        let wanted = Wanted { most: 1, is_official: Some(true), stars: 5, is_nothing: false };
        let met = [image(true, 5), image(false, 5), image(true, 4)].map(|image| wanted.is_met(&image));
        assert_eq!(met, [true, false, false]);
    }
}
