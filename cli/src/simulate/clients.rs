//! Who sends the requests of a log, as the sidecar would see them. What the log does not say is made up.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

use tidegate_core::{Claims, Facts, Headers};
use tidegate_policy::{Claimant, KeyPart, PolicyDocument, PriorityClass, PrioritySource};

use super::log::{Request, Survey};

/// Callers who take turns when the log does not say who calls, each with an address and a key of its own. One sends as
/// many requests in a row as there are classes in the mix: one of each.
pub(crate) const CALLERS: u64 = 20;
/// When the log names no classes: one in five asks for high, one in five for low.
const MIX: [PriorityClass; 5] = [
    PriorityClass::High,
    PriorityClass::Medium,
    PriorityClass::Medium,
    PriorityClass::Medium,
    PriorityClass::Low,
];
/// Columns of claims are named so: `jwt.tier` has the claim `tier`.
const CLAIM_COLUMN: &str = "jwt.";
/// Method and path of requests where they are not known.
const METHOD: &str = "POST";
const PATH: &str = "/v1/chat/completions";

/// Knows the log as a whole, and what the policies look at.
#[derive(Debug)]
pub(crate) struct Clients<'a> {
    document: &'a PolicyDocument,
    survey: &'a Survey,
    /// Headers that limits count by.
    keyed: BTreeSet<&'a str>,
    /// Claims that limits count by.
    keyed_claims: BTreeSet<&'a str>,
    /// Columns of the log that the policies asked for.
    used: RefCell<BTreeSet<Rc<str>>>,
}

/// The sender of one request.
#[derive(Debug)]
pub(crate) struct Client<'a> {
    clients: &'a Clients<'a>,
    request: &'a Request,
    address: IpAddr,
    caller: String,
    /// The header by which it asks for its class, and the one that allows it to, when the log has neither.
    priority: Option<(String, String)>,
    claim: Option<(String, String)>,
    /// What its token says.
    token: Vec<(&'a str, Box<str>)>,
}

impl<'a> Clients<'a> {
    pub(crate) fn new(document: &'a PolicyDocument, survey: &'a Survey) -> Self {
        let parts = document.limits.iter().flat_map(|limit| &limit.key);
        let header = |part: &'a KeyPart| match part {
            KeyPart::Header(name) => Some(name.as_str()),
            _ => None,
        };
        let claim = |part: &'a KeyPart| match part {
            KeyPart::JwtClaim(claim) => Some(claim.as_str()),
            _ => None,
        };
        Self {
            document,
            survey,
            keyed: parts.clone().filter_map(header).collect(),
            keyed_claims: parts.filter_map(claim).collect(),
            used: RefCell::default(),
        }
    }

    /// The sender of request number `index`.
    pub(crate) fn sender(&'a self, index: u64, request: &'a Request) -> Client<'a> {
        let caller = request.key.as_ref().map_or(index / MIX.len() as u64 % CALLERS, |key| number(key));
        let source = self.document.priority.from.first().filter(|source| !self.has(&column(source)));
        let class = self.class(index, request).filter(|_| source.is_some());
        let asked = source.zip(class).map(|(source, class)| ask(source, class));
        let token = self.token(request, asked.as_ref(), caller);
        let claimants = &self.document.priority.high_allowed_from;
        let claimant = claimants.first().filter(|_| class == Some(PriorityClass::High));
        Client {
            clients: self,
            request,
            address: request
                .client
                .or_else(|| claimant.and_then(Claimant::block).map(|(address, _)| address))
                .unwrap_or_else(|| address(caller)),
            caller: format!("caller-{caller}"),
            priority: asked,
            claim: claimant.and_then(claim),
            token,
        }
    }

    /// The claims that policies look at: from the log, else the class that is asked for, else the caller.
    fn token(
        &self,
        request: &Request,
        asked: Option<&(String, String)>,
        caller: u64,
    ) -> Vec<(&'a str, Box<str>)> {
        let priorities = self.document.priority.from.iter().filter_map(|source| source.jwt_claim.as_deref());
        let wanted: BTreeSet<&str> = priorities.chain(self.keyed_claims.iter().copied()).collect();
        let value = |claim: &'a str| {
            let column = claim_column(claim);
            if self.has(&column) {
                let found = request.headers.iter().find(|(name, _)| **name == *column);
                return found.map(|(_, value)| value.as_str().into());
            }
            match (asked, &request.key) {
                (Some((name, value)), _) if *name == column => Some(value.as_str().into()),
                _ if !self.keyed_claims.contains(claim) => None,
                (_, Some(key)) if self.survey.keys > 0 => Some(key.as_str().into()),
                _ => Some(format!("caller-{caller}").into()),
            }
        };
        wanted.into_iter().filter_map(|claim| Some((claim, value(claim)?))).collect()
    }

    /// Columns that are neither known nor a header that the policies look at.
    pub(crate) fn unused(&self) -> Vec<String> {
        let used = self.used.borrow();
        self.survey.headers.iter().filter(|name| !used.contains(*name)).map(ToString::to_string).collect()
    }

    /// Whether the log has a column of a header.
    fn has(&self, header: &str) -> bool {
        let found = self.survey.headers.get(header);
        if let Some(name) = found
            && !self.used.borrow().contains(name)
        {
            self.used.borrow_mut().insert(Rc::clone(name));
        }
        found.is_some()
    }

    fn class(&self, index: u64, request: &Request) -> Option<PriorityClass> {
        if self.survey.priorities > 0 {
            request.priority
        } else {
            Some(MIX[(index % MIX.len() as u64) as usize])
        }
    }
}

