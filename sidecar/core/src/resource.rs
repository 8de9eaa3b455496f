//! One limiter over any resource, at three levels.
//!
//! What is limited is a number of units, whatever they are units of: a request asks for so many requests, tokens, GiB
//! of GPU memory, CPU cores or GPUs at once, and [`ResourceLimiter::units`] makes one number of them, so that two
//! A100 of 20 units each are 40.0. That number has to fit three levels: what one request may ask for, what its tenant
//! may use, and what all may use together. Each of the latter two is one rule under one of the algorithms that limit
//! requests too: `Concurrency` for what is occupied and given back, a bucket or a window for what flows. All levels
//! are asked before any counts, and a refusal spends nothing.

use std::time::Duration;

use tidegate_policy::{Algorithm, Cost, Limit, Millis, Mode, Quota, ResourceLimits, Ring};

use crate::Tick;
use crate::limit::{Hasher, Hold, Key, LimitRule};

/// Units are counted in thousandths.
const THOUSAND: f64 = 1000.0;

/// An amount of any resource, to the thousandth of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Units(u32);

impl Units {
    /// So many units, rounded up. What is too much to be counted is the most that can be.
    pub fn new(units: f64) -> Self {
        Self((units * THOUSAND).ceil().clamp(0.0, f64::from(u32::MAX)) as u32)
    }

    /// As a number.
    pub fn get(self) -> f64 {
        f64::from(self.0) / THOUSAND
    }
}

/// A resource that has no units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownResource(pub String);

/// The levels of a limiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level {
    /// What one request may ask for.
    Request,
    /// What its tenant may use.
    Tenant,
    /// What all may use together.
    Global,
}

/// Why units are not given.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ResourceRefusal {
    /// The level that decides: the one with the longest wait.
    pub level: Level,
    /// Units in use there and those asked for.
    pub observed: f64,
    /// Units that may be.
    pub limit: f64,
    /// The first instant at which they would be given if nobody else asks, of `Concurrency` a lower bound;
    /// `Duration::MAX` for never.
    pub retry_after: Duration,
}

/// Units that were given.
#[derive(Debug)]
#[must_use = "units that are not released are occupied for ever"]
pub struct Lease([Option<Hold>; 2]);

/// A limiter.
#[derive(Debug)]
pub struct ResourceLimiter {
    units: Vec<(String, f64)>,
    request: Option<Units>,
    /// Tenant, then global: the narrower level first.
    levels: [Option<LimitRule>; 2],
    hasher: Hasher,
    /// What all tenants count by together.
    all: Key,
}

impl ResourceLimiter {
    /// A limiter with nothing in use. `seed` keys its hashes.
    pub fn new(limits: &ResourceLimits, seed: u64, now: Tick) -> Self {
        let rule = |quota: Option<Quota>| {
            quota.map(|quota| LimitRule::new(&in_thousandths(quota), 0, now).keyed_by_caller())
        };
        let hasher = Hasher::new(seed);
        Self {
            units: limits.units.iter().map(|(name, units)| (name.clone(), units.get())).collect(),
            request: limits.request.map(|most| Units::new(most.get())),
            levels: [rule(limits.tenant), rule(limits.global)],
            all: Key::of_bytes(None, &hasher),
            hasher,
        }
    }

    /// The units of amounts of several resources.
    pub fn units(&self, amounts: &[(&str, f64)]) -> Result<Units, UnknownResource> {
        let mut sum = 0.0;
        for (name, amount) in amounts {
            let known = self.units.iter().find(|(known, _)| known == name);
            let (_, units) = known.ok_or_else(|| UnknownResource((*name).to_owned()))?;
            sum += units * amount;
        }
        Ok(Units::new(sum))
    }

    /// Gives units to a tenant, or says what forbids it. With the level of tenants alone this is a limiter by key, and
    /// nothing else: a hash, a look-up, one compare-and-swap, and the exact instant to come again.
    #[inline]
    pub fn acquire(&self, now: Tick, tenant: &[u8], units: Units) -> Result<Lease, ResourceRefusal> {
        match &self.levels {
            [Some(rule), None] if self.request.is_none() => {
                let key = Key::of_bytes(Some(tenant), &self.hasher);
                match rule.take(now, key, units.0) {
                    Ok(receipt) => Ok(Lease([Some(Hold { rule: 0, key, receipt, cost: units.0 }), None])),
                    Err(until) => Err(self.refuse(now, 0, key, units, until)),
                }
            }
            _ => self.acquire_of_all(now, tenant, units),
        }
    }

