//! `dozen system df`.

mod engine;

use std::collections::BTreeMap;

use clap::{ArgMatches, Command};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use self::engine::EngineUsage;
use super::{Context, images};
use crate::arguments::flags::{format, is_on, switch, text, verb};
use crate::failure::{Failure, Outcome};
use crate::output::listing::{self, Layout};
use crate::output::{self, duration, ellipsis, short_id, size};
use crate::template::Row;

pub fn command() -> Command {
    verb("df", "Show disk usage", "system df [OPTIONS]", "dozen system df\ndozen system df -v")
        .arg(format())
        .arg(switch("verbose", 'v', "Show detailed information on space usage"))
}

const SUMMARY: Layout = Layout {
    table: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
    quiet: "Type",
    headings: &[
        ("Type", "TYPE"),
        ("TotalCount", "TOTAL"),
        ("Active", "ACTIVE"),
        ("Size", "SIZE"),
        ("Reclaimable", "RECLAIMABLE"),
    ],
};

const IMAGES: Layout = Layout {
    table: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}",
    quiet: "ID",
    headings: &[
        ("Repository", "REPOSITORY"),
        ("Tag", "TAG"),
        ("ID", "IMAGE ID"),
        ("CreatedSince", "CREATED"),
        ("Size", "SIZE"),
        ("SharedSize", "SHARED SIZE"),
        ("UniqueSize", "UNIQUE SIZE"),
        ("Containers", "CONTAINERS"),
    ],
};

const CONTAINERS: Layout = Layout {
    table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}",
    quiet: "ID",
    headings: &[
        ("ID", "CONTAINER ID"),
        ("Image", "IMAGE"),
        ("Command", "COMMAND"),
        ("LocalVolumes", "LOCAL VOLUMES"),
        ("Size", "SIZE"),
        ("RunningFor", "CREATED"),
        ("Status", "STATUS"),
        ("Names", "NAMES"),
    ],
};

const VOLUMES: Layout = Layout {
    table: "{{.Name}}\t{{.Links}}\t{{.Size}}",
    quiet: "Name",
    headings: &[("Name", "VOLUME NAME"), ("Links", "LINKS"), ("Size", "SIZE")],
};

/// Of volumes of which some have snapshots.
const VOLUMES_WITH_SNAPSHOTS: Layout = Layout {
    table: "{{.Name}}\t{{.Links}}\t{{.Size}}\t{{.Snapshots}}\t{{.SnapshotsSize}}",
    quiet: "Name",
    headings: &[
        ("Name", "VOLUME NAME"),
        ("Links", "LINKS"),
        ("Size", "SIZE"),
        ("Snapshots", "SNAPSHOTS"),
        ("SnapshotsSize", "SNAPSHOTS' SIZE"),
    ],
};

