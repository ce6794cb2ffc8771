//! Who is asked for the images of a registry: its server, and the mirrors before it. Docker's rules (docs.docker.com,
//! "dockerd": registry-mirrors, insecure-registries).

use std::hash::{Hash, Hasher};

use dozen_fetch::{Address, Authorities, Door};
use dozen_settings::RegistrySettings;
use http::{HeaderName, HeaderValue};

use crate::Capabilities;

/// What images' names have for Docker Hub.
pub(crate) const HUB: &str = "docker.io";
/// Who answers for it.
pub(crate) const HUB_SERVER: &str = "registry-1.docker.io";

/// A server that speaks the protocol of registries. Two are the same if they are at the same place and reached in the same way.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// How it is reached.
    pub security: Security,
    /// Host, and port if it is not the usual one.
    pub host: String,
    /// What stands before `/v2/`: empty, or begins with a slash.
    pub path: String,
    /// It is not the registry itself, and gets no password.
    pub is_mirror: bool,
    /// There is no `/v2/` behind the path.
    pub is_path_whole: bool,
    /// The registry whose images it is asked for, for one that has those of several (containerd's docs/hosts.md: `ns=`).
    pub namespace: Option<String>,
    /// What it is asked for.
    pub capabilities: Capabilities,
    /// Sent to it, and to nobody else.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// `None`: what the host trusts.
    pub trust: Option<Trust>,
    /// It is in this process, and reached by this alone.
    pub door: Option<Door>,
}

/// Certificates that count for a server, and those that count where it leads to.
#[derive(Debug, Clone)]
pub struct Trust {
    /// With ours, if it wants to know who asks.
    pub own: Authorities,
    #[expect(missing_docs, reason = "plain")]
    pub elsewhere: Authorities,
}

/// How a server is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Security {
    /// By TLS, with a certificate for its name.
    Verified,
    /// By TLS, with any certificate.
    Unverified,
    /// By TLS with any certificate, or, if there is none, without.
    Any,
    /// Without TLS.
    Plain,
}

/// Whom to ask, one after the other, for what a registry has.
pub fn endpoints(registry: &str, settings: &RegistrySettings) -> Vec<Endpoint> {
    let security = |host: &str| if settings.is_insecure(host) { Security::Any } else { Security::Verified };
    let (host, mirrors) = match registry {
        HUB => (HUB_SERVER, settings.mirrors.as_slice()),
        other => (other, &[][..]),
    };
    let mirrors = mirrors.iter().map(|mirror| Endpoint {
        path: mirror.path.clone(),
        is_mirror: true,
        ..Endpoint::new(if mirror.is_secure { security(&mirror.host) } else { Security::Plain }, &mirror.host)
    });
    mirrors.chain([Endpoint::new(security(host), host)]).collect()
}

impl Endpoint {
    /// A registry of which nothing is known but where it is.
    pub(crate) fn new(security: Security, host: &str) -> Self {
        Self {
            security,
            host: host.to_owned(),
            path: String::new(),
            is_mirror: false,
            is_path_whole: false,
            namespace: None,
            capabilities: Capabilities { resolve: true, pull: true, push: true },
            headers: Vec::new(),
            trust: None,
            door: None,
        }
    }

    /// The URL of something below `/v2/`.
    pub fn url(&self, by_tls: bool, below: &str) -> String {
        let scheme = if by_tls { "https" } else { "http" };
        let version = if self.is_path_whole { "" } else { "/v2" };
        let url = format!("{scheme}://{}{}{version}/{below}", self.host, self.path);
        match &self.namespace {
            Some(namespace) => format!("{url}{}ns={namespace}", if below.contains('?') { '&' } else { '?' }),
            None => url,
        }
    }

    /// Whether it is what answers at this address.
    pub(crate) fn is_at(&self, address: &Address) -> bool {
        let scheme = if address.is_secure() { "https" } else { "http" };
        Address::parse(&format!("{scheme}://{}/", self.host)).is_ok_and(|own| own.is_same_place(address))
    }

    /// Without TLS, too.
    pub(crate) fn may_be_plain(&self) -> bool {
        matches!(self.security, Security::Any | Security::Plain)
    }

    fn identity(&self) -> (Security, &str, &str, bool, bool, Option<&str>) {
        (self.security, &self.host, &self.path, self.is_mirror, self.is_path_whole, self.namespace.as_deref())
    }
}

impl PartialEq for Endpoint {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for Endpoint {}

impl Hash for Endpoint {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use dozen_settings::Mirror;

    use super::*;

    #[test]
    fn a_registry_has_its_server() {
        let settings = RegistrySettings::default();
        for (registry, url, security) in [
            ("docker.io", "https://registry-1.docker.io/v2/x", Security::Verified),
            ("ghcr.io", "https://ghcr.io/v2/x", Security::Verified),
            ("localhost:5000", "https://localhost:5000/v2/x", Security::Any),
            ("127.0.0.1", "https://127.0.0.1/v2/x", Security::Any),
            ("[::1]:5000", "https://[::1]:5000/v2/x", Security::Any),
            ("registry.example:5000", "https://registry.example:5000/v2/x", Security::Verified),
        ] {
            let found = endpoints(registry, &settings);
            let [only] = found.as_slice() else { panic!("{found:?}") };
            assert_eq!((only.url(true, "x").as_str(), only.security, only.is_mirror), (url, security, false));
        }
    }

    #[test]
    fn mirrors_are_the_hubs() {
        let mirror = |is_secure, host: &str, path: &str| Mirror { is_secure, host: host.into(), path: path.into() };
        let settings = RegistrySettings {
            mirrors: vec![
                mirror(true, "m.example", "/hub"),
                mirror(false, "10.0.0.1:80", ""),
                mirror(true, "localhost", ""),
            ],
            ..RegistrySettings::default()
        };
        let found = endpoints("docker.io", &settings);
        let said: Vec<_> = found.iter().map(|it| (it.url(false, "x"), it.security, it.is_mirror)).collect();
        let want = [
            ("http://m.example/hub/v2/x", Security::Verified, true),
            ("http://10.0.0.1:80/v2/x", Security::Plain, true),
            ("http://localhost/v2/x", Security::Any, true),
            ("http://registry-1.docker.io/v2/x", Security::Verified, false),
        ];
        assert_eq!(said, want.map(|(url, security, is_mirror)| (url.to_owned(), security, is_mirror)));
        assert_eq!(endpoints("quay.io", &settings).len(), 1);
    }
}
