//! What is sent when: a schedule that does not depend on the answers.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_policy::PriorityClass;

use crate::trace::Entry;

/// One request that will be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// When, since the start of the load.
    pub at: Duration,
    /// Size of its prompt.
    pub prompt_tokens: u32,
    /// Tokens it asks for.
    pub output_tokens: u32,
    /// The class it claims; no header when absent.
    pub class: Option<PriorityClass>,
    /// Its API key; no header when absent.
    pub key: Option<String>,
}

/// Shares of the classes; they are relative to their sum.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Mix {
    /// Share of low.
    pub low: f64,
    /// Share of medium.
    pub medium: f64,
    /// Share of high.
    pub high: f64,
}

impl Default for Mix {
    fn default() -> Self {
        Self { low: 30.0, medium: 50.0, high: 20.0 }
    }
}

impl Mix {
    /// The class of the `n`-th request: spread evenly (an additive recurrence by the golden ratio), so that any
    /// stretch of the plan has about the shares of the whole, and equal plans are equal.
    pub fn class(&self, n: usize) -> PriorityClass {
        let at = (n as f64 * 0.618_033_988_749_894_9).fract() * (self.low + self.medium + self.high);
        if at < self.low {
            PriorityClass::Low
        } else if at < self.low + self.medium {
            PriorityClass::Medium
        } else {
            PriorityClass::High
        }
    }
}

impl std::str::FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is not a mix: write three shares such as \"low=30,medium=50,high=20\"");
        let mut mix = Self { low: 0.0, medium: 0.0, high: 0.0 };
        for part in text.split(',') {
            let (class, share) = part.split_once('=').ok_or_else(wrong)?;
            let share: f64 = share.trim().parse().map_err(|_| wrong())?;
            match class.trim() {
                "low" => mix.low = share,
                "medium" => mix.medium = share,
                "high" => mix.high = share,
                _ => return Err(wrong()),
            }
            if !(0.0..=1e6).contains(&share) {
                return Err(wrong());
            }
        }
        if mix.low + mix.medium + mix.high > 0.0 { Ok(mix) } else { Err(wrong()) }
    }
}

/// `rate` requests per second, evenly spaced, for `duration`.
pub fn constant(
    rate: f64,
    duration: Duration,
    mix: Mix,
    prompt_tokens: u32,
    output_tokens: u32,
) -> Vec<Planned> {
    let requests = (rate * duration.as_secs_f64()).floor() as usize;
    (0..requests)
        .map(|n| Planned {
            at: Duration::from_secs_f64(n as f64 / rate),
            prompt_tokens,
            output_tokens,
            class: Some(mix.class(n)),
            key: None,
        })
        .collect()
}

/// Replays as much of the trace as a load of `duration` needs: its gaps are divided by the rate that is wanted at
/// that time (requests per second by seconds since the start) over the trace's own mean rate, so that the arrivals
/// keep their burstiness. A trace that is too short begins again.
pub fn replay(trace: &[Entry], duration: Duration, rate: impl Fn(f64) -> f64, mix: Mix) -> Vec<Planned> {
    let Some(end) = trace.last().map(|last| last.at.as_secs_f64()).filter(|end| *end > 0.0) else {
        return Vec::new();
    };
    let mean_rate = trace.len() as f64 / end;
    let mut planned = Vec::new();
    let (mut at, mut previous) = (0.0, 0.0);
    for entry in trace.iter().cycle() {
        let own = entry.at.as_secs_f64();
        at += (own - previous).max(0.0) * mean_rate / rate(at).max(1e-3);
        previous = own;
        if at >= duration.as_secs_f64() {
            break;
        }
        planned.push(Planned {
            at: Duration::from_secs_f64(at),
            prompt_tokens: entry.prompt_tokens,
            output_tokens: entry.output_tokens,
            class: Some(mix.class(planned.len())),
            key: None,
        });
    }
    planned
}

/// Gives the requests `keys` API keys in turn: `key-0`, `key-1`, ….
pub fn with_keys(mut plan: Vec<Planned>, keys: usize) -> Vec<Planned> {
    for (n, planned) in plan.iter_mut().enumerate() {
        planned.key = Some(format!("key-{}", n % keys.max(1)));
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_hundred_requests_have_the_shares_of_the_mix() {
        let mix = Mix::default();
        for start in [0, 137, 5000] {
            let low = (start..start + 100).filter(|n| mix.class(*n) == PriorityClass::Low).count();
            let high = (start..start + 100).filter(|n| mix.class(*n) == PriorityClass::High).count();
            assert!((28..=32).contains(&low) && (18..=22).contains(&high), "{low} low, {high} high");
        }
    }

    #[test]
    fn a_constant_rate_is_evenly_spaced() {
        let plan = constant(100.0, Duration::from_secs(3), Mix::default(), 10, 5);
        assert_eq!(plan.len(), 300);
        assert_eq!(plan[150].at, Duration::from_millis(1500));
    }

    #[test]
    fn a_replay_rises_from_one_rate_to_the_other() {
        let hour = crate::trace::synthetic::generate(3, Duration::from_hours(1));
        let rising = |seconds| 50.0 + 5.0 * seconds;
        let replay = super::replay(&hour, Duration::from_secs(20), rising, Mix::default());
        let before =
            |second| replay.iter().filter(|planned| planned.at < Duration::from_secs(second)).count();
        assert!((1500..2600).contains(&replay.len()), "{} requests", replay.len());
        assert!(replay.len() - before(10) > before(10) * 5 / 4, "the second half is denser");
        assert!(replay.is_sorted_by_key(|planned| planned.at));
    }

    #[test]
    fn a_wrong_mix_is_answered_with_a_right_one() {
        assert!("low=1,high".parse::<Mix>().unwrap_err().contains("write three shares"));
        assert_eq!("high=1".parse::<Mix>().unwrap().class(3), PriorityClass::High);
    }
}
