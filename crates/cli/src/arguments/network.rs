//! `--network` with all that can be asked of a place on one, and Docker's other flags for the first of them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use clap::{Arg, ArgAction, ArgMatches};
use serde_json::{Map, Value, json};

use super::flags::{invalid, list, owned, text, texts, value};
use crate::failure::{ENGINE_FAILED, Failure};

/// The flags of `run` and `create`.
pub fn flags() -> Vec<Arg> {
    vec![
        value("network", None, "network", "Connect a container to a network (NAME, or name=NAME,alias=…,ip=…)")
            .alias("net")
            .action(ArgAction::Append),
        list("network-alias", None, "Add network-scoped alias for the container").alias("net-alias"),
        value("ip", None, "ip", "IPv4 address (e.g., 172.30.100.104)"),
        value("ip6", None, "ip", "IPv6 address (e.g., 2001:db8::33)"),
        value("mac-address", None, "string", "Container MAC address (e.g., 92:d0:c6:0a:29:33)"),
        list("link-local-ip", None, "Container IPv4/IPv6 link-local addresses"),
    ]
}

/// A place on a network, as it was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// The network, or what stands for none of one's own.
    pub target: String,
    /// Further names of the container there.
    pub aliases: Vec<String>,
    /// A fixed address.
    pub ipv4: Option<String>,
    /// A fixed address.
    pub ipv6: Option<String>,
    /// A fixed hardware address.
    pub mac: Option<String>,
    /// Further addresses.
    pub link_local: Vec<String>,
    /// Docker's DriverOpts.
    pub driver_options: BTreeMap<String, String>,
    /// The highest has the default route.
    pub gateway_priority: i64,
}

/// `HostConfig.NetworkMode`, if it is asked for, and `NetworkingConfig.EndpointsConfig`.
pub fn networks(matches: &ArgMatches) -> Result<(Option<String>, Map<String, Value>), Failure> {
    let mut places: Vec<Place> = Vec::new();
    for word in texts(matches, "network") {
        let place = parse(word).map_err(|why| invalid(word, "network", why))?;
        if places.iter().any(|other| other.target == place.target) {
            return Err(refused(&format!("network \"{}\" is specified multiple times", place.target)));
        }
        places.push(place);
    }
    let mode = places.first().map(|place| place.target.clone());
    let mut main =
        if places.is_empty() { Place { target: "default".to_owned(), ..Place::default() } } else { places.remove(0) };
    if !places.is_empty() && (is_alone(&main.target) || places.iter().any(|place| is_alone(&place.target))) {
        return Err(refused("conflicting options: cannot attach both user-defined and non-user-defined network-modes"));
    }
    let both = |what: &str, per: &str| {
        refused(&format!("conflicting options: cannot specify both --{what} and per-network {per}"))
    };
    let aliases = owned(matches, "network-alias");
    if !aliases.is_empty() {
        if !main.aliases.is_empty() {
            return Err(both("network-alias", "alias"));
        }
        main.aliases = aliases;
    }
    for (flag, per, field) in [
        ("ip", "IPv4 address", &mut main.ipv4),
        ("ip6", "IPv6 address", &mut main.ipv6),
        ("mac-address", "MAC address", &mut main.mac),
    ] {
        if let Some(value) = text(matches, flag).filter(|value| !value.is_empty()) {
            if field.is_some() {
                return Err(both(flag, per));
            }
            *field = Some(value.to_owned());
        }
    }
    let link_local = owned(matches, "link-local-ip");
    if !link_local.is_empty() {
        if !main.link_local.is_empty() {
            return Err(both("link-local-ip", "link-local IP addresses"));
        }
        main.link_local = link_local;
    }
    for address in &main.link_local {
        check_address(&Some(address.clone()), "link-local-ip", |text| text.parse::<IpAddr>().is_ok())?;
    }
    check_address(&main.ipv4, "ip", |text| text.parse::<Ipv4Addr>().is_ok())?;
    check_address(&main.ipv6, "ip6", |text| text.parse::<Ipv6Addr>().is_ok())?;
    let is_named = mode.is_some();
    // Another container's network is not one to be had a place on.
    let endpoints = [main]
        .into_iter()
        .chain(places)
        .filter(|place| (is_named && !place.target.starts_with("container:")) || place.asks_for_something());
    let endpoints = endpoints.map(|place| (place.target.clone(), place.settings())).collect();
    Ok((mode, endpoints))
}

fn refused(message: &str) -> Failure {
    Failure { is_prefixed: true, exit_code: ENGINE_FAILED, ..Failure::new(message) }
}

fn check_address(text: &Option<String>, flag: &str, is_one: impl Fn(&str) -> bool) -> Result<(), Failure> {
    match text {
        Some(text) if !is_one(text) => Err(invalid(text, flag, "not an IP address of this kind")),
        _ => Ok(()),
    }
}

fn is_alone(target: &str) -> bool {
    matches!(target, "host" | "none") || target.starts_with("container:")
}

impl Place {
    fn asks_for_something(&self) -> bool {
        *self != Self { target: self.target.clone(), ..Self::default() }
    }

    /// Docker's EndpointSettings, with what is asked for alone.
    pub fn settings(&self) -> Value {
        let mut settings = Map::new();
        let mut addresses = Map::new();
        addresses.extend(self.ipv4.as_ref().map(|address| ("IPv4Address".to_owned(), json!(address))));
        addresses.extend(self.ipv6.as_ref().map(|address| ("IPv6Address".to_owned(), json!(address))));
        if !self.link_local.is_empty() {
            addresses.insert("LinkLocalIPs".to_owned(), json!(self.link_local));
        }
        if !addresses.is_empty() {
            settings.insert("IPAMConfig".to_owned(), addresses.into());
        }
        if !self.aliases.is_empty() {
            settings.insert("Aliases".to_owned(), json!(self.aliases));
        }
        settings.extend(self.mac.as_ref().map(|mac| ("MacAddress".to_owned(), json!(mac))));
        if !self.driver_options.is_empty() {
            settings.insert("DriverOpts".to_owned(), json!(self.driver_options));
        }
        if self.gateway_priority != 0 {
            settings.insert("GwPriority".to_owned(), json!(self.gateway_priority));
        }
        settings.into()
    }
}

