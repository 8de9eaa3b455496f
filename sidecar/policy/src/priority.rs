//! Priority classes, who asks for one and who may have it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{HeaderName, Ratio};

/// The class of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PriorityClass {
    /// Refused as soon as a tier trips.
    Low,
    /// Slowed down with the pressure.
    Medium,
    /// The guaranteed channel.
    High,
}

/// How a request gets its class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Priority {
    /// Asked in order; the first that gives a class wins.
    pub from: Vec<PrioritySource>,
    /// The class of a request that no source knows.
    pub default: PriorityClass,
    /// Share of the admitted rate that only high may use while a tier is tripped; none when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved_high: Option<Ratio>,
    /// Who may claim a class above `default` by a header. Anybody else's claim of one is treated as `default`.
    pub high_allowed_from: Vec<Claimant>,
    /// The engine does not get to see the headers that are asked for a class.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strip_headers: bool,
}

impl Default for Priority {
    /// `X-Priority` may ask for a lower class, medium is the default, nobody may claim high.
    fn default() -> Self {
        let header = HeaderName::new("x-priority").ok();
        Self {
            from: vec![PrioritySource { header, ..PrioritySource::default() }],
            default: PriorityClass::Medium,
            reserved_high: Ratio::new(0.2).ok(),
            high_allowed_from: Vec::new(),
            strip_headers: false,
        }
    }
}

/// A header, a claim or a service tier that names a class; exactly one is set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PrioritySource {
    /// The header field. Anybody can write it, so a class above `default` is given only to those who may claim it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<HeaderName>,
    /// The claim of a verified token. Its issuer vouches for it, so it may give `High` too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt_claim: Option<String>,
    /// The `service_tier` that an OpenAI client writes into the body. Anybody can write it, so it is as a header.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub service_tier: bool,
    /// Its values and their classes. Empty: `high`, `medium` and `low` in any letter case; of a service tier `flex` is
    /// `Low`, `default` `Medium` and `priority` `High`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub map: BTreeMap<String, PriorityClass>,
    /// Its values are whole numbers. Excludes `map`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<Number>,
}

/// What class a number stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Number {
    /// Which of two numbers goes first.
    pub better: Better,
    /// This one and better ones are `High`. Absent: none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high: Option<i32>,
    /// This one and better ones are at least `Medium`; worse ones `Low`.
    pub medium: i32,
}

/// Which of two numbers goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Better {
    /// The lower one, as in the scheduler of vLLM.
    Lower,
    /// The higher one, as in Kubernetes' priority classes.
    Higher,
}

/// One who may claim `High`. All that is set has to match; at least one field is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Claimant {
    /// Address block of the client, such as `10.0.0.0/8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cidr: Option<String>,
    /// Name of a header that must carry `value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<HeaderName>,
    /// The exact value of `header`; any value when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

impl Claimant {
    /// The address block as network address and prefix length, when there is one and it is well-formed.
    pub fn block(&self) -> Option<(std::net::IpAddr, u8)> {
        self.cidr.as_deref().and_then(crate::validate::parse_cidr)
    }
}
