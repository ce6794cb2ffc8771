//! Which proxy a file is fetched through: HTTP_PROXY, HTTPS_PROXY and NO_PROXY, as Go's golang.org/x/net/http/httpproxy
//! reads them, and so all of Docker.

use std::net::IpAddr;

use crate::FetchError;
use crate::address::Address;

/// What is said of proxies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http`.
    pub plain: String,
    /// For `https`.
    pub secure: String,
    /// Hosts that are asked without one, separated by commas.
    pub without: String,
}

impl Proxies {
    /// Of variables: the first that is not empty counts, capitals before small letters.
    pub fn of<'v>(variable: impl Fn(&str) -> Option<&'v str>) -> Self {
        let said = |name: &str| {
            let all = [variable(name), variable(&name.to_ascii_lowercase())];
            all.into_iter().flatten().find(|value| !value.is_empty()).unwrap_or_default().to_owned()
        };
        Self { plain: said("HTTP_PROXY"), secure: said("HTTPS_PROXY"), without: said("NO_PROXY") }
    }

    /// The same for a program that reads variables: `NAME=VALUE`, in the small letters that all of them know.
    pub fn variables(&self) -> Vec<String> {
        let all = [("http_proxy", &self.plain), ("https_proxy", &self.secure), ("no_proxy", &self.without)];
        all.iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| format!("{name}={value}")).collect()
    }

    /// What is not said here is as there.
    pub fn or(self, others: Self) -> Self {
        let either = |own: String, other: String| if own.is_empty() { other } else { own };
        Self {
            plain: either(self.plain, others.plain),
            secure: either(self.secure, others.secure),
            without: either(self.without, others.without),
        }
    }

    /// The proxy for an address.
    ///
    /// # Errors
    /// What is said is no proxy of HTTP.
    pub fn of_address(&self, address: &Address) -> Result<Option<Address>, FetchError> {
        let said = if address.is_secure { &self.secure } else { &self.plain };
        if said.is_empty() || !self.uses_one(address) {
            return Ok(None);
        }
        let url = if said.contains("://") { said.clone() } else { format!("http://{said}") };
        // It may have a password in it.
        match Address::parse(&url) {
            Ok(proxy) if !proxy.is_secure => Ok(Some(proxy)),
            Ok(_) => Err(FetchError::Proxy("a proxy that is reached by https is not built yet")),
            Err(crate::AddressError::Scheme) => Err(FetchError::Proxy("only proxies by http are built")),
            Err(_) => Err(FetchError::Proxy("it is no URL")),
        }
    }

    fn uses_one(&self, address: &Address) -> bool {
        let ip: Option<IpAddr> = address.host.parse().ok();
        if address.host == "localhost" || ip.is_some_and(|ip| ip.is_loopback()) {
            return false;
        }
        let words = self.without.split(',').map(str::trim).filter(|word| !word.is_empty());
        !words.map(str::to_ascii_lowercase).any(|word| is_meant(&word, address, ip))
    }
}

fn is_meant(word: &str, address: &Address, ip: Option<IpAddr>) -> bool {
    if word == "*" {
        return true;
    }
    if let Some((network, bits)) = word.split_once('/')
        && let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>())
    {
        return ip.is_some_and(|ip| is_within(ip, network, bits));
    }
    // `host:port`, `[::1]:port`, an address, a name.
    let (host, port) = match word.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.parse::<u16>().ok()),
        _ => (word, None),
    };
    if port.is_some_and(|port| port != address.port) {
        return false;
    }
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(wanted) = host.parse::<IpAddr>() {
        return ip == Some(wanted);
    }
    let host = host.strip_prefix('*').unwrap_or(host);
    match host.strip_prefix('.') {
        Some(domain) => is_below(&address.host, domain),
        None => address.host == host || is_below(&address.host, host),
    }
}

fn is_below(host: &str, domain: &str) -> bool {
    !domain.is_empty() && host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

fn is_within(ip: IpAddr, network: IpAddr, bits: u32) -> bool {
    let (ip, network, all) = match (ip, network) {
        (IpAddr::V4(ip), IpAddr::V4(network)) => (u128::from(ip.to_bits()), u128::from(network.to_bits()), 32),
        (IpAddr::V6(ip), IpAddr::V6(network)) => (ip.to_bits(), network.to_bits(), 128),
        _ => return false,
    };
    bits <= all && (ip ^ network).checked_shr(all - bits).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn hosts_without_a_proxy_are_known() {
        for (without, url, is_used) in [
            ("", "http://far/", true),
            ("", "http://localhost/", false),
            ("", "http://127.0.0.2/", false),
            ("", "http://[::1]/", false),
            ("*", "http://far/", false),
            ("a, far", "http://far/", false),
            ("far", "http://so.far/", false),
            ("far", "http://sofar/", true),
            (".far", "http://far/", true),
            (".FAR", "http://so.far/", false),
            ("*.far", "http://so.far/", false),
            ("far:80", "http://far/", false),
            ("far:81", "http://far/", true),
            ("10.0.0.0/8", "http://10.1.2.3/", false),
            ("10.0.0.0/8", "http://11.1.2.3/", true),
            ("10.0.0.0/33", "http://10.1.2.3/", true),
            ("0.0.0.0/0", "http://10.1.2.3/", false),
            ("::/0", "http://[fd00::1]/", false),
            ("fd00::1", "http://[fd00::1]/", false),
            ("[fd00::1]:80", "http://[fd00::1]/", false),
            ("10.0.0.1", "http://10.0.0.1:8080/", false),
            (",", "http://far/", true),
        ] {
            let proxies = Proxies { plain: "p".into(), without: without.into(), ..Proxies::default() };
            let found = proxies.of_address(&Address::parse(url).unwrap()).unwrap();
            assert_eq!(found.is_some(), is_used, "{without} {url}");
        }
    }

    #[test]
    fn a_proxy_is_for_its_scheme() {
        let variables =
            [("http_proxy", "me:pw@p:3128"), ("HTTPS_PROXY", "socks5://s"), ("https_proxy", "x"), ("NO_PROXY", "")];
        let proxies = Proxies::of(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| *value));
        let of = |url: &str| proxies.of_address(&Address::parse(url).unwrap());
        let proxy = of("http://far/").unwrap().unwrap();
        assert_eq!((proxy.endpoint().as_str(), proxy.credentials.as_deref()), ("p:3128", Some("me:pw")));
        assert_eq!(
            of("https://far/").unwrap_err().to_string(),
            "the proxy cannot be used: only proxies by http are built"
        );
        assert_eq!(proxies.variables(), ["http_proxy=me:pw@p:3128", "https_proxy=socks5://s"]);
        assert_eq!(Proxies::default().of_address(&Address::parse("http://far/").unwrap()).unwrap(), None);
    }
}
