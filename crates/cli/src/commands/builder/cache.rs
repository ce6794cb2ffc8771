//! `dozen builder cache export|import|ls|rm`: cache mounts, which Docker has no commands for.

use clap::{Arg, ArgMatches, Command};
use http::Method;
use jiff::Timestamp;
use serde::Deserialize;

use super::super::download::Download;
use super::super::{Context, upload};
use crate::arguments::flags::{format, is_on, name, names, required, switch, text, texts, value, verb};
use crate::client::Query;
use crate::failure::{Failure, Outcome};
use crate::output::listing::{self, Layout};
use crate::output::{self, duration, size};
use crate::template::Row;

pub fn command() -> Command {
    Command::new("cache")
        .about("Manage cache mounts (RUN --mount=type=cache), by their id, or else their target")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([
            verb(
                "export",
                "Export what a cache mount holds as a tar archive",
                "builder cache export [OPTIONS] CACHE",
                "dozen builder cache export /root/.cache/pip >pip.tar",
            )
            .arg(value("output", 'o', "string", "Write to a file, instead of STDOUT"))
            .arg(name("cache", "CACHE")),
            verb(
                "import",
                "Fill a cache mount that is missing or empty from a tar archive",
                "builder cache import CACHE [FILE|-]",
                "dozen builder cache import /root/.cache/pip <pip.tar",
            )
            .arg(name("cache", "CACHE"))
            .arg(Arg::new("source").value_name("FILE|-")),
            verb("ls", "List cache mounts", "builder cache ls [OPTIONS]", "dozen builder cache ls")
                .visible_alias("list")
                .arg(format())
                .arg(switch("quiet", 'q', "Only display the names of cache mounts")),
            verb(
                "rm",
                "Remove cache mounts that no build has",
                "builder cache rm CACHE [CACHE...]",
                "dozen builder cache rm /root/.cache/pip",
            )
            .visible_alias("remove")
            .arg(names("CACHE")),
        ])
}

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    match matches.subcommand() {
        Some(("export", matches)) => export(context, matches).await,
        Some(("import", matches)) => import(context, matches).await,
        Some(("ls", matches)) => show(context, matches).await,
        Some(("rm", matches)) => remove(context, matches).await,
        _ => unreachable!("clap knows no other verb"),
    }
}

fn path(name: &str, verb: &str) -> String {
    format!("/build/caches{verb}{}", Query::new().with("name", name))
}

async fn export(context: &Context, matches: &ArgMatches) -> Outcome {
    let download = Download::to(text(matches, "output"), "builder cache export", "failed to export cache mount")?;
    let response = context.client.stream(Method::GET, &path(required(matches, "cache"), "/export"), None).await?;
    download.take(response, "Exporting").await?;
    Ok(0)
}

async fn import(context: &Context, matches: &ArgMatches) -> Outcome {
    let file = text(matches, "source").filter(|source| *source != "-");
    let (body, bar) = upload::body(file, "builder cache import", "Importing", false).await?;
    let path = path(required(matches, "cache"), "/import");
    let response = context.client.stream(Method::PUT, &path, Some(body)).await;
    bar.finish_and_clear();
    response?;
    Ok(0)
}

async fn remove(context: &Context, matches: &ArgMatches) -> Outcome {
    let mut failures = Vec::new();
    for name in texts(matches, "names") {
        match context.client.delete(&path(name, "")).await {
            Ok(_) => output::print_line(name)?,
            Err(error) => failures.push(Failure::from(error)),
        }
    }
    Failure::all(failures)
}

const LAYOUT: Layout = Layout {
    table: "{{.Name}}\t{{.ID}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.InUse}}",
    quiet: "Name",
    headings: &[
        ("Name", "CACHE"),
        ("ID", "CACHE ID"),
        ("Size", "SIZE"),
        ("CreatedSince", "CREATED"),
        ("LastUsedSince", "LAST USED"),
        ("InUse", "IN USE"),
        ("CreatedAt", "CREATED AT"),
        ("LastUsedAt", "LAST USED AT"),
        ("UsageCount", "USAGE"),
    ],
};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Caches {
    caches: Vec<Cache>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Cache {
    #[serde(rename = "ID")]
    id: String,
    name: String,
    in_use: bool,
    size: i64,
    created_at: String,
    last_used_at: String,
    usage_count: u64,
}

async fn show(context: &Context, matches: &ArgMatches) -> Outcome {
    let answer: Caches = context.client.get("/build/caches").await?;
    let now_s = Timestamp::now().as_second();
    let mut caches = answer.caches;
    caches.sort_by(|one, other| (&one.name, &one.id).cmp(&(&other.name, &other.id)));
    let rows = caches.into_iter().map(|cache| row(cache, now_s)).collect();
    output::print(&listing::render(&LAYOUT, text(matches, "format"), is_on(matches, "quiet"), rows)?)?;
    Ok(0)
}

fn row(cache: Cache, now_s: i64) -> Row {
    let since =
        |text: &str| text.parse::<Timestamp>().map(|time| duration::ago(time.as_second(), now_s)).unwrap_or_default();
    let columns = vec![
        ("Name", cache.name),
        ("ID", cache.id),
        ("Size", size::human(cache.size)),
        ("CreatedSince", since(&cache.created_at)),
        ("LastUsedSince", since(&cache.last_used_at)),
        ("InUse", cache.in_use.to_string()),
        ("CreatedAt", cache.created_at),
        ("LastUsedAt", cache.last_used_at),
        ("UsageCount", cache.usage_count.to_string()),
    ];
    Row { columns, labels: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_mounts_are_listed() {
        let caches: serde_json::Result<Caches> = serde_json::from_str(
            r#"{"Caches":[{"ID":"0123456789ab","Name":"/root/.cache","Size":1000,"CreatedAt":"1970-01-01T00:00:10Z",
                "LastUsedAt":"1970-01-01T00:01:00Z","UsageCount":2}]}"#,
        );
        let rows = caches.unwrap().caches.into_iter().map(|cache| row(cache, 70)).collect();
        assert_eq!(
            listing::render(&LAYOUT, None, false, rows).unwrap(),
            "CACHE          CACHE ID       SIZE      CREATED              LAST USED        IN USE\n\
             /root/.cache   0123456789ab   1kB       About a minute ago   10 seconds ago   false\n"
        );
        assert_eq!(path("/root/.cache", "/export"), "/build/caches/export?name=%2Froot%2F.cache");
    }
}
