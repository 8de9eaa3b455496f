//! Who sends a request: the claims of a verified JSON Web Token, or what is said of its API key, and an address.
//!
//! ```text
//!   Authorization: Bearer … ──▶ cache of the thread ──miss──▶ Issuers::verify (ring) ──▶ claims that policies name
//!                                                                │ key unknown
//!                                   remote key sets ◀── refresh ─┘ (control thread)
//!                                   mounted key sets ◀── key_set_file (every second)
//! ```
//!
//! A token that is not believed is as if it were absent: the request has no claims, which gives it the default
//! class and the empty key. Nobody is refused for a bad token here, and nobody gains by one.

mod api_keys;
mod cache;
mod client_ip;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod issuers;
mod key_set;
mod key_set_file;
mod refresh;
mod signature;

use std::net::IpAddr;
use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use tidegate_core::{Claims, NoClaims};

pub use api_keys::{ApiKeys, follow as follow_api_keys};
pub use issuers::{Issuers, Rejection};
pub use key_set_file::follow as follow_files;
pub use refresh::follow;

use crate::shared::Shared;
use api_keys::Found;
use cache::Verdict;

/// What a believed token claims, as far as policies ask for it, or what is said of an API key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Claimed(Vec<(Box<str>, Vec<Box<str>>)>);

impl Claims for Claimed {
    fn values(&self, claim: &str) -> &[Box<str>] {
        self.0.iter().find(|(name, _)| **name == *claim).map_or(&[], |(_, values)| values)
    }
}

/// Who sends a request.
pub(crate) struct Caller {
    /// Its address: that of the connection, or what trusted proxies say.
    pub(crate) address: IpAddr,
    /// None when no policy asks for any, or it is not known.
    claims: Option<Vouched>,
    /// The policy lets nobody pass who is not known, and it is not.
    pub(crate) is_refused: bool,
    /// The engine must not see the fields with API keys.
    pub(crate) strips: bool,
}

/// What is vouched for.
enum Vouched {
    Token(Verdict),
    Key(Arc<Claimed>),
}

impl Caller {
    /// What is vouched for, if anything is.
    pub(crate) fn claims(&self) -> &dyn Claims {
        match &self.claims {
            Some(Vouched::Token(verdict)) => verdict,
            Some(Vouched::Key(client)) => &**client,
            None => &NoClaims,
        }
    }
}

/// Who sends a request that came over a connection from `connection`.
pub(crate) fn of_request(shared: &Shared, connection: IpAddr, headers: &HeaderMap) -> Caller {
    let issuers = shared.issuers.load();
    let address = issuers.proxies.as_ref().map_or(connection, |proxies| proxies.client(connection, headers));
    let metrics = &shared.metrics.identity;
    let strips = issuers.api_keys.as_ref().is_some_and(|place| place.strips);
    let key = issuers.api_keys.as_ref().map(|place| place.look_up(&shared.api_keys.load(), headers));
    if let Some(Found::Known(client)) = key {
        metrics.key("known");
        return Caller { address, claims: Some(Vouched::Key(client)), is_refused: false, strips };
    }
    let token = if issuers.is_empty() { None } else { headers.get(AUTHORIZATION).and_then(bearer_of) };
    let verdict = token.map(|token| cache::look_up(&issuers, token, metrics));
    let is_believed = verdict.as_ref().is_some_and(Verdict::is_believed);
    match key {
        Some(Found::Unknown) if !is_believed => metrics.key("unknown"),
        Some(Found::None) if !is_believed => metrics.key("absent"),
        _ => {}
    }
    let is_required = issuers.api_keys.as_ref().is_some_and(|place| place.required);
    Caller { address, claims: verdict.map(Vouched::Token), is_refused: is_required && !is_believed, strips }
}

/// Takes the fields with API keys out of a request.
pub(crate) fn remove_keys(shared: &Shared, headers: &mut HeaderMap) {
    if let Some(place) = &shared.issuers.load().api_keys {
        place.remove_from(headers);
    }
}

/// The token of `Authorization: Bearer <token>` (RFC 6750).
fn bearer_of(value: &HeaderValue) -> Option<&str> {
    let value = value.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
