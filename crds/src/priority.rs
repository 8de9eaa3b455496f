//! Priority classes, who asks for one and who may have it.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{HeaderName, Percentage, defaults};

/// How a request gets its priority.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Priority {
    /// Asked in order; the first that gives a class wins.
    #[serde(default = "defaults::priority_sources")]
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub from: Vec<PrioritySource>,
    /// The class of a request that no source knows.
    #[serde(default)]
    pub default: PriorityClass,
    /// What is kept for a class while a tier is tripped.
    #[serde(default = "defaults::reserved")]
    pub reserved: Reserved,
    /// Who may claim a class above `default` by a header; anybody else's claim of one is treated as `default`. Empty:
    /// nobody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub high_allowed_from: Vec<Claimant>,
    /// Whether the headers of `from` are kept from the engine.
    #[serde(default)]
    pub strip_headers: StripHeaders,
}

/// Whether the engine sees what clients ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum StripHeaders {
    /// The headers that are asked for a class go on to the engine.
    #[default]
    Disabled,
    /// They do not.
    Enabled,
}

/// The class of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum PriorityClass {
    /// The guaranteed channel.
    High,
    /// Slowed down with the pressure.
    #[default]
    Medium,
    /// Refused as soon as a tier trips.
    Low,
}

/// A header or a claim that names a class.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "[has(self.header), has(self.jwtClaim), has(self.source)].filter(named, named).size() == 1"
).message(PrioritySource::EXACTLY_ONE))]
#[x_kube(validation = Rule::new("!has(self.number) || !has(self.source)").message(PrioritySource::NO_NUMBER))]
#[x_kube(validation = Rule::new(
    "!has(self.number) || !has(self.map) || size(self.map) == 0"
).message(PrioritySource::NUMBER_OR_MAP))]
pub struct PrioritySource {
    /// The header field. Anybody can write it, so a class above `default` is given only to those in `highAllowedFrom`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub header: Option<HeaderName>,
    /// The claim of a token that `identity` believes; of a list the first value that is known. A name that begins
    /// with a slash is a JSON Pointer into nested claims. It may give `High`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub jwt_claim: Option<String>,
    /// What else of the request. Anybody can write it, so it is as a header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<PriorityFrom>,
    /// Its values and their classes. Without a map: `high`, `medium` and `low` in any letter case; of `ServiceTier`
    /// `flex` is `Low`, `default` is `Medium` and `priority` is `High`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub map: BTreeMap<String, PriorityClass>,
    /// Its values are whole numbers. Excludes `map`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<PriorityNumber>,
}

/// A property of a request other than a header or a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PriorityFrom {
    /// `service_tier` in the begin of its body, as clients of OpenAI write it.
    ServiceTier,
}

/// What class a whole number stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "!has(self.high) || (self.better == 'Lower' ? self.high <= self.medium : self.high >= self.medium)"
).message(PriorityNumber::ORDER))]
pub struct PriorityNumber {
    /// Which of two numbers goes first: the lower one, as in vLLM, or the higher one, as in Kubernetes.
    #[serde(default)]
    pub better: Better,
    /// This number and better ones are `High`; when left out none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1_000_000_000, max = 1_000_000_000))]
    pub high: Option<i32>,
    /// This number and better ones are at least `Medium`; worse ones are `Low`.
    #[schemars(range(min = -1_000_000_000, max = 1_000_000_000))]
    pub medium: i32,
}

impl PriorityNumber {
    /// What is said about bounds in the wrong order.
    pub const ORDER: &str = "high is worse than medium: write for high the same number, or a better one";
}

/// Which of two numbers goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Better {
    /// The lower one.
    #[default]
    Lower,
    /// The higher one.
    Higher,
}

impl PrioritySource {
    /// What is said about values that are numbers and names.
    pub const NUMBER_OR_MAP: &str = "values are numbers or names: write either number or map";
    /// What is said about a source that is both or neither.
    pub const EXACTLY_ONE: &str = "a class comes from one thing: write either header: X-Priority, or jwtClaim: tier, or source: ServiceTier";
    /// What is said about numbers where there are none.
    pub const NO_NUMBER: &str =
        "a service tier is no number: write map, or nothing for flex, default and priority";
}

/// What is kept for a class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reserved {
    /// Share of the admitted rate that only `High` may use while a tier is tripped, below 100%; `0%` keeps nothing.
    #[serde(default = "defaults::reserved_high")]
    #[x_kube(validation = Rule::new("self != '100%'").message(Reserved::ALL))]
    pub high: Percentage,
}

impl Reserved {
    /// What is said about a reserve that leaves nothing.
    pub const ALL: &str =
        "100% leaves medium nothing while a tier is tripped: write a share below it, such as 20%";
}

/// One who may claim `High`. All that is written has to match.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.cidr) || has(self.header)").message(Claimant::NOBODY))]
pub struct Claimant {
    /// Address block of the client, such as `10.0.0.0/8` or `fd00::/8`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 43))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9A-Fa-f:.]{2,39}/[0-9]{1,3}$')").message(Claimant::BLOCK))]
    pub cidr: Option<String>,
    /// A header that the request must carry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<ClaimedHeader>,
}

impl Claimant {
    /// What is said about a text that is no address block.
    pub const BLOCK: &str = "not an address block: write one such as 10.0.0.0/8 or fd00::/8";
    /// What is said about an entry that names nobody.
    pub const NOBODY: &str =
        "nobody is named: write cidr: 10.0.0.0/8, header: {name: x-team, value: search}, or both";
}

/// A header with its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimedHeader {
    /// The header field.
    pub name: HeaderName,
    /// Its exact value; any value when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub value: Option<String>,
}
