//! Requests for the tests of this crate.

use std::net::IpAddr;

use crate::{Claims, Facts, Headers, Tokens};

/// A request under construction.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    path: String,
    client: IpAddr,
    headers: Fields,
    claims: Claimed,
    tokens: Tokens,
    service_tier: Option<String>,
}

#[derive(Debug, Clone, Default)]
struct Claimed(Vec<(String, Vec<Box<str>>)>);

impl Claims for Claimed {
    fn values(&self, claim: &str) -> &[Box<str>] {
        self.0.iter().find(|(name, _)| name == claim).map_or(&[], |(_, values)| values)
    }
}

#[derive(Debug, Clone, Default)]
struct Fields(Vec<(String, String)>);

impl Headers for Fields {
    fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_bytes())
    }
}

impl Request {
    pub(crate) fn from(client: &str) -> Self {
        Self {
            path: "/v1/chat/completions".to_owned(),
            client: client.parse().unwrap(),
            headers: Fields::default(),
            claims: Claimed::default(),
            tokens: Tokens::default(),
            service_tier: None,
        }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.0.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn claiming(mut self, claim: &str, values: &[&str]) -> Self {
        self.claims.0.push((claim.to_owned(), values.iter().map(|value| Box::from(*value)).collect()));
        self
    }

    pub(crate) fn estimated(mut self, tokens: Tokens) -> Self {
        self.tokens = tokens;
        self
    }

    pub(crate) fn of_tier(mut self, tier: &str) -> Self {
        self.service_tier = Some(tier.to_owned());
        self
    }

    pub(crate) fn priority(class: &str) -> Self {
        Self::from("10.0.0.1").with("x-priority", class)
    }

    pub(crate) fn facts(&self) -> Facts<'_> {
        Facts {
            method: "POST",
            path: &self.path,
            client: self.client,
            headers: &self.headers,
            claims: &self.claims,
            model: None,
            service_tier: self.service_tier.as_deref(),
            tokens: self.tokens,
        }
    }
}
