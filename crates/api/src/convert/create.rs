//! A create request and the image's own configuration → what the engine makes.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use dozen_model::{
    ContainerId, ContainerSpec, HostEntry, ImageId, NetworkMode, ProcessSpec, StdinMode, StopSpec, UserNamespace,
};
use serde::Deserialize;
use serde_json::Value;

use super::request::Create;
use super::{dns, health, log, mounts, ports, resources, restart, security, sharing};
use crate::error::ApiError;

/// Docker's size of /dev/shm.
const SHM_DEFAULT_BYTES: u64 = 64 << 20;
/// sethostname(2): a longer name cannot be set.
const HOSTNAME_MAX: usize = 64;

/// What an image's configuration says of containers made from it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ImageDefaults {
    user: Option<String>,
    exposed_ports: Option<BTreeMap<String, Value>>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    volumes: Option<BTreeMap<String, Value>>,
    working_dir: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    stop_signal: Option<String>,
    healthcheck: Option<health::Requested>,
    shell: Option<Vec<String>>,
}

impl ImageDefaults {
    /// From an image's configuration blob.
    pub(crate) fn of(configuration: &Value) -> Result<Self, ApiError> {
        match configuration.get("config") {
            None | Some(Value::Null) => Ok(Self::default()),
            Some(config) => serde_json::from_value(config.clone())
                .map_err(|error| ApiError::invalid(format!("the image's configuration is malformed: {error}"))),
        }
    }
}

/// The spec, and warnings for the one who asked. `find` looks up containers, for `container:<name>`.
pub(crate) fn spec(
    request: &Create,
    image: ImageId,
    defaults: &ImageDefaults,
    find: &dyn Fn(&str) -> Result<ContainerId, ApiError>,
) -> Result<(ContainerSpec, Vec<String>), ApiError> {
    let host = &request.host_config;
    let mut warnings = Vec::new();
    let health = health::check(
        request.healthcheck.as_ref(),
        defaults.healthcheck.as_ref(),
        defaults.shell.as_deref(),
        &host.on_unhealthy,
        &mut warnings,
    )?;
    restart::check_recovery(health.as_ref(), host.auto_remove)?;
    let network = network_mode(&host.network_mode, find)?;
    let dns = dns::spec(host, &network)?;
    let image_ports = defaults.exposed_ports.iter().flatten().map(|(key, _)| key.as_str());
    let bindings = ports::bindings(&host.port_bindings)?;
    let mut exposed_ports = ports::exposed(request.exposed_ports.keys().map(String::as_str).chain(image_ports))?;
    exposed_ports.extend(bindings.iter().map(|binding| (binding.container_port, binding.protocol)));
    check_conflicts(request, &network, &mut warnings)?;
    let volumes = request.volumes.keys().chain(defaults.volumes.iter().flatten().map(|(target, _)| target));
    let mut labels = defaults.labels.clone().unwrap_or_default();
    labels.extend(request.labels.clone());
    let sharing = sharing::sharing(request, &network, find)?;
    let spec = ContainerSpec {
        image,
        image_name: request.image.clone(),
        process: process(request, defaults)?,
        hostname: hostname(&request.hostname, "hostname")?,
        domainname: hostname(&request.domainname, "domain name")?,
        labels,
        stop: StopSpec {
            signal: match [request.stop_signal.as_str(), defaults.stop_signal.as_deref().unwrap_or("")] {
                ["", ""] => StopSpec::default().signal,
                ["", signal] | [signal, _] => signal.parse()?,
            },
            timeout_s: request.stop_timeout,
        },
        mounts: mounts::mounts(host, volumes.map(String::as_str))?,
        // Docker drops published ports on the host's network, with a warning.
        ports: if has_ports(&network) { bindings } else { Vec::new() },
        publish_all: host.publish_all_ports && has_ports(&network),
        network,
        endpoints: None,
        exposed_ports,
        extra_hosts: host.extra_hosts.iter().map(|text| host_entry(text)).collect::<Result<_, _>>()?,
        dns,
        isolation: security::isolation(host)?,
        init: host.init,
        auto_remove: host.auto_remove,
        shm_size_bytes: match u64::try_from(host.shm_size) {
            Ok(0) => SHM_DEFAULT_BYTES,
            Ok(size) => size,
            Err(_) => return Err(ApiError::invalid("SHM size can not be less than 0")),
        },
        resources: resources::spec(&host.resources, dozen_engine::HostResources::of_host(), &mut warnings)?,
        restart: restart::policy(&host.restart_policy, host.auto_remove)?,
        log: log::spec(&host.log_config)?,
        health,
        sharing,
        // Decided when all else is.
        user_namespace: UserNamespace::Unsaid,
        build_step: None,
    };
    Ok((spec, warnings))
}

