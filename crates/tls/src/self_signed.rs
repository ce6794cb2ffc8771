//! Servers whose certificate is its own authority, as many make them for a registry of their own (`openssl req -x509`): such
//! a certificate says that it is an authority's, and by RFC 5280 none of these is a server's. Whoever names exactly this
//! certificate as trusted means this server, as Go's crypto/x509 takes it: its name and its time still count.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

/// Takes what its authorities have signed, and what was named itself.
#[derive(Debug)]
pub(crate) struct SignedOrNamed {
    pub(crate) signed: Arc<WebPkiServerVerifier>,
    pub(crate) named: Arc<[CertificateDer<'static>]>,
}

impl ServerCertVerifier for SignedOrNamed {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let signed = self.signed.verify_server_cert(certificate, between, name, ocsp, now);
        if signed.is_ok() || !self.named.iter().any(|named| named == certificate) {
            return signed;
        }
        verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
        match time_of(certificate) {
            None => Err(CertificateError::BadEncoding.into()),
            Some((begin, _)) if now.as_secs() < begin => Err(CertificateError::NotValidYet.into()),
            Some((_, end)) if now.as_secs() > end => Err(CertificateError::Expired.into()),
            Some(_) => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
}

/// From when and until when a certificate is good, in seconds since 1970 (RFC 5280, section 4.1: version, serial number,
/// signature, issuer, validity). `None`: it is none.
fn time_of(certificate: &[u8]) -> Option<(u64, u64)> {
    let (SEQUENCE, outer, _) = element(certificate)? else { return None };
    let (SEQUENCE, mut rest, _) = element(outer)? else { return None };
    if let Some((VERSION, _, behind)) = element(rest) {
        rest = behind;
    }
    for _ in ["serial number", "signature", "issuer"] {
        (_, _, rest) = element(rest)?;
    }
    let (SEQUENCE, validity, _) = element(rest)? else { return None };
    let (kind, begin, rest) = element(validity)?;
    let begin = moment(kind, begin)?;
    let (kind, end, _) = element(rest)?;
    Some((begin, moment(kind, end)?))
}

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Its tag, its contents, and what stands behind it (X.690, sections 8.1 and 10.1).
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match usize::from(*first) {
        length @ ..=0x7f => (length, rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(*first & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((*tag, contents, rest))
}

/// `YYMMDDHHMMSSZ`, of the years from 1950 to 2049, or with four digits (RFC 5280, section 4.1.2.5).
fn moment(kind: u8, text: &[u8]) -> Option<u64> {
    let digits = text.strip_suffix(b"Z")?;
    let long = match (kind, digits.len()) {
        (UTC_TIME, 12) => [if digits[0] < b'5' { b"20" } else { b"19" }, digits].concat(),
        (GENERALIZED_TIME, 14) => digits.to_vec(),
        _ => return None,
    };
    let number = |from: usize, to: usize| -> Option<u64> { std::str::from_utf8(&long[from..to]).ok()?.parse().ok() };
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        // Before 1970: whatever begins then has begun.
        return (year < 1970).then_some(0);
    }
    // Days since 1970 of the proleptic Gregorian calendar, in years that begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 719_469;
    Some(((days * 24 + number(8, 10)?) * 60 + number(10, 12)?) * 60 + number(12, 14)?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
    use rustls::RootCertStore;
    use rustls::crypto::ring;

    use super::*;

    /// As `openssl req -x509` makes it: of itself, and an authority.
    fn made(name: &str, from: i32, until: i32) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(until, 1, 1));
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn a_server_is_its_own_authority_only_if_it_was_named_and_is_who_it_says() {
        let good = made("a.example", 2020, 3000);
        let (early, late) = (made("a.example", 2900, 3000), made("a.example", 2020, 2021));
        let all = [good.clone(), early.clone(), late.clone()];
        let mut roots = RootCertStore::empty();
        all.iter().for_each(|certificate| roots.add(certificate.clone()).unwrap());
        let provider = Arc::new(ring::default_provider());
        let signed = WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
        let verifier = SignedOrNamed { signed, named: all.into() };
        // In the year 2023.
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_700_000_000));
        for (certificate, name, want) in [
            (&good, "a.example", None),
            (&good, "b.example", Some("not valid for name")),
            (&early, "a.example", Some("NotValidYet")),
            (&late, "a.example", Some("Expired")),
            (&made("a.example", 2020, 3000), "a.example", Some("CaUsedAsEndEntity")),
        ] {
            let server = ServerName::try_from(name).unwrap();
            let found = verifier.verify_server_cert(certificate, &[], &server, &[], now);
            match (found, want) {
                (Ok(_), None) => {}
                (Err(error), Some(words)) => assert!(error.to_string().contains(words), "{name}: {error}"),
                (found, want) => panic!("{name}: {found:?} {want:?}"),
            }
        }
    }

    #[test]
    fn moments_are_read() {
        for (kind, text, want) in [
            (UTC_TIME, "700101000000Z", Some(0)),
            (UTC_TIME, "240229123456Z", Some(1_709_210_096)),
            (UTC_TIME, "491231235959Z", Some(2_524_607_999)),
            (UTC_TIME, "500101000000Z", Some(0)),
            (GENERALIZED_TIME, "30000101000000Z", Some(32_503_680_000)),
            (GENERALIZED_TIME, "20000301000000Z", Some(951_868_800)),
            (UTC_TIME, "2402291234Z", None),
            (UTC_TIME, "24022912345678Z", None),
            (UTC_TIME, "240229123456", None),
            (UTC_TIME, "2402x9123456Z", None),
            (GENERALIZED_TIME, "20001301000000Z", None),
            (0x02, "240229123456Z", None),
        ] {
            assert_eq!(moment(kind, text.as_bytes()), want, "{text}");
        }
    }

    #[test]
    fn a_certificate_says_when_it_is_good() {
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(2020, 2, 29), date_time_ymd(3000, 1, 1));
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert_eq!(time_of(made.der()), Some((1_582_934_400, 32_503_680_000)));
        // However it is cut, nothing panics.
        for length in 0..made.der().len() {
            assert_eq!(time_of(&made.der()[..length]), None);
        }
    }
}
