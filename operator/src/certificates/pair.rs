//! Certificates with their keys: ECDSA P-256, PEM. Time is an argument, in seconds since 1970.

use std::collections::BTreeSet;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, date_time_ymd,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// Seconds since 1970.
pub(crate) type Seconds = i64;

/// Clocks of nodes differ: a certificate is valid a little before it is made.
const BACKDATE: Seconds = 300;

/// A certificate and its private key.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    /// PEM.
    pub(crate) certificate: String,
    /// PEM, PKCS #8.
    pub(crate) key: String,
}

/// When a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) from: Seconds,
    pub(crate) until: Seconds,
}

impl Validity {
    /// Two thirds of its life are over, or it is not valid at all.
    pub(crate) const fn is_due(self, now: Seconds) -> bool {
        now < self.from || now - self.from >= (self.until - self.from) / 3 * 2
    }
}

impl Pair {
    /// A new authority.
    pub(crate) fn new_authority(now: Seconds, life: Duration) -> Result<Self, rcgen::Error> {
        let mut params = params(now, now.saturating_add(seconds(life)));
        params.distinguished_name.push(DnType::CommonName, format!("tidegate-ca-{now}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        Ok(Self { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// A new serving certificate, signed by this authority and not valid for longer than it.
    pub(crate) fn issue(&self, names: &[String], now: Seconds, life: Duration) -> Result<Self, rcgen::Error> {
        let authority = Issuer::from_ca_cert_pem(&self.certificate, KeyPair::from_pem(&self.key)?)?;
        let end = now.saturating_add(seconds(life)).min(self.validity().map_or(i64::MAX, |own| own.until));
        let mut params = params(now, end);
        params.subject_alt_names = CertificateParams::new(names.to_vec())?.subject_alt_names;
        if let Some(name) = names.first().filter(|name| name.len() <= 64) {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &authority)?;
        Ok(Self { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// None when the certificate cannot be read or the key is not its own.
    pub(crate) fn validity(&self) -> Option<Validity> {
        let key = KeyPair::from_pem(&self.key).ok()?.subject_public_key_info();
        let der = der(&self.certificate)?;
        let certificate = parse(&der)?;
        (certificate.public_key().raw == key).then(|| validity(&certificate))
    }

    /// Whether it serves exactly these names and was signed by this authority.
    pub(crate) fn serves(&self, names: &[String], authority: &Self) -> bool {
        let (Some(own), Some(theirs)) = (der(&self.certificate), der(&authority.certificate)) else {
            return false;
        };
        let (Some(own), Some(theirs)) = (parse(&own), parse(&theirs)) else { return false };
        let wanted: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        dns_names(&own) == wanted && own.verify_signature(Some(theirs.public_key())).is_ok()
    }
}

/// When a certificate in PEM is valid.
pub(crate) fn validity_of(certificate: &str) -> Option<Validity> {
    der(certificate).and_then(|der| parse(&der).map(|parsed| validity(&parsed)))
}

fn params(from: Seconds, until: Seconds) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch(from.saturating_sub(BACKDATE));
    params.not_after = epoch + since_epoch(until);
    params
}

fn since_epoch(at: Seconds) -> Duration {
    Duration::from_secs(u64::try_from(at).unwrap_or_default())
}

fn seconds(life: Duration) -> Seconds {
    i64::try_from(life.as_secs()).unwrap_or(i64::MAX)
}

fn der(pem: &str) -> Option<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(pem.as_bytes()).ok()
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    X509Certificate::from_der(der).ok().map(|(_, certificate)| certificate)
}

fn validity(certificate: &X509Certificate<'_>) -> Validity {
    let validity = certificate.validity();
    Validity { from: validity.not_before.timestamp(), until: validity.not_after.timestamp() }
}

fn dns_names<'a>(certificate: &'a X509Certificate<'_>) -> BTreeSet<&'a str> {
    let extension = certificate.subject_alternative_name().ok().flatten();
    let names = extension.iter().flat_map(|extension| &extension.value.general_names);
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(*name),
            _ => None,
        })
        .collect()
}
