//! `dozen network connect|create|disconnect|inspect|ls|prune|rm`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use clap::{ArgMatches, Command};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::volume::confirm;
use super::{Context, inspect};
use crate::arguments::flags::{
    filter, format, inspect_format, is_on, list, name, names, owned, required, switch, text, texts, value, verb,
};
use crate::arguments::{filters, key_values, network};
use crate::client::{Query, encode_segment};
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::output::listing::{self, Layout};
use crate::template::Row;

/// Digits of an id that are shown.
const SHORT_ID: usize = 12;

pub fn command() -> Command {
    Command::new("network").about("Manage networks").subcommand_required(true).arg_required_else_help(true).subcommands(
        [
            verb(
                "connect",
                "Connect a container to a network",
                "network connect [OPTIONS] NETWORK CONTAINER",
                "dozen network connect --alias db backend postgres",
            )
            .arg(list("alias", None, "Add network-scoped alias for the container"))
            .arg(list("driver-opt", None, "driver options for the network"))
            .arg(
                value("gw-priority", None, "int", "Highest gw-priority provides the default gateway")
                    .value_parser(clap::value_parser!(i64))
                    .allow_hyphen_values(true),
            )
            .arg(value("ip", None, "ip", "IPv4 address (e.g., \"172.30.100.104\")"))
            .arg(value("ip6", None, "ip", "IPv6 address (e.g., \"2001:db8::33\")"))
            .arg(list("link", None, "Add link to another container").hide(true))
            .arg(list("link-local-ip", None, "Add a link-local address for the container"))
            .arg(name("network", "NETWORK"))
            .arg(name("container", "CONTAINER")),
            verb(
                "create",
                "Create a network",
                "network create [OPTIONS] NETWORK",
                "dozen network create backend\ndozen network create --internal --subnet 10.1.0.0/16 private",
            )
            .arg(switch("attachable", None, "Enable manual container attachment"))
            .arg(list("aux-address", None, "Auxiliary IPv4 or IPv6 addresses used by Network driver (NAME=ADDRESS)"))
            .arg(value("config-from", None, "string", "The network from which to copy the configuration").hide(true))
            .arg(switch("config-only", None, "Create a configuration only network").hide(true))
            .arg(value("driver", 'd', "string", "Driver to manage the Network (bridge, macvlan, ipvlan)"))
            .arg(list("gateway", None, "IPv4 or IPv6 Gateway for the master subnet"))
            .arg(switch("ingress", None, "Create swarm routing-mesh network").hide(true))
            .arg(switch("internal", None, "Restrict external access to the network"))
            .arg(list("ip-range", None, "Allocate container ip from a sub-range"))
            .arg(value("ipam-driver", None, "string", "IP Address Management Driver (default)"))
            .arg(list("ipam-opt", None, "Set IPAM driver specific options").hide(true))
            .arg(switch("ipv4", None, "Enable or disable IPv4 address assignment"))
            .arg(switch("ipv6", None, "Enable or disable IPv6 address assignment"))
            .arg(list("label", None, "Set metadata on a network"))
            .arg(list("opt", 'o', "Set driver specific options"))
            .arg(value("scope", None, "string", "Control the network's scope").hide(true))
            .arg(list("subnet", None, "Subnet in CIDR format that represents a network segment"))
            .arg(name("network", "NETWORK")),
            verb(
                "disconnect",
                "Disconnect a container from a network",
                "network disconnect [OPTIONS] NETWORK CONTAINER",
                "dozen network disconnect backend postgres",
            )
            .arg(switch("force", 'f', "Force the container to disconnect from a network"))
            .arg(name("network", "NETWORK"))
            .arg(name("container", "CONTAINER")),
            verb(
                "inspect",
                "Display detailed information on one or more networks",
                "network inspect [OPTIONS] NETWORK [NETWORK...]",
                "dozen network inspect -f '{{json .Containers}}' backend",
            )
            .arg(inspect_format())
            .arg(switch("verbose", 'v', "Verbose output for diagnostics"))
            .arg(names("NETWORK")),
            verb("ls", "List networks", "network ls [OPTIONS]", "dozen network ls --filter type=custom")
                .visible_alias("list")
                .arg(filter())
                .arg(format())
                .arg(switch("no-trunc", None, "Do not truncate the output"))
                .arg(switch("quiet", 'q', "Only display network IDs")),
            verb("prune", "Remove all unused networks", "network prune [OPTIONS]", "dozen network prune -f")
                .arg(list("filter", None, "Provide filter values (e.g. \"until=<timestamp>\")"))
                .arg(switch("force", 'f', "Do not prompt for confirmation")),
            verb("rm", "Remove one or more networks", "network rm NETWORK [NETWORK...]", "dozen network rm backend")
                .visible_alias("remove")
                .arg(switch("force", 'f', "Do not error if the network does not exist"))
                .arg(names("NETWORK")),
        ],
    )
}

