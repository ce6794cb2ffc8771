//! `dozen ps`, `dozen container ls`.

use std::collections::BTreeMap;

use clap::{ArgMatches, Command, value_parser};
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Context;
use crate::arguments::filters;
use crate::arguments::flags::{filter, format, is_on, switch, text, texts, value, verb};
use crate::client::Query;
use crate::failure::{Failure, Outcome};
use crate::output::listing::{self, Layout};
use crate::output::{self, duration, ellipsis, short_id, size};
use crate::template::Row;

mod ports;

pub fn command(name: &'static str) -> Command {
    verb(
        name,
        "List containers",
        "ps [OPTIONS]",
        "dozen ps -a\ndozen ps --filter status=exited --format '{{.Names}}: {{.Status}}'",
    )
    .arg(switch("all", 'a', "Show all containers (default shows just running)"))
    .arg(filter())
    .arg(format())
    .arg(
        value("last", 'n', "int", "Show n last created containers (includes all states)")
            .value_parser(value_parser!(i64)),
    )
    .arg(switch("latest", 'l', "Show the latest created container (includes all states)"))
    .arg(switch("no-trunc", None, "Don't truncate output"))
    .arg(switch("quiet", 'q', "Only display container IDs"))
    .arg(switch("size", 's', "Display total file sizes"))
}

const HEADINGS: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("Names", "NAMES"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Ports", "PORTS"),
    ("State", "STATE"),
    ("Status", "STATUS"),
    ("Size", "SIZE"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
];

const PLAIN: &str = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";
const SIZED: &str =
    "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}\t{{.Size}}";

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let filters = filters::parse(texts(matches, "filter")).map_err(Failure::new)?;
    let format = text(matches, "format");
    let last =
        if is_on(matches, "latest") { Some(1) } else { matches.get_one::<i64>("last").copied().filter(|n| *n > 0) };
    let is_sized =
        is_on(matches, "size") || format.is_some_and(|format| format.contains(".Size") || format.contains("json"));
    let query = Query::new()
        .with_flag("all", is_on(matches, "all") || last.is_some())
        .with_some("limit", last.map(|last| last.to_string()).as_deref())
        .with_flag("size", is_sized)
        .with_filters(&filters);
    let containers: Vec<Container> = context.client.get(&format!("/containers/json{query}")).await?;
    let now_s = Timestamp::now().as_second();
    let truncates = !is_on(matches, "no-trunc");
    let rows = containers.iter().map(|container| row(container, truncates, format.is_some(), now_s)).collect();
    let table = if is_on(matches, "size") { SIZED } else { PLAIN };
    let layout = Layout { table, quiet: "ID", headings: HEADINGS };
    output::print(&listing::render(&layout, format, is_on(matches, "quiet"), rows)?)?;
    Ok(0)
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Container {
    id: String,
    names: Vec<String>,
    image: String,
    #[serde(rename = "ImageID")]
    image_id: String,
    command: String,
    created: i64,
    ports: Option<Vec<ports::Port>>,
    labels: Option<BTreeMap<String, String>>,
    state: String,
    status: String,
    mounts: Option<Vec<MountPoint>>,
    network_settings: Option<NetworkSettings>,
    size_rw: i64,
    size_root_fs: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct MountPoint {
    name: String,
    source: String,
    driver: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct NetworkSettings {
    /// By name; what is said of each is not shown.
    networks: Option<BTreeMap<String, IgnoredAny>>,
}

/// Without a format of one's own, nobody sees when it was created: to say that in our zone costs more than all the rest.
fn row(container: &Container, truncates: bool, has_format: bool, now_s: i64) -> Row {
    let cut = |text: &str, length: usize| if truncates { ellipsis(text, length) } else { text.to_owned() };
    let names: Vec<&str> = container
        .names
        .iter()
        .map(|name| name.strip_prefix('/').unwrap_or(name))
        .filter(|name| !truncates || !name.contains('/'))
        .collect();
    // An image that has lost its tag is listed by its id.
    let image = match container.image.as_str() {
        "" => "<no image>".to_owned(),
        id if truncates && (*id == container.image_id || id.starts_with("sha256:")) => short_id(id).to_owned(),
        name => name.to_owned(),
    };
    let mounts = container.mounts.iter().flatten();
    let mount_name = |mount: &MountPoint| cut(if mount.name.is_empty() { &mount.source } else { &mount.name }, 15);
    let local = container.mounts.iter().flatten().filter(|mount| mount.driver == "local").count();
    let networks = container.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
    let labels: Vec<(String, String)> =
        container.labels.iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
    let sizes = match container.size_root_fs {
        0 => size::of_image(container.size_rw),
        whole => format!("{} (virtual {})", size::of_image(container.size_rw), size::of_image(whole)),
    };
    let columns = vec![
        ("ID", if truncates { short_id(&container.id).to_owned() } else { container.id.clone() }),
        ("Names", names.join(",")),
        ("Image", image),
        ("Command", serde_json::Value::from(cut(&container.command, 20)).to_string()),
        ("CreatedAt", if has_format { duration::go_time(container.created) } else { String::new() }),
        ("RunningFor", duration::ago(container.created, now_s)),
        ("Ports", ports::display(container.ports.as_deref().unwrap_or_default())),
        ("State", container.state.clone()),
        ("Status", container.status.clone()),
        ("Size", sizes),
        ("Labels", labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")),
        ("Mounts", mounts.map(mount_name).collect::<Vec<_>>().join(",")),
        ("LocalVolumes", local.to_string()),
        ("Networks", networks.map(|all| all.keys().cloned().collect::<Vec<_>>().join(",")).unwrap_or_default()),
    ];
    Row { columns, labels: Some(labels) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_shown_as_docker_shows_it() {
        let container: Container = serde_json::from_str(
            r#"{"Id":"0123456789abcdef","Names":["/web","/other/alias"],"Image":"nginx","ImageID":"sha256:aa",
                "Command":"/docker-entrypoint.sh nginx -g 'daemon off;'","Created":1000,"State":"running",
                "Status":"Up 2 minutes","Labels":{"a":"b"},"Ports":[{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8080,"Type":"tcp"}],
                "Mounts":[{"Name":"data","Driver":"local"}],"NetworkSettings":{"Networks":{"bridge":{}}}}"#,
        )
        .unwrap();
        let layout = Layout { table: PLAIN, quiet: "ID", headings: HEADINGS };
        let text = listing::render(&layout, None, false, vec![row(&container, true, false, 1120)]).unwrap();
        assert_eq!(
            text,
            "CONTAINER ID   IMAGE     COMMAND                  CREATED         STATUS         PORTS                  NAMES\n\
             0123456789ab   nginx     \"/docker-entrypoint.…\"   2 minutes ago   Up 2 minutes   0.0.0.0:8080->80/tcp   web\n"
        );
        let full = row(&container, false, true, 1120);
        assert_eq!(full.get("Names"), Some("web,other/alias"));
        assert_eq!(full.get("Networks"), Some("bridge"));
        assert!(full.get("CreatedAt").unwrap().starts_with("19"));
    }
}
