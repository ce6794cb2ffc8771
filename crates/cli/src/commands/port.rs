//! `dozen port`: where a container's ports are published, from its inspect.

use std::collections::BTreeMap;

use clap::{Arg, ArgMatches, Command};
use serde_json::Value;

use super::{Context, container_path};
use crate::arguments::flags::{name, required, text, verb};
use crate::failure::{Failure, Outcome};
use crate::output;

pub fn command() -> Command {
    verb(
        "port",
        "List port mappings or a specific mapping for the container",
        "port CONTAINER [PRIVATE_PORT[/PROTO]]",
        "dozen port web\ndozen port web 80/tcp",
    )
    .arg(name("container", "CONTAINER"))
    .arg(Arg::new("port").value_name("PRIVATE_PORT"))
}

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let container = required(matches, "container");
    let shown: Value = context.client.get(&container_path(container, "/json")).await?;
    output::print(&lines(&shown["NetworkSettings"]["Ports"], container, text(matches, "port"))?)?;
    Ok(0)
}

/// All of them, or one without its name.
fn lines(ports: &Value, container: &str, wanted: Option<&str>) -> Result<String, Failure> {
    let mut published: BTreeMap<(u32, String), Vec<String>> = BTreeMap::new();
    for (port, hosts) in ports.as_object().into_iter().flatten() {
        let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
        let hosts = hosts.as_array().into_iter().flatten().map(|host| {
            let part = |key: &str| host[key].as_str().unwrap_or_default();
            let address = part("HostIp");
            let address = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
            format!("{address}:{}", part("HostPort"))
        });
        let hosts: Vec<String> = hosts.collect();
        if !hosts.is_empty() {
            published.insert((number.parse().unwrap_or(0), protocol.to_owned()), hosts);
        }
    }
    let Some(wanted) = wanted else {
        let line = |((number, protocol), hosts): (&(u32, String), &Vec<String>)| {
            hosts.iter().map(|host| format!("{number}/{protocol} -> {host}\n")).collect::<String>()
        };
        return Ok(published.iter().map(line).collect());
    };
    let (number, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    let number: u16 = number.parse().map_err(|_| Failure::new(format!("invalid port: {wanted}")))?;
    match published.get(&(number.into(), protocol.to_owned())) {
        Some(hosts) => Ok(hosts.iter().map(|host| format!("{host}\n")).collect()),
        None => Err(Failure::new(format!("Error: No public port '{wanted}' published for {container}"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_are_told_as_docker_tells_them() {
        let ports = json!({
            "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}],
            "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "53"}], "9/tcp": null,
        });
        let all = "53/udp -> 127.0.0.1:53\n80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080\n";
        assert_eq!(lines(&ports, "web", None), Ok(all.to_owned()));
        assert_eq!(lines(&ports, "web", Some("80")), Ok("0.0.0.0:8080\n[::]:8080\n".to_owned()));
        assert_eq!(lines(&ports, "web", Some("53/udp")), Ok("127.0.0.1:53\n".to_owned()));
        let refused = |port: &str| lines(&ports, "web", Some(port)).unwrap_err().message;
        assert_eq!(refused("9"), "Error: No public port '9' published for web");
        assert_eq!(refused("x"), "invalid port: x");
        assert_eq!(lines(&Value::Null, "web", None), Ok(String::new()));
    }
}