pub async fn execute(context: &Context, verb: &str, matches: &ArgMatches) -> Outcome {
    match verb {
        "connect" => connect(context, matches).await,
        "create" => create(context, matches).await,
        "disconnect" => disconnect(context, matches).await,
        "inspect" => inspect::execute(context, matches, Some("network")).await,
        "ls" => show(context, matches).await,
        "prune" => prune(context, matches).await,
        "rm" => remove(context, matches).await,
        _ => unreachable!("clap knows no other verb"),
    }
}

/// What Docker has and dozen has not: `--link` of `network connect`.
fn refuse(matches: &ArgMatches, verb: &str, flags: &[&str]) -> Result<(), Failure> {
    let is_given = |flag: &&&str| crate::arguments::flags::is_given(matches, flag);
    match flags.iter().find(is_given) {
        Some(flag) => Err(Failure::not_built(&format!("--{flag} of 'dozen network {verb}'"))),
        None => Ok(()),
    }
}

async fn connect(context: &Context, matches: &ArgMatches) -> Outcome {
    refuse(matches, "connect", &["link"])?;
    let options = texts(matches, "driver-opt").into_iter().map(network::driver_option).collect::<Result<_, _>>();
    let place = network::Place {
        aliases: owned(matches, "alias"),
        ipv4: text(matches, "ip").map(str::to_owned),
        ipv6: text(matches, "ip6").map(str::to_owned),
        link_local: owned(matches, "link-local-ip"),
        driver_options: options.map_err(Failure::new)?,
        gateway_priority: matches.get_one::<i64>("gw-priority").copied().unwrap_or(0),
        ..network::Place::default()
    };
    let body = json!({ "Container": required(matches, "container"), "EndpointConfig": place.settings() });
    let path = format!("/networks/{}/connect", encode_segment(required(matches, "network")));
    context.client.post_for_nothing(&path, Some(&body)).await?;
    Ok(0)
}

async fn disconnect(context: &Context, matches: &ArgMatches) -> Outcome {
    let body = json!({ "Container": required(matches, "container"), "Force": is_on(matches, "force") });
    let path = format!("/networks/{}/disconnect", encode_segment(required(matches, "network")));
    context.client.post_for_nothing(&path, Some(&body)).await?;
    Ok(0)
}

async fn create(context: &Context, matches: &ArgMatches) -> Outcome {
    refuse(matches, "create", &["config-from", "config-only", "ingress", "ipam-opt", "scope"])?;
    let created: Value = context.client.post("/networks/create", Some(&request(matches)?)).await?;
    if let Some(warning) = created.get("Warning").and_then(Value::as_str).filter(|warning| !warning.is_empty()) {
        output::say(&format!("WARNING: {warning}"));
    }
    output::print_line(created.get("Id").and_then(Value::as_str).unwrap_or_default())?;
    Ok(0)
}

fn request(matches: &ArgMatches) -> Result<Value, Failure> {
    let mut body = Map::new();
    let mut put = |key: &str, value: Value| body.insert(key.to_owned(), value);
    put("Name", required(matches, "network").into());
    put("Driver", text(matches, "driver").unwrap_or("bridge").into());
    for (flag, key) in
        [("attachable", "Attachable"), ("internal", "Internal"), ("ipv4", "EnableIPv4"), ("ipv6", "EnableIPv6")]
    {
        if let Some(is_on) = crate::arguments::flags::switch_value(matches, flag) {
            put(key, is_on.into());
        }
    }
    let labels = key_values::labels(texts(matches, "label")).map_err(Failure::new)?;
    let mut options = BTreeMap::new();
    for option in texts(matches, "opt") {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        options.insert(name, value);
    }
    put("Labels", json!(labels));
    put("Options", json!(options));
    let driver = text(matches, "ipam-driver").unwrap_or("default");
    put("IPAM", json!({ "Driver": driver, "Config": subnets(matches)? }));
    Ok(body.into())
}

