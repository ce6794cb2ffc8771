//! `dozen builder` and `dozen buildx`: builds, and what they keep.

mod cache;

use std::fmt::Write;

use clap::{ArgMatches, Command};
use jiff::Timestamp;
use serde::Deserialize;

use super::disk_usage::Cache;
use super::{Context, build, prune};
use crate::arguments::filters;
use crate::arguments::flags::{format, is_on, list, switch, text, texts, verb};
use crate::failure::{Failure, Outcome};
use crate::output::listing::{self, Layout};
use crate::output::{self, size, table};
use crate::template::Row;

pub fn command() -> Command {
    group("builder", "Manage builds").subcommands([build::command(), cache::command()])
}

pub fn command_of_buildx() -> Command {
    group("buildx", "Docker's name for what builds: 'dozen buildx build' is 'dozen build'")
        .subcommand(build::command().alias("b"))
}

/// What both names have.
fn group(name: &'static str, about: &'static str) -> Command {
    let of_usage =
        verb("du", "Disk usage of the build cache", "du [OPTIONS]", "dozen builder du\ndozen builder du --verbose")
            .arg(list("filter", None, "Provide filter values (id, type, description, inuse, shared, private)"))
            .arg(format())
            .arg(switch("verbose", None, "Provide a more verbose output"));
    let group = Command::new(name).about(about).subcommand_required(true).arg_required_else_help(true);
    group.subcommands([of_usage, prune::builds_command()])
}

pub async fn execute(context: &Context, verb: &str, matches: &ArgMatches) -> Outcome {
    match verb {
        "build" => build::execute(context, matches).await,
        "cache" => cache::execute(context, matches).await,
        "du" => usage(context, matches).await,
        "prune" => prune::builds(context, matches).await,
        _ => unreachable!("clap knows no other verb"),
    }
}

const USAGE: Layout = Layout {
    table: "{{.ID}}\t{{.Reclaimable}}\t{{.Size}}\t{{.LastUsedAt}}",
    quiet: "ID",
    headings: &[
        ("ID", "ID"),
        ("Reclaimable", "RECLAIMABLE"),
        ("Size", "SIZE"),
        ("LastUsedAt", "LAST ACCESSED"),
        ("CreatedAt", "CREATED"),
        ("Description", "DESCRIPTION"),
        ("Shared", "SHARED"),
        ("Type", "TYPE"),
        ("UsageCount", "USAGE COUNT"),
    ],
};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Usage {
    build_cache: Option<Vec<Cache>>,
}

async fn usage(context: &Context, matches: &ArgMatches) -> Outcome {
    let chosen = Chosen::of(texts(matches, "filter"))?;
    let usage: Usage = context.client.get("/system/df?type=build-cache").await?;
    let mut caches: Vec<Cache> = usage.build_cache.unwrap_or_default();
    caches.retain(|cache| chosen.has(cache));
    // The largest first: for those people look.
    caches.sort_by_key(|cache| std::cmp::Reverse(cache.size));
    let now_s = Timestamp::now().as_second();
    let format = text(matches, "format");
    let mut shown = match is_on(matches, "verbose") {
        true => caches.iter().map(|cache| details(cache, now_s)).collect(),
        false => {
            let rows = caches.iter().map(|cache| row(cache, now_s)).collect();
            listing::render(&USAGE, format, false, rows)?
        }
    };
    if format.is_none_or(|format| format == "table") {
        shown += &totals(&caches);
    }
    output::print(&shown)?;
    Ok(0)
}

/// `--filter`: what is shown.
#[derive(Debug, Default)]
struct Chosen(filters::Filters);

impl Chosen {
    fn of(texts: Vec<&str>) -> Result<Self, Failure> {
        let filters = filters::parse(texts).map_err(Failure::new)?;
        for (name, values) in &filters {
            let is_known = match name.as_str() {
                "id" | "type" | "description" => true,
                "inuse" | "shared" | "private" => {
                    if let Some(bad) = values.iter().find(|value| boolean(value).is_none()) {
                        return Err(Failure::new(format!("invalid filter '{name}={bad}'")));
                    }
                    true
                }
                _ => false,
            };
            if !is_known {
                return Err(Failure::new(format!("invalid filter '{name}'")));
            }
        }
        Ok(Self(filters))
    }

