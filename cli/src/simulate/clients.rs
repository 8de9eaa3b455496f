//! Who sends the requests of a trace. Traces do not say, so callers take turns and claim what the policy lets
//! them claim.

use std::net::{IpAddr, Ipv4Addr};

use tidegate_core::{Facts, Headers, Tokens};
use tidegate_policy::{Claimant, Priority, PriorityClass, PrioritySource};

/// Callers, each with an address of its own and its own value in every header that is asked for.
const CALLERS: usize = 20;

/// The header fields of one request.
#[derive(Debug)]
pub(crate) struct Client {
    address: IpAddr,
    name: String,
    priority: Option<(String, String)>,
    claim: Option<(String, String)>,
}

impl Headers for Client {
    fn get(&self, name: &str) -> Option<&[u8]> {
        let named = |field: &&(String, String)| field.0 == name;
        let special = self.priority.iter().chain(&self.claim).find(named);
        Some(special.map_or(self.name.as_bytes(), |(_, value)| value.as_bytes()))
    }
}

impl Client {
    /// The sender of request number `index`, which asks for a class.
    pub(crate) fn new(index: usize, class: PriorityClass, priority: &Priority) -> Self {
        let caller = index % CALLERS;
        let claimant = priority.high_allowed_from.first().filter(|_| class == PriorityClass::High);
        let own = IpAddr::V4(Ipv4Addr::new(192, 0, 2, u8::try_from(caller).unwrap_or_default()));
        Self {
            address: claimant.and_then(Claimant::block).map_or(own, |(address, _)| address),
            name: format!("caller-{caller}"),
            priority: priority.from.first().map(|source| ask(source, class)),
            claim: claimant.and_then(|claimant| {
                let header = claimant.header.as_ref()?;
                Some((header.as_str().to_owned(), claimant.value.clone().unwrap_or_else(|| "yes".to_owned())))
            }),
        }
    }

    /// What the sidecar would know about its request.
    pub(crate) fn facts(&self) -> Facts<'_> {
        Facts {
            method: "POST",
            path: "/v1/chat/completions",
            client: self.address,
            headers: self,
            tokens: Tokens::default(),
        }
    }
}

/// The header by which a class is asked for.
fn ask(source: &PrioritySource, class: PriorityClass) -> (String, String) {
    let mapped = source.map.iter().find(|(_, mapped)| **mapped == class).map(|(value, _)| value.clone());
    let name = match class {
        PriorityClass::High => "high",
        PriorityClass::Medium => "medium",
        PriorityClass::Low => "low",
    };
    (source.header.as_str().to_owned(), mapped.unwrap_or_else(|| name.to_owned()))
}