fn process(request: &Create, defaults: &ImageDefaults) -> Result<ProcessSpec, ApiError> {
    let (entrypoint, command) = command_line(request, defaults);
    if entrypoint.is_empty() && command.is_empty() {
        return Err(ApiError::invalid("no command specified")
            .with_hint("the image has none of its own: name one after the image"));
    }
    let arguments = entrypoint.iter().chain(&command);
    if arguments.chain(&request.env).any(|text| text.contains('\0')) {
        return Err(ApiError::invalid("the command or an environment variable contains a null byte"));
    }
    let user = if request.user.is_empty() { defaults.user.as_deref().unwrap_or("") } else { &request.user };
    Ok(ProcessSpec {
        environment: environment(defaults.env.as_deref().unwrap_or(&[]), &request.env)?,
        working_directory: working_directory(&request.working_dir, defaults.working_dir.as_deref().unwrap_or(""))?,
        user: user.parse()?,
        terminal: request.tty,
        // What clients send that have no terminal, or do not know.
        terminal_size: request.host_config.console_size.filter(|(rows, columns)| *rows > 0 && *columns > 0),
        stdin: match (request.open_stdin, request.stdin_once) {
            (false, _) => StdinMode::Closed,
            (true, false) => StdinMode::Open,
            (true, true) => StdinMode::Once,
        },
        attach: [request.attach_stdin, request.attach_stdout, request.attach_stderr],
        entrypoint,
        command,
    })
}

/// An entrypoint of the user's own clears the image's command; `[""]` clears the image's entrypoint.
fn command_line(request: &Create, defaults: &ImageDefaults) -> (Vec<String>, Vec<String>) {
    let image = |words: &Option<Vec<String>>| words.clone().unwrap_or_default();
    let command = request.cmd.clone().unwrap_or_default();
    match &request.entrypoint {
        Some(own) if own.len() == 1 && own[0].is_empty() => (Vec::new(), command),
        Some(own) if !own.is_empty() => (own.clone(), command),
        _ if command.is_empty() => (image(&defaults.entrypoint), image(&defaults.cmd)),
        _ => (image(&defaults.entrypoint), command),
    }
}

/// The user's variables and then those of the image that the user does not name, as Docker orders them; each name
/// once, the last of the user's values winning. The user's `NAME` without `=` takes the image's away (Docker's rule).
/// PATH, HOSTNAME and TERM are the engine's to add.
pub(crate) fn environment(image: &[String], user: &[String]) -> Result<Vec<String>, ApiError> {
    // By name, or a hostile image's hundred thousands of them would take minutes.
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut all: Vec<&String> = Vec::new();
    for variable in user {
        let name = variable_name(variable);
        if name.is_empty() {
            return Err(ApiError::invalid(format!("invalid environment variable: {variable}")));
        }
        match places.entry(name) {
            Entry::Occupied(place) => all[*place.get()] = variable,
            Entry::Vacant(place) => {
                place.insert(all.len());
                all.push(variable);
            }
        }
    }
    for variable in image {
        if let Entry::Vacant(place) = places.entry(variable_name(variable)) {
            place.insert(all.len());
            all.push(variable);
        }
    }
    Ok(all.into_iter().filter(|variable| variable.contains('=')).cloned().collect())
}

