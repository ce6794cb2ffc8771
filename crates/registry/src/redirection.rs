//! Where an answer may send us. A registry that redirects keeps its blobs elsewhere, which is nothing unusual; one that means
//! ill sends passwords to strangers, and us to this host's own servers.

use dozen_fetch::Address;

/// More are circles.
pub(crate) const MOST: usize = 5;

/// What is done about a redirection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Redirected {
    /// It is followed, with what proves who we are.
    Trusted,
    /// It is followed as by anybody.
    Stranger,
    /// It is not.
    Refused(&'static str),
}

/// Decides. `may_be_plain`: the registry may be asked without TLS itself.
pub(crate) fn redirected(from: &Address, to: &Address, may_be_plain: bool) -> Redirected {
    if from.is_secure() && !to.is_secure() && !may_be_plain {
        return Redirected::Refused("that is without TLS, and anybody could read and change what comes");
    }
    if from.is_same_place(to) { Redirected::Trusted } else { Redirected::Stranger }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_else_is_told_who_we_are() {
        use Redirected::{Refused, Stranger, Trusted};
        let refused = Refused("that is without TLS, and anybody could read and change what comes");
        for (from, to, may_be_plain, want) in [
            ("https://a/x", "https://a/y?z", false, Trusted),
            ("https://a/x", "https://a:443/y", false, Trusted),
            ("https://a/x", "https://a:444/y", false, Stranger),
            ("https://a/x", "https://b/y", false, Stranger),
            ("https://a/x", "https://a.b/y", false, Stranger),
            ("https://a/x", "http://a/y", false, refused),
            ("https://a/x", "http://a/y", true, Stranger),
            ("http://a/x", "https://a/y", true, Stranger),
            ("http://a/x", "http://a/y", true, Trusted),
        ] {
            let [from, to] = [from, to].map(|text| Address::parse(text).unwrap());
            assert_eq!(redirected(&from, &to, may_be_plain), want, "{from} {to}");
        }
    }
}
