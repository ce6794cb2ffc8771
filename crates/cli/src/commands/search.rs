//! `dozen search`: images of Docker Hub, or of another registry, by a word.

use clap::{ArgMatches, Command, value_parser};
use http::Method;
use serde::Deserialize;

use super::Context;
use crate::arguments::filters;
use crate::arguments::flags::{filter, format, is_on, name, required, switch, text, texts, value, verb};
use crate::client::Query;
use crate::context::store::Store;
use crate::credentials;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::output::listing::{self, Layout};
use crate::template::Row;

/// Letters of a description, unless all are wanted.
const DESCRIPTION_LETTERS: usize = 45;

pub fn command() -> Command {
    verb(
        "search",
        "Search Docker Hub, or another registry, for images",
        "search [OPTIONS] TERM",
        "dozen search nginx\ndozen search --filter is-official=true --limit 5 postgres\ndozen search registry.example:5000/web",
    )
    .arg(filter())
    .arg(format())
    .arg(value("limit", None, "int", "Max number of search results").value_parser(value_parser!(i64)))
    .arg(switch("no-trunc", None, "Don't truncate output"))
    .arg(name("term", "TERM"))
}

const LAYOUT: Layout = Layout {
    table: "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}",
    quiet: "Name",
    headings: &[("Name", "NAME"), ("Description", "DESCRIPTION"), ("StarCount", "STARS"), ("IsOfficial", "OFFICIAL")],
};

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let term = required(matches, "term");
    let filters = filters::parse(texts(matches, "filter")).map_err(Failure::new)?;
    if filters.contains_key("is-automated") {
        output::say(
            "WARNING: the \"is-automated\" filter is deprecated, and searching for \"is-automated=true\" will not yield any \
             results in future.",
        );
    }
    let limit = matches.get_one::<i64>("limit").filter(|limit| **limit != 0).map(ToString::to_string);
    let query = Query::new().with("term", term).with_some("limit", limit.as_deref()).with_filters(&filters);
    let store = Store::of(&|name| std::env::var(name).ok());
    let auth = credentials::of_registry(store.directory(), registry(term))?;
    let fields: Vec<_> = auth.iter().map(|auth| ("X-Registry-Auth", auth.header())).collect();
    let found: Vec<Found> = context.client.read_with(Method::GET, &format!("/images/search{query}"), &fields).await?;
    let format = text(matches, "format");
    let truncates = !is_on(matches, "no-trunc");
    let is_json = format.is_some_and(|format| format.trim() == "json" || format.contains("{{json ."));
    let rows = found.iter().map(|image| row(image, truncates, is_json)).collect();
    output::print(&listing::render(&LAYOUT, format, false, rows)?)?;
    Ok(0)
}

/// Whose images are searched. What is no registry's name is the engine's to refuse.
fn registry(term: &str) -> &str {
    match term.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    }
}

#[derive(Debug, Deserialize)]
struct Found {
    name: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    star_count: i64,
    #[serde(default)]
    is_official: bool,
}

fn row(image: &Found, truncates: bool, is_json: bool) -> Row {
    let description = image.description.replace(['\n', '\r'], " ");
    let letters = description.chars().count();
    let description = match truncates && letters > DESCRIPTION_LETTERS {
        true => description.chars().take(DESCRIPTION_LETTERS - 1).chain(['…']).collect(),
        false => description,
    };
    let is_official = match (image.is_official, is_json) {
        (is_official, true) => is_official.to_string(),
        (true, false) => "[OK]".to_owned(),
        (false, false) => String::new(),
    };
    Row {
        columns: vec![
            ("Name", image.name.clone()),
            ("Description", description),
            ("StarCount", image.star_count.to_string()),
            ("IsOfficial", is_official),
        ],
        labels: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_is_the_terms() {
        for (term, want) in [
            ("nginx", "docker.io"),
            ("team/web", "docker.io"),
            ("registry.example:5000/web", "registry.example:5000"),
            ("localhost/web", "localhost"),
        ] {
            assert_eq!(registry(term), want);
        }
    }

    #[test]
    fn a_table_is_dockers() {
        let image = |name: &str, description: &str, star_count, is_official| Found {
            name: name.into(),
            description: description.into(),
            star_count,
            is_official,
        };
        let found = [
            image("nginx", "Official build of Nginx.", 20_000, true),
            image("team/nginx", "one\ntwo three four five six seven eight nine ten eleven", 3, false),
        ];
        let rows = |truncates, is_json| found.iter().map(|image| row(image, truncates, is_json)).collect();
        assert_eq!(
            listing::render(&LAYOUT, None, false, rows(true, false)).unwrap(),
            "NAME         DESCRIPTION                                     STARS     OFFICIAL\n\
             nginx        Official build of Nginx.                        20000     [OK]\n\
             team/nginx   one two three four five six seven eight nine…   3         \n"
        );
        let json = listing::render(&LAYOUT, Some("json"), false, rows(false, true)).unwrap();
        assert!(
            json.starts_with(r#"{"Description":"Official build of Nginx.","IsOfficial":"true","Name":"nginx","#),
            "{json}"
        );
        assert!(json.contains("ten eleven"), "{json}");
    }
}
