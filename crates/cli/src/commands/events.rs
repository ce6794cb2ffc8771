//! `dozen events`.

use clap::{ArgMatches, Command};
use http::Method;
use jiff::{Timestamp, Zoned, tz::TimeZone};
use serde_json::Value;

use super::Context;
use crate::arguments::flags::{filter, inspect_format, text, texts, value, verb};
use crate::arguments::{filters, time};
use crate::client::{JsonLines, Query};
use crate::failure::{Failure, Outcome};
use crate::output::{self, listing};
use crate::template::{self, Template};

pub fn command() -> Command {
    verb(
        "events",
        "Get real time events from the server",
        "events [OPTIONS]",
        "dozen events --filter container=web\ndozen events --since 1h --until 0s --format json",
    )
    .arg(filter().short(None))
    .mut_arg("filter", |arg| arg.short('f'))
    .arg(inspect_format().short(None))
    .arg(value("since", None, "string", "Show all events created since timestamp"))
    .arg(value("until", None, "string", "Stream events until this timestamp"))
}

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let filters = filters::parse(texts(matches, "filter")).map_err(Failure::new)?;
    let now = Zoned::now();
    let moment = |flag: &str| match text(matches, flag) {
        None | Some("") => Ok(None),
        Some(moment) => time::parse(moment, &now)
            .map(Some)
            .map_err(|why| Failure::new(format!("invalid value for \"{flag}\": {why}"))),
    };
    let template = match text(matches, "format") {
        None | Some("") => None,
        Some("json") => Some("{{json .}}"),
        Some(format) => Some(format),
    };
    let template = template.map(Template::parse).transpose().map_err(|error| listing::unreadable(&error))?;
    let query = Query::new()
        .with_some("since", moment("since")?.as_deref())
        .with_some("until", moment("until")?.as_deref())
        .with_filters(&filters);
    let response = context.client.stream(Method::GET, &format!("/events{query}"), None).await?;
    let mut events = JsonLines::new(response, "GET /events");
    while let Some(event) = events.next().await? {
        let line = match &template {
            None => line(&event, &TimeZone::system()),
            Some(template) => {
                let failed = |why: String| Failure::new(format!("failed to execute template: {why}"));
                let value =
                    template::Value::from_json(&event.to_string()).map_err(|error| failed(error.to_string()))?;
                template.render(&value).map_err(|error| failed(error.to_string()))?
            }
        };
        output::print_line(&line)?;
    }
    Ok(0)
}

/// `2026-11-21T05:06:07.000000001+01:00 container start 0123 (image=a, name=b)`.
fn line(event: &Value, zone: &TimeZone) -> String {
    let text = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or_default();
    let nanoseconds = event.get("timeNano").and_then(Value::as_i64);
    let nanoseconds =
        nanoseconds.or_else(|| event.get("time").and_then(Value::as_i64).map(|s| s.saturating_mul(1_000_000_000)));
    let moment = Timestamp::from_nanosecond(i128::from(nanoseconds.unwrap_or(0))).unwrap_or_default();
    let moment = moment.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S.%9f%:z").to_string();
    let moment = moment.strip_suffix("+00:00").map(|utc| format!("{utc}Z")).unwrap_or(moment);
    let actor = event.get("Actor");
    let id = actor.and_then(|actor| actor.get("ID")).and_then(Value::as_str).unwrap_or_default();
    let attributes: Vec<String> = actor
        .and_then(|actor| actor.get("Attributes"))
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    let attributes = if attributes.is_empty() { String::new() } else { format!(" ({})", attributes.join(", ")) };
    format!("{moment} {} {} {id}{attributes}", text("Type"), text("Action"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line() {
        let event = serde_json::json!({"Type":"container","Action":"start","time":1,"timeNano":1_000_000_005,
            "Actor":{"ID":"abc","Attributes":{"image":"i","name":"n"}}});
        assert_eq!(
            line(&event, &TimeZone::UTC),
            "1970-01-01T00:00:01.000000005Z container start abc (image=i, name=n)"
        );
    }
}
