//! The project's own algorithm: it keeps the waiting out of the engine.
//!
//! It does not search for a limit by trying latencies; it asks how many requests in flight the engine has use for, and
//! moves the limit there.
//!
//! * By Little's law (Little 1961) requests whose answer has not begun wait for `pending ÷ rate` seconds, where the
//!   rate is that at which answers begin. What waits beyond the tolerated time to first token is too much, by count.
//!   This needs no answer to end: a long stream says nothing about the engine's queue and is not looked at, and an
//!   engine that hangs is seen although nothing completes.
//! * An engine that tells how many requests run and wait has use for those that run and for as many more as begin
//!   within the tolerated time, and for as many as the KV cache holds by what a request holds of it: now, or on average
//!   before, since one that has just begun holds less than it will. One that preempts has taken too many.
//!
//! The limit grows while it is used and nothing of that holds: fast until the first congestion, slowly from then on.
//! The time to first token without load is learned only where it cannot be the limit's own doing: with less than half
//! of it in flight, downwards, or at the floor, where the engine would be as slow with nobody to blame.

use tidegate_policy::{Factor, Millis, Ratio};

use super::window::Window;
use crate::Tick;

const TOLERANCE: f64 = 3.0;
const KV_CACHE: f64 = 0.9;
/// Tolerated at least beyond what is learned, in seconds: below lies the noise of batches and of the network.
const LEAST_SLACK: f64 = 0.1;
/// Below this share of the tolerated time there is room to grow.
const ROOM: f64 = 0.7;
/// Growth with each update: until the first congestion, and from then on.
const FAST: f64 = 1.25;
const SLOW: f64 = 1.02;
/// Part of the way to a lower limit that one update goes.
const STEP: f64 = 0.5;
/// Weight of the last window in the rate at which answers begin, and in what is learned.
const RATE_WEIGHT: f64 = 0.3;
const LEARN_WEIGHT: f64 = 0.1;
/// A cache that is emptier says nothing about how many requests will fill it.
const KV_KNOWN: f64 = 0.5;
/// Weight of a reading in what a request holds of the cache on average.
const SIZE_WEIGHT: f64 = 0.03;
/// What is left of the requests that run when the engine preempts.
const PREEMPTED: f64 = 0.9;

/// The algorithm.
#[derive(Debug, Clone)]
pub(super) struct Adaptive {
    target: Option<f64>,
    tolerance: f64,
    kv_cache: f64,
    /// Time to first token without load, in seconds.
    base: Option<f64>,
    /// Answers that begin in a second.
    rate: Option<f64>,
    congested_once: bool,
    preemptions: Option<u64>,
    read: Option<Tick>,
    /// Share of the KV cache that a request holds on average over its life, once the cache was half full.
    each: Option<f64>,
    /// As many as fill the KV cache.
    fit: f64,
}

/// What one way to look says.
#[derive(Debug, Clone, Copy)]
struct Verdict {
    /// Requests that the engine has use for, if there are too many.
    bound: f64,
    /// There may be more.
    room: bool,
}

impl Adaptive {
    pub(super) fn new(target: Option<Millis>, tolerance: Option<Factor>, kv_cache: Option<Ratio>) -> Self {
        Self {
            target: target.map(|target| target.duration().as_secs_f64()),
            tolerance: tolerance.map_or(TOLERANCE, Factor::get),
            kv_cache: kv_cache.map_or(KV_CACHE, Ratio::get),
            base: None,
            rate: None,
            congested_once: false,
            preemptions: None,
            read: None,
            each: None,
            fit: f64::INFINITY,
        }
    }

    pub(super) fn update(&mut self, limit: f64, floor: f64, window: &Window) -> f64 {
        let rate = window.begun as f64 / window.elapsed.as_secs_f64().max(0.001);
        let rate = self.rate.map_or(rate, |before| before + RATE_WEIGHT * (rate - before));
        self.rate = Some(rate);
        self.learn(limit, floor, window);
        let waits = self.by_waiting(limit, rate, window);
        let engine = self.by_engine(rate, window);
        let bound = waits.bound.min(engine.bound) + f64::from(window.spare);
        if bound < limit {
            self.congested_once = true;
            return limit + STEP * (bound - limit);
        }
        if !(window.used && waits.room && engine.room) {
            return limit;
        }
        let growth = if self.congested_once { SLOW } else { FAST };
        let ceiling = (self.fit + f64::from(window.spare)).max(limit);
        (limit * growth).max(limit + 0.5).min(ceiling)
    }

