//! `dozen tag`.

use clap::{ArgMatches, Command};
use dozen_model::Reference;

use super::{Context, image_path};
use crate::arguments::flags::{name, required, verb};
use crate::client::Query;
use crate::failure::{Failure, Outcome};

pub fn command() -> Command {
    verb(
        "tag",
        "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
        "tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
        "dozen tag my-app localhost:5000/my-app:1.0",
    )
    .arg(name("source", "SOURCE_IMAGE[:TAG]"))
    .arg(name("target", "TARGET_IMAGE[:TAG]"))
}

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let (repository, tag) = repository_and_tag(required(matches, "target"))?;
    let query = Query::new().with("repo", &repository).with("tag", &tag);
    context.client.post_for_nothing(&image_path(required(matches, "source"), &format!("/tag{query}")), None).await?;
    Ok(0)
}

/// A target as the API takes it: the name in full, and the tag.
pub fn repository_and_tag(target: &str) -> Result<(String, String), Failure> {
    let reference: Reference =
        target.parse().map_err(|error| Failure::new(format!("error parsing reference: \"{target}\": {error}")))?;
    if reference.digest().is_some() {
        return Err(Failure::new(format!("refusing to create a tag with a digest reference: \"{target}\"")));
    }
    let tag = reference.tag().unwrap_or("latest").to_owned();
    Ok((format!("{}/{}", reference.registry(), reference.path()), tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_named_in_full() {
        let parse = |text: &str| repository_and_tag(text).map_err(|failure| failure.message);
        assert_eq!(parse("a:b"), Ok(("docker.io/library/a".into(), "b".into())));
        assert_eq!(parse("localhost:5000/a"), Ok(("localhost:5000/a".into(), "latest".into())));
        assert!(parse("A").unwrap_err().contains("repository name must be lowercase"));
        assert!(parse(&format!("a@sha256:{}", "0".repeat(64))).unwrap_err().starts_with("refusing to create a tag"));
    }
}
