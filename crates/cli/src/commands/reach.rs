//! `dozen system ports` and `dozen system firewall`: who can reach what is published.

use clap::{ArgMatches, Command};
use serde::Deserialize;

use super::{Context, inspect};
use crate::arguments::flags::{format, inspect_format, is_on, switch, text, verb};
use crate::failure::Outcome;
use crate::output::listing::{self, Layout};
use crate::output::{self, short_id};
use crate::template::Row;

pub fn ports_command() -> Command {
    let example = "dozen system ports\ndozen system ports --format '{{.HostPort}} {{.Reach}}'";
    verb("ports", "List published ports and who can reach them", "system ports [OPTIONS]", example)
        .arg(format())
        .arg(switch("quiet", 'q', "Only display addresses and ports of the host"))
}

pub fn firewall_command() -> Command {
    Command::new("firewall")
        .about("Let the host's firewall forward containers' packets")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([
            verb(
                "show",
                "Show what of the host's firewall drops containers' packets",
                "system firewall show [OPTIONS]",
                "dozen system firewall show",
            )
            .arg(inspect_format()),
            verb(
                "allow",
                "Add a rule to each chain that drops them, now and whenever one comes",
                "system firewall allow",
                "dozen system firewall allow",
            ),
            verb(
                "forget",
                "Remove the rules that 'allow' has added",
                "system firewall forget",
                "dozen system firewall forget",
            ),
        ])
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Report {
    ports: Vec<Port>,
    unjudged: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Port {
    container: String,
    name: String,
    #[serde(rename = "HostIP")]
    host_ip: String,
    host_port: u16,
    container_port: u16,
    protocol: String,
    reach: String,
    networks: Vec<Network>,
    why: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Network {
    interface: String,
    subnet: String,
    containers: bool,
}

const LAYOUT: Layout = Layout {
    table: "{{.Names}}\t{{.Address}}\t{{.Port}}\t{{.ReachableBy}}",
    quiet: "Address",
    headings: &[
        ("ID", "CONTAINER ID"),
        ("Names", "NAMES"),
        ("Address", "HOST ADDRESS"),
        ("HostIP", "HOST IP"),
        ("HostPort", "HOST PORT"),
        ("Port", "PORT"),
        ("Protocol", "PROTOCOL"),
        ("Reach", "REACH"),
        ("Networks", "NETWORKS"),
        ("ReachableBy", "REACHABLE BY"),
        ("Why", "WHY"),
    ],
};

pub async fn ports(context: &Context, matches: &ArgMatches) -> Outcome {
    let report: Report = context.client.get("/system/ports").await?;
    let format = text(matches, "format");
    let is_quiet = is_on(matches, "quiet");
    let is_table = !is_quiet && format.unwrap_or("table").trim().starts_with("table");
    let rows = report.ports.iter().map(row).collect();
    output::print(&listing::render(&LAYOUT, format, is_quiet, rows)?)?;
    if is_table {
        troubles(&report.ports).iter().for_each(|line| output::say(line));
        if !report.ports.is_empty() {
            unknown(&report.unjudged).iter().for_each(|line| output::say(line));
        }
    }
    Ok(0)
}

fn row(port: &Port) -> Row {
    let address = match port.host_ip.contains(':') {
        true => format!("[{}]:{}", port.host_ip, port.host_port),
        false => format!("{}:{}", port.host_ip, port.host_port),
    };
    let networks: Vec<String> =
        port.networks.iter().map(|network| format!("{}={}", network.interface, network.subnet)).collect();
    Row {
        columns: vec![
            ("ID", short_id(&port.container).to_owned()),
            ("Names", port.name.clone()),
            ("Address", address),
            ("HostIP", port.host_ip.clone()),
            ("HostPort", port.host_port.to_string()),
            ("Port", format!("{}/{}", port.container_port, port.protocol)),
            ("Protocol", port.protocol.clone()),
            ("Reach", port.reach.clone()),
            ("Networks", networks.join(",")),
            ("ReachableBy", reachable_by(port)),
            ("Why", port.why.clone()),
        ],
        labels: None,
    }
}

/// `everybody`, `eth0 (192.0.2.0/24), containers`, `this machine`, `nobody`.
fn reachable_by(port: &Port) -> String {
    match port.reach.as_str() {
        "everybody" => "everybody".to_owned(),
        "networks" => {
            let others = port.networks.iter().filter(|network| !network.containers);
            let mut words: Vec<String> =
                others.map(|Network { interface, subnet, .. }| format!("{interface} ({subnet})")).collect();
            if port.networks.iter().any(|network| network.containers) {
                words.push("containers".to_owned());
            }
            words.join(", ")
        }
        "machine" if port.why.is_empty() => "this machine".to_owned(),
        "machine" => "this machine (!)".to_owned(),
        other => format!("{other} (!)"),
    }
}

/// Why less can be reached than was asked for; each reason once.
fn troubles(ports: &[Port]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for port in ports.iter().filter(|port| !port.why.is_empty()) {
        let line = format!("(!) {}", port.why);
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}

/// What cannot be known.
fn unknown(unjudged: &[String]) -> Vec<String> {
    let mut lines = vec!["Not known: what routers and firewalls beyond this machine let through.".to_owned()];
    if !unjudged.is_empty() {
        lines.push(format!("Not judged on this machine: {}.", unjudged.join("; ")));
    }
    lines
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Firewall {
    allowed: bool,
    dropping: Vec<Dropping>,
    unjudged: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Dropping {
    bridge: String,
    published_pass: bool,
    commands: Vec<String>,
    message: String,
}

pub async fn firewall(context: &Context, verb: &str, matches: &ArgMatches) -> Outcome {
    let report: Firewall = match verb {
        "allow" | "forget" => context.client.post(&format!("/system/firewall/{verb}"), None).await?,
        _ => {
            let document = context.client.get_text("/system/firewall").await?;
            if let Some(format) = text(matches, "format").filter(|format| !format.is_empty()) {
                output::print(&inspect::show(&[document], Some(format))?)?;
                return Ok(0);
            }
            serde_json::from_str(&document)
                .map_err(|error| crate::failure::Failure::new(format!("the engine's answer: {error}")))?
        }
    };
    told(&report).iter().try_for_each(|line| output::print_line(line))?;
    Ok(0)
}

fn told(report: &Firewall) -> Vec<String> {
    let mut lines = vec![
        match report.allowed {
            true => {
                "Rules that let containers' packets through are added where they are needed ('forget' removes them)."
            }
            false => "The host's firewall is left alone ('allow' adds rules that let containers' packets through).",
        }
        .to_owned(),
    ];
    for Dropping { bridge, published_pass, commands, message } in &report.dropping {
        let what = if *published_pass { "what containers send" } else { "what containers send and are sent" };
        lines.push(format!("{bridge}: {message}: {what}"));
        lines.extend(commands.iter().map(|command| format!("  {command}")));
    }
    if report.dropping.is_empty() {
        lines.push("No chain is known to drop containers' packets.".to_owned());
    }
    lines.extend(report.unjudged.iter().map(|words| format!("Not judged: {words}")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(reach: &str, why: &str, networks: &[(&str, bool)]) -> Port {
        let network = |(interface, containers): &(&str, bool)| Network {
            interface: (*interface).to_owned(),
            subnet: "10.0.0.0/8".to_owned(),
            containers: *containers,
        };
        Port {
            container: "ab".repeat(32),
            name: "web".into(),
            host_ip: "::".into(),
            host_port: 8080,
            container_port: 80,
            protocol: "tcp".into(),
            reach: reach.into(),
            networks: networks.iter().map(network).collect(),
            why: why.into(),
        }
    }

    #[test]
    fn who_reaches_a_port_is_told_in_words() {
        for (reach, why, networks, want) in [
            ("everybody", "", &[("eth0", false)][..], "everybody"),
            ("networks", "", &[("eth0", false), ("dozen0", true), ("dz-1", true)], "eth0 (10.0.0.0/8), containers"),
            ("machine", "", &[], "this machine"),
            ("machine", "a chain drops it", &[], "this machine (!)"),
            ("nobody", "it is gone", &[], "nobody (!)"),
        ] {
            assert_eq!(reachable_by(&port(reach, why, networks)), want);
        }
        assert_eq!(row(&port("nobody", "", &[])).get("Address"), Some("[::]:8080"));
        let twice = [port("nobody", "it is gone", &[]), port("nobody", "it is gone", &[]), port("machine", "", &[])];
        assert_eq!(troubles(&twice), ["(!) it is gone"]);
    }
}