/// Each subnet with the range, the gateway and the addresses that lie in it.
fn subnets(matches: &ArgMatches) -> Result<Vec<Value>, Failure> {
    let subnets = texts(matches, "subnet");
    let mut configs: Vec<Map<String, Value>> =
        subnets.iter().map(|subnet| Map::from_iter([("Subnet".to_owned(), json!(subnet))])).collect();
    let mut put = |what: &str, key: &str, text: &str, address: &str, name: Option<&str>| {
        let place = subnets.iter().position(|subnet| contains(subnet, address));
        let place = place.ok_or_else(|| Failure::new(format!("no matching subnet for {what} {text}")))?;
        match name {
            Some(name) => {
                let list = configs[place].entry(key.to_owned()).or_insert_with(|| json!({}));
                list[name] = json!(text);
            }
            None if configs[place].contains_key(key) => {
                return Err(Failure::new(format!("cannot configure multiple {what}s ({text}) on the same subnet")));
            }
            None => {
                configs[place].insert(key.to_owned(), json!(text));
            }
        }
        Ok(())
    };
    for range in texts(matches, "ip-range") {
        put("range", "IPRange", range, range.split('/').next().unwrap_or_default(), None)?;
    }
    for gateway in texts(matches, "gateway") {
        put("gateway", "Gateway", gateway, gateway, None)?;
    }
    for entry in texts(matches, "aux-address") {
        let (name, address) = entry
            .split_once('=')
            .ok_or_else(|| Failure::new(format!("invalid aux-address {entry:?}: want NAME=ADDRESS")))?;
        put("aux-address", "AuxiliaryAddresses", address, address, Some(name))?;
    }
    Ok(configs.into_iter().map(Value::Object).collect())
}

/// Whether the subnet, as typed, has the address. What is no subnet has none; the engine says what is wrong with it.
fn contains(subnet: &str, address: &str) -> bool {
    let Some((network, prefix_length)) = subnet.split_once('/') else { return false };
    let (Ok(network), Ok(prefix_length), Ok(address)) =
        (network.parse::<IpAddr>(), prefix_length.parse::<u32>(), address.parse::<IpAddr>())
    else {
        return false;
    };
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            (network.to_bits() ^ address.to_bits()).leading_zeros() >= prefix_length
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            (network.to_bits() ^ address.to_bits()).leading_zeros() >= prefix_length
        }
        _ => false,
    }
}

async fn remove(context: &Context, matches: &ArgMatches) -> Outcome {
    let is_forced = is_on(matches, "force");
    let mut failures = Vec::new();
    for name in texts(matches, "names") {
        match context.client.delete(&format!("/networks/{}", encode_segment(name))).await {
            Ok(_) => output::print_line(name)?,
            Err(error) if is_forced && error.is_not_found() => {}
            Err(error) => failures.push(Failure::from(error)),
        }
    }
    Failure::all(failures)
}

