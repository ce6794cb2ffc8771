//! `dozen images`, `dozen image ls`.

use std::collections::BTreeMap;

use clap::{Arg, ArgMatches, Command};
use jiff::Timestamp;
use serde::Deserialize;

use super::Context;
use crate::arguments::filters;
use crate::arguments::flags::{filter, format, is_on, switch, text, texts, verb};
use crate::client::Query;
use crate::failure::{Failure, Outcome};
use crate::output::listing::{self, Layout};
use crate::output::{self, duration, short_id, size};
use crate::template::Row;

const NONE: &str = "<none>";

pub fn command(name: &'static str) -> Command {
    verb(
        name,
        "List images",
        "images [OPTIONS] [REPOSITORY[:TAG]]",
        "dozen images\ndozen images --filter dangling=true -q",
    )
    .arg(switch("all", 'a', "Show all images (default hides intermediate images)"))
    .arg(switch("digests", None, "Show digests"))
    .arg(filter())
    .arg(format())
    .arg(switch("no-trunc", None, "Don't truncate output"))
    .arg(switch("quiet", 'q', "Only show image IDs"))
    .arg(Arg::new("reference").value_name("REPOSITORY[:TAG]"))
}

const HEADINGS: &[(&str, &str)] = &[
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Containers", "CONTAINERS"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
];
const PLAIN: &str = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";
const WITH_DIGESTS: &str = "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let mut filters = filters::parse(texts(matches, "filter")).map_err(Failure::new)?;
    if let Some(reference) = text(matches, "reference") {
        filters.entry("reference".to_owned()).or_default().push(reference.to_owned());
    }
    let format = text(matches, "format");
    let query = Query::new().with_flag("all", is_on(matches, "all")).with_filters(&filters);
    let images: Vec<Image> = context.client.get(&format!("/images/json{query}")).await?;
    let shows_digests = is_on(matches, "digests") || format.is_some_and(|format| format.contains(".Digest"));
    let now_s = Timestamp::now().as_second();
    let truncates = !is_on(matches, "no-trunc");
    let rows = images.iter().flat_map(|image| rows(image, truncates, shows_digests, now_s)).collect();
    let table = if is_on(matches, "digests") { WITH_DIGESTS } else { PLAIN };
    let layout = Layout { table, quiet: "ID", headings: HEADINGS };
    let shown = listing::render(&layout, format, is_on(matches, "quiet"), rows)?;
    output::print(&shown)?;
    Ok(0)
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Image {
    id: String,
    repo_tags: Option<Vec<String>>,
    repo_digests: Option<Vec<String>>,
    created: i64,
    pub(super) size: i64,
    pub(super) shared_size: i64,
    pub(super) containers: i64,
}

/// A line for each tag; an image without any has one all the same.
pub(super) fn rows(image: &Image, truncates: bool, shows_digests: bool, now_s: i64) -> Vec<Row> {
    let known = |text: &&String| !text.starts_with(NONE);
    let mut digests: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, digest) in
        image.repo_digests.iter().flatten().filter(known).filter_map(|reference| reference.split_once('@'))
    {
        digests.entry(name).or_insert(digest);
    }
    let mut names: Vec<(&str, &str, &str)> = Vec::new();
    for reference in image.repo_tags.iter().flatten().filter(known) {
        // The last colon: one before it belongs to the registry's port.
        let (name, tag) = reference.rsplit_once(':').unwrap_or((reference, NONE));
        names.push((name, tag, digests.get(name).copied().unwrap_or(NONE)));
    }
    let tagged: Vec<&str> = names.iter().map(|(name, ..)| *name).collect();
    let untagged = digests.iter().filter(|(name, _)| !tagged.contains(name));
    let by_digest: Vec<_> = untagged.map(|(name, digest)| (*name, NONE, *digest)).collect();
    if shows_digests || names.is_empty() {
        names.extend(by_digest);
    }
    if names.is_empty() {
        names.push((NONE, NONE, NONE));
    }
    let number = |value: i64| if value < 0 { "N/A".to_owned() } else { value.to_string() };
    let known_size = |value: i64| if value < 0 { "N/A".to_owned() } else { size::of_image(value) };
    names
        .into_iter()
        .map(|(repository, tag, digest)| Row {
            columns: vec![
                ("ID", if truncates { short_id(&image.id).to_owned() } else { image.id.clone() }),
                ("Repository", repository.to_owned()),
                ("Tag", tag.to_owned()),
                ("Digest", digest.to_owned()),
                ("CreatedSince", duration::ago(image.created, now_s)),
                ("CreatedAt", duration::go_time(image.created)),
                ("Size", size::of_image(image.size)),
                ("Containers", number(image.containers)),
                ("SharedSize", known_size(image.shared_size)),
                ("UniqueSize", known_size(if image.shared_size < 0 { -1 } else { image.size - image.shared_size })),
            ],
            labels: None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_a_line_for_each_tag() {
        let image: Image = serde_json::from_str(
            r#"{"Id":"sha256:0123456789abcdef","RepoTags":["a:1","localhost:5000/b:2"],"Created":1000,"Size":7800000,
                "SharedSize":-1,"Containers":-1}"#,
        )
        .unwrap();
        let layout = Layout { table: PLAIN, quiet: "ID", headings: HEADINGS };
        let shown = listing::render(&layout, None, false, rows(&image, true, false, 8200)).unwrap();
        assert_eq!(
            shown,
            "REPOSITORY         TAG       IMAGE ID       CREATED       SIZE\n\
             a                  1         0123456789ab   2 hours ago   7.8MB\n\
             localhost:5000/b   2         0123456789ab   2 hours ago   7.8MB\n"
        );
        let bare = Image { id: "sha256:ff".to_owned(), ..Image::default() };
        assert_eq!(rows(&bare, true, false, 0)[0].get("Repository"), Some("<none>"));
    }
}