fn variable_name(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(name, _)| name)
}

fn working_directory(user: &str, image: &str) -> Result<String, ApiError> {
    let wanted = [user, image, "/"].into_iter().find(|text| !text.is_empty()).expect("the last is not empty");
    let clean = mounts::clean(std::path::Path::new(wanted)).and_then(|path| path.into_os_string().into_string().ok());
    clean.ok_or_else(|| {
        ApiError::invalid(format!("the working directory '{wanted}' is invalid, it needs to be an absolute path"))
    })
}

fn network_mode(text: &str, find: &dyn Fn(&str) -> Result<ContainerId, ApiError>) -> Result<NetworkMode, ApiError> {
    match text {
        "" | "default" | "bridge" => Ok(NetworkMode::Bridge),
        "none" => Ok(NetworkMode::None),
        "host" => Ok(NetworkMode::Host),
        _ => match text.strip_prefix("container:") {
            Some("") => Err(ApiError::invalid("invalid container format container:<name|id>")),
            Some(name) => find(name).map(NetworkMode::Container),
            None => Ok(NetworkMode::Network(text.to_owned())),
        },
    }
}

fn has_ports(network: &NetworkMode) -> bool {
    matches!(network, NetworkMode::Bridge | NetworkMode::Network(_))
}

/// What cannot be had together, in Docker's words.
fn check_conflicts(request: &Create, network: &NetworkMode, warnings: &mut Vec<String>) -> Result<(), ApiError> {
    let host = &request.host_config;
    let published = host.publish_all_ports || host.port_bindings.values().flatten().any(|ports| !ports.is_empty());
    if let NetworkMode::Container(_) = network {
        let conflict = |what: &str| Err(ApiError::invalid(format!("conflicting options: {what}")));
        if !request.hostname.is_empty() {
            return conflict("hostname and the network mode");
        }
        if !host.extra_hosts.is_empty() {
            return conflict("custom host-to-IP mapping and the network mode");
        }
        if published {
            return conflict("port publishing and the container type network mode");
        }
        if !request.exposed_ports.is_empty() {
            return conflict("port exposing and the container type network mode");
        }
    }
    if published && matches!(network, NetworkMode::Host | NetworkMode::None) {
        let mode = if *network == NetworkMode::Host { "host" } else { "none" };
        warnings.push(format!("Published ports are discarded when using {mode} network mode"));
    }
    Ok(())
}

/// A name that sethostname(2) and /etc/hosts can take.
fn hostname(text: &str, what: &str) -> Result<Option<String>, ApiError> {
    let fits = text.len() <= HOSTNAME_MAX && text.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b'#');
    match text {
        "" => Ok(None),
        _ if fits => Ok(Some(text.to_owned())),
        _ => Err(ApiError::invalid(format!(
            "invalid {what} {text:?}: want up to {HOSTNAME_MAX} characters, without spaces"
        ))),
    }
}

/// `name:address`, `name=address`; the address may be `host-gateway`.
pub(super) fn host_entry(text: &str) -> Result<HostEntry, ApiError> {
    let (name, address) = text
        .split_once(['=', ':'])
        .filter(|(name, address)| !name.is_empty() && !address.is_empty())
        .ok_or_else(|| ApiError::invalid(format!("bad format for add-host: {text:?}")))?;
    if !name.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        return Err(ApiError::invalid(format!("bad format for add-host: {text:?}")));
    }
    if address == "host-gateway" {
        return Ok(HostEntry { name: name.to_owned(), address: None });
    }
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    let address =
        bare.parse().map_err(|_| ApiError::invalid(format!("invalid IP address in add-host: {address:?}")))?;
    Ok(HostEntry { name: name.to_owned(), address: Some(address) })
}

#[cfg(test)]
mod tests;
