//! `?ns=docker.io`: a client that takes this server for a mirror says which registry it means, and calls repositories by their
//! names there (containerd's docs/hosts.md, "Registry Host Namespace"). With upstreams, each registry's have their names here;
//! without, there is nobody else's, and what is said counts for nothing. Nor does it where this server's own name is said.

use http::Request;
use http::header::{HeaderValue, LINK};
use hyper::body::Incoming;

use super::{Answer, header, query};
use crate::access::caller::{CalledAs, Caller, Need};
use crate::name::RepositoryName;
use crate::page::percent_encoded;
use crate::refusal::{Kind, Refusal};
use crate::route::{Action, parameter};
use crate::upstream::Upstreams;

/// What a request calls a repository, and what that is here.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Called {
    registry: String,
    pub(super) there: RepositoryName,
    here: RepositoryName,
}

/// What is to be said of the name in a request.
#[derive(Debug)]
pub(super) enum Meant {
    /// It is the name here.
    Here,
    /// It is that of an upstream's.
    There(Called),
    /// It is that of a registry whose repositories are not kept here. One of the same name that is another's is no answer to
    /// that.
    Nowhere { registry: String },
}

/// Has an action be about what is meant.
pub(super) fn mean(action: &mut Action, request: &Request<Incoming>, upstreams: Option<&Upstreams>) -> Meant {
    let (Some(upstreams), Some(name)) = (upstreams, action.repository_mut()) else { return Meant::Here };
    let Some(registry) = parameter(query(request), "ns") else { return Meant::Here };
    let Some(here) = upstreams.here(&registry, name) else {
        let is_own = header(request, "host").is_some_and(|host| host.eq_ignore_ascii_case(&registry));
        return if is_own { Meant::Here } else { Meant::Nowhere { registry } };
    };
    let there = std::mem::replace(name, here.clone());
    Meant::There(Called { registry, there, here })
}

impl Meant {
    /// Refuses what somebody may not do, and then what is nowhere.
    pub(super) fn check(&self, action: &Action, caller: &Caller) -> Result<(), Refusal> {
        match (self, action.need()) {
            (Self::There(called), Need::Repository(here, right)) => {
                let called = CalledAs { registry: &called.registry, name: &called.there };
                caller.check_called(called, Some(here), right)
            }
            (Self::Nowhere { registry }, Need::Repository(name, right)) => {
                caller.check_called(CalledAs { registry, name }, None, right)?;
                let words = format!("no repositories of {registry:?} that are called so are kept here");
                Err(Refusal::new(Kind::NameUnknown, words))
            }
            (_, need) => caller.check(need),
        }
    }
}

impl Called {
    /// The next page of a list is called as this one was.
    pub(super) fn told(&self, answer: Answer) -> Answer {
        let mut response = answer?;
        if let Some(link) = response.headers().get(LINK).and_then(|link| link.to_str().ok())
            && let Ok(link) = HeaderValue::try_from(self.link(link))
        {
            response.headers_mut().insert(LINK, link);
        }
        Ok(response)
    }

    fn link(&self, link: &str) -> String {
        let (here, there) = (format!("</v2/{}/", self.here), format!("</v2/{}/", self.there));
        let link = link.replacen(&here, &there, 1);
        link.replacen('>', &format!("&ns={}>", percent_encoded(&self.registry)), 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_goes_on_as_it_began() {
        let name = |text: &str| text.parse().unwrap();
        let called = Called { registry: "r.example:5000".into(), there: name("team/web"), here: name("hub/team/web") };
        assert_eq!(
            called.link("</v2/hub/team/web/tags/list?last=a&n=1>; rel=\"next\""),
            "</v2/team/web/tags/list?last=a&n=1&ns=r.example%3A5000>; rel=\"next\""
        );
    }
}
