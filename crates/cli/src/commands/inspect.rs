//! `dozen inspect`: what the engine knows, as it says it.

use clap::{ArgMatches, Command};

use super::{Context, container_path, image_path};
use crate::arguments::flags::{inspect_format, is_on, names, switch, text, texts, value, verb};
use crate::client::{ClientError, Query, encode_segment};
use crate::failure::{Failure, Outcome};
use crate::output::{self, json, listing};
use crate::template::{Template, Value};

/// The kinds that there are, in the order in which a name is looked for.
const KINDS: [&str; 4] = ["container", "image", "network", "volume"];

pub fn command() -> Command {
    verb(
        "inspect",
        "Return low-level information on Docker objects",
        "inspect [OPTIONS] NAME|ID [NAME|ID...]",
        "dozen inspect web\ndozen inspect -f '{{.NetworkSettings.IPAddress}}' web",
    )
    .arg(inspect_format())
    .arg(switch("size", 's', "Display total file sizes if the type is container"))
    .arg(value("type", None, "string", "Only inspect objects of the given type (container, image, network, volume)"))
    .arg(names("NAME|ID"))
}

pub fn command_for_containers() -> Command {
    verb(
        "inspect",
        "Display detailed information on one or more containers",
        "inspect [OPTIONS] CONTAINER [CONTAINER...]",
        "dozen container inspect -f '{{.State.Status}}' web",
    )
    .arg(inspect_format())
    .arg(switch("size", 's', "Display total file sizes"))
    .arg(names("CONTAINER"))
}

pub fn command_for_images() -> Command {
    verb(
        "inspect",
        "Display detailed information on one or more images",
        "inspect [OPTIONS] IMAGE [IMAGE...]",
        "dozen image inspect -f '{{json .Config.Env}}' my-app",
    )
    .arg(inspect_format())
    .arg(value(
        "platform",
        None,
        "string",
        "Inspect a specific platform of the multi-platform image (os/arch[/variant])",
    ))
    .arg(names("IMAGE"))
}

/// `only` is the kind that the verb itself says.
pub async fn execute(context: &Context, matches: &ArgMatches, only: Option<&str>) -> Outcome {
    let wanted = match only {
        Some(kind) => Some(kind),
        None => text(matches, "type").filter(|kind| !kind.is_empty()),
    };
    if let Some(kind) = wanted.filter(|kind| !KINDS.contains(kind)) {
        return Err(match kind {
            "node" | "plugin" | "secret" | "service" | "task" | "config" => {
                Failure::not_built(&format!("--type {kind}"))
            }
            _ => Failure::new(format!("unknown type: \"{kind}\": must be one of container, image, network or volume")),
        });
    }
    let is_sized = only.is_none_or(|only| only == "container") && is_on(matches, "size");
    let size = Query::new().with_flag("size", is_sized).to_string();
    let platform = if only == Some("image") { text(matches, "platform") } else { None };
    let platform = Query::new().with_some("platform", platform).to_string();
    let mut found = Vec::new();
    let mut failures = Vec::new();
    for name in texts(matches, "names") {
        match lookup(context, name, wanted, [&size, &platform]).await {
            Ok(document) => found.push(document),
            // Where one kind was looked for, the engine has said what there is to say.
            Err(error) if error.is_not_found() && wanted.is_none() => {
                failures.push(Failure::new(format!("Error: No such object: {name}")));
            }
            Err(error) => failures.push(error.into()),
        }
    }
    let shown = show(&found, text(matches, "format"));
    if let Ok(shown) = &shown {
        output::print(shown)?;
    }
    if let Err(failure) = shown {
        failures.push(failure);
    }
    Failure::all(failures)
}

async fn lookup(
    context: &Context,
    name: &str,
    wanted: Option<&str>,
    [size, platform]: [&str; 2],
) -> Result<String, ClientError> {
    let mut last = None;
    for kind in KINDS.into_iter().filter(|kind| wanted.is_none_or(|wanted| wanted == *kind)) {
        let path = match kind {
            "container" => container_path(name, &format!("/json{size}")),
            "image" => image_path(name, &format!("/json{platform}")),
            "network" => format!("/networks/{}", encode_segment(name)),
            _ => format!("/volumes/{}", encode_segment(name)),
        };
        match context.client.get_text(&path).await {
            Ok(document) => return Ok(document),
            Err(error) if error.is_not_found() => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(last.expect("there is at least one kind"))
}

/// All documents as one JSON list, or each by the template.
pub fn show(documents: &[String], format: Option<&str>) -> Result<String, Failure> {
    let format = format.unwrap_or("");
    if format.is_empty() {
        return Ok(json::indent(&format!("[{}]", documents.join(","))) + "\n");
    }
    let template = if format == "json" { "{{json .}}" } else { format };
    let template = Template::parse(template).map_err(|error| listing::unreadable(&error))?;
    let mut shown = String::new();
    for document in documents {
        let value =
            Value::from_json(document).map_err(|error| Failure::new(format!("the engine's answer: {error}")))?;
        let text = template.render(&value).map_err(|error| Failure::new(format!("template parsing error: {error}")))?;
        shown.push_str(&text);
        shown.push('\n');
    }
    Ok(shown)
}

#[cfg(test)]
mod tests {
    #[test]
    fn documents_are_shown_in_their_own_order() {
        let documents = [r#"{"Id":"b","Args":[]}"#.to_owned()];
        let show = |format: Option<&str>| super::show(&documents, format).map_err(|failure| failure.message);
        assert_eq!(show(None).as_deref(), Ok("[\n    {\n        \"Id\": \"b\",\n        \"Args\": []\n    }\n]\n"));
        assert_eq!(show(Some("{{.Id}}")).as_deref(), Ok("b\n"));
        assert_eq!(show(Some("json")).as_deref(), Ok("{\"Id\":\"b\",\"Args\":[]}\n"));
        assert_eq!(
            show(Some("{{.No}}")).unwrap_err(),
            "template parsing error: template: :1:2: executing \"\" at <.No>: map has no entry for key \"No\""
        );
        assert_eq!(super::show(&[], None).unwrap(), "[]\n");
    }
}