    /// The time to first token that is tolerated, in seconds.
    fn tolerated(&self) -> Option<f64> {
        self.target.or_else(|| self.base.map(|base| (base * self.tolerance).max(base + LEAST_SLACK)))
    }

    fn learn(&mut self, limit: f64, floor: f64, window: &Window) {
        let Some(mean) = window.mean else { return };
        let Some(base) = self.base else {
            self.base = Some(mean);
            return;
        };
        let not_our_doing = f64::from(window.peak) < limit / 2.0 || limit <= floor;
        if mean < base || not_our_doing {
            self.base = Some(base + LEARN_WEIGHT * (mean - base));
        }
    }

    /// What the requests say whose answer has not begun.
    fn by_waiting(&self, limit: f64, rate: f64, window: &Window) -> Verdict {
        let in_flight = f64::from(window.in_flight);
        let calm = Verdict { bound: f64::INFINITY, room: true };
        let Some(tolerated) = self.tolerated() else { return calm };
        let Some(pending) = window.pending else {
            return Self::by_latency(tolerated, window);
        };
        let pending = pending as f64;
        let allowed = (rate * tolerated).max(1.0);
        let slow = window.mean.is_some_and(|mean| mean > tolerated);
        let room = pending <= ROOM * allowed.max(2.0) && !slow;
        // Below half of the limit it is not the limit that makes them wait.
        if pending <= allowed || f64::from(window.peak) < limit / 2.0 {
            return Verdict { room, ..calm };
        }
        Verdict { bound: in_flight - (pending - allowed), room: false }
    }

    /// Where nobody tells when answers begin: what those that ended say.
    fn by_latency(tolerated: f64, window: &Window) -> Verdict {
        match window.mean {
            Some(mean) if mean > tolerated && window.used => {
                Verdict { bound: f64::from(window.peak) * (tolerated / mean).max(0.5), room: false }
            }
            Some(mean) => Verdict { bound: f64::INFINITY, room: mean <= ROOM * tolerated },
            None => Verdict { bound: f64::INFINITY, room: false },
        }
    }

    /// What a request holds of the KV cache. One that has just begun holds less than it will, so a batch of such is no
    /// reason to take more: what was held on average before counts where it is more.
    fn learn_size(&mut self, running: Option<f64>, usage: Option<f64>) {
        let running = running.filter(|running| *running > 0.0);
        let (Some(running), Some(usage)) = (running, usage.filter(|usage| usage.is_finite())) else { return };
        let now = usage.clamp(0.0, 1.0) / running;
        match self.each {
            Some(each) => self.each = Some(each + SIZE_WEIGHT * (now - each)),
            None if usage > KV_KNOWN => self.each = Some(now),
            None => return,
        }
        let each = self.each.map_or(now, |each| each.max(now));
        self.fit = self.kv_cache / each;
    }

    /// What the engine says. Each reading is acted on once.
    fn by_engine(&mut self, rate: f64, window: &Window) -> Verdict {
        let calm = Verdict { bound: f64::INFINITY, room: true };
        let Some(reading) = window.reading else {
            self.fit = f64::INFINITY;
            return calm;
        };
        let fresh = self.read.replace(reading.at) != Some(reading.at);
        let preempted = reading.preemptions.zip(self.preemptions).is_some_and(|(now, before)| now > before);
        self.preemptions = reading.preemptions;
        let running = reading.running.map(|running| running as f64);
        let allowed = (rate * self.tolerated().unwrap_or(1.0)).max(1.0);
        let waiting = reading.waiting.map_or(0.0, |waiting| waiting as f64);
        if fresh {
            self.learn_size(running, reading.kv_cache_usage);
        }
        let full = reading.kv_cache_usage.is_some_and(|usage| usage > self.kv_cache);
        let room = !full && !preempted && waiting <= ROOM * allowed.max(2.0);
        let (true, Some(running)) = (fresh, running) else { return Verdict { room, ..calm } };
        let mut bound = self.fit;
        if waiting > allowed {
            bound = bound.min(running + allowed);
        }
        if preempted {
            bound = bound.min(running * PREEMPTED);
        }
        Verdict { bound, room }
    }
}
