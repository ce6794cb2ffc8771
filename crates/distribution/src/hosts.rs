//! Which host a request may be for, where everyone is let in without TLS: a page in a browser on this machine may have the
//! name of its own host point here (DNS rebinding), and would be let in as the user is.

use std::net::IpAddr;

use http::{HeaderMap, Uri, header};

use crate::refusal::{Kind, Refusal};

/// Addresses and localhost, and these names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedHosts {
    /// Whoever asks has to log in: no page can.
    Any,
    /// Besides addresses and localhost.
    Named(Vec<String>),
}

impl AllowedHosts {
    /// Refuses a request for another host.
    pub(crate) fn check(&self, headers: &HeaderMap, uri: &Uri) -> Result<(), Refusal> {
        let Self::Named(names) = self else { return Ok(()) };
        let said = match uri.authority() {
            Some(authority) => authority.as_str(),
            None => headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default(),
        };
        let host = without_port(said).to_ascii_lowercase();
        let is_local = host == "localhost" || host.ends_with(".localhost");
        if is_local || is_address(&host) || names.iter().any(|name| name.eq_ignore_ascii_case(&host)) {
            return Ok(());
        }
        let words = format!("this registry is not called {host:?}: if it is, start it with --allowed-host {host}");
        Err(Refusal::new(Kind::Denied, words))
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

fn is_address(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    bare.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn only_addresses_localhost_and_names_that_were_said() {
        let check = |hosts: &AllowedHosts, host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
            hosts.check(&headers, &Uri::from_static("/v2/")).is_ok()
        };
        let named = AllowedHosts::Named(vec!["registry.example".to_owned()]);
        for good in [
            "127.0.0.1:5000",
            "10.0.0.1",
            "[::1]:5000",
            "[::1]",
            "localhost",
            "LOCALHOST:5000",
            "a.localhost:1",
            "Registry.example:5000",
        ] {
            assert!(check(&named, good), "{good}");
        }
        for bad in
            ["evil.example", "evil.example:5000", "localhost.evil.example", "", ":5000", "127.0.0.1.evil.example"]
        {
            assert!(!check(&named, bad), "{bad}");
            assert!(check(&AllowedHosts::Any, bad), "{bad}");
        }
    }
}
