//! `_ping`, `version`, `info`.

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::response::{IntoResponse, Response};
use dozen_engine::{Engine, OwnRegistry};
use serde_json::{Value, json};

use crate::convert::inspect::RUNTIME;
use crate::edge::{ApiVersion, NEWEST};
use crate::error::{Answer, ok};
use crate::{host, shims};

const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(super) async fn ping(method: Method) -> Response {
    let mut response = if method == Method::HEAD { "".into_response() } else { "OK".into_response() };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    // The classic builder: BuildKit is not built.
    headers.insert(HeaderName::from_static("builder-version"), HeaderValue::from_static("1"));
    headers.insert(HeaderName::from_static("swarm"), HeaderValue::from_static("inactive"));
    response
}

pub(super) async fn version(State(engine): State<Engine>) -> Answer {
    let oldest = ApiVersion::oldest(&engine.settings()).to_string();
    let uname = host::uname();
    ok(&json!({
        "Platform": { "Name": "Dozen" },
        "Components": [{
            "Name": "Engine",
            "Version": VERSION,
            "Details": {
                "ApiVersion": NEWEST.to_string(), "MinAPIVersion": oldest, "Os": "linux",
                "Arch": host::architecture(), "KernelVersion": uname.release, "Experimental": "false",
            },
        }],
        "Version": VERSION,
        "ApiVersion": NEWEST.to_string(),
        "MinAPIVersion": oldest,
        "GitCommit": "",
        "GoVersion": "",
        "Os": "linux",
        "Arch": host::architecture(),
        "KernelVersion": uname.release,
        "BuildTime": "",
    }))
}

pub(super) async fn info(State(engine): State<Engine>, Extension(version): Extension<ApiVersion>) -> Answer {
    let facts = engine.info().await;
    let limits = dozen_engine::HostResources::of_host();
    let settings = engine.settings();
    let uname = host::uname();
    let (operating_system, os_version) = host::operating_system();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let (own_registry, warning) = own_registry(engine.own_registry());
    let warnings: Vec<String> = facts.warnings.into_iter().chain(warning).collect();
    let mut shown = json!({
        "ID": facts.id,
        "Name": uname.hostname,
        "Containers": facts.containers_running + facts.containers_paused + facts.containers_stopped,
        "ContainersRunning": facts.containers_running,
        "ContainersPaused": facts.containers_paused,
        "ContainersStopped": facts.containers_stopped,
        "Images": facts.images,
        "Driver": "overlay2",
        "DriverStatus": [["Backing Filesystem", "overlayfs"]],
        "DockerRootDir": facts.data_root,
        "Plugins": { "Volume": ["local"], "Network": ["bridge", "host", "ipvlan", "macvlan", "null"], "Authorization": null, "Log": dozen_model::LogSpec::DRIVERS },
        // What is false here is dropped by create, with a warning.
        "MemoryLimit": limits.memory,
        "SwapLimit": limits.swap,
        "CpuCfsPeriod": limits.cpu_quota,
        "CpuCfsQuota": limits.cpu_quota,
        "CPUShares": limits.cpu_shares,
        "CPUSet": limits.cpuset,
        "PidsLimit": limits.pids,
        "OomKillDisable": limits.oom_kill_disable,
        "IPv4Forwarding": host::sysctl_is_on("net/ipv4/ip_forward"),
        "BridgeNfIptables": host::sysctl_is_on("net/bridge/bridge-nf-call-iptables"),
        "BridgeNfIp6tables": host::sysctl_is_on("net/bridge/bridge-nf-call-ip6tables"),
        "Debug": settings.log_level == dozen_settings::LogLevel::Debug,
        "NFd": 0,
        "NGoroutines": 0,
        "NEventsListener": 0,
        "SystemTime": jiff::Timestamp::now().to_string(),
        "LoggingDriver": settings.logging.driver,
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": facts.cgroup_version.to_string(),
        "KernelVersion": uname.release,
        "OperatingSystem": operating_system,
        "OSVersion": os_version,
        "OSType": "linux",
        "Architecture": uname.machine,
        "NCPU": processors,
        "MemTotal": host::memory_bytes(),
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": { "IndexConfigs": {}, "InsecureRegistryCIDRs": [], "Mirrors": [] },
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Labels": settings.labels,
        "ExperimentalBuild": false,
        "ServerVersion": VERSION,
        "Runtimes": { RUNTIME: { "path": RUNTIME } },
        "DefaultRuntime": RUNTIME,
        "Swarm": {
            "NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "",
            "RemoteManagers": null,
        },
        "LiveRestoreEnabled": true,
        "Isolation": "",
        "InitBinary": "dozen",
        "ContainerdCommit": { "ID": "" },
        "RuncCommit": { "ID": "" },
        "InitCommit": { "ID": "" },
        "SecurityOptions": security_options(&settings.containers),
        "CDISpecDirs": settings.cdi_directories,
        "DiscoveredDevices": facts.named_devices.iter().map(|name| json!({ "Source": "cdi", "ID": name })).collect::<Vec<_>>(),
        "FirewallBackend": { "Driver": "nftables" },
        "GenericResources": null,
        // Ours: where the engine serves a registry of its own.
        "OwnRegistry": own_registry,
        "Warnings": if warnings.is_empty() { Value::Null } else { json!(warnings) },
    });
    shims::info(version, &mut shown);
    ok(&shown)
}

/// Its address and why there is none; and a warning, where one was wanted. Never its password: people show others what `info`
/// says.
fn own_registry(own: Option<&OwnRegistry>) -> (Value, Option<String>) {
    match own {
        None => (Value::Null, None),
        Some(OwnRegistry::Served { address, .. }) => (json!({ "Address": address.to_string(), "Error": "" }), None),
        Some(OwnRegistry::Failed { why, .. }) => {
            let warning = format!("WARNING: the engine serves no registry of its own: {why}");
            (json!({ "Address": "", "Error": why }), Some(warning))
        }
    }
}

/// Docker's words: what holds for containers that say nothing.
fn security_options(defaults: &dozen_settings::ContainerSettings) -> Vec<&'static str> {
    let profile = match defaults.seccomp.as_deref() {
        None => "name=seccomp,profile=builtin",
        Some("unconfined") => "name=seccomp,profile=unconfined",
        Some(_) => "name=seccomp,profile=custom",
    };
    let own = defaults.no_new_privileges.then_some("name=no-new-privileges");
    let users = defaults.users.own_ids.then_some("name=userns");
    [profile, "name=cgroupns"].into_iter().chain(users).chain(own).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ping_names_the_classic_builder() {
        let response = ping(Method::HEAD).await;
        assert_eq!(response.headers()["builder-version"], "1");
        let body = axum::body::to_bytes(ping(Method::GET).await.into_body(), 10).await.unwrap();
        assert_eq!(&body[..], b"OK");
    }
}
