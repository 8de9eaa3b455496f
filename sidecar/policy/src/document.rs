//! The document as a whole.

use serde::{Deserialize, Serialize};

use crate::{
    Algorithm, Breaker, Claimant, GpuMemoryTier, LatencyTier, Limit, Priority, QpsTier, Tiers, Trip,
};

/// The version of the document's schema.
pub const API_VERSION: &str = "policy.tidegate.dev/v1";

/// All that one pod obeys. Two pods under the same policies get equal documents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyDocument {
    /// Always [`API_VERSION`].
    pub api_version: String,
    /// Names the content: equal revisions are equal documents.
    pub revision: String,
    /// The adaptive tiers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tiers: Option<Tiers>,
    /// Priority classes.
    #[serde(default)]
    pub priority: Priority,
    /// Limits by key, at most 64.
    #[serde(default)]
    pub limits: Vec<Limit>,
    /// The circuit breaker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<Breaker>,
}

impl Default for PolicyDocument {
    /// The document of a pod that no policy selects: everything passes.
    fn default() -> Self {
        Self {
            api_version: API_VERSION.to_owned(),
            revision: "none".to_owned(),
            tiers: None,
            priority: Priority::default(),
            limits: Vec::new(),
            breaker: None,
        }
    }
}

/// Why a document was refused: where in it, and what to write instead.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct DocumentError {
    path: String,
    message: String,
}

impl DocumentError {
    fn at(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }

    /// The place in the document, such as `limits[2].windowMillis`.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl PolicyDocument {
    /// Largest document that is read, in bytes.
    pub const MAX_BYTES: usize = 1 << 20;
    /// Most rules that one pod can be asked to judge.
    pub const MAX_LIMITS: usize = 64;

    /// Parses and validates. Errors name the place and what to write there.
    pub fn from_json(json: &[u8]) -> Result<Self, DocumentError> {
        if json.len() > Self::MAX_BYTES {
            return Err(DocumentError::at(
                "document",
                format!("{} bytes are too many: at most 1 MiB", json.len()),
            ));
        }
        let reader = &mut serde_json::Deserializer::from_slice(json);
        let document: Self = serde_path_to_error::deserialize(&mut *reader)
            .map_err(|error| DocumentError::at(error.path().to_string(), error.inner().to_string()))?;
        reader.end().map_err(|error| DocumentError::at("document", error.to_string()))?;
        document.validate()?;
        Ok(document)
    }

    /// The rules that span several fields.
    pub fn validate(&self) -> Result<(), DocumentError> {
        if self.api_version != API_VERSION {
            let message =
                format!("{:?} is not known to this version: write {API_VERSION:?}", self.api_version);
            return Err(DocumentError::at("apiVersion", message));
        }
        if let Some(tiers) = &self.tiers {
            validate_tiers(tiers)?;
        }
        for (i, claimant) in self.priority.high_allowed_from.iter().enumerate() {
            validate_claimant(claimant)
                .map_err(|m| DocumentError::at(format!("priority.highAllowedFrom[{i}]"), m))?;
        }
        if self.limits.len() > Self::MAX_LIMITS {
            let message = format!("{} rules are too many: at most {}", self.limits.len(), Self::MAX_LIMITS);
            return Err(DocumentError::at("limits", message));
        }
        for (i, limit) in self.limits.iter().enumerate() {
            validate_limit(limit).map_err(|m| DocumentError::at(format!("limits[{i}]"), m))?;
        }
        self.breaker.as_ref().map_or(Ok(()), validate_breaker)
    }
}

fn validate_tiers(tiers: &Tiers) -> Result<(), DocumentError> {
    if let Some(qps) = &tiers.qps {
        validate_qps(qps).map_err(|m| DocumentError::at("tiers.qps", m))?;
    }
    if let Some(gpu) = &tiers.gpu_memory {
        validate_gpu_memory(gpu).map_err(|m| DocumentError::at("tiers.gpuMemory", m))?;
    }
    if let Some(latency) = &tiers.latency {
        validate_latency(latency).map_err(|m| DocumentError::at("tiers.latency", m))?;
    }
    Ok(())
}

