//! Parameters that several requests about images have.

use dozen_engine::Platform;
use dozen_engine::image::PlatformError;
use dozen_model::Reference;
use jiff::Timestamp;

use crate::error::ApiError;
use crate::extract::Query;

/// `platform`: as text, or, as newer clients have it for images, as OCI's JSON.
pub(super) fn platform(query: &Query) -> Result<Option<Platform>, ApiError> {
    let mut all = query.all("platform").filter(|text| !text.is_empty());
    let Some(text) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        return Err(ApiError::not_built("more than one platform at a time"));
    }
    if text.starts_with('{') {
        let parsed = serde_json::from_str(text);
        return parsed.map(Some).map_err(|error| ApiError::invalid(format!("invalid platform {text:?}: {error}")));
    }
    text.parse().map(Some).map_err(|error: PlatformError| ApiError::invalid(error.to_string()))
}

/// `repo` and `tag`.
pub(super) fn target(query: &Query) -> Result<Option<Reference>, ApiError> {
    let Some(repository) = query.text("repo") else { return Ok(None) };
    let reference: Reference = repository.parse()?;
    if reference.digest().is_some() {
        return Err(ApiError::invalid("refusing to create a tag with a digest reference"));
    }
    Ok(Some(match query.text("tag") {
        Some(tag) => reference.with_tag(tag)?,
        None => reference,
    }))
}

/// `changes`: a parameter may hold several instructions, a line each.
pub(super) fn changes(query: &Query) -> Vec<String> {
    let lines = query.all("changes").flat_map(str::lines).map(str::trim);
    lines.filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// `sourceDateEpoch`: when the image was made, in place of now, in seconds since 1970, so that making it again gives the
/// same one (reproducible-builds.org, "SOURCE_DATE_EPOCH"). Docker's API has no such parameter.
pub(super) fn created(query: &Query) -> Result<Option<Timestamp>, ApiError> {
    let Some(seconds) = query.number::<i64>("sourceDateEpoch")? else { return Ok(None) };
    let created = Timestamp::from_second(seconds);
    created.map(Some).map_err(|error| ApiError::invalid(format!("invalid value for \"sourceDateEpoch\": {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_parse_or_are_refused() {
        let familiar = |query: &str| target(&Query::from(query)).map(|r| r.map(|r| r.familiar()));
        assert_eq!(familiar("repo=a&tag=1"), Ok(Some("a:1".into())));
        assert_eq!(familiar("repo=localhost:5000/a"), Ok(Some("localhost:5000/a:latest".into())));
        assert_eq!(familiar(""), Ok(None));
        assert!(familiar("repo=A").unwrap_err().message.contains("invalid reference format"));
        assert!(familiar("repo=a&tag=b%2Fc").is_err());
    }

    #[test]
    fn a_platform_is_text_or_json() {
        let read = |query: &str| platform(&Query::from(query)).map(|found| found.map(|found| found.to_string()));
        assert_eq!(read(""), Ok(None));
        assert_eq!(read("platform="), Ok(None));
        assert_eq!(read("platform=linux/arm64"), Ok(Some("linux/arm64".into())));
        assert_eq!(
            read("platform=%7B%22os%22:%22linux%22,%22architecture%22:%22aarch64%22%7D"),
            Ok(Some("linux/arm64".into()))
        );
        assert_eq!(read("platform=linux/arm64&platform=linux/amd64").unwrap_err().status(), 501);
        for wrong in ["%7B%22os%22:1%7D", "%5B%5D", "a/b/c/d", "nonsense"] {
            assert_eq!(read(&format!("platform={wrong}")).unwrap_err().status(), 400, "{wrong}");
        }
    }
}
