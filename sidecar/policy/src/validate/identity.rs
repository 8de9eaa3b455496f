//! Rules of the issuers.

use std::collections::BTreeSet;

use super::{Place, parse_cidr};
use crate::{ApiKeys, ClientIp, Identity, JwtIssuer, JwtKeys};

const MOST_ISSUERS: usize = 8;
const MOST_AUDIENCES: usize = 16;
const MOST_HEADERS: usize = 8;
const MOST_PROXIES: usize = 64;
const LONGEST_SET: usize = 64 * 1024;
/// Of a key of a `ConfigMap`.
const LONGEST_NAME: usize = 253;

pub(super) fn check(identity: &Identity, at: &mut Place<'_>) {
    if let Some(client_ip) = &identity.client_ip {
        check_client_ip(client_ip, &mut at.field("clientIp"));
    }
    if let Some(keys) = &identity.api_keys {
        check_api_keys(keys, &mut at.field("apiKeys"));
    }
    let somebody = identity.client_ip.is_some() || identity.api_keys.is_some();
    let mut at = at.field("jwt");
    let issuers = identity.jwt.len();
    if issuers > MOST_ISSUERS || (issuers == 0 && !somebody) {
        at.refuse(format!("{issuers} issuers: write 1 to {MOST_ISSUERS}, or leave identity out"));
    }
    let mut names = BTreeSet::new();
    for (i, issuer) in identity.jwt.iter().enumerate() {
        let mut at = at.item(i);
        check_issuer(issuer, &mut at);
        if !names.insert(&issuer.issuer) {
            at.field("issuer").refuse(format!("{:?} is there twice: write each issuer once", issuer.issuer));
        }
    }
}

fn check_api_keys(keys: &ApiKeys, at: &mut Place<'_>) {
    let mut at = at.field("headers");
    let headers = keys.headers.len();
    if !(1..=MOST_HEADERS).contains(&headers) {
        at.refuse(format!("{headers} headers: write 1 to {MOST_HEADERS}, or leave apiKeys out"));
    }
    for (i, name) in keys.headers.iter().enumerate() {
        if keys.headers[..i].contains(name) {
            at.item(i).refuse(format!("{:?} is there twice: write each header once", name.as_str()));
        }
    }
}

fn check_client_ip(client_ip: &ClientIp, at: &mut Place<'_>) {
    let mut at = at.field("trustedProxies");
    let proxies = client_ip.trusted_proxies.len();
    if !(1..=MOST_PROXIES).contains(&proxies) {
        at.refuse(format!("{proxies} address blocks: write 1 to {MOST_PROXIES}, or leave clientIp out"));
    }
    for (i, cidr) in client_ip.trusted_proxies.iter().enumerate() {
        if parse_cidr(cidr).is_none() {
            let message = format!("{cidr:?} is not an address block: write one such as \"10.0.0.0/8\"");
            at.item(i).refuse(message);
        }
    }
}

fn check_issuer(issuer: &JwtIssuer, at: &mut Place<'_>) {
    if issuer.issuer.is_empty() {
        at.field("issuer").refuse("\"\" is no issuer: write the iss of its tokens");
    }
    let audiences = issuer.audiences.len();
    if audiences > MOST_AUDIENCES {
        let message = format!("{audiences} audiences are too many: write at most {MOST_AUDIENCES}");
        at.field("audiences").refuse(message);
    }
    if issuer.algorithms.is_empty() {
        at.field("algorithms").refuse("[] allows no token: write those of the issuer, such as [\"RS256\"]");
    }
    check_keys(&issuer.keys, &mut at.field("keys"));
}

fn check_keys(keys: &JwtKeys, at: &mut Place<'_>) {
    match keys {
        JwtKeys::Inline(json) if json.len() > LONGEST_SET => {
            at.field("inline").refuse(format!("{} bytes are too many: at most 64 KiB", json.len()));
        }
        JwtKeys::Inline(json) => {
            let set: Option<serde_json::Value> = serde_json::from_str(json).ok();
            if set.and_then(|set| Some(set.get("keys")?.as_array()?.is_empty())) != Some(false) {
                let message =
                    "not a JSON Web Key Set: write one such as {\"keys\": [{\"kty\": \"RSA\", ...}]}";
                at.field("inline").refuse(message);
            }
        }
        // A name and no path: nothing else that a sidecar could read is ever opened.
        JwtKeys::File(name) => {
            let known = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
            if !(1..=LONGEST_NAME).contains(&name.len()) || name.starts_with('.') || !name.bytes().all(known)
            {
                let message =
                    format!("{name:?} is not the name of a file: write one such as \"issuer.json\"");
                at.field("file").refuse(message);
            }
        }
        JwtKeys::Remote { uri, .. } => {
            let host =
                uri.strip_prefix("https://").map(|rest| rest.split(['/', '?', '#']).next().unwrap_or(rest));
            if host.is_none_or(str::is_empty) || uri.contains(char::is_whitespace) {
                let message = format!("{uri:?} is not an address: write one such as \"https://issuer/keys\"");
                at.field("remote").field("uri").refuse(message);
            }
        }
    }
}
