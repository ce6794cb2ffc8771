//! What the engine's configuration says of containers whose request does not.

use dozen_model::{LogSpec, NetworkMode};
use dozen_settings::{ContainerSettings, Settings};

use super::log;
use super::request::{Create, HostConfig, LogConfig};
use super::resources::RequestedUlimit;
use crate::edge::{ApiVersion, NEWEST, OLDEST};
use crate::error::ApiError;

/// Fills in what the request leaves open. As with Docker, options of the default log driver hold also for a request
/// that names that driver itself, unless it gives them.
pub(crate) fn merge(request: &mut Create, settings: &Settings) {
    let host = &mut request.host_config;
    if host.shm_size == 0 {
        host.shm_size = i64::try_from(settings.shm_size_bytes).unwrap_or(i64::MAX);
    }
    merge_log(&mut host.log_config, settings);
    merge_containers(host, &settings.containers);
    if let Some(address) = settings.publish_address {
        for binding in host.port_bindings.values_mut().flatten().flatten().filter(|binding| binding.ip.is_empty()) {
            binding.ip = address.to_string();
        }
    }
}

fn merge_containers(host: &mut HostConfig, defaults: &ContainerSettings) {
    // Whose users it has is decided when all else is: `user_namespace`.
    let ContainerSettings {
        dns,
        ulimits,
        no_new_privileges,
        cgroup_parent,
        shareable_memory,
        host_cgroups,
        seccomp,
        users: _,
    } = defaults;
    // It has that container's resolv.conf.
    if !host.network_mode.starts_with("container:") {
        if host.dns.is_empty() {
            host.dns = dns.servers.iter().map(ToString::to_string).collect();
        }
        for (asked, default) in [(&mut host.dns_search, &dns.search), (&mut host.dns_options, &dns.options)] {
            if asked.is_empty() {
                asked.clone_from(default);
            }
        }
    }
    let asked = &mut host.resources.ulimits;
    for (name, limit) in ulimits {
        if !asked.iter().any(|other| other.name == *name) {
            asked.push(RequestedUlimit { name: name.clone(), soft: limit.soft, hard: limit.hard });
        }
    }
    if *host_cgroups && host.cgroupns_mode.is_empty() {
        "host".clone_into(&mut host.cgroupns_mode);
    }
    if *shareable_memory && host.ipc_mode.is_empty() {
        "shareable".clone_into(&mut host.ipc_mode);
    }
    if host.resources.cgroup_parent.is_empty() {
        host.resources.cgroup_parent.clone_from(cgroup_parent);
    }
    let says = |host: &HostConfig, option: &str| {
        let is_it = |given: &String| {
            given.strip_prefix(option).is_some_and(|rest| rest.starts_with(['=', ':']) || rest.is_empty())
        };
        host.security_opt.iter().any(is_it)
    };
    if *no_new_privileges && !says(host, "no-new-privileges") {
        host.security_opt.push("no-new-privileges".to_owned());
    }
    // As with Docker, a privileged container has only a profile of its own.
    if let Some(profile) = seccomp
        && !host.privileged
        && !says(host, "seccomp")
    {
        host.security_opt.push(format!("seccomp={profile}"));
    }
}

fn merge_log(asked: &mut LogConfig, settings: &Settings) {
    let default = &settings.logging;
    if asked.r#type.is_empty() {
        asked.r#type.clone_from(&default.driver);
    }
    if asked.r#type == default.driver {
        for (option, value) in &default.options {
            asked.config.entry(option.clone()).or_insert_with(|| value.clone());
        }
    }
}

