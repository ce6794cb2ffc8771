//! Certificates in a registry's directory, told apart by their names (docs.docker.com, "Verify repository client with
//! certificates"): `*.crt` are authorities, `NAME.cert` with `NAME.key` says who we are.

/// Files of one directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct CertificateFiles {
    pub(super) authorities: Vec<String>,
    /// Certificate and key.
    pub(super) clients: Vec<(String, String)>,
}

impl CertificateFiles {
    /// Of the names of all that is in a directory. They are taken in their order.
    ///
    /// # Errors
    /// One half of a pair is not there: Docker's words for it.
    pub(super) fn of(mut names: Vec<String>) -> Result<Self, String> {
        names.sort();
        let has = |name: &String| names.binary_search(name).is_ok();
        let mut found = Self::default();
        for name in &names {
            match name.rsplit_once('.') {
                Some((_, "crt")) => found.authorities.push(name.clone()),
                Some((stem, "cert")) => {
                    let key = format!("{stem}.key");
                    if !has(&key) {
                        return Err(format!(
                            "missing key {key} for client certificate {name}. CA certificates must use the extension .crt"
                        ));
                    }
                    found.clients.push((name.clone(), key));
                }
                Some((stem, "key")) => {
                    let certificate = format!("{stem}.cert");
                    if !has(&certificate) {
                        return Err(format!("missing client certificate {certificate} for key {name}"));
                    }
                }
                _ => {}
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(names: &[&str]) -> Result<CertificateFiles, String> {
        CertificateFiles::of(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn files_are_told_apart() {
        let pair = |stem: &str| (format!("{stem}.cert"), format!("{stem}.key"));
        let found = of(&["b.key", "ca.crt", "a.cert", "hosts.toml", "a.key", "b.cert", "1.crt", "README", "x.pem"]);
        let want = CertificateFiles {
            authorities: vec!["1.crt".to_owned(), "ca.crt".to_owned()],
            clients: vec![pair("a"), pair("b")],
        };
        assert_eq!(found, Ok(want));
        assert_eq!(of(&[]), Ok(CertificateFiles::default()));
    }

    #[test]
    fn half_a_pair_is_named() {
        assert_eq!(
            of(&["a.cert"]).unwrap_err(),
            "missing key a.key for client certificate a.cert. CA certificates must use the extension .crt"
        );
        assert_eq!(of(&["a.key", "b.cert", "b.key"]).unwrap_err(), "missing client certificate a.cert for key a.key");
    }

    proptest! {
        #[test]
        fn pairs_are_whole(names in proptest::collection::vec("[ab]{0,2}(\\.(crt|cert|key|toml))?", 0..8)) {
            if let Ok(found) = CertificateFiles::of(names.clone()) {
                prop_assert!(found.clients.iter().all(|(one, other)| names.contains(one) && names.contains(other)));
                let keys = names.iter().filter(|name| name.ends_with(".key"));
                prop_assert!(keys.into_iter().all(|key| found.clients.iter().any(|(_, known)| known == key)));
            }
        }
    }
}
