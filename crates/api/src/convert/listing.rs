//! `ps`: which containers, and each of them in a few words.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dozen_engine::{Phase, Snapshot};
use dozen_model::{ContainerSpec, ImageId, MountSource};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{endpoints, health, inspect, networks, ports};
use crate::error::ApiError;
use crate::extract::Query;
use crate::filters::Filters;
use crate::time;

/// The filters of `GET /containers/json`.
pub(crate) const FILTERS: [&str; 17] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "label!",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
    "all",
];
const STATUSES: [&str; 7] = ["created", "restarting", "running", "removing", "paused", "exited", "dead"];

/// What a listing asks for.
pub(crate) struct Listing {
    all: bool,
    limit: Option<usize>,
    filters: Filters,
}

impl Listing {
    pub(crate) fn read(query: &Query) -> Result<Self, ApiError> {
        let filters = Filters::read(query, &FILTERS)?;
        for status in filters.get("status") {
            if !STATUSES.contains(&status.as_str()) {
                return Err(ApiError::invalid(format!("invalid filter 'status={status}'")));
            }
        }
        for code in filters.get("exited") {
            code.parse::<i32>().map_err(|_| ApiError::invalid(format!("invalid filter 'exited={code}'")))?;
        }
        for health in filters.get("health") {
            if !["none", "starting", "healthy", "unhealthy"].contains(&health.as_str()) {
                return Err(ApiError::invalid(format!("invalid filter 'health={health}'")));
            }
        }
        for name in ["publish", "expose"] {
            ports::exposed(filters.get(name).iter().map(String::as_str))?;
        }
        let limit =
            query.number::<i64>("limit")?.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
        Ok(Self { all: query.flag("all"), limit, filters })
    }

    /// The names that `ancestor` mentions: images, to be looked up before [`Listing::select`].
    pub(crate) fn ancestors(&self) -> &[String] {
        self.filters.get("ancestor")
    }

    /// Those of `containers` (newest first) that are asked for. `ancestors` are the images that the filter names, and
    /// those made from them ([`descendants`]).
    pub(crate) fn select(
        &self,
        containers: Vec<Arc<Snapshot>>,
        ancestors: &BTreeSet<ImageId>,
    ) -> Result<Vec<Arc<Snapshot>>, ApiError> {
        let filters = &self.filters;
        // Docker shows those that do not run when a limit, a state or a place in time is asked for.
        let all = self.all
            || self.limit.is_some()
            || ["status", "exited", "before", "since"].iter().any(|name| filters.has(name));
        let created = |name: &str| match filters.get(name).first() {
            None => Ok(None),
            Some(text) => containers
                .iter()
                .find(|snapshot| {
                    snapshot.name.as_str() == text.trim_start_matches('/')
                        || snapshot.id.as_str().starts_with(text.as_str())
                })
                .map(|snapshot| Some(snapshot.created))
                .ok_or_else(|| ApiError::new(dozen_model::ErrorKind::NotFound, format!("No such container: {text}"))),
        };
        let (before, since) = (created("before")?, created("since")?);
        let wanted = |snapshot: &Arc<Snapshot>| {
            (all || matches!(snapshot.phase, Phase::Running(_) | Phase::Waiting(_)))
                && before.is_none_or(|before| snapshot.created < before)
                && since.is_none_or(|since| snapshot.created > since)
                && self.matches(snapshot, ancestors)
        };
        let mut selected: Vec<_> = containers.iter().filter(|snapshot| wanted(snapshot)).cloned().collect();
        selected.truncate(self.limit.unwrap_or(usize::MAX));
        Ok(selected)
    }