/// Whether a container could be made with what holds for those that say nothing.
pub(crate) fn check(settings: &Settings) -> Result<LogSpec, ApiError> {
    let oldest = ApiVersion::oldest(settings);
    if !(OLDEST..=NEWEST).contains(&oldest) {
        return Err(ApiError::invalid(format!("min-api-version {oldest} is not from {OLDEST} to {NEWEST}")));
    }
    let mut host = HostConfig::default();
    merge_containers(&mut host, &settings.containers);
    super::dns::spec(&host, &NetworkMode::Bridge)?;
    super::resources::ulimits(&host.resources.ulimits)?;
    super::resources::cgroup_parent(&host.resources.cgroup_parent)?;
    super::security::isolation(&host)?;
    let mut asked = LogConfig::default();
    merge_log(&mut asked, settings);
    log::spec(&asked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dozen_settings::UlimitSettings;
    use serde_json::json;

    fn settings() -> Settings {
        let mut settings = Settings { shm_size_bytes: 1 << 20, ..Settings::default() };
        settings.logging.options.insert("max-size".into(), "1m".into());
        settings.publish_address = Some([127, 0, 0, 1].into());
        settings
    }

    fn merged(body: serde_json::Value) -> Create {
        let mut request: Create = serde_json::from_value(body).unwrap();
        merge(&mut request, &settings());
        request
    }

    #[test]
    fn what_a_request_says_goes_first() {
        let request = merged(json!({ "HostConfig": {
            "ShmSize": 5, "LogConfig": { "Type": "json-file", "Config": { "max-size": "2m" } },
            "PortBindings": { "80/tcp": [{ "HostIp": "10.0.0.1" }, { "HostPort": "81" }], "90/tcp": null },
        }}));
        let host = request.host_config;
        assert_eq!((host.shm_size, host.log_config.config["max-size"].as_str()), (5, "2m"));
        let addresses: Vec<&str> = host.port_bindings["80/tcp"].iter().flatten().map(|binding| &*binding.ip).collect();
        assert_eq!(addresses, ["10.0.0.1", "127.0.0.1"]);
    }

    #[test]
    fn what_a_request_leaves_open_is_the_engines() {
        let host = merged(json!({})).host_config;
        assert_eq!((host.shm_size, host.log_config.r#type.as_str()), (1 << 20, "json-file"));
        assert_eq!(host.log_config.config["max-size"], "1m");
        let other = merged(json!({ "HostConfig": { "LogConfig": { "Type": "none" } } })).host_config;
        assert!(other.log_config.config.is_empty(), "options are their driver's");
    }

    #[test]
    fn a_containers_own_words_go_before_the_engines() {
        let containers = ContainerSettings {
            dns: dozen_settings::DnsSettings {
                servers: vec![[192, 0, 2, 1].into()],
                search: vec!["lan".into()],
                options: vec!["ndots:2".into()],
            },
            ulimits: ["core", "nofile"].map(|name| (name.into(), UlimitSettings { soft: 1, hard: 2 })).into(),
            no_new_privileges: true,
            cgroup_parent: "/team".into(),
            shareable_memory: true,
            host_cgroups: true,
            seccomp: Some("unconfined".into()),
            ..ContainerSettings::default()
        };
        let settings = Settings { containers, ..Settings::default() };
        let merged = |body: serde_json::Value| {
            let mut request: Create = serde_json::from_value(json!({ "HostConfig": body })).unwrap();
            merge(&mut request, &settings);
            let host = request.host_config;
            let limits: Vec<(String, i64)> =
                host.resources.ulimits.into_iter().map(|limit| (limit.name, limit.soft)).collect();
            let modes = [host.cgroupns_mode, host.ipc_mode, host.resources.cgroup_parent].join(" ");
            (host.dns, host.dns_search, host.dns_options, limits, modes, host.security_opt)
        };
        let words = |words: &[&str]| -> Vec<String> { words.iter().map(ToString::to_string).collect() };
        let limits = |core| vec![("core".to_owned(), core), ("nofile".to_owned(), 1)];
        assert_eq!(
            merged(json!({})),
            (
                words(&["192.0.2.1"]),
                words(&["lan"]),
                words(&["ndots:2"]),
                limits(1),
                "host shareable /team".to_owned(),
                words(&["no-new-privileges", "seccomp=unconfined"])
            )
        );
        let own = json!({
            "Dns": ["192.0.2.9"], "DnsSearch": ["own"], "DnsOptions": ["rotate"], "CgroupnsMode": "private",
            "IpcMode": "none", "CgroupParent": "/own",
            "Ulimits": [{ "Name": "core", "Soft": 9, "Hard": 9 }],
            "SecurityOpt": ["no-new-privileges:false", "seccomp=builtin"],
        });
        assert_eq!(
            merged(own),
            (
                words(&["192.0.2.9"]),
                words(&["own"]),
                words(&["rotate"]),
                limits(9),
                "private none /own".to_owned(),
                words(&["no-new-privileges:false", "seccomp=builtin"])
            )
        );
        let joined = merged(json!({ "NetworkMode": "container:web", "Privileged": true }));
        assert_eq!((joined.0, joined.1, joined.5), (vec![], vec![], words(&["no-new-privileges"])));
    }

    #[test]
    fn defaults_that_no_container_could_have_are_known_before() {
        let with = |change: &dyn Fn(&mut ContainerSettings)| {
            let mut settings = Settings::default();
            change(&mut settings.containers);
            check(&settings).unwrap_err().message
        };
        let limit = UlimitSettings { soft: 1, hard: 1 };
        let error = with(&|defaults| defaults.ulimits = [("files".to_owned(), limit)].into());
        assert!(error.contains("invalid ulimit type: files"), "{error}");
        let error = with(&|defaults| "/a/../b".clone_into(&mut defaults.cgroup_parent));
        assert!(error.contains("/a/../b"), "{error}");
        assert!(with(&|defaults| defaults.dns.search = vec!["a b".into()]).contains("DnsSearch"));
        assert!(with(&|defaults| defaults.seccomp = Some("nonsense".into())).contains("the profile is not JSON"));
    }

    #[test]
    fn bad_log_options_are_known_before_a_container_is_made() {
        assert!(check(&settings()).is_ok());
        let mut bad = settings();
        bad.logging.options.insert("max-sise".into(), "1m".into());
        assert!(check(&bad).unwrap_err().message.contains("unknown log opt 'max-sise'"));
    }
}
