//! `dozen history`.

use clap::{ArgMatches, Command};
use jiff::Timestamp;
use serde::Deserialize;

use super::{Context, image_path};
use crate::arguments::flags::{format, is_on, name, required, switch, switch_value, text, value, verb};
use crate::client::Query;
use crate::failure::Outcome;
use crate::output::listing::{self, Layout};
use crate::output::{self, duration, ellipsis, short_id, size};
use crate::template::Row;

pub fn command() -> Command {
    verb("history", "Show the history of an image", "history [OPTIONS] IMAGE", "dozen history --no-trunc my-app")
        .arg(format())
        .arg(switch("human", 'H', "Print sizes and dates in human readable format (default true)"))
        .arg(switch("no-trunc", None, "Don't truncate output"))
        .arg(switch("quiet", 'q', "Only show image IDs"))
        .arg(value("platform", None, "string", "Show history for the given platform (os/arch[/variant])"))
        .arg(name("image", "IMAGE"))
}

const LAYOUT: Layout = Layout {
    table: "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
    quiet: "ID",
    headings: &[
        ("ID", "IMAGE"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedBy", "CREATED BY"),
        ("Size", "SIZE"),
        ("Comment", "COMMENT"),
    ],
};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Layer {
    id: String,
    created: i64,
    created_by: String,
    size: i64,
    comment: String,
}

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let query = Query::new().with_some("platform", text(matches, "platform"));
    let layers: Vec<Layer> =
        context.client.get(&image_path(required(matches, "image"), &format!("/history{query}"))).await?;
    let is_human = switch_value(matches, "human").unwrap_or(true);
    let truncates = !is_on(matches, "no-trunc");
    let now_s = Timestamp::now().as_second();
    let rows = layers.iter().map(|layer| row(layer, is_human, truncates, now_s)).collect();
    output::print(&listing::render(&LAYOUT, text(matches, "format"), is_on(matches, "quiet"), rows)?)?;
    Ok(0)
}

fn row(layer: &Layer, is_human: bool, truncates: bool, now_s: i64) -> Row {
    let at = Timestamp::from_second(layer.created).map(|moment| moment.to_string()).unwrap_or_default();
    let created_by = layer.created_by.replace('\t', " ");
    let columns = vec![
        ("ID", if truncates { short_id(&layer.id).to_owned() } else { layer.id.clone() }),
        ("CreatedSince", if is_human { duration::ago(layer.created, now_s) } else { at.clone() }),
        ("CreatedAt", at),
        ("CreatedBy", if truncates { ellipsis(&created_by, 45) } else { created_by }),
        ("Size", if is_human { size::of_image(layer.size) } else { layer.size.to_string() }),
        ("Comment", layer.comment.clone()),
    ];
    Row { columns, labels: None }
}