    fn matches(&self, snapshot: &Snapshot, ancestors: &BTreeSet<ImageId>) -> bool {
        let spec = &snapshot.spec;
        let filters = &self.filters;
        let name = format!("/{}", snapshot.name);
        let mounted = |wanted: &str| {
            spec.mounts.iter().any(|mount| {
                mount.target == std::path::Path::new(wanted)
                    || match &mount.source {
                        MountSource::Volume { name, .. } => name.as_str() == wanted,
                        MountSource::Bind { path, .. } => path == std::path::Path::new(wanted),
                        MountSource::Tmpfs(_)
                        | MountSource::Image { .. }
                        | MountSource::Artifact(_)
                        | MountSource::Layers { .. } => false,
                    }
            })
        };
        let has_port = |published: bool, wanted: &str| {
            let Ok(wanted) = ports::exposed([wanted]) else { return false };
            wanted.iter().any(|port| {
                if published {
                    spec.ports.iter().any(|binding| (binding.container_port, binding.protocol) == *port)
                        || snapshot.phase.run().is_some_and(|run| {
                            run.ports
                                .iter()
                                .any(|p| (p.container_port, p.protocol) == *port || (p.host_port, p.protocol) == *port)
                        })
                } else {
                    spec.exposed_ports.contains(port)
                }
            })
        };
        let exit_code = match &snapshot.phase {
            Phase::Exited(exit) => Some(exit.exit_code),
            _ => None,
        };
        filters.any("id", |wanted| snapshot.id.as_str().starts_with(wanted))
            // Names match with their slash and without it.
            && (!filters.has("name") || filters.matches("name", &name) || filters.matches("name", &name[1..]))
            && filters.labels(&spec.labels)
            && filters.any("status", |wanted| snapshot.status() == wanted)
            && filters.any("exited", |wanted| exit_code.is_some_and(|code| code.to_string() == wanted))
            && filters.any("volume", mounted)
            && filters.any("publish", |wanted| has_port(true, wanted))
            && filters.any("expose", |wanted| has_port(false, wanted))
            && filters.any("network", |wanted| endpoints::is_on(snapshot, wanted))
            && filters.any("health", |wanted| wanted == health::word(snapshot))
            // No container belongs to a task or a Windows isolation.
            && filters.any("is-task", |wanted| matches!(wanted, "false" | "0"))
            && filters.any("isolation", |wanted| matches!(wanted, "" | "default"))
            // By image, not by the name that it had: that may be another image's by now.
            && (!filters.has("ancestor") || ancestors.contains(&spec.image))
    }
}

/// `roots` and every image that was made from one of them. `parents` has each image with its parent.
pub(crate) fn descendants(
    roots: impl IntoIterator<Item = ImageId>,
    parents: &BTreeMap<ImageId, ImageId>,
) -> BTreeSet<ImageId> {
    let mut found: BTreeSet<ImageId> = roots.into_iter().collect();
    loop {
        let children = parents.iter().filter(|(child, parent)| found.contains(parent) && !found.contains(child));
        let children: Vec<ImageId> = children.map(|(child, _)| child.clone()).collect();
        if children.is_empty() {
            return found;
        }
        found.extend(children);
    }
}

/// The name that the container was made by, while it is its image's; else the image's id. `now_means` is the image
/// that has the name today.
pub(crate) fn image_name(spec: &ContainerSpec, now_means: Option<&ImageId>) -> String {
    if now_means == Some(&spec.image) { spec.image_name.clone() } else { spec.image.to_string() }
}

/// A row of the listing; `image` as [`image_name`] has it.
pub(crate) fn row(
    snapshot: &Snapshot,
    image: &str,
    now: Timestamp,
    mountpoint: &dyn Fn(&str) -> Option<String>,
) -> Value {
    let spec = &snapshot.spec;
    let mut words = spec.process.arguments();
    // Docker quotes what has a space in it.
    let quoted = |word: &String| if word.contains(' ') { format!("'{word}'") } else { word.clone() };
    let command: Vec<String> = words.by_ref().map(quoted).collect();
    json!({
        "Id": snapshot.id.as_str(),
        "Names": [format!("/{}", snapshot.name)],
        "Image": image,
        "ImageID": spec.image.to_string(),
        "Command": command.join(" "),
        "Created": snapshot.created.as_second(),
        "Ports": row_ports(snapshot),
        "Labels": spec.labels,
        "State": snapshot.status(),
        "Status": status(&snapshot.phase, now) + health::suffix(snapshot),
        "HostConfig": { "NetworkMode": networks::mode(&spec.network) },
        "NetworkSettings": { "Networks": endpoints::of_container(snapshot) },
        "Mounts": inspect::mounts(spec, mountpoint),
    })
}

