//! `dozen system gc`: what goes when the disk fills up, at once, or told beforehand.

use clap::{ArgMatches, Command};
use jiff::Timestamp;
use serde::Deserialize;

use super::Context;
use super::volume::confirm;
use crate::arguments::flags::{format, is_on, switch, text, value, verb};
use crate::client::Query;
use crate::failure::Outcome;
use crate::output::listing::{self, Layout};
use crate::output::{self, duration, short_id, size};
use crate::template::Row;

pub fn command() -> Command {
    let example =
        "dozen system gc --dry-run\ndozen system gc --explain\ndozen system gc --free-space 20% --images unused";
    verb(
        "gc",
        "Collect what can be had again, as the settings say when the disk fills up",
        "system gc [OPTIONS]",
        example,
    )
    .args([
        switch("dry-run", None, "Only tell what would go"),
        switch("explain", None, "Only tell of everything why it goes or stays, and who has it"),
        value("free-space", None, "size", "Until so much of the disk is free: 20GB, or 20%"),
        value("images", None, "string", "Which images may go that no container has: none, dangling, unused"),
        value("unused-for", None, "duration", "Only images that nobody has wanted for so long"),
        switch("force", 'f', "Do not prompt for confirmation"),
        format(),
    ])
}

const LAYOUT: Layout = Layout {
    table: "{{.Fate}}\t{{.Type}}\t{{.Name}}\t{{.Size}}\t{{.LastUsed}}\t{{.Why}}",
    quiet: "ID",
    headings: &[
        ("Fate", "FATE"),
        ("Type", "TYPE"),
        ("ID", "ID"),
        ("Name", "NAME"),
        ("Size", "SIZE"),
        ("LastUsed", "LAST USED"),
        ("Why", "WHY"),
    ],
};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Collection {
    items: Vec<Item>,
    space_reclaimed: i64,
    free_space: i64,
    wanted_free_space: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Item {
    #[serde(rename = "Type")]
    kind: String,
    #[serde(rename = "ID")]
    id: String,
    name: String,
    size: i64,
    last_used_at: String,
    fate: String,
    why: String,
}

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let is_explained = is_on(matches, "explain");
    // An explanation changes nothing.
    let is_dry_run = is_explained || is_on(matches, "dry-run");
    // What the settings do not let go by itself.
    let images = text(matches, "images").filter(|images| *images != "none");
    let warning = "WARNING! This will remove images without at least one container associated to them.";
    if images.is_some() && !is_dry_run && !is_on(matches, "force") && !confirm(warning)? {
        return Ok(0);
    }
    let mut query = Query::new().with_flag("dry-run", is_dry_run).with_flag("explain", is_explained);
    for name in ["free-space", "images", "unused-for"] {
        if let Some(given) = text(matches, name) {
            query = query.with(name, given);
        }
    }
    let collection: Collection = context.client.post(&format!("/system/gc{query}"), None).await?;
    let now_s = Timestamp::now().as_second();
    let format = text(matches, "format");
    let is_table = format.is_none_or(|format| format.trim().starts_with("table"));
    let shown = collection.items.iter().filter(|item| is_explained || item.fate != "stays");
    let rows: Vec<Row> = shown.map(|item| row(item, now_s)).collect();
    if !is_table || !rows.is_empty() {
        output::print(&listing::render(&LAYOUT, format, false, rows)?)?;
    }
    if is_table {
        output::print_line(&total(&collection, is_dry_run))?;
    }
    Ok(0)
}

fn row(item: &Item, now_s: i64) -> Row {
    let last_used = item.last_used_at.parse::<Timestamp>().ok();
    let columns = vec![
        ("Fate", item.fate.clone()),
        ("Type", item.kind.clone()),
        ("ID", item.id.clone()),
        ("Name", if item.name == "<none>" { short_id(&item.id).to_owned() } else { item.name.clone() }),
        ("Size", size::human(item.size)),
        ("LastUsed", last_used.map(|used| duration::ago(used.as_second(), now_s)).unwrap_or_default()),
        ("Why", item.why.clone()),
    ];
    Row { columns, labels: None }
}

fn total(collection: &Collection, is_dry_run: bool) -> String {
    let (free, wanted) = (size::human(collection.free_space), size::human(collection.wanted_free_space));
    let room = format!("{free} of the disk were free, {wanted} are to be");
    match is_dry_run {
        true => format!("Total reclaimable space: {} ({room})", size::human(collection.space_reclaimed)),
        false => format!("Total reclaimed space: {} ({room})", size::human(collection.space_reclaimed)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_says_what_becomes_of_it() {
        let collection: Collection = serde_json::from_str(
            r#"{"SpaceReclaimed":3000,"FreeSpace":1000,"WantedFreeSpace":4000,"Items":[
                {"Type":"build-cache","ID":"abc","Name":"RUN make","Size":3000,"LastUsedAt":"1970-01-01T00:00:01Z",
                 "Fate":"goes","Why":"room is missing"},
                {"Type":"image","ID":"sha256:0123456789abcdef","Name":"<none>","Size":5,"LastUsedAt":"1970-01-01T00:00:30Z",
                 "Fate":"stays","Why":"container web stands on it"},
                {"Type":"volume","ID":"data","Name":"data","Size":7,"Fate":"stays","Why":"no volume goes by itself"}]}"#,
        )
        .unwrap();
        let rows = collection.items.iter().map(|item| row(item, 60)).collect();
        assert_eq!(
            listing::render(&LAYOUT, None, false, rows).unwrap(),
            "FATE      TYPE          NAME           SIZE      LAST USED        WHY\n\
             goes      build-cache   RUN make       3kB       59 seconds ago   room is missing\n\
             stays     image         0123456789ab   5B        30 seconds ago   container web stands on it\n\
             stays     volume        data           7B                         no volume goes by itself\n"
        );
        let words = "3kB (1kB of the disk were free, 4kB are to be)";
        assert_eq!(total(&collection, true), format!("Total reclaimable space: {words}"));
        assert_eq!(total(&collection, false), format!("Total reclaimed space: {words}"));
    }
}