const BUILD_CACHE: Layout = Layout {
    table: "{{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.Shared}}",
    quiet: "ID",
    headings: &[
        ("ID", "CACHE ID"),
        ("CacheType", "CACHE TYPE"),
        ("Size", "SIZE"),
        ("CreatedSince", "CREATED"),
        ("LastUsedSince", "LAST USED"),
        ("UsageCount", "USAGE"),
        ("Shared", "SHARED"),
    ],
};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Usage {
    layers_size: i64,
    /// Engines of ours have it.
    artifacts: ArtifactUsage,
    images: Option<Vec<images::Image>>,
    containers: Option<Vec<Container>>,
    volumes: Option<Vec<Volume>>,
    build_cache: Option<Vec<Cache>>,
    /// The engine's own, if anybody has used it.
    registry: Option<Registry>,
    /// Engines of ours have it.
    engine: Option<EngineUsage>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Registry {
    size: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ArtifactUsage {
    count: usize,
    active: usize,
    size: i64,
    reclaimable: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Container {
    id: String,
    names: Vec<String>,
    image: String,
    command: String,
    created: i64,
    state: String,
    status: String,
    size_rw: i64,
    mounts: Option<Vec<BTreeMap<String, Value>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Volume {
    name: String,
    usage_data: VolumeUsage,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct VolumeUsage {
    size: i64,
    ref_count: i64,
    snapshots: SnapshotUsage,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct SnapshotUsage {
    count: usize,
    size: i64,
}

/// What a build has kept.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Cache {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "Type")]
    pub kind: String,
    pub description: String,
    pub size: i64,
    pub in_use: bool,
    pub shared: bool,
    pub created_at: String,
    pub last_used_at: Option<String>,
    pub usage_count: u64,
}

impl Cache {
    /// In seconds since 1970.
    pub fn created_s(&self) -> i64 {
        self.created_at.parse().map_or(0, Timestamp::as_second)
    }

    /// Builds go on writing to it.
    pub fn is_mutable(&self) -> bool {
        self.kind == "exec.cachemount"
    }

    /// `2 hours ago`; nothing if it never was.
    pub fn last_used_since(&self, now_s: i64) -> String {
        let used = self.last_used_at.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
        used.map(|used| duration::ago(used.as_second(), now_s)).unwrap_or_default()
    }
}

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let usage: Usage = context.client.get("/system/df").await?;
    let format = text(matches, "format");
    if !is_on(matches, "verbose") {
        output::print(&listing::render(&SUMMARY, format, false, summary(&usage))?)?;
        return Ok(0);
    }
    if format.is_some() {
        return Err(Failure::not_built("--format together with --verbose"));
    }
    output::print(&details(&usage, Timestamp::now().as_second())?)?;
    Ok(0)
}

/// A line of the summary: how many, how many in use, and how much of it could be had back.
fn line(kind: &str, total: usize, active: usize, size: i64, reclaimable: i64) -> Row {
    let back = match size {
        ..=0 => size::human(reclaimable),
        size => format!("{} ({}%)", size::human(reclaimable), reclaimable.saturating_mul(100) / size),
    };
    line_of(kind, total, active, size, back)
}

fn line_of(kind: &str, total: usize, active: usize, size: i64, back: String) -> Row {
    Row {
        columns: vec![
            ("Active", active.to_string()),
            ("Reclaimable", back),
            ("Size", size::human(size)),
            ("TotalCount", total.to_string()),
            ("Type", kind.to_owned()),
        ],
        labels: None,
    }
}

fn summary(usage: &Usage) -> Vec<Row> {
    let images: Vec<&images::Image> = usage.images.iter().flatten().collect();
    let used = images.iter().filter(|image| image.containers > 0);
    let used_size: i64 = used.clone().map(|image| image.size - image.shared_size).sum();
    // What is shared stays as long as one of those who share it is used.
    let reclaimable = if used.clone().next().is_none() { usage.layers_size } else { usage.layers_size - used_size };
    let containers: Vec<&Container> = usage.containers.iter().flatten().collect();
    let (active, idle): (Vec<&&Container>, Vec<&&Container>) = containers
        .iter()
        .partition(|container| matches!(container.state.as_str(), "running" | "paused" | "restarting"));
    let idle: i64 = idle.iter().map(|container| container.size_rw).sum();
    let volumes: Vec<&Volume> = usage.volumes.iter().flatten().collect();
    let unused = volumes.iter().filter(|volume| volume.usage_data.ref_count == 0);
    let caches: Vec<&Cache> = usage.build_cache.iter().flatten().collect();
    // What is shared is counted with the images.
    let own_caches = || caches.iter().filter(|cache| !cache.shared);
    let snapshots = || volumes.iter().map(|volume| &volume.usage_data.snapshots);
    let mut lines = vec![
        line("Images", images.len(), used.count(), usage.layers_size, reclaimable),
        line(
            "Containers",
            containers.len(),
            active.len(),
            containers.iter().map(|container| container.size_rw).sum(),
            idle,
        ),
        line(
            "Local Volumes",
            volumes.len(),
            volumes.len() - unused.clone().count(),
            volumes.iter().map(|volume| volume.usage_data.size).sum(),
            unused.map(|volume| volume.usage_data.size).sum(),
        ),
        line_of(
            "Build Cache",
            caches.len(),
            caches.iter().filter(|cache| cache.in_use).count(),
            own_caches().map(|cache| cache.size).sum(),
            // Docker does not say which part of it that is.
            size::human(own_caches().filter(|cache| !cache.in_use).map(|cache| cache.size).sum()),
        ),
    ];
    let artifacts = &usage.artifacts;
    if artifacts.count > 0 || artifacts.size > 0 {
        // None goes by itself, and what a container mounts stays with that.
        lines.push(line("Artifacts", artifacts.count, artifacts.active, artifacts.size, artifacts.reclaimable));
    }
    let count = snapshots().map(|snapshots| snapshots.count).sum();
    if count > 0 {
        // Nobody uses one, and none goes by itself.
        let size = snapshots().map(|snapshots| snapshots.size).sum();
        lines.insert(3, line("Volume Snapshots", count, 0, size, size));
    }
    if let Some(registry) = &usage.registry {
        // What nothing names goes from it by itself.
        lines.push(line_of("Registry", 1, 1, registry.size, size::human(0)));
    }
    lines.extend(usage.engine.iter().flat_map(|engine| engine.lines(&active)));
    lines
}

fn details(usage: &Usage, now_s: i64) -> Result<String, Failure> {
    let images = usage.images.iter().flatten().flat_map(|image| images::rows(image, true, false, now_s)).collect();
    let container = |container: &Container| {
        let is_local = |mount: &&BTreeMap<String, Value>| mount.get("Driver").and_then(Value::as_str) == Some("local");
        let names: Vec<&str> = container.names.iter().map(|name| name.strip_prefix('/').unwrap_or(name)).collect();
        let image = if container.image.starts_with("sha256:") { short_id(&container.image) } else { &container.image };
        let columns = vec![
            ("ID", short_id(&container.id).to_owned()),
            ("Image", image.to_owned()),
            ("Command", Value::from(ellipsis(&container.command, 20)).to_string()),
            ("LocalVolumes", container.mounts.iter().flatten().filter(is_local).count().to_string()),
            ("Size", size::of_image(container.size_rw)),
            ("RunningFor", duration::ago(container.created, now_s)),
            ("Status", container.status.clone()),
            ("Names", names.join(",")),
        ];
        Row { columns, labels: None }
    };
    let volume = |volume: &Volume| {
        let columns = vec![
            ("Name", volume.name.clone()),
            ("Links", volume.usage_data.ref_count.to_string()),
            ("Size", size::human(volume.usage_data.size)),
            ("Snapshots", volume.usage_data.snapshots.count.to_string()),
            ("SnapshotsSize", size::human(volume.usage_data.snapshots.size)),
        ];
        Row { columns, labels: None }
    };
    let has_snapshots = usage.volumes.iter().flatten().any(|volume| volume.usage_data.snapshots.count > 0);
    let volumes_layout = if has_snapshots { &VOLUMES_WITH_SNAPSHOTS } else { &VOLUMES };
    let containers = usage.containers.iter().flatten().map(container).collect();
    let volumes = usage.volumes.iter().flatten().map(volume).collect();
    let mut caches: Vec<&Cache> = usage.build_cache.iter().flatten().collect();
    caches.sort_by_key(|cache| std::cmp::Reverse(cache.created_s()));
    let own_caches: i64 = caches.iter().filter(|cache| !cache.shared).map(|cache| cache.size).sum();
    let cache = |cache: &Cache| {
        let columns = vec![
            ("ID", short_id(&cache.id).to_owned()),
            ("CacheType", cache.kind.clone()),
            ("Size", size::of_image(cache.size)),
            ("CreatedSince", duration::ago(cache.created_s(), now_s)),
            ("LastUsedSince", cache.last_used_since(now_s)),
            ("UsageCount", cache.usage_count.to_string()),
            ("Shared", cache.shared.to_string()),
        ];
        Row { columns, labels: None }
    };
    let rows = caches.into_iter().map(cache).collect();
    let beside = match &usage.engine {
        None => String::new(),
        Some(engine) => {
            let shown =
                listing::render(&engine::LAYOUT, None, false, engine.places(usage.containers.iter().flatten()))?;
            format!("\nEngine space usage:\n\n{shown}")
        }
    };
    Ok(format!(
        "Images space usage:\n\n{}\nContainers space usage:\n\n{}\nLocal Volumes space usage:\n\n{}\n\
         Build cache usage: {}\n\n{}{beside}",
        listing::render(&IMAGES, None, false, images)?,
        listing::render(&CONTAINERS, None, false, containers)?,
        listing::render(volumes_layout, None, false, volumes)?,
        size::human(own_caches),
        listing::render(&BUILD_CACHE, None, false, rows)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_says_nothing_of_has_lines_of_its_own() {
        let usage: Usage = serde_json::from_str(
            r#"{"Containers":[{"Id":"c","State":"running","Names":["/one"]},{"Id":"d","State":"exited"}],
              "Engine":{"Logs":[{"Container":"c","Size":30},{"Container":"d","Size":10}],
                "Unfinished":[{"Path":"tmp/0123","Size":7}],"Ledger":{"Size":400},"Records":{"Size":100},
                "Unowned":[{"Path":"mine","Size":3}]}}"#,
        )
        .unwrap();
        let shown = listing::render(&SUMMARY, None, false, summary(&usage)).unwrap();
        assert_eq!(
            shown.lines().skip(5).collect::<Vec<_>>(),
            [
                "Container Logs   2         1         40B       10B (25%)",
                "Unfinished       1         1         7B        0B (0%)",
                "Engine Records   1         1         500B      0B (0%)",
                "Unowned          1         0         3B        3B (100%)"
            ]
        );
        let shown = details(&usage, 0).unwrap();
        let (_, shown) = shown.split_once("Engine space usage:\n\n").unwrap();
        assert_eq!(
            shown,
            "TYPE            NAME                                          SIZE\n\
             container log   one                                           30B\n\
             container log   d                                             10B\n\
             unfinished      tmp/0123                                      7B\n\
             unowned         mine                                          3B\n\
             ledger          state.db                                      400B\n\
             records         directories, and what is kept of containers   100B\n"
        );
    }

    #[test]
    fn the_summary_is_dockers() {
        let usage: Usage = serde_json::from_str(
            r#"{"LayersSize":1000,"Images":[
                {"Id":"sha256:0123456789abcdef","Size":700,"SharedSize":200,"Containers":1,"RepoTags":["a:1"]},
                {"Id":"sha256:1123456789abcdef","Size":500,"SharedSize":200,"Containers":0}],
              "Containers":[{"Id":"c","State":"running","SizeRw":50},{"Id":"d","State":"exited","SizeRw":150}],
              "Volumes":[{"Name":"v","UsageData":{"Size":10,"RefCount":1}},{"Name":"w","UsageData":{"Size":30,"RefCount":0}}],
              "BuildCache":[
                {"ID":"0123456789abcdef0","Type":"regular","Size":60,"CreatedAt":"1970-01-01T00:00:04Z",
                 "LastUsedAt":"1970-01-01T00:00:05Z","UsageCount":3},
                {"ID":"1","Type":"exec.cachemount","Size":40,"InUse":true},{"ID":"2","Size":500,"Shared":true}]}"#,
        )
        .unwrap();
        let shown = listing::render(&SUMMARY, None, false, summary(&usage)).unwrap();
        assert_eq!(
            shown,
            "TYPE            TOTAL     ACTIVE    SIZE      RECLAIMABLE\n\
             Images          2         1         1kB       500B (50%)\n\
             Containers      2         1         200B      150B (75%)\n\
             Local Volumes   2         1         40B       30B (75%)\n\
             Build Cache     3         1         100B      60B\n"
        );
        let mut kept: Usage = serde_json::from_str(
            r#"{"Volumes":[{"Name":"v","UsageData":{"Size":10,"RefCount":1,"Snapshots":{"Count":2,"Size":7}}}]}"#,
        )
        .unwrap();
        let shown = listing::render(&SUMMARY, None, false, summary(&kept)).unwrap();
        assert!(shown.contains("Volume Snapshots   2         0         7B        7B (100%)\n"), "{shown}");
        kept.images = None;
        kept.artifacts = super::ArtifactUsage { count: 3, active: 1, size: 12, reclaimable: 9 };
        let shown = listing::render(&SUMMARY, None, false, summary(&kept)).unwrap();
        assert!(shown.ends_with("Artifacts          3         1         12B       9B (75%)\n"), "{shown}");
        let listed = super::details(&kept, 0).unwrap();
        assert!(
            listed.contains("SNAPSHOTS   SNAPSHOTS' SIZE\n") && listed.contains("10B       2           7B\n"),
            "{listed}"
        );
        let details = details(&usage, 10).unwrap();
        assert!(details.contains("v             1         10B\n"), "{details}");
        assert!(details.contains("Build cache usage: 100B\n"), "{details}");
        let row = "0123456789ab   regular           60B       6 seconds ago   5 seconds ago   3         false\n";
        assert!(details.contains(row), "{details}");
    }
}
