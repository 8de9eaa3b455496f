//! A flood of keys: memory, and the budgets of those who were there before.

use tidegate_core::{Decision, Engine, Tick};

use crate::figure::Figure;
use crate::traffic::{Request, engine};

/// Ten requests a day for each key, so that no budget comes back during the flood.
const POLICY: &str = r#"{"apiVersion":"policy.tidegate.dev/v1","revision":"bench","limitMemoryBytes":268435456,"limits":[
    {"policy":"n/p","name":"per-user","mode":"Enforce","key":[{"header":"x-api-key"}],"maxKeys":1048576,
      "algorithm":{"tokenBucket":{"burst":10}},"limit":10,"windowMillis":86400000}],
  "priority":{"from":[],"default":"Medium","highAllowedFrom":[]}}"#;
const CAP: u32 = 1_000_000;
const FLOOD: u32 = 10_000_000;
const RESIDENTS: u32 = 10_000;
const BUDGET: u32 = 10;

pub(crate) fn run() -> Vec<Figure> {
    let engine = engine(POLICY);
    let now = Tick::from_nanos(1_000_000_000);
    let empty = resident_bytes();
    for resident in 0..RESIDENTS {
        let spent = (0..spends(resident)).filter(|_| passes(&engine, now, resident)).count();
        assert_eq!(spent as u32, spends(resident), "a resident is refused before the flood");
    }
    flood(&engine, now, RESIDENTS..2 * CAP);
    let full = resident_bytes();
    let keys: u64 = engine.snapshot(now).limits.iter().map(|limit| limit.keys).sum();
    flood(&engine, now, 2 * CAP..FLOOD);
    let flooded = resident_bytes();
    let wrong = (0..RESIDENTS).filter(|resident| {
        let left = (0..=BUDGET).take_while(|_| passes(&engine, now, *resident)).count() as u32;
        left != BUDGET - spends(*resident)
    });
    let per_key = (full - empty) / keys.max(1) as f64;
    vec![
        Figure::new("flood of 10^7 keys: keys that are known", keys as f64, "keys").at_least(f64::from(CAP)),
        Figure::new("flood of 10^7 keys: memory of a known key", per_key, "bytes").at_most(64.0),
        Figure::new("flood of 10^7 keys: memory after / at the cap", flooded / full, "ratio").at_most(1.01),
        Figure::new("flood of 10^7 keys: residents judged otherwise", wrong.count() as f64, "keys")
            .at_most(0.0),
    ]
}

/// At least one: a key that has spent nothing is not known.
fn spends(resident: u32) -> u32 {
    1 + resident % (BUDGET - 1)
}

fn flood(engine: &Engine, now: Tick, callers: std::ops::Range<u32>) {
    for caller in callers {
        if caller % 1000 == 0 {
            engine.tick(now);
        }
        passes(engine, now, caller);
    }
}

fn passes(engine: &Engine, now: Tick, caller: u32) -> bool {
    matches!(engine.admit(now, &Request::of(caller).facts()), Decision::Admit(_))
}

/// Memory of this process, by `/proc/self/statm`.
fn resident_bytes() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(f64::NAN);
    pages * rustix::param::page_size() as f64
}