const LAYOUT: Layout = Layout {
    table: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
    quiet: "ID",
    headings: &[
        ("ID", "NETWORK ID"),
        ("Name", "NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("IPv4", "IPV4"),
        ("IPv6", "IPV6"),
        ("Internal", "INTERNAL"),
        ("Labels", "LABELS"),
        ("CreatedAt", "CREATED AT"),
    ],
};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Network {
    name: String,
    id: String,
    created: String,
    scope: String,
    driver: String,
    #[serde(rename = "EnableIPv4")]
    enable_ipv4: bool,
    #[serde(rename = "EnableIPv6")]
    enable_ipv6: bool,
    internal: bool,
    labels: Option<BTreeMap<String, String>>,
}

async fn show(context: &Context, matches: &ArgMatches) -> Outcome {
    let filters = filters::parse(texts(matches, "filter")).map_err(Failure::new)?;
    let mut networks: Vec<Network> =
        context.client.get(&format!("/networks{}", Query::new().with_filters(&filters))).await?;
    networks.sort_by(|a, b| a.name.cmp(&b.name));
    let is_whole = is_on(matches, "no-trunc");
    let rows = networks.into_iter().map(|network| row(network, is_whole)).collect();
    output::print(&listing::render(&LAYOUT, text(matches, "format"), is_on(matches, "quiet"), rows)?)?;
    Ok(0)
}

fn row(network: Network, is_whole: bool) -> Row {
    let labels: Vec<(String, String)> = network.labels.unwrap_or_default().into_iter().collect();
    let id = if is_whole { network.id } else { network.id.chars().take(SHORT_ID).collect() };
    let columns = vec![
        ("ID", id),
        ("Name", network.name),
        ("Driver", network.driver),
        ("Scope", network.scope),
        ("IPv4", network.enable_ipv4.to_string()),
        ("IPv6", network.enable_ipv6.to_string()),
        ("Internal", network.internal.to_string()),
        ("Labels", labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")),
        ("CreatedAt", network.created),
    ];
    Row { columns, labels: Some(labels) }
}

async fn prune(context: &Context, matches: &ArgMatches) -> Outcome {
    let filters = filters::parse(texts(matches, "filter")).map_err(Failure::new)?;
    if !is_on(matches, "force")
        && !confirm("WARNING! This will remove all custom networks not used by at least one container.")?
    {
        return Ok(0);
    }
    let answer: Value =
        context.client.post(&format!("/networks/prune{}", Query::new().with_filters(&filters)), None).await?;
    let removed = answer.get("NetworksDeleted").and_then(Value::as_array).into_iter().flatten();
    let removed: Vec<&str> = removed.filter_map(Value::as_str).collect();
    if !removed.is_empty() {
        output::print(&format!("Deleted Networks:\n{}\n\n", removed.join("\n")))?;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(line: &str) -> Result<Value, String> {
        let matches = command().try_get_matches_from(line.split(' ')).unwrap();
        let (_, create) = matches.subcommand().unwrap();
        request(create).map_err(|failure| failure.message)
    }

    #[test]
    fn a_new_network_is_asked_for_as_docker_does() {
        let plain = made("network create backend").unwrap();
        let want = json!({
            "Name": "backend", "Driver": "bridge", "Labels": {}, "Options": {},
            "IPAM": {"Driver": "default", "Config": []},
        });
        assert_eq!(plain, want);
        let full = made(
            "network create --internal --ipv6 --subnet fd01::/64 --subnet 10.1.0.0/16 --gateway 10.1.0.254 \
             --gateway fd01::9 --ip-range 10.1.2.0/24 --aux-address router=10.1.0.7 --label a=b -o x=y backend",
        )
        .unwrap();
        assert_eq!((&full["Internal"], &full["EnableIPv6"]), (&json!(true), &json!(true)));
        let config = json!([
            {"Subnet": "fd01::/64", "Gateway": "fd01::9"},
            {"Subnet": "10.1.0.0/16", "Gateway": "10.1.0.254", "IPRange": "10.1.2.0/24",
             "AuxiliaryAddresses": {"router": "10.1.0.7"}},
        ]);
        assert_eq!(full["IPAM"]["Config"], config);
        assert_eq!((&full["Labels"]["a"], &full["Options"]["x"]), (&json!("b"), &json!("y")));
    }

    #[test]
    fn what_lies_in_no_subnet_is_refused() {
        for (line, words) in [
            ("network create --gateway 10.1.0.1 n", "no matching subnet for gateway 10.1.0.1"),
            (
                "network create --subnet 10.1.0.0/16 --ip-range 10.2.0.0/24 n",
                "no matching subnet for range 10.2.0.0/24",
            ),
            ("network create --subnet 10.1.0.0/16 --aux-address a=10.2.0.9 n", "no matching subnet for aux-address"),
            (
                "network create --subnet 10.1.0.0/16 --gateway 10.1.0.1 --gateway 10.1.0.2 n",
                "cannot configure multiple gateways",
            ),
        ] {
            let message = made(line).unwrap_err();
            assert!(message.contains(words), "{message}");
        }
    }
}