    fn has(&self, cache: &Cache) -> bool {
        self.0.iter().all(|(name, values)| {
            values.iter().all(|value| {
                let is = |fact: bool| boolean(value) == Some(fact);
                match name.as_str() {
                    "id" => cache.id.contains(value.as_str()),
                    "type" => cache.kind == *value,
                    "description" => cache.description == *value,
                    "inuse" => is(cache.in_use),
                    "shared" => is(cache.shared),
                    _ => is(!cache.shared),
                }
            })
        })
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

fn row(cache: &Cache, now_s: i64) -> Row {
    let columns = vec![
        ("ID", shown_id(cache)),
        ("Reclaimable", (!cache.in_use).to_string()),
        ("Size", size::human(cache.size)),
        ("LastUsedAt", cache.last_used_since(now_s)),
        ("CreatedAt", cache.created_at.clone()),
        ("Description", cache.description.clone()),
        ("Shared", cache.shared.to_string()),
        ("Type", cache.kind.clone()),
        ("UsageCount", cache.usage_count.to_string()),
    ];
    Row { columns, labels: None }
}

/// With buildx's mark of what may change.
fn shown_id(cache: &Cache) -> String {
    let mark = if cache.is_mutable() { "*" } else { "" };
    format!("{}{mark}", cache.id)
}

fn details(cache: &Cache, now_s: i64) -> String {
    let lines = [
        ("ID", cache.id.clone()),
        ("Created at", cache.created_at.clone()),
        ("Mutable", cache.is_mutable().to_string()),
        ("Reclaimable", (!cache.in_use).to_string()),
        ("Shared", cache.shared.to_string()),
        ("Size", size::human(cache.size)),
        ("Description", output::cell(&cache.description).into_owned()),
        ("Usage count", cache.usage_count.to_string()),
        ("Last used", cache.last_used_since(now_s)),
        ("Type", cache.kind.clone()),
    ];
    let mut text = String::new();
    for (name, value) in lines {
        let _ = writeln!(text, "{name}:\t{value}");
    }
    table::align(&text) + "\n"
}

/// As buildx sums it up.
fn totals(caches: &[Cache]) -> String {
    let sum = |counts: &dyn Fn(&&Cache) -> bool| -> i64 { caches.iter().filter(counts).map(|cache| cache.size).sum() };
    let shared = sum(&|cache| cache.shared);
    let mut text = String::new();
    if shared > 0 {
        let _ =
            writeln!(text, "Shared:\t{}\nPrivate:\t{}", size::human(shared), size::human(sum(&|cache| !cache.shared)));
    }
    let reclaimable = sum(&|cache| !cache.in_use);
    let _ = writeln!(text, "Reclaimable:\t{}\nTotal:\t{}", size::human(reclaimable), size::human(sum(&|_| true)));
    table::align(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caches() -> Vec<Cache> {
        let usage: serde_json::Result<Usage> = serde_json::from_str(
            r#"{"BuildCache":[
                {"ID":"abc","Type":"regular","Description":"RUN make","Size":3000,"CreatedAt":"1970-01-01T00:00:00Z",
                 "LastUsedAt":"1970-01-01T00:01:00Z","UsageCount":2},
                {"ID":"def","Type":"regular","Description":"COPY . .","Size":1000,"Shared":true,"InUse":true},
                {"ID":"123","Type":"exec.cachemount","Description":"cached mount pip","Size":500}]}"#,
        );
        usage.unwrap().build_cache.unwrap()
    }

    #[test]
    fn what_is_kept_is_shown_as_buildx_shows_it() {
        let caches = caches();
        let rows = caches.iter().map(|cache| row(cache, 60)).collect();
        let shown = listing::render(&USAGE, None, false, rows).unwrap() + &totals(&caches);
        assert_eq!(
            shown,
            "ID        RECLAIMABLE   SIZE      LAST ACCESSED\n\
             abc       true          3kB       Less than a second ago\n\
             def       false         1kB       \n\
             123*      true          500B      \n\
             Shared:        1kB\nPrivate:       3.5kB\nReclaimable:   3.5kB\nTotal:         4.5kB\n"
        );
        let details = details(&caches[2], 60);
        assert!(details.starts_with("ID:            123\n") && details.contains("Mutable:       true\n"), "{details}");
    }

    #[test]
    fn filters_choose() {
        let ids = |texts: &[&str]| {
            let chosen = Chosen::of(texts.to_vec()).map_err(|failure| failure.message)?;
            Ok::<_, String>(
                caches().into_iter().filter(|cache| chosen.has(cache)).map(|cache| cache.id).collect::<Vec<_>>(),
            )
        };
        for (texts, expected) in [
            (&["type=regular"][..], &["abc", "def"][..]),
            (&["id=b"], &["abc"]),
            (&["description=cached mount pip"], &["123"]),
            (&["inuse=true"], &["def"]),
            (&["private=true", "type=regular"], &["abc"]),
            (&["shared=0"], &["abc", "123"]),
        ] {
            assert_eq!(ids(texts).unwrap(), expected, "{texts:?}");
        }
        assert_eq!(ids(&["parents=x"]).unwrap_err(), "invalid filter 'parents'");
        assert_eq!(ids(&["inuse=x"]).unwrap_err(), "invalid filter 'inuse=x'");
    }
}
