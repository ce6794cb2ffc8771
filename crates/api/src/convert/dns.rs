//! `HostConfig.Dns`, `DnsSearch`, `DnsOptions`.

use std::net::IpAddr;

use dozen_model::{DnsSpec, NetworkMode};
use serde_json::{Value, json};

use super::request::HostConfig;
use crate::error::ApiError;

/// The longest name (RFC 1035), and more than any option has.
const LONGEST: usize = 255;

/// What was asked.
pub(crate) fn spec(host: &HostConfig, network: &NetworkMode) -> Result<DnsSpec, ApiError> {
    let server = |text: &String| {
        text.parse::<IpAddr>().map_err(|_| {
            ApiError::invalid(format!("bad nameserver address: {text:?}: IP address is not correctly formatted"))
        })
    };
    let spec = DnsSpec {
        servers: host.dns.iter().map(server).collect::<Result<_, _>>()?,
        search: words(&host.dns_search, "DnsSearch")?,
        options: words(&host.dns_options, "DnsOptions")?,
    };
    // It has that container's resolv.conf.
    if matches!(network, NetworkMode::Container(_)) && !spec.is_empty() {
        return Err(ApiError::invalid("conflicting options: dns and the network mode"));
    }
    Ok(spec)
}

/// As inspect shows it.
pub(crate) fn show(value: &mut Value, dns: &DnsSpec) {
    value["Dns"] = json!(dns.servers);
    value["DnsOptions"] = json!(dns.options);
    value["DnsSearch"] = json!(dns.search);
}

/// Each has to be one word: it becomes one of a line of resolv.conf(5).
fn words(all: &[String], field: &str) -> Result<Vec<String>, ApiError> {
    let is_one = |word: &&String| {
        !word.is_empty()
            && word.len() <= LONGEST
            && word.bytes().all(|byte| byte.is_ascii_graphic())
            && !word.starts_with(['#', ';'])
    };
    match all.iter().find(|word| !is_one(word)) {
        Some(bad) => Err(ApiError::invalid(format!("invalid HostConfig.{field}: {bad:?} is not a single word"))),
        None => Ok(all.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(dns: &[&str], search: &[&str], options: &[&str]) -> HostConfig {
        let owned = |words: &[&str]| words.iter().map(ToString::to_string).collect();
        HostConfig { dns: owned(dns), dns_search: owned(search), dns_options: owned(options), ..HostConfig::default() }
    }

    #[test]
    fn what_is_asked_is_shown_again() {
        let asked = host(&["192.0.2.1", "fd00::1"], &["."], &["ndots:2", "use-vc"]);
        let spec = spec(&asked, &NetworkMode::Bridge).unwrap();
        assert!(spec.searches_first());
        let mut value = json!({});
        show(&mut value, &spec);
        let want = json!({"Dns": ["192.0.2.1", "fd00::1"], "DnsSearch": ["."], "DnsOptions": ["ndots:2", "use-vc"]});
        assert_eq!(value, want);
        assert!(super::spec(&host(&[], &[], &[]), &NetworkMode::Host).unwrap().is_empty());
    }

    #[test]
    fn what_cannot_stand_in_a_resolv_conf_is_refused() {
        for (asked, words) in [
            (host(&["1.1.1"], &[], &[]), "bad nameserver address: \"1.1.1\": IP address is not correctly formatted"),
            (host(&["fe80::1%eth0"], &[], &[]), "bad nameserver address"),
            (host(&[], &["a b"], &[]), "invalid HostConfig.DnsSearch: \"a b\""),
            (host(&[], &["a\nnameserver 1.2.3.4"], &[]), "invalid HostConfig.DnsSearch"),
            (host(&[], &[""], &[]), "invalid HostConfig.DnsSearch"),
            (host(&[], &[], &["#x"]), "invalid HostConfig.DnsOptions"),
        ] {
            let error = spec(&asked, &NetworkMode::Bridge).unwrap_err();
            assert!(error.message.contains(words), "{}", error.message);
        }
        let other = NetworkMode::Container("ab".repeat(32).parse().unwrap());
        for asked in [host(&["1.1.1.1"], &[], &[]), host(&[], &["x"], &[]), host(&[], &[], &["x"])] {
            let error = spec(&asked, &other).unwrap_err();
            assert_eq!(error.message, "conflicting options: dns and the network mode");
        }
        assert!(spec(&host(&[], &[], &[]), &other).is_ok());
    }
}