fn row_ports(snapshot: &Snapshot) -> Vec<Value> {
    let Some(run) = snapshot.phase.run() else { return Vec::new() };
    let mut ports: Vec<Value> = run
        .ports
        .iter()
        .map(|port| {
            json!({
                "IP": port.host_address.to_string(), "PrivatePort": port.container_port, "PublicPort": port.host_port,
                "Type": port.protocol.to_string(),
            })
        })
        .collect();
    if !run.endpoints.is_empty() {
        let published = |port: &(u16, _)| run.ports.iter().any(|p| (p.container_port, p.protocol) == *port);
        for port in spec_ports(snapshot).filter(|port| !published(port)) {
            let mut value = Map::new();
            value.insert("PrivatePort".into(), json!(port.0));
            value.insert("Type".into(), json!(port.1.to_string()));
            ports.push(Value::Object(value));
        }
    }
    ports
}

fn spec_ports(snapshot: &Snapshot) -> impl Iterator<Item = (u16, dozen_model::Protocol)> {
    snapshot.spec.exposed_ports.iter().copied()
}

/// `Up 2 minutes`, `Exited (0) 3 seconds ago`, `Created`.
pub(crate) fn status(phase: &Phase, now: Timestamp) -> String {
    let ago = |then: Timestamp| time::human(now.as_second() - then.as_second());
    match phase {
        Phase::Created { .. } | Phase::Starting { .. } => "Created".into(),
        Phase::Running(run) if run.is_paused => format!("Up {} (Paused)", ago(run.started)),
        Phase::Running(run) => format!("Up {}", ago(run.started)),
        Phase::Waiting(waiting) => {
            format!("Restarting ({}) {} ago", waiting.outcome().exit_code, ago(waiting.exit.finished))
        }
        Phase::Exited(exit) => format!("Exited ({}) {} ago", exit.exit_code, ago(exit.finished)),
        Phase::Removing { failure: None, .. } => "Removal In Progress".into(),
        Phase::Removing { failure: Some(_), .. } => "Dead".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::inspect::tests::{at, exited, running, snapshot};
    use super::*;

    #[test]
    fn statuses_read_as_dockers() {
        assert_eq!(status(&running(), at(1_700_000_121)), "Up 2 minutes");
        assert_eq!(status(&exited(0), at(1_700_000_012)), "Exited (0) 3 seconds ago");
        assert_eq!(status(&Phase::Created { last_failure: None }, at(0)), "Created");
        let Phase::Running(run) = running() else { unreachable!() };
        let paused = Phase::Running(dozen_engine::Run { is_paused: true, ..run });
        assert_eq!(status(&paused, at(1_700_000_121)), "Up 2 minutes (Paused)");
        let Phase::Exited(exit) = exited(1) else { unreachable!() };
        let waiting = Phase::Waiting(dozen_engine::Waiting { exit, failure: None, pause_ms: 100 });
        assert_eq!(status(&waiting, at(1_700_000_012)), "Restarting (1) 3 seconds ago");
        let removing = |failure| Phase::Removing { volumes: false, failure };
        assert_eq!(status(&removing(None), at(0)), "Removal In Progress");
        assert_eq!(status(&removing(Some("why".into())), at(0)), "Dead");
    }

    fn image(number: u8) -> ImageId {
        ImageId::new(dozen_model::Digest::from_sha256([number; 32]))
    }

    #[test]
    fn descendants_are_found_over_generations() {
        let parents = BTreeMap::from([(2, 1), (3, 2), (4, 9), (6, 5), (5, 6)].map(|(c, p)| (image(c), image(p))));
        let found =
            |roots: &[u8]| descendants(roots.iter().copied().map(image), &parents).into_iter().collect::<Vec<_>>();
        assert_eq!(found(&[1]), [1, 2, 3].map(image));
        assert_eq!(found(&[3, 9]), [3, 4, 9].map(image));
        assert_eq!(found(&[5]), [5, 6].map(image));
        assert_eq!(found(&[]), []);
    }

    #[test]
    fn a_name_that_means_another_image_gives_way_to_the_id() {
        let spec = &snapshot(json!({"Image": "x:1", "Cmd": ["c"]}), running()).spec;
        assert_eq!(image_name(spec, Some(&image(7))), "x:1");
        assert_eq!(image_name(spec, Some(&image(8))), image(7).to_string());
        assert_eq!(image_name(spec, None), image(7).to_string());
    }

    fn select(query: &str) -> Result<Vec<&'static str>, ApiError> {
        let make = |name: &str, second: i64, phase: Phase, made_from: u8| {
            let body = json!({
                "Image": format!("{name}-image"), "Cmd": ["c"], "Labels": {"app": name},
                "ExposedPorts": {"80/tcp": {}},
                "HostConfig": {"Binds": [format!("{name}-data:/data")], "NetworkMode": if name == "web" { "host" } else { "" }},
            });
            let mut one = snapshot(body, phase);
            one.spec = Arc::new(ContainerSpec { image: image(made_from), ..ContainerSpec::clone(&one.spec) });
            one.name = name.parse().unwrap();
            one.created = at(second);
            Arc::new(one)
        };
        let all =
            vec![make("web", 30, running(), 8), make("database", 20, exited(3), 9), make("dab", 10, exited(0), 7)];
        let listing = Listing::read(&Query::from(query))?;
        let names = ["web", "database", "dab"];
        let selected = listing.select(all, &BTreeSet::from([image(7)]))?;
        Ok(names.into_iter().filter(|name| selected.iter().any(|s| s.name.as_str() == *name)).collect())
    }

    #[test]
    fn the_listing_selects() {
        #[track_caller]
        fn check(query: &str, filters: Value, want: &[&str]) {
            let encoded: String = filters.to_string().bytes().map(|b| format!("%{b:02X}")).collect();
            assert_eq!(select(&format!("{query}&filters={encoded}")).unwrap(), want, "{query} {filters}");
        }
        check("", json!({}), &["web"]);
        check("all=1", json!({}), &["web", "database", "dab"]);
        check("limit=2", json!({}), &["web", "database"]);
        check("limit=0", json!({}), &["web"]);
        check("", json!({"status": ["exited"]}), &["database", "dab"]);
        check("", json!({"exited": ["3"]}), &["database"]);
        check("all=1", json!({"name": ["da"]}), &["database", "dab"]);
        check("all=1", json!({"name": ["^/dab$"]}), &["dab"]);
        check("all=1", json!({"name": ["^data", "web"]}), &["web", "database"]);
        check("all=1", json!({"name": ["^d.*b$", "(?i)^WEB$"]}), &["web", "dab"]);
        check("all=1", json!({"name": ["web|^/data"]}), &["web", "database"]);
        check("all=1", json!({"name": ["("]}), &[]);
        check("all=1", json!({"label": ["app=web"]}), &["web"]);
        check("all=1", json!({"label": ["app"], "status": ["exited"]}), &["database", "dab"]);
        check("all=1", json!({"volume": ["dab-data"]}), &["dab"]);
        check("all=1", json!({"volume": ["/data"]}), &["web", "database", "dab"]);
        check("all=1", json!({"expose": ["80"]}), &["web", "database", "dab"]);
        check("all=1", json!({"publish": ["80/tcp"]}), &[]);
        check("all=1", json!({"network": ["host"]}), &["web"]);
        // The image that the caller has found counts, not the text.
        check("all=1", json!({"ancestor": ["web-image"]}), &["dab"]);
        check("", json!({"before": ["database"]}), &["dab"]);
        check("", json!({"since": ["dab"]}), &["web", "database"]);
        check("all=1", json!({"health": ["healthy"]}), &[]);
    }

    #[test]
    fn bad_filters_are_refused() {
        for (filters, status) in [
            (json!({"status": ["flying"]}), 400),
            (json!({"exited": ["x"]}), 400),
            (json!({"health": ["well"]}), 400),
            (json!({"colour": ["red"]}), 400),
            (json!({"publish": ["x"]}), 400),
            (json!({"before": ["nobody"]}), 404),
        ] {
            let encoded: String = filters.to_string().bytes().map(|b| format!("%{b:02X}")).collect();
            assert_eq!(select(&format!("filters={encoded}")).unwrap_err().status(), status, "{filters}");
        }
    }

    #[test]
    fn a_row_has_what_ps_shows() {
        let row =
            row(&snapshot(json!({"Image": "x:1", "Cmd": ["a", "b c"]}), running()), "x:1", at(1_700_000_003), &|_| {
                None
            });
        assert_eq!(
            (&row["Command"], &row["Status"], &row["State"]),
            (&json!("a 'b c'"), &json!("Up 2 seconds"), &json!("running"))
        );
        assert_eq!(
            (&row["Names"], &row["Image"], &row["HostConfig"]),
            (&json!(["/web"]), &json!("x:1"), &json!({"NetworkMode": "bridge"}))
        );
    }
}
