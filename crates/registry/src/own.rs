//! The registry that this very process serves, on loopback for others. It is not asked there: every container with the host's
//! network may read what goes over loopback, and whoever gets hold of the address would be told what is its. Where it was to be
//! served and is not, nobody is asked: whoever has the address in its place could give any image under its names.

use std::net::SocketAddr;

use dozen_fetch::Door;

use crate::{Endpoint, Security};

/// See the module.
#[derive(Debug, Clone)]
pub struct OwnRegistry {
    /// Where it listens, or was to.
    pub address: SocketAddr,
    /// By which it is reached; or why it is not there.
    pub door: Result<Door, String>,
}

impl OwnRegistry {
    /// Whether an image's name means it: by `localhost`, or by the address, and the port.
    pub(crate) fn is(&self, registry: &str) -> bool {
        let by_name = registry.rsplit_once(':').is_some_and(|(host, port)| {
            host.eq_ignore_ascii_case("localhost") && port == self.address.port().to_string()
        });
        by_name || registry.parse() == Ok(self.address)
    }

    /// Whom to ask.
    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint { door: self.door.clone().ok(), ..Endpoint::new(Security::Plain, &self.address.to_string()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_called_by_its_address_or_localhost() {
        let own = |address: &str| OwnRegistry { address: address.parse().unwrap(), door: Ok(Door::new().0) };
        for (address, registry, is_own) in [
            ("127.0.0.1:12012", "localhost:12012", true),
            ("127.0.0.1:12012", "LocalHost:12012", true),
            ("127.0.0.1:12012", "127.0.0.1:12012", true),
            ("[::1]:12012", "localhost:12012", true),
            ("[::1]:12012", "[::1]:12012", true),
            ("127.0.0.1:12012", "[::1]:12012", false),
            ("[::1]:12012", "127.0.0.1:12012", false),
            ("127.0.0.1:12012", "127.0.0.2:12012", false),
            ("127.0.0.1:12012", "localhost:12013", false),
            ("127.0.0.1:12012", "localhost:012012", false),
            ("127.0.0.1:12012", "localhost", false),
            ("127.0.0.1:12012", "localhost.example:12012", false),
            ("127.0.0.1:12012", "docker.io", false),
            ("127.0.0.1:12012", "", false),
        ] {
            assert_eq!(own(address).is(registry), is_own, "{registry} at {address}");
        }
        assert_eq!(own("[::1]:1").endpoint().url(false, "x"), "http://[::1]:1/v2/x");
    }
}
