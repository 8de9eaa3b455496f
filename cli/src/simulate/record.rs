//! What was decided and how it went, in bounded memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use tidegate_core::{Cause, Refusal, Rule};
use tidegate_policy::PriorityClass;
use tidegate_policy::report::{BreakerState, Status};

use crate::refused::Refused;

/// Keys of one limit that are counted each by itself. Those that come later are counted together.
const MAX_KEYS: usize = 100_000;
/// Latencies are kept in microseconds with three significant digits.
const DIGITS: u8 = 3;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    Admitted,
    /// Admitted, because the policy that would have refused it is in `Shadow` mode.
    Shadow,
    Refused,
    /// Sent to the breaker's fallback.
    Fallback,
}

/// Requests of one verdict by one rule.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) verdict: Verdict,
    /// The rule that decided; none when all let it pass.
    pub(crate) rule: Option<(Cause, Arc<Rule>)>,
    /// High, medium, low.
    pub(crate) counts: [u64; 3],
}

/// One step of time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Point {
    /// Requests by row and class.
    pub(crate) counts: Vec<[u64; 3]>,
    /// Highest pressure, and most requests in flight.
    pub(crate) pressure: f64,
    pub(crate) in_flight: u64,
    /// Tiers that shed at some time in it.
    pub(crate) shedding: Vec<&'static str>,
    /// Whether the breaker was open or half-open at some time in it.
    pub(crate) broken: bool,
}

/// How the requests of one key fared under one limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct KeyCount {
    pub(crate) requests: u64,
    pub(crate) admitted: u64,
    /// By this limit; in `Shadow` mode those that it would have refused.
    pub(crate) refused: u64,
}

/// Keys of one limit.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    pub(crate) known: HashMap<String, KeyCount>,
    /// Those that came when [`MAX_KEYS`] were known.
    pub(crate) others: KeyCount,
}

#[derive(Debug)]
pub(crate) struct Record {
    /// Virtual time from the first arrival to the last answer.
    pub(crate) duration: Duration,
    pub(crate) requests: u64,
    pub(crate) rows: Vec<Row>,
    pub(crate) step: Duration,
    pub(crate) points: Vec<Point>,
    /// In the order of the document's limits; those without a key have none.
    pub(crate) keys: Vec<Keys>,
    /// Of every admitted request that was answered, in microseconds.
    pub(crate) first_token: Histogram<u64>,
    pub(crate) total: Histogram<u64>,
    pub(crate) timed_out: u64,
    /// Requests that the engine model can never compute.
    pub(crate) too_long: u64,
    /// How often each tier tripped.
    pub(crate) trips: BTreeMap<&'static str, u64>,
    pub(crate) breaker_opened: u64,
    /// Largest amount of GPU memory in use, and what there is.
    pub(crate) gpu: Option<(u64, u64)>,
    /// What the sidecar's status says at the end.
    pub(crate) last: Status,
}

impl Record {
    /// A record of so many steps, and of so many limits.
    pub(crate) fn new(step: Duration, steps: usize, limits: usize) -> Result<Self, Refused> {
        let histogram = || Histogram::new(DIGITS).map_err(Refused::of);
        Ok(Self {
            duration: Duration::ZERO,
            requests: 0,
            rows: Vec::new(),
            step,
            points: vec![Point::default(); steps.max(1)],
            keys: std::iter::repeat_with(Keys::default).take(limits).collect(),
            first_token: histogram()?,
            total: histogram()?,
            timed_out: 0,
            too_long: 0,
            trips: BTreeMap::new(),
            breaker_opened: 0,
            gpu: None,
            last: Status::default(),
        })
    }

    pub(crate) fn count(
        &mut self,
        at: Duration,
        verdict: Verdict,
        refusal: Option<&Refusal>,
        class: PriorityClass,
    ) {
        let row = self.row(verdict, refusal);
        let class = class_index(class);
        self.requests += 1;
        self.rows[row].counts[class] += 1;
        let index = self.step_of(at);
        let point = &mut self.points[index];
        if point.counts.len() <= row {
            point.counts.resize(row + 1, [0; 3]);
        }
        point.counts[row][class] += 1;
    }

    fn row(&mut self, verdict: Verdict, refusal: Option<&Refusal>) -> usize {
        let same = |row: &Row| {
            let rule = row.rule.as_ref().map(|(cause, rule)| (*cause, rule));
            row.verdict == verdict && rule == refusal.map(|refusal| (refusal.cause, &refusal.rule))
        };
        self.rows.iter().position(same).unwrap_or_else(|| {
            let rule = refusal.map(|refusal| (refusal.cause, Arc::clone(&refusal.rule)));
            self.rows.push(Row { verdict, rule, counts: [0; 3] });
            self.rows.len() - 1
        })
    }

    /// Counts a request for its key under limit number `limit`.
    pub(crate) fn count_key(&mut self, limit: usize, key: String, admitted: bool, refused: bool) {
        let keys = &mut self.keys[limit];
        let room = keys.known.len() < MAX_KEYS;
        let count = match keys.known.get_mut(&key) {
            Some(count) => count,
            None if room => keys.known.entry(key).or_default(),
            None => &mut keys.others,
        };
        count.requests += 1;
        count.admitted += u64::from(admitted);
        count.refused += u64::from(refused);
    }

    /// The step that an instant is in; answers that come after the last request are in the last.
    fn step_of(&self, at: Duration) -> usize {
        let index = (at.as_nanos() / self.step.as_nanos().max(1)) as usize;
        index.min(self.points.len() - 1)
    }

    /// Takes the sidecar's status of an instant.
    pub(crate) fn observe(&mut self, at: Duration, status: Status) {
        let index = self.step_of(at);
        let before = std::mem::replace(&mut self.last, status);
        let now = &self.last;
        for tier in now.tiers.iter().filter(|tier| tier.shedding) {
            let sheds_since = !before.tiers.iter().any(|old| old.tier == tier.tier && old.shedding);
            *self.trips.entry(tier.tier.as_str()).or_default() += u64::from(sheds_since);
        }
        let state = |status: &Status| status.breaker.as_ref().map(|breaker| breaker.state);
        let opened = state(now) == Some(BreakerState::Open) && state(&before) != Some(BreakerState::Open);
        self.breaker_opened += u64::from(opened);
        let point = &mut self.points[index];
        point.pressure = point.pressure.max(now.pressure);
        point.in_flight = point.in_flight.max(now.in_flight);
        point.broken |= state(now).is_some_and(|state| state != BreakerState::Closed);
        for tier in now.tiers.iter().filter(|tier| tier.shedding) {
            if !point.shedding.contains(&tier.tier.as_str()) {
                point.shedding.push(tier.tier.as_str());
            }
        }
    }

    pub(crate) fn observe_gpu(&mut self, used: u64, total: u64) {
        let (peak, _) = self.gpu.unwrap_or_default();
        self.gpu = Some((peak.max(used), total));
    }
}

/// Takes a latency.
pub(crate) fn note(histogram: &mut Histogram<u64>, latency: Duration) {
    // It grows with its values, and a latency of 500,000 years is none.
    _ = histogram.record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX >> 1));
}

const fn class_index(class: PriorityClass) -> usize {
    match class {
        PriorityClass::High => 0,
        PriorityClass::Medium => 1,
        PriorityClass::Low => 2,
    }
}