    fn acquire_of_all(&self, now: Tick, tenant: &[u8], units: Units) -> Result<Lease, ResourceRefusal> {
        if let Some(most) = self.request.filter(|most| units > *most) {
            let (observed, limit) = (units.get(), most.get());
            return Err(ResourceRefusal {
                level: Level::Request,
                observed,
                limit,
                retry_after: Duration::MAX,
            });
        }
        let keys = [Key::of_bytes(Some(tenant), &self.hasher), self.all];
        let asked = |i: usize| {
            let rule = self.levels[i].as_ref()?;
            rule.judge(now, units.0, rule.find(keys[i])).err().map(|until| (until, i))
        };
        // Of equal waits the tenant's: it is what the tenant can do something about.
        if let Some((until, i)) = [asked(1), asked(0)].into_iter().flatten().max_by_key(|(until, _)| *until) {
            return Err(self.refuse(now, i, keys[i], units, until));
        }
        let mut lease = Lease([None, None]);
        for (i, rule) in self.levels.iter().enumerate() {
            let Some(rule) = rule else { continue };
            match rule.take(now, keys[i], units.0) {
                Ok(receipt) => {
                    lease.0[i] = Some(Hold { rule: i as u32, key: keys[i], receipt, cost: units.0 });
                }
                Err(until) => {
                    self.each(&lease, |rule, hold| rule.give_back(hold.key, hold.receipt, hold.cost));
                    return Err(self.refuse(now, i, keys[i], units, until));
                }
            }
        }
        Ok(lease)
    }

    /// Ends a lease. What was occupied is free again; of what flows, `used` is settled where it is known: more becomes
    /// debt, less is given back.
    #[allow(clippy::needless_pass_by_value)] // a lease ends here
    pub fn release(&self, now: Tick, lease: Lease, used: Option<Units>) {
        self.each(&lease, |rule, hold| rule.settle(now, hold, used.map(|used| used.0)));
    }

    fn each(&self, lease: &Lease, act: impl Fn(&LimitRule, &Hold)) {
        for hold in lease.0.iter().flatten() {
            if let Some(rule) = &self.levels[hold.rule as usize] {
                act(rule, hold);
            }
        }
    }

    #[cold]
    fn refuse(&self, now: Tick, level: usize, key: Key, units: Units, until: Tick) -> ResourceRefusal {
        let (used, limit) = self.levels[level].as_ref().map_or((0, 0), |rule| rule.load(now, key));
        ResourceRefusal {
            level: if level == 0 { Level::Tenant } else { Level::Global },
            observed: used as f64 / THOUSAND + units.get(),
            limit: limit as f64 / THOUSAND,
            retry_after: if until == Tick::NEVER { Duration::MAX } else { until.since(now) },
        }
    }
}

/// The quota as a limit that counts thousandths of units.
fn in_thousandths(quota: Quota) -> Limit {
    let thousandths = |units: u64| units.saturating_mul(1000);
    let algorithm = match quota.algorithm {
        Algorithm::TokenBucket { burst, initial } => {
            Algorithm::TokenBucket { burst: thousandths(burst), initial: initial.map(thousandths) }
        }
        Algorithm::LeakyBucket { burst, .. } => {
            Algorithm::LeakyBucket { burst: thousandths(burst), max_wait_millis: None }
        }
        // A log knows no amounts.
        Algorithm::SlidingLog => {
            let window = quota.window_millis.map_or(Duration::MAX, Millis::duration);
            let sub_windows = Ring::usual_parts(thousandths(quota.limit), window);
            Algorithm::SlidingWindow { sub_windows }
        }
        other => other,
    };
    Limit {
        policy: String::new(),
        name: String::new(),
        mode: Mode::Enforce,
        key: Vec::new(),
        algorithm,
        limit: thousandths(quota.limit),
        window_millis: quota.window_millis,
        cost: Cost::TotalTokens,
        max_keys: None,
        when: Vec::new(),
        on_exhausted: tidegate_policy::OnExhausted::EndStream,
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
