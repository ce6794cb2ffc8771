//! TLS to a server that anybody may ask: its certificate has to be of an authority that the host trusts.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use crate::client_certificate::{ClientCertificate, FirstThatFits};
use crate::configuration::{TlsError, unusable};
use crate::self_signed::SignedOrNamed;

/// Where distributions have them: Debian's, Fedora's, openSUSE's, Alpine's. The first that is there counts, as in Go's
/// crypto/x509, which Docker's builder trusts by.
const FILES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Names another file (openssl(1), "Environment").
const VARIABLE: &str = "SSL_CERT_FILE";

/// Who is trusted, and who we are for those that ask.
#[derive(Debug, Clone)]
pub struct Authorities {
    trusted: Trusted,
    shown: Arc<[ClientCertificate]>,
}

#[derive(Debug, Clone)]
enum Trusted {
    /// And, of certificates that were named beside the host's, these themselves.
    SignedBy(Arc<RootCertStore>, Arc<[CertificateDer<'static>]>),
    Anybody,
}

/// The certificates of those that the host trusts, as a file in PEM; empty if there is none. Blocks.
///
/// # Errors
/// SSL_CERT_FILE names a file that cannot be read.
pub fn certificates_of_host() -> Result<Vec<u8>, TlsError> {
    match std::env::var_os(VARIABLE).filter(|name| !name.is_empty()).map(PathBuf::from) {
        Some(path) => std::fs::read(&path).map_err(|error| TlsError::File {
            what: "the certificates of SSL_CERT_FILE",
            path,
            why: error.to_string(),
        }),
        None => Ok(FILES.iter().find_map(|path| std::fs::read(Path::new(path)).ok()).unwrap_or_default()),
    }
}

impl Authorities {
    /// Those of the host, and those in `more`, which is PEM. What of the host's cannot be read is left out. Blocks.
    ///
    /// # Errors
    /// `more` is no PEM; SSL_CERT_FILE names a file that cannot be read.
    pub fn of_host(more: Option<&str>) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        let bytes = certificates_of_host()?;
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&bytes).flatten());
        add(&mut roots, more.unwrap_or_default().as_bytes())?;
        Ok(Self { trusted: Trusted::SignedBy(roots.into(), Arc::default()), shown: Arc::default() })
    }

    /// Whoever answers: who listens to what is said cannot read it, and who stands between can.
    pub fn anybody() -> Self {
        Self { trusted: Trusted::Anybody, shown: Arc::default() }
    }

    /// These, and those in `more`, which is PEM: they may be servers' own.
    ///
    /// # Errors
    /// It is no PEM, or has no certificate in it.
    pub fn and(&self, more: &[u8]) -> Result<Self, TlsError> {
        let Trusted::SignedBy(known, named) = &self.trusted else { return Ok(self.clone()) };
        let mut roots = RootCertStore::clone(known);
        let more = add(&mut roots, more)?;
        if more.is_empty() {
            return Err(unusable("there is no certificate in it (PEM)"));
        }
        let named = named.iter().cloned().chain(more).collect();
        Ok(Self { trusted: Trusted::SignedBy(roots.into(), named), shown: self.shown.clone() })
    }

    /// The same, with these certificates for servers that ask for one.
    #[must_use]
    pub fn showing(self, certificates: Vec<ClientCertificate>) -> Self {
        Self { shown: certificates.into(), ..self }
    }

    /// What tells these from others, as long as they are there: a connection that was made with one of them is not to be used
    /// with another.
    pub fn identity(&self) -> (usize, usize) {
        let trusted = match &self.trusted {
            Trusted::SignedBy(roots, _) => Arc::as_ptr(roots).addr(),
            Trusted::Anybody => 0,
        };
        (trusted, if self.shown.is_empty() { 0 } else { Arc::as_ptr(&self.shown).addr() })
    }

    /// Begins TLS with who is at the other end, who has to be `name`.
    ///
    /// # Errors
    /// The name is none; the certificate is refused; the connection ends.
    pub async fn secure<S>(
        &self,
        stream: S,
        name: &str,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Unpin + Send + use<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let server =
            ServerName::try_from(name.to_owned()).map_err(|_| io::Error::other(TlsError::Name(name.to_owned())))?;
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?;
        let config = match &self.trusted {
            Trusted::SignedBy(roots, named) if named.is_empty() => config.with_root_certificates(roots.clone()),
            Trusted::SignedBy(roots, named) => {
                let signed = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider);
                let signed = signed.build().map_err(io::Error::other)?;
                config
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(SignedOrNamed { signed, named: named.clone() }))
            }
            Trusted::Anybody => config.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider))),
        };
        let config = match self.shown.is_empty() {
            true => config.with_no_client_auth(),
            false => config.with_client_cert_resolver(Arc::new(FirstThatFits(self.shown.clone()))),
        };
        TlsConnector::from(Arc::new(config)).connect(server, stream).await
    }
}

/// Gives those that there were.
fn add(roots: &mut RootCertStore, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let mut all = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        // The reader's own words may quote the file.
        let certificate = certificate.map_err(|_| unusable("the certificate authorities are not PEM"))?;
        roots.add(certificate.clone()).map_err(unusable)?;
        all.push(certificate);
    }
    Ok(all)
}

/// Takes every certificate. What the server signs with it is still looked at: a broken one is broken.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
