//! Who sends a request: the claims of a verified JSON Web Token, and an address.
//!
//! ```text
//!   Authorization: Bearer … ──▶ cache of the thread ──miss──▶ Issuers::verify (ring) ──▶ claims that policies name
//!                                                                │ key unknown
//!                                   remote key sets ◀── refresh ─┘ (control thread)
//! ```
//!
//! A token that is not believed is as if it were absent: the request has no claims, which gives it the default
//! class and the empty key. Nobody is refused for a bad token here, and nobody gains by one.

mod cache;
mod client_ip;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod issuers;
mod key_set;
mod refresh;
mod signature;

use std::net::IpAddr;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use tidegate_core::Claims;

pub use issuers::{Issuers, Rejection};
pub use refresh::follow;

use crate::shared::Shared;
pub(crate) use cache::Verdict;

/// What a believed token claims, as far as policies ask for it.
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
    /// None when no policy asks for any, or its token is not believed.
    pub(crate) claims: Option<Verdict>,
}

/// Who sends a request that came over a connection from `connection`.
pub(crate) fn of_request(shared: &Shared, connection: IpAddr, headers: &HeaderMap) -> Caller {
    let issuers = shared.issuers.load();
    let address = issuers.proxies.as_ref().map_or(connection, |proxies| proxies.client(connection, headers));
    let token = if issuers.is_empty() { None } else { bearer(headers) };
    Caller { address, claims: token.map(|token| cache::look_up(&issuers, token, &shared.metrics.identity)) }
}

/// The token of `Authorization: Bearer <token>` (RFC 6750).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
