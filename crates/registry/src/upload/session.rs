//! Where an upload goes on: a server says so itself, in `Location` (OCI distribution-spec, "Pushing blobs"). One that means ill
//! names somebody else's address: he is sent the blob, which anybody may have who has the repository, and nothing that proves
//! who we are.

use dozen_fetch::{Address, Answer, Reach};

use crate::redirection::{Redirected, redirected};
use crate::{Endpoint, RegistryError, Repository};

/// An upload that a server waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    pub(super) address: Address,
    /// Who is there is the registry itself.
    pub(super) is_trusted: bool,
    /// Beside who said so.
    pub(super) reach: Reach,
}

impl Session {
    /// As an answer has it; `None` if it has no `Location`.
    pub(super) fn of(
        repository: &Repository,
        endpoint: &Endpoint,
        answer: &Answer,
    ) -> Result<Option<Self>, RegistryError> {
        let Some(location) = answer.headers.get(http::header::LOCATION) else { return Ok(None) };
        let location = String::from_utf8_lossy(location.as_bytes());
        let (from, host) = (answer.address(), endpoint.host.clone());
        let no_address = |error: dozen_fetch::AddressError| RegistryError::Redirection {
            host: host.clone(),
            to: "no address".to_owned(),
            why: error.to_string(),
        };
        let to = from.follow(&location).map_err(no_address)?;
        let own = repository.address_of(endpoint, "")?;
        let is_trusted = match next(&own, from, &to, endpoint.may_be_plain()) {
            Redirected::Trusted => true,
            Redirected::Stranger => false,
            Redirected::Refused(why) => {
                return Err(RegistryError::Redirection { host, to: to.host_and_port(), why: why.to_owned() });
            }
        };
        Ok(Some(Self { address: to, is_trusted, reach: Reach::Beside(answer.place) }))
    }
}

/// As for a redirection; and whoever is not the registry himself sends nobody there as ourselves.
fn next(own: &Address, from: &Address, to: &Address, may_be_plain: bool) -> Redirected {
    match redirected(from, to, may_be_plain) {
        Redirected::Trusted if !own.is_same_place(to) => Redirected::Stranger,
        Redirected::Stranger if from.is_same_place(own) && own.is_same_place(to) => Redirected::Trusted,
        decided => decided,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_registry_itself_is_told_who_we_are() {
        use Redirected::{Refused, Stranger, Trusted};
        let refused = Refused("that is without TLS, and anybody could read and change what comes");
        for (own, from, to, may_be_plain, want) in [
            (
                "https://a/v2/",
                "https://a/v2/x/blobs/uploads/",
                "https://a/v2/x/blobs/uploads/1?_state=2",
                false,
                Trusted,
            ),
            ("https://a/v2/", "https://a/v2/x", "https://b/upload?signed=1", false, Stranger),
            ("https://a/v2/", "https://a/v2/x", "https://a:444/upload", false, Stranger),
            ("https://a/v2/", "https://a/v2/x", "http://a/upload", false, refused),
            ("https://a/v2/", "https://b/v2/x", "https://b/upload", false, Stranger),
            ("https://a/v2/", "https://b/v2/x", "https://a/upload", false, Stranger),
            ("http://a/v2/", "http://a/v2/x", "http://a/upload", true, Trusted),
            ("http://a/v2/", "http://a/v2/x", "https://a/upload", true, Stranger),
        ] {
            let [own, from, to] = [own, from, to].map(|text| Address::parse(text).unwrap());
            assert_eq!(next(&own, &from, &to, may_be_plain), want, "{own} {from} {to}");
        }
    }
}
