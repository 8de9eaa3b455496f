//! Whose tokens are believed.

use std::collections::BTreeSet;

use tidegate_crds::{self as crd, Jwks};
use tidegate_policy as document;

use super::problems::{Problems, optional};
use super::scalar::{header, millis};

pub(super) fn identity(
    policy: &str,
    mode: document::Mode,
    spec: &crd::Identity,
    problems: &mut Problems,
) -> Option<document::Identity> {
    let mut names = BTreeSet::new();
    let issuers: Vec<_> = spec
        .jwt
        .iter()
        .enumerate()
        .map(|(i, spec)| {
            let field = format!("spec.identity.jwt[{i}]");
            if !names.insert(spec.issuer.as_str()) {
                let message = format!("{:?} is there twice: write each issuer once", spec.issuer);
                problems.add(format!("{field}.issuer"), message);
            }
            issuer(&field, spec, problems)
        })
        .collect();
    if spec.jwt.is_empty() && spec.client_ip.is_none() && spec.api_keys.is_none() {
        problems.add("spec.identity", crd::Identity::NOBODY);
    }
    let api_keys = optional(spec.api_keys.as_ref(), |spec| api_keys(mode, spec, problems));
    let client_ip = optional(spec.client_ip.as_ref(), |spec| client_ip(spec, problems));
    Some(document::Identity {
        policy: policy.to_owned(),
        jwt: issuers.into_iter().collect::<Option<_>>()?,
        api_keys: api_keys?,
        client_ip: client_ip?,
    })
}

/// A policy that only looks on refuses nobody.
fn api_keys(mode: document::Mode, spec: &crd::ApiKeys, problems: &mut Problems) -> Option<document::ApiKeys> {
    let headers = spec
        .headers
        .iter()
        .enumerate()
        .map(|(i, name)| problems.keep(format!("spec.identity.apiKeys.headers[{i}]"), header(name)));
    let headers: Vec<_> = headers.collect();
    Some(document::ApiKeys {
        headers: headers.into_iter().collect::<Option<_>>()?,
        required: spec.unknown == crd::UnknownClient::Refuse && mode == document::Mode::Enforce,
        strip_headers: spec.strip_headers == crd::StripHeaders::Enabled,
    })
}

fn client_ip(spec: &crd::ClientIp, problems: &mut Problems) -> Option<document::ClientIp> {
    let client_ip = document::ClientIp {
        trusted_proxies: spec.trusted_proxies.clone(),
        from: match spec.from {
            crd::ForwardedBy::XForwardedFor => document::ForwardedBy::XForwardedFor,
            crd::ForwardedBy::Forwarded => document::ForwardedBy::Forwarded,
        },
    };
    if client_ip.blocks().count() == spec.trusted_proxies.len() {
        return Some(client_ip);
    }
    problems.add("spec.identity.clientIP.trustedProxies", crd::Claimant::BLOCK);
    None
}

fn issuer(field: &str, spec: &crd::JwtIssuer, problems: &mut Problems) -> Option<document::JwtIssuer> {
    let leeway =
        optional(spec.leeway.as_ref(), |leeway| problems.keep(format!("{field}.leeway"), millis(leeway)));
    let keys = problems.keep(format!("{field}.jwks"), keys(&spec.jwks));
    Some(document::JwtIssuer {
        issuer: spec.issuer.clone(),
        audiences: spec.audiences.clone(),
        algorithms: spec.algorithms.iter().copied().map(algorithm).collect(),
        leeway_millis: leeway?,
        keys: keys?,
    })
}

fn keys(spec: &Jwks) -> Result<document::JwtKeys, String> {
    let keys = match (&spec.inline, &spec.uri, &spec.file) {
        (Some(set), None, None) => document::JwtKeys::Inline(set.clone()),
        (None, None, Some(entry)) => document::JwtKeys::File(entry.clone()),
        (None, Some(uri), None) => {
            return Ok(document::JwtKeys::Remote { uri: uri.clone(), ca_bundle: spec.ca_bundle.clone() });
        }
        _ => return Err(Jwks::EXACTLY_ONE.to_owned()),
    };
    if spec.ca_bundle.is_some() { Err(Jwks::BUNDLE.to_owned()) } else { Ok(keys) }
}

const fn algorithm(spec: crd::JwtAlgorithm) -> document::JwtAlgorithm {
    match spec {
        crd::JwtAlgorithm::RS256 => document::JwtAlgorithm::RS256,
        crd::JwtAlgorithm::RS384 => document::JwtAlgorithm::RS384,
        crd::JwtAlgorithm::RS512 => document::JwtAlgorithm::RS512,
        crd::JwtAlgorithm::PS256 => document::JwtAlgorithm::PS256,
        crd::JwtAlgorithm::PS384 => document::JwtAlgorithm::PS384,
        crd::JwtAlgorithm::PS512 => document::JwtAlgorithm::PS512,
        crd::JwtAlgorithm::ES256 => document::JwtAlgorithm::ES256,
        crd::JwtAlgorithm::ES384 => document::JwtAlgorithm::ES384,
        crd::JwtAlgorithm::EdDSA => document::JwtAlgorithm::EdDSA,
    }
}
