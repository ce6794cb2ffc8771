//! Layers that registries may not pass on: the manifest says where else they are (OCI image-spec, descriptor.md, "urls").
//! Whoever writes a manifest writes these, so they lead no farther than a redirection of the registry's would: not to where
//! there is no TLS, if that has it, and not to this host's own servers or its links', unless it is one of them. Nobody there is told who we
//! are. The registry is asked first: some are given these layers all the same, and it may be the only one within reach.

use dozen_fetch::{Address, Reach};
use dozen_model::Digest;

use crate::redirection::{Redirected, redirected};
use crate::{Blob, Endpoint, RegistryError, Repository, Security};

/// A manifest may name any number.
const MOST: usize = 8;

/// An address that a manifest names.
#[derive(Debug, Clone)]
pub(crate) struct Elsewhere {
    pub(crate) address: Address,
    pub(crate) reach: Reach,
}

impl Repository {
    /// As [`Repository::blob`], and if the registry has not got it, from one of these URLs.
    ///
    /// # Errors
    /// Nobody has it: of the last who was asked.
    pub async fn blob_or_elsewhere(
        &self,
        digest: &Digest,
        size_bytes: u64,
        urls: &[String],
    ) -> Result<Blob<'_>, RegistryError> {
        let mut failed = match self.blob(digest, size_bytes).await {
            Err(error) if error.refusal().is_some_and(|refusal| refusal.status == 404) => error,
            found => return found,
        };
        for url in urls.iter().take(MOST) {
            let found = match self.elsewhere(url).await {
                Ok((endpoint, place)) => self.blob_elsewhere(endpoint, place, digest, size_bytes).await,
                Err(error) => Err(error),
            };
            match found {
                Ok(blob) => return Ok(blob),
                Err(error) => {
                    tracing::info!(%digest, %error, "a layer is not where its manifest says that it is");
                    failed = error;
                }
            }
        }
        Err(failed)
    }

    /// Whether a URL may be asked, and how.
    async fn elsewhere(&self, url: &str) -> Result<(Endpoint, Elsewhere), RegistryError> {
        let own = self.server().await?;
        let refused = |to: String, why: String| RegistryError::Elsewhere { host: own.host.clone(), to, why };
        let address = Address::parse(url).map_err(|error| refused("no address".to_owned(), error.to_string()))?;
        let host = address.host_and_port();
        let is_insecure = self.settings().is_insecure(&host);
        // As the registry itself was reached; of one that may be without TLS that does not matter.
        let registry = Address::parse(&own.url(true, "")).map_err(|error| refused(host.clone(), error.to_string()))?;
        if let Redirected::Refused(why) = redirected(&registry, &address, own.may_be_plain()) {
            return Err(refused(host, why.to_owned()));
        }
        let security = match (address.is_secure(), is_insecure) {
            (false, _) => Security::Plain,
            (true, true) => Security::Any,
            (true, false) => Security::Verified,
        };
        let reach = Reach::Beside(self.place_of(own));
        Ok((Endpoint::new(security, &host), Elsewhere { address, reach }))
    }
}
