//! The flags that `run` and `create` share, and the API's body that they come to.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Map, Value, json};

use crate::arguments::flags::{self, invalid, is_on, list, owned, switch, text, texts, value};
use crate::arguments::ports::Ports;
use crate::arguments::security::Surroundings;
use crate::arguments::volumes::Volume;
use crate::arguments::{
    health, hosts, key_values, mounts, names, network, resources, restart, security, sharing, sizes, volumes,
};
use crate::failure::{ENGINE_FAILED, Failure};

/// What `POST /containers/create` needs, and what the client itself must know of it.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateRequest {
    /// `--name`.
    pub name: Option<String>,
    /// The image as typed.
    pub image: String,
    /// The body.
    pub body: Value,
    /// `-i`.
    pub is_interactive: bool,
    /// `-t`.
    pub is_tty: bool,
    /// `--rm`.
    pub removes_itself: bool,
    /// Which streams are attached.
    pub attached: Attached,
    /// `--cidfile`.
    pub id_file: Option<PathBuf>,
}

/// The streams that `-a` (or its absence) attaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the streams' own names")]
pub struct Attached {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// The flags, in the order of Docker's help.
pub fn flags() -> Vec<Arg> {
    let [dns, dns_option, dns_search] = names::flags();
    vec![
        list("add-host", None, "Add a custom host-to-IP mapping (host:ip)"),
        list("attach", 'a', "Attach to STDIN, STDOUT or STDERR"),
        list("cap-add", None, "Add Linux capabilities"),
        list("cap-drop", None, "Drop Linux capabilities"),
        value("cidfile", None, "string", "Write the container ID to the file"),
        dns,
        dns_option,
        dns_search,
        value("domainname", None, "string", "Container NIS domain name"),
        value("entrypoint", None, "string", "Overwrite the default ENTRYPOINT of the image"),
        list("env", 'e', "Set environment variables"),
        list("env-file", None, "Read in a file of environment variables"),
        list("expose", None, "Expose a port or a range of ports"),
        Arg::new("help").long("help").action(ArgAction::Help).help("Print usage"),
        value("hostname", 'h', "string", "Container host name"),
        switch("init", None, "Run an init inside the container that forwards signals and reaps processes"),
        switch("interactive", 'i', "Keep STDIN open even if not attached"),
        list("label", 'l', "Set meta data on a container"),
        list("label-file", None, "Read in a line delimited file of labels"),
        value(
            "log-driver",
            None,
            "string",
            "Logging driver for the container (fluentd, gelf, journald, json-file, local, none, syslog)",
        ),
        list("log-opt", None, "Log driver options (max-size, max-file, compress, labels, env, tag, …)"),
        list("mount", None, "Attach a filesystem mount to the container"),
        value("name", None, "string", "Assign a name to the container"),
        value("platform", None, "string", "Set platform if server is multi-platform capable"),
        switch("privileged", None, "Give extended privileges to this container"),
        list("publish", 'p', "Publish a container's port(s) to the host"),
        switch("publish-all", 'P', "Publish all exposed ports to random ports"),
        value(
            "pull",
            None,
            "string",
            "Pull image before running (\"always\", \"missing\", \"never\") (default \"missing\")",
        ),
        switch("quiet", 'q', "Suppress the pull output"),
        switch("read-only", None, "Mount the container's root filesystem as read only"),
        restart::flag(),
        switch("rm", None, "Automatically remove the container and its associated anonymous volumes when it exits"),
        list("security-opt", None, "Security Options (seccomp=, no-new-privileges, systempaths=unconfined)"),
        value("shm-size", None, "bytes", "Size of /dev/shm"),
        value("stop-signal", None, "string", "Signal to stop the container"),
        value("stop-timeout", None, "int", "Timeout (in seconds) to stop a container")
            .value_parser(clap::value_parser!(i64)),
        list("tmpfs", None, "Mount a tmpfs directory"),
        switch("tty", 't', "Allocate a pseudo-TTY"),
        value("user", 'u', "string", "Username or UID (format: <name|uid>[:<group|gid>])"),
        list("volume", 'v', "Bind mount a volume"),
        value("workdir", 'w', "string", "Working directory inside the container"),
    ]
}

/// A command with these flags and `IMAGE [COMMAND] [ARG...]` behind them. `-h` is the host name here.
pub fn with_flags(command: Command) -> Command {
    command
        .disable_help_flag(true)
        .args(flags())
        .args(network::flags())
        .args(health::flags())
        .args(resources::flags())
        .args(sharing::flags())
        .arg(flags::words("IMAGE [COMMAND] [ARG...]", 1))
}

/// Decides what is asked of the engine. `is_detached` is `run -d`; `terminal` are rows and columns.
pub fn request(
    matches: &ArgMatches,
    is_detached: bool,
    terminal: Option<(u16, u16)>,
    around: &Surroundings<'_>,
) -> Result<CreateRequest, Failure> {
    let words = owned(matches, "words");
    let (image, command) = words.split_first().expect("clap refuses a command line without an image");
    if image.is_empty() || image.starts_with('-') {
        return Err(refused(&format!("invalid reference format: {image:?}")));
    }
    let is_tty = is_on(matches, "tty");
    let is_interactive = is_on(matches, "interactive");
    let removes_itself = is_on(matches, "rm");
    let attached = attached(matches, is_detached, is_interactive)?;

    let mut body = Map::new();
    let mut put = |key: &str, value: Value| body.insert(key.to_owned(), value);
    put("Image", image.as_str().into());
    put("AttachStdin", attached.stdin.into());
    put("AttachStdout", attached.stdout.into());
    put("AttachStderr", attached.stderr.into());
    put("Tty", is_tty.into());
    put("OpenStdin", is_interactive.into());
    put("StdinOnce", (is_interactive && attached.stdin).into());
    if !command.is_empty() {
        put("Cmd", command.into());
    }
    match text(matches, "entrypoint") {
        // An empty one clears the image's; the API's sign for that is a list of an empty word.
        Some(entrypoint) => put("Entrypoint", json!([entrypoint])),
        None => None,
    };
    let strings = [("hostname", "Hostname"), ("domainname", "Domainname"), ("user", "User"), ("workdir", "WorkingDir")];
    for (flag, key) in strings {
        if let Some(value) = text(matches, flag) {
            put(key, value.into());
        }
    }
    if let Some(signal) = text(matches, "stop-signal") {
        signal.parse::<dozen_model::Signal>().map_err(|error| refused(&error.to_string()))?;
        put("StopSignal", signal.into());
    }
    if let Some(timeout) = matches.get_one::<i64>("stop-timeout") {
        put("StopTimeout", (*timeout).into());
    }
    let environment = environment(matches, around)?;
    if !environment.is_empty() {
        put("Env", environment.into());
    }
    let labels = labels(matches, around)?;
    if !labels.is_empty() {
        put("Labels", json!(labels));
    }

    let mut host = Map::new();
    if let Some(check) = health::apply(matches, &mut host)? {
        put("Healthcheck", check);
    }
    let ports = ports(matches)?;
    if !ports.exposed.is_empty() {
        put("ExposedPorts", ports.exposed.iter().map(|port| (port.clone(), json!({}))).collect::<Map<_, _>>().into());
    }
    if !ports.bindings.is_empty() {
        host.insert("PortBindings".to_owned(), port_bindings(&ports));
    }
    let anonymous = volumes(matches, around, &mut host)?;
    if !anonymous.is_empty() {
        put("Volumes", anonymous.into());
    }
    host_config(matches, terminal, around, &mut host)?;
    let (mode, endpoints) = network::networks(matches)?;
    host.extend(mode.map(|mode| ("NetworkMode".to_owned(), mode.into())));
    if !endpoints.is_empty() {
        put("NetworkingConfig", json!({ "EndpointsConfig": endpoints }));
    }
    put("HostConfig", host.into());

    Ok(CreateRequest {
        name: text(matches, "name").map(str::to_owned),
        image: image.clone(),
        body: Value::Object(body),
        is_interactive,
        is_tty,
        removes_itself,
        attached,
        id_file: text(matches, "cidfile").filter(|path| !path.is_empty()).map(PathBuf::from),
    })
}

fn refused(message: &str) -> Failure {
    Failure { is_prefixed: true, exit_code: ENGINE_FAILED, ..Failure::new(message) }
}

fn attached(matches: &ArgMatches, is_detached: bool, is_interactive: bool) -> Result<Attached, Failure> {
    let wanted = texts(matches, "attach");
    if is_detached {
        if !wanted.is_empty() {
            return Err(Failure::new("conflicting options: cannot specify both --attach and --detach")
                .with_exit_code(ENGINE_FAILED));
        }
        return Ok(Attached::default());
    }
    if wanted.is_empty() {
        return Ok(Attached { stdin: is_interactive, stdout: true, stderr: true });
    }
    let mut attached = Attached::default();
    for stream in wanted {
        match stream.to_ascii_lowercase().as_str() {
            "stdin" => attached.stdin = true,
            "stdout" => attached.stdout = true,
            "stderr" => attached.stderr = true,
            _ => return Err(invalid(stream, "attach", "valid streams are STDIN, STDOUT and STDERR")),
        }
    }
    Ok(attached)
}

/// Files first, flags after them: the later of two settings counts.
fn environment(matches: &ArgMatches, around: &Surroundings<'_>) -> Result<Vec<String>, Failure> {
    let mut environment = Vec::new();
    for path in texts(matches, "env-file") {
        let bytes = (around.read_file)(path).map_err(|why| refused(&why))?;
        environment
            .extend(key_values::environment_file(path, &bytes, around.environment).map_err(|why| refused(&why))?);
    }
    for entry in texts(matches, "env") {
        environment.extend(
            key_values::environment_entry(entry, around.environment).map_err(|why| invalid(entry, "env", why))?,
        );
    }
    Ok(environment)
}

fn labels(
    matches: &ArgMatches,
    around: &Surroundings<'_>,
) -> Result<std::collections::BTreeMap<String, String>, Failure> {
    let mut lines = Vec::new();
    for path in texts(matches, "label-file") {
        let bytes = (around.read_file)(path).map_err(|why| refused(&why))?;
        lines.extend(key_values::label_file(path, &bytes).map_err(|why| refused(&why))?);
    }
    lines.extend(owned(matches, "label"));
    key_values::labels(lines.iter().map(String::as_str)).map_err(|why| refused(&why))
}

fn ports(matches: &ArgMatches) -> Result<Ports, Failure> {
    let mut ports = Ports::default();
    for publish in texts(matches, "publish") {
        ports.publish(publish).map_err(|why| refused(&why))?;
    }
    for expose in texts(matches, "expose") {
        ports.expose(expose).map_err(|why| refused(&why))?;
    }
    Ok(ports)
}

fn port_bindings(ports: &Ports) -> Value {
    let list = |bindings: &[(String, String)]| {
        bindings.iter().map(|(address, port)| json!({ "HostIp": address, "HostPort": port })).collect::<Value>()
    };
    ports.bindings.iter().map(|(key, bindings)| (key.clone(), list(bindings))).collect::<Map<_, _>>().into()
}

/// Fills `Binds`, `Mounts` and `Tmpfs`; returns `Volumes`.
fn volumes(
    matches: &ArgMatches,
    around: &Surroundings<'_>,
    host: &mut Map<String, Value>,
) -> Result<Map<String, Value>, Failure> {
    let (mut anonymous, mut binds) = (Map::new(), Vec::new());
    for volume in texts(matches, "volume") {
        match volumes::parse(volume, around.directory).map_err(|why| refused(&why))? {
            Volume::Anonymous(target) => {
                anonymous.insert(target, json!({}));
            }
            Volume::Bind(bind) => binds.push(Value::from(bind)),
        }
    }
    if !binds.is_empty() {
        host.insert("Binds".to_owned(), binds.into());
    }
    let mounts = texts(matches, "mount")
        .into_iter()
        .map(|mount| mounts::parse(mount, around.directory).map_err(|why| invalid(mount, "mount", why)))
        .collect::<Result<Vec<_>, _>>()?;
    if !mounts.is_empty() {
        host.insert("Mounts".to_owned(), mounts.into());
    }
    let tmpfs: Map<String, Value> = texts(matches, "tmpfs")
        .into_iter()
        .map(|tmpfs| tmpfs.split_once(':').unwrap_or((tmpfs, "")))
        .map(|(path, options)| (path.to_owned(), options.into()))
        .collect();
    if !tmpfs.is_empty() {
        host.insert("Tmpfs".to_owned(), tmpfs.into());
    }
    Ok(anonymous)
}

fn host_config(
    matches: &ArgMatches,
    terminal: Option<(u16, u16)>,
    around: &Surroundings<'_>,
    host: &mut Map<String, Value>,
) -> Result<(), Failure> {
    restart::apply(matches, host)?;
    names::apply(matches, host)?;
    resources::apply(matches, host)?;
    sharing::apply(matches, host)?;
    let mut put = |key: &str, value: Value| host.insert(key.to_owned(), value);
    for (flag, key) in [
        ("rm", "AutoRemove"),
        ("privileged", "Privileged"),
        ("publish-all", "PublishAllPorts"),
        ("read-only", "ReadonlyRootfs"),
        ("init", "Init"),
    ] {
        if let Some(is_on) = flags::switch_value(matches, flag) {
            put(key, is_on.into());
        }
    }
    for (flag, key) in [("cap-add", "CapAdd"), ("cap-drop", "CapDrop")] {
        let capabilities: Vec<String> = texts(matches, flag).into_iter().map(security::capability).collect();
        if !capabilities.is_empty() {
            put(key, capabilities.into());
        }
    }
    let read_text = |path: &str| {
        let bytes = (around.read_file)(path)?;
        String::from_utf8(bytes).map_err(|_| format!("{path} is not UTF-8"))
    };
    let security = security::parse(&texts(matches, "security-opt"), &read_text).map_err(|why| refused(&why))?;
    if !security.options.is_empty() {
        put("SecurityOpt", security.options.into());
    }
    if security.unmasks_system_paths {
        put("MaskedPaths", json!([]));
        put("ReadonlyPaths", json!([]));
    }
    let hosts = texts(matches, "add-host")
        .into_iter()
        .map(|entry| hosts::parse(entry).map_err(|why| invalid(entry, "add-host", why)))
        .collect::<Result<Vec<_>, _>>()?;
    if !hosts.is_empty() {
        put("ExtraHosts", hosts.into());
    }
    if let Some(size) = text(matches, "shm-size") {
        put("ShmSize", sizes::parse(size).map_err(|why| invalid(size, "shm-size", why))?.into());
    }
    if let Some((rows, columns)) = terminal.filter(|_| is_on(matches, "tty")) {
        put("ConsoleSize", json!([rows, columns]));
    }
    if let Some(log) = log_config(matches)? {
        put("LogConfig", log);
    }
    Ok(())
}

fn log_config(matches: &ArgMatches) -> Result<Option<Value>, Failure> {
    let driver = text(matches, "log-driver");
    let config = log_options(matches)?;
    Ok((driver.is_some() || !config.is_empty()).then(|| json!({ "Type": driver.unwrap_or(""), "Config": config })))
}

/// `--log-opt`, by the options' names.
pub fn log_options(matches: &ArgMatches) -> Result<Map<String, Value>, Failure> {
    let mut config = Map::new();
    for option in texts(matches, "log-opt") {
        let (key, value) = option.split_once('=').ok_or_else(|| invalid(option, "log-opt", "want NAME=VALUE"))?;
        config.insert(key.to_owned(), value.into());
    }
    Ok(config)
}

#[cfg(test)]
mod tests;