fn validate_qps(qps: &QpsTier) -> Result<(), String> {
    let samples = qps.window_millis.get() / qps.sample_interval_millis.get();
    if qps.learned.is_none() && qps.max.is_none() {
        return Err("nothing to trip at: write learned, max or both".to_owned());
    }
    if !(2..=3600).contains(&samples) {
        return Err(format!(
            "windowMillis holds {samples} samples: write a window of 2 to 3600 sample intervals"
        ));
    }
    match qps.learned {
        Some(learned) if !(2..=samples).contains(&u64::from(learned.minimum_samples)) => Err(format!(
            "learned.minimumSamples is {}: write 2 to {samples}, what the window holds",
            learned.minimum_samples
        )),
        _ => Ok(()),
    }
}

fn validate_gpu_memory(gpu: &GpuMemoryTier) -> Result<(), String> {
    match (gpu.max_utilization, gpu.max_bytes) {
        (None, None) => Err("nothing to trip at: write maxUtilization, maxBytes or both".to_owned()),
        (_, Some(0)) => Err("maxBytes is 0: write a number of bytes".to_owned()),
        _ => Ok(()),
    }
}

fn validate_latency(latency: &LatencyTier) -> Result<(), String> {
    if latency.learned.is_none() && latency.max_millis.is_none() {
        return Err("nothing to trip at: write learned, maxMillis or both".to_owned());
    }
    if !(1..=100).contains(&latency.periods) {
        return Err(format!("periods is {}: write 1 to 100", latency.periods));
    }
    if latency.minimum_samples == 0 {
        return Err("minimumSamples is 0: write 1 or more".to_owned());
    }
    match latency.learned {
        Some(learned) if !(1..=1000).contains(&learned.minimum_periods) => {
            Err(format!("learned.minimumPeriods is {}: write 1 to 1000", learned.minimum_periods))
        }
        _ => Ok(()),
    }
}

fn validate_claimant(claimant: &Claimant) -> Result<(), String> {
    if claimant.value.is_some() && claimant.header.is_none() {
        return Err("value without header: write the header that carries it".to_owned());
    }
    match &claimant.cidr {
        None if claimant.header.is_none() => Err("nobody is named: write cidr, header or both".to_owned()),
        Some(cidr) if parse_cidr(cidr).is_none() => {
            Err(format!("cidr {cidr:?} is not an address block: write one such as \"10.0.0.0/8\""))
        }
        _ => Ok(()),
    }
}

fn parse_cidr(cidr: &str) -> Option<(std::net::IpAddr, u8)> {
    let (address, length) = cidr.split_once('/')?;
    let address: std::net::IpAddr = address.parse().ok()?;
    let length: u8 = length.parse().ok()?;
    (length <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, length))
}

impl Claimant {
    /// The address block as network address and prefix length, when there is one and it is well-formed.
    pub fn block(&self) -> Option<(std::net::IpAddr, u8)> {
        self.cidr.as_deref().and_then(parse_cidr)
    }
}

fn validate_limit(limit: &Limit) -> Result<(), String> {
    if !(1..=1_000_000_000).contains(&limit.limit) {
        return Err(format!("limit is {}: write 1 to 1000000000", limit.limit));
    }
    if limit.key.len() > 8 {
        return Err(format!("key has {} parts: at most 8", limit.key.len()));
    }
    match limit.algorithm {
        Algorithm::TokenBucket { burst } if !(1..=1_000_000_000).contains(&burst) => {
            Err(format!("algorithm.tokenBucket.burst is {burst}: write 1 to 1000000000"))
        }
        Algorithm::SlidingWindow { sub_windows } if !(1..=60).contains(&sub_windows) => {
            Err(format!("algorithm.slidingWindow.subWindows is {sub_windows}: write 1 to 60"))
        }
        _ => Ok(()),
    }
}

fn validate_breaker(breaker: &Breaker) -> Result<(), DocumentError> {
    if breaker.trip == Trip::default() {
        return Err(DocumentError::at(
            "breaker.trip",
            "nothing opens this breaker: write consecutiveFailures, errorRatio or slowCallRatio",
        ));
    }
    if breaker.trip.consecutive_failures.is_some_and(|c| c.count == 0) {
        return Err(DocumentError::at(
            "breaker.trip.consecutiveFailures.count",
            "0 would never be closed: write 1 or more",
        ));
    }
    if !(1..=1000).contains(&breaker.half_open.probes) {
        let message = format!("{} is out of range: write 1 to 1000", breaker.half_open.probes);
        return Err(DocumentError::at("breaker.halfOpen.probes", message));
    }
    Ok(())
}
