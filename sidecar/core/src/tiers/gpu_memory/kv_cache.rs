//! What the engine says of its KV cache.
//!
//! The use of the cache alone says little. A full cache without anybody waiting is an engine at its best, since it
//! keeps prefixes for later; and an engine that is read once a second can have ninety requests waiting while a
//! fifth of its cache is in use, because what they will need is not there yet. So the value is the need: the use,
//! and for every request that waits or was admitted since the reading as much as one in the batch holds on average.

use std::time::Duration;

use tidegate_policy::KvCache;

use super::{Signal, why_stale};
use crate::{EngineReading, Tick};

/// How the signal is called in the status.
pub(super) const NAME: &str = "kv-cache";
/// A limit of places goes half of the way down with each of two readings a second: after four seconds nothing of the
/// excess is left, or the limit cannot help.
const PATIENCE: Duration = Duration::from_secs(4);

/// What has gone through the pod so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Work {
    /// Requests admitted.
    pub(crate) admitted: u64,
    /// Tokens of the admitted requests, as far as anybody estimated them.
    pub(crate) tokens: u64,
    /// Requests answered with a success.
    pub(crate) succeeded: u64,
}

impl Work {
    /// Requests admitted since then. Where tokens are known, a request counts for as many average ones as it has
    /// tokens.
    fn requests_since(self, before: Self) -> f64 {
        let admitted = self.admitted.saturating_sub(before.admitted) as f64;
        let tokens = self.tokens.saturating_sub(before.tokens) as f64;
        let average = self.tokens as f64 / self.admitted.max(1) as f64;
        if average > 0.0 { tokens / average } else { admitted }
    }
}

/// Readings of the engine against a share of its cache.
#[derive(Debug, Clone)]
pub(super) struct KvCacheUse {
    /// Since when a reading is waited for.
    started: Tick,
    last: Option<Last>,
    /// Since when the tier would trip by the need.
    over: Option<Tick>,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    reading: EngineReading,
    /// The engine preempted requests since the reading before.
    preempted: bool,
    work: Work,
}

impl KvCacheUse {
    pub(super) fn new(now: Tick) -> Self {
        Self { started: now, last: None, over: None }
    }

    /// Takes a reading, unless a newer one was taken before.
    pub(super) fn observe(&mut self, reading: EngineReading, work: Work) {
        if self.last.is_some_and(|last| last.reading.at > reading.at) {
            return;
        }
        let before = self.last.and_then(|last| last.reading.preemptions);
        let preempted = reading.preemptions.zip(before).is_some_and(|(now, before)| now > before);
        self.last = Some(Last { reading, preempted, work });
    }

    /// Takes note of how long the tier would trip for already.
    pub(super) fn watch(&mut self, now: Tick, over: bool) {
        self.over = over.then(|| self.over.unwrap_or(now));
    }

    /// Whether the limit of places that goes down by the same readings may still bring the need below the ceiling. Of an
    /// engine that does not tell its preemptions nobody knows that it outlives a full cache meanwhile.
    pub(super) fn may_be_brought_back(&self, now: Tick) -> bool {
        let preempts = self.last.is_some_and(|last| last.reading.preemptions.is_some());
        preempts && self.over.is_none_or(|since| now.since(since) < PATIENCE)
    }

    pub(super) fn look(&self, now: Tick, config: KvCache, work: Work) -> Signal {
        let threshold = config.max_usage.get();
        let need = self.last.and_then(|last| last.need(work));
        Signal {
            name: NAME,
            unit: "ratio",
            value: need,
            threshold: Some(threshold),
            reserved: 0.0,
            harmless: self.last.is_none_or(|last| !last.has_too_much(work)),
            read_at: self.last.map(|last| last.reading.at),
            stale: self.why_stale(now, config),
            on_stale: config.on_stale,
            reason: self.last.zip(need).map_or_else(String::new, |(last, need)| last.reason(need, threshold)),
        }
    }

    fn why_stale(&self, now: Tick, config: KvCache) -> Option<String> {
        let read_at = self.last.map(|last| last.reading.at);
        let silent = self.last.is_some_and(|last| last.usage().is_none());
        let age = || why_stale(now, read_at, self.started, config.stale_after_millis.duration(), "engine");
        if silent { Some("the engine does not tell the use of its KV cache".to_owned()) } else { age() }
    }
}

impl Last {
    /// The use of the cache, if it is a share.
    fn usage(self) -> Option<f64> {
        self.reading.kv_cache_usage.filter(|usage| usage.is_finite()).map(|usage| usage.clamp(0.0, 1.0))
    }

    /// Share of the cache that everything needs which was admitted up to now. Over 1 when it cannot hold that.
    fn need(self, work: Work) -> Option<f64> {
        let usage = self.usage()?;
        let each = self.reading.running.map_or(0.0, |running| usage / running.max(1) as f64);
        let need = usage + each * (self.waiting() + work.requests_since(self.work));
        Some(if self.preempted { need.max(1.0) } else { need })
    }

    fn waiting(self) -> f64 {
        self.reading.waiting.unwrap_or(0) as f64
    }

    /// Whether the engine has more than it can work on, or may have: what it does not tell counts as the worst.
    fn has_too_much(self, work: Work) -> bool {
        let admitted = work.admitted > self.work.admitted && self.need(work).is_some_and(|need| need > 1.0);
        self.reading.waiting.is_none_or(|waiting| waiting > 0) || self.preempted || admitted
    }

    fn reason(self, need: f64, threshold: f64) -> String {
        let preempted = if self.preempted { ", requests preempted" } else { "" };
        format!(
            "{:.0} % of the KV cache needed ({:.0} % in use, {} requests waiting{preempted}) over the ceiling of {:.0} %",
            need * 100.0,
            self.usage().unwrap_or_default() * 100.0,
            self.waiting(),
            threshold * 100.0
        )
    }
}