/// `NAME=VALUE`, in Docker's words.
pub fn driver_option(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.trim().to_owned())),
        _ => Err("invalid key value pair format in driver options".to_owned()),
    }
}

/// `NAME`, or `name=NAME,alias=A,ip=…`; a field with a comma in it stands in quotes.
fn parse(text: &str) -> Result<Place, String> {
    let mut place = Place::default();
    if !text.contains('=') {
        if text == "container:" {
            return Err("invalid container format container:<name|id>".to_owned());
        }
        place.target = text.to_owned();
        return if text.is_empty() { Err("network name/id is not specified".to_owned()) } else { Ok(place) };
    }
    for field in super::mounts::fields(text)? {
        let (key, value) = field.split_once('=').ok_or_else(|| format!("invalid field {field}"))?;
        let value = value.trim();
        match key.trim().to_ascii_lowercase().as_str() {
            "name" => place.target = value.to_owned(),
            "alias" => place.aliases.push(value.to_owned()),
            "ip" => place.ipv4 = Some(value.to_owned()),
            "ip6" => place.ipv6 = Some(value.to_owned()),
            "mac-address" => place.mac = Some(value.to_owned()),
            "gw-priority" => {
                place.gateway_priority = value.parse().map_err(|_| format!("invalid gw-priority: {value}"))?;
            }
            "driver-opt" => place.driver_options.extend([driver_option(value)?]),
            "link-local-ip" => place.link_local.push(value.to_owned()),
            key => return Err(format!("invalid field key {key}")),
        }
    }
    if place.target.is_empty() { Err("network name/id is not specified".to_owned()) } else { Ok(place) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &[&str]) -> Result<(Option<String>, String), String> {
        let matches = clap::Command::new("run").args(flags()).try_get_matches_from([&["run"], line].concat()).unwrap();
        networks(&matches)
            .map(|(mode, endpoints)| (mode, Value::Object(endpoints).to_string()))
            .map_err(|failure| failure.message)
    }

    #[test]
    fn networks_are_read_as_docker_does() {
        let some = |mode: &str, endpoints: &str| Ok((Some(mode.to_owned()), endpoints.to_owned()));
        assert_eq!(check(&[]), Ok((None, "{}".to_owned())));
        assert_eq!(check(&["--network", "back"]), some("back", r#"{"back":{}}"#));
        assert_eq!(check(&["--net=container:web"]), some("container:web", "{}"));
        assert_eq!(
            check(&["--mac-address", "02:00:00:00:00:01"]).unwrap().1,
            r#"{"default":{"MacAddress":"02:00:00:00:00:01"}}"#
        );
        assert_eq!(
            check(&[
                "--network",
                "name=back,alias=db,alias=sql,ip=10.1.0.9,ip6=fd01::9,gw-priority=7",
                "--network",
                "front"
            ]),
            some(
                "back",
                r#"{"back":{"Aliases":["db","sql"],"GwPriority":7,"IPAMConfig":{"IPv4Address":"10.1.0.9","IPv6Address":"fd01::9"}},"front":{}}"#
            )
        );
        assert_eq!(
            check(&["--network", "back", "--ip", "10.1.0.9", "--network-alias", "db"]),
            some("back", r#"{"back":{"Aliases":["db"],"IPAMConfig":{"IPv4Address":"10.1.0.9"}}}"#)
        );
        let options = "name=back,\"driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1,\
                       net.ipv6.conf.IFNAME.accept_ra=2\",driver-opt=com.docker.network.endpoint.ifname=lan0";
        assert_eq!(
            check(&["--network", options, "--link-local-ip", "169.254.0.9", "--link-local-ip=fe80::9"]),
            some(
                "back",
                r#"{"back":{"DriverOpts":{"com.docker.network.endpoint.ifname":"lan0","com.docker.network.endpoint.sysctls":"net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.accept_ra=2"},"IPAMConfig":{"LinkLocalIPs":["169.254.0.9","fe80::9"]}}}"#
            )
        );
        for (line, words) in [
            (&["--network", "a", "--network", "a"][..], "is specified multiple times"),
            (&["--network", "host", "--network", "a"], "cannot attach both user-defined and non-user-defined"),
            (&["--network", "name=a,ip=10.1.0.9", "--ip", "10.1.0.8"], "cannot specify both --ip and per-network IPv4"),
            (&["--network", "name=a,alias=b", "--network-alias", "c"], "both --network-alias and per-network alias"),
            (&["--network", "name=a,colour=red"], "invalid field key colour"),
            (&["--network", "alias=a"], "network name/id is not specified"),
            (&["--network", "container:"], "invalid container format"),
            (&["--network", "name=a,driver-opt=b"], "invalid key value pair format in driver options"),
            (&["--network", "name=a,\"driver-opt=b=c"], "a quote is not closed"),
            (
                &["--network", "name=a,link-local-ip=169.254.0.9", "--link-local-ip", "169.254.0.8"],
                "cannot specify both",
            ),
            (&["--link-local-ip", "nonsense"], "not an IP address"),
            (&["--ip", "nonsense"], "not an IP address"),
        ] {
            let message = check(line).unwrap_err();
            assert!(message.contains(words), "{message}");
        }
    }
}
