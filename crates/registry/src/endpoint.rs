//! Who is asked for the images of a registry: its server, and the mirrors before it. Docker's rules (docs.docker.com,
//! "dockerd": registry-mirrors, insecure-registries).

use dozen_settings::RegistrySettings;

/// What images' names have for Docker Hub.
const HUB: &str = "docker.io";
/// Who answers for it.
const HUB_SERVER: &str = "registry-1.docker.io";

/// A server that speaks the protocol of registries.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// How it is reached.
    pub security: Security,
    /// Host, and port if it is not the usual one.
    pub host: String,
    /// What stands before `/v2/`: empty, or begins with a slash.
    pub path: String,
    /// It is not the registry itself, and gets no password.
    pub is_mirror: bool,
}

/// How a server is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Security {
    /// By TLS, with a certificate for its name.
    Verified,
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
        security: if mirror.is_secure { security(&mirror.host) } else { Security::Plain },
        host: mirror.host.clone(),
        path: mirror.path.clone(),
        is_mirror: true,
    });
    let own = Endpoint { security: security(host), host: host.to_owned(), path: String::new(), is_mirror: false };
    mirrors.chain([own]).collect()
}

impl Endpoint {
    /// The URL of something below `/v2/`.
    pub fn url(&self, by_tls: bool, below: &str) -> String {
        let scheme = if by_tls { "https" } else { "http" };
        format!("{scheme}://{}{}/v2/{below}", self.host, self.path)
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