impl Headers for Client<'_> {
    fn get(&self, name: &str) -> Option<&[u8]> {
        let named = |field: &&(String, String)| field.0 == name;
        let keyed = self.clients.keyed.contains(name);
        let text = if self.clients.has(name) {
            self.request.headers.iter().find(|(column, _)| &**column == name).map(|(_, value)| value.as_str())
        } else if let Some((_, value)) = self.priority.iter().find(named) {
            Some(value.as_str())
        } else if keyed && self.clients.survey.keys > 0 {
            // Who called is recorded, so nobody is made one who may claim high.
            self.request.key.as_deref()
        } else if let Some((_, value)) = self.claim.iter().find(named) {
            Some(value.as_str())
        } else {
            keyed.then_some(self.caller.as_str())
        };
        text.map(str::as_bytes)
    }
}

impl Claims for Client<'_> {
    fn values(&self, claim: &str) -> &[Box<str>] {
        self.token
            .iter()
            .find(|(name, _)| *name == claim)
            .map_or(&[], |(_, value)| std::slice::from_ref(value))
    }
}

impl Client<'_> {
    /// What the sidecar would know about the request.
    pub(crate) fn facts(&self) -> Facts<'_> {
        Facts {
            method: self.request.method.as_deref().unwrap_or(METHOD),
            path: self.request.path.as_deref().unwrap_or(PATH),
            client: self.address,
            headers: self,
            claims: self,
            model: None,
            service_tier: None,
            tokens: self.request.tokens(),
        }
    }

    /// What a limit counts the request by, for people.
    pub(crate) fn key(&self, parts: &[KeyPart]) -> String {
        let part = |part: &KeyPart| match part {
            KeyPart::Header(name) => {
                let value = self.get(name.as_str()).map(String::from_utf8_lossy).unwrap_or_default();
                format!("{}={value}", name.as_str())
            }
            KeyPart::JwtClaim(claim) => format!("{claim}={}", self.values(claim).join(",")),
            KeyPart::Path => self.facts().path.to_owned(),
            KeyPart::Method => self.facts().method.to_owned(),
            KeyPart::ClientIp => self.address.to_string(),
            KeyPart::Model => self.facts().model.unwrap_or_default().to_owned(),
        };
        parts.iter().map(part).collect::<Vec<_>>().join(" ")
    }
}

/// Addresses set aside for benchmarks by RFC 2544.
fn address(caller: u64) -> IpAddr {
    let [high, low] = (caller as u16).to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(198, 18, high, low))
}

/// The same number for the same key, by FNV-1a.
fn number(key: &str) -> u64 {
    key.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The column of a log that says what a source of classes says.
pub(super) fn column(source: &PrioritySource) -> String {
    match (&source.header, &source.jwt_claim) {
        (Some(header), _) => header.as_str().to_owned(),
        (None, claim) => claim_column(claim.as_deref().unwrap_or_default()),
    }
}

/// Names of columns are in lower case.
fn claim_column(claim: &str) -> String {
    format!("{CLAIM_COLUMN}{}", claim.to_ascii_lowercase())
}

/// The header or the claim by which a class is asked for, by the name of its column.
fn ask(source: &PrioritySource, class: PriorityClass) -> (String, String) {
    let mapped = source.map.iter().find(|(_, mapped)| **mapped == class).map(|(value, _)| value.clone());
    let name = match class {
        PriorityClass::High => "high",
        PriorityClass::Medium => "medium",
        PriorityClass::Low => "low",
    };
    (column(source), mapped.unwrap_or_else(|| name.to_owned()))
}

/// The header that allows a claim.
fn claim(claimant: &Claimant) -> Option<(String, String)> {
    let header = claimant.header.as_ref()?;
    Some((header.as_str().to_owned(), claimant.value.clone().unwrap_or_else(|| "yes".to_owned())))
}
