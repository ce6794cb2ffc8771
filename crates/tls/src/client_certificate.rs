//! Certificates of ours, shown to servers that want to know who asks (RFC 8446, section 4.3.2).

use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::configuration::{TlsError, unusable};

/// A certificate with its key, which nobody sees.
#[derive(Clone)]
pub struct ClientCertificate(Arc<CertifiedKey>);

impl std::fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientCertificate(…)")
    }
}

impl ClientCertificate {
    /// Reads both, PEM: the certificate with those between it and its authority, and the key, not encrypted.
    ///
    /// # Errors
    /// One of them cannot be read, or they do not belong together. No word of it quotes them.
    pub fn read(certificate: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty());
        let chain = chain.ok_or_else(|| unusable("there is no certificate in it (PEM)"))?;
        let key =
            PrivateKeyDer::from_pem_slice(key).map_err(|_| unusable("there is no key in it (PEM, not encrypted)"))?;
        let both = CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(unusable)?;
        Ok(Self(Arc::new(both)))
    }

    /// Whether an authority of this name, as it stands in certificates (DER), has signed it, or one between.
    fn is_of(&self, authority: &[u8]) -> bool {
        // A name stands there byte for byte as the issuer's. What else may happen to be equal costs an answer that the server
        // does not take.
        !authority.is_empty()
            && self.0.cert.iter().any(|certificate| certificate.windows(authority.len()).any(|part| part == authority))
    }
}

/// Of several, the first that an authority has signed which the server names, as Go's client does it; a server that names
/// none gets the first.
#[derive(Debug)]
pub(crate) struct FirstThatFits(pub(crate) Arc<[ClientCertificate]>);

impl ResolvesClientCert for FirstThatFits {
    fn resolve(&self, authorities: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let fits = |certificate: &&ClientCertificate| {
            let is_known = authorities.is_empty() || authorities.iter().any(|authority| certificate.is_of(authority));
            is_known && certificate.0.key.choose_scheme(schemes).is_some()
        };
        self.0.iter().find(fits).map(|certificate| certificate.0.clone())
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}
