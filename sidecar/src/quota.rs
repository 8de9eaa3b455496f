//! What an answer tells about the limits of its request.
//!
//! `RateLimit-Policy` and `RateLimit` as in draft-ietf-httpapi-ratelimit-headers-11, with an item for each limit, and the
//! fields of OpenAI, `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`, of the limit of which least remains.

use std::collections::hash_map::RandomState;
use std::fmt::Write as _;
use std::hash::BuildHasher as _;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use tidegate_core::{Decision, Engine, Facts, Quota, QuotaKeys, QuotaUnit, Tick};
use tidegate_policy::RateLimitHeaders;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// The fields of OpenAI for what is limited: limit, remaining and reset.
const REQUESTS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
];
const TOKENS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];

/// Hashes the keys of limits once more, by `SipHash` with a secret of its own, so that nobody can find out from a partition
/// key how limits hash theirs.
static PARTITIONS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// What to tell, asked for when the answer is there.
pub(crate) struct QuotaHeaders {
    engine: Arc<Engine>,
    keys: QuotaKeys,
}

impl QuotaHeaders {
    /// None where no answer to this request will tell anything.
    pub(crate) fn of(engine: &Arc<Engine>, facts: &Facts<'_>, decision: &Decision) -> Option<Self> {
        let tells = match engine.rate_limit_headers() {
            RateLimitHeaders::Always => true,
            RateLimitHeaders::OnRefusal => !matches!(decision, Decision::Admit(_)),
            RateLimitHeaders::Never => false,
        };
        tells.then(|| Self { engine: Arc::clone(engine), keys: engine.quota_keys(facts) })
    }

    /// Whether every answer tells, and not only a refusal.
    pub(crate) fn always(&self) -> bool {
        self.engine.rate_limit_headers() == RateLimitHeaders::Always
    }

    /// Writes what is left at `now`, in place of what the engine may have written.
    pub(crate) fn write(&self, now: Tick, headers: &mut HeaderMap) {
        let quotas: Vec<Quota<'_>> = self.engine.quotas(now, &self.keys).collect();
        if quotas.is_empty() {
            return;
        }
        let (mut policies, mut limits) = (String::new(), String::new());
        for quota in &quotas {
            let name = name(quota, &quotas);
            item(&mut policies, &name, |text| policy(text, quota));
            item(&mut limits, &name, |text| limit(text, quota));
        }
        for (name, value) in [(POLICY, policies), (LIMIT, limits)] {
            insert(headers, name, value);
        }
        for (unit, names) in [(QuotaUnit::Requests, REQUESTS), (QuotaUnit::Tokens, TOKENS)] {
            let of_unit = quotas.iter().filter(|quota| quota.unit == unit);
            if let Some(least) = of_unit.min_by_key(|quota| quota.remaining) {
                let reset = in_go(least.whole_in.unwrap_or_default());
                let values = [least.limit.to_string(), least.remaining.to_string(), reset];
                names.into_iter().zip(values).for_each(|(name, value)| insert(headers, name, value));
            }
        }
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}

/// The rule's name; where another policy has one of the same name, that of the policy too.
fn name(quota: &Quota<'_>, all: &[Quota<'_>]) -> String {
    let namesakes = all.iter().filter(|other| other.rule.name == quota.rule.name).count();
    let name = &quota.rule.name;
    if namesakes > 1 { format!("{}/{name}", quota.rule.policy) } else { name.clone() }
}

/// An item of a list (RFC 9651), named by a string.
fn item(list: &mut String, name: &str, parameters: impl FnOnce(&mut String)) {
    if !list.is_empty() {
        list.push_str(", ");
    }
    list.push('"');
    for character in name.chars() {
        match character {
            '"' | '\\' => list.extend(['\\', character]),
            ' '..='~' => list.push(character),
            // Names come from Kubernetes and are plain; those of a policy file can be anything.
            _ => list.push('?'),
        }
    }
    list.push('"');
    parameters(list);
}

fn policy(text: &mut String, quota: &Quota<'_>) {
    let _ = write!(text, ";q={}", quota.limit);
    text.push_str(match quota.unit {
        QuotaUnit::Requests => "",
        QuotaUnit::InFlight => ";qu=\"concurrent-requests\"",
        QuotaUnit::Tokens => ";qu=\"tokens\"",
    });
    // A window has whole seconds, or is not told.
    if let Some(window) = quota.window.filter(|window| window.subsec_nanos() == 0) {
        let _ = write!(text, ";w={}", window.as_secs());
    }
    partition(text, quota);
}

fn limit(text: &mut String, quota: &Quota<'_>) {
    let _ = write!(text, ";r={}", quota.remaining);
    if let Some(more) = quota.more_in {
        let _ = write!(text, ";t={}", millis(more).div_ceil(1000));
    }
    partition(text, quota);
}

fn partition(text: &mut String, quota: &Quota<'_>) {
    if let Some(key) = quota.key {
        let hash = PARTITIONS.hash_one((&quota.rule.policy, &quota.rule.name, key)).to_be_bytes();
        let _ = write!(text, ";pk=:{}:", STANDARD.encode(hash));
    }
}

fn millis(duration: Duration) -> u128 {
    duration.as_nanos().div_ceil(1_000_000)
}

/// As Go writes durations, rounded up to milliseconds: `0s`, `12ms`, `1.5s`, `6m0s`, `24h0m0s`.
fn in_go(duration: Duration) -> String {
    let millis = millis(duration);
    if (1..1000).contains(&millis) {
        return format!("{millis}ms");
    }
    let (hours, minutes) = (millis / 3_600_000, millis / 60_000 % 60);
    let mut text = String::new();
    if hours > 0 {
        let _ = write!(text, "{hours}h");
    }
    if hours > 0 || minutes > 0 {
        let _ = write!(text, "{minutes}m");
    }
    let _ = write!(text, "{}", millis / 1000 % 60);
    if !millis.is_multiple_of(1000) {
        let fraction = format!(".{:03}", millis % 1000);
        text.push_str(fraction.trim_end_matches('0'));
    }
    text + "s"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (micros, text) in [
            (0, "0s"),
            (1, "1ms"),
            (12_000, "12ms"),
            (999_001, "1s"),
            (1_500_000, "1.5s"),
            (59_060_000, "59.06s"),
            (360_000_000, "6m0s"),
            (72_345_000, "1m12.345s"),
            (86_400_000_000, "24h0m0s"),
        ] {
            assert_eq!(in_go(Duration::from_micros(micros)), text);
        }
    }

    #[test]
    fn a_name_is_a_string_of_structured_fields_whatever_is_in_it() {
        let mut list = String::new();
        item(&mut list, "per-user", |text| text.push_str(";r=1"));
        item(&mut list, "a\"b\\c\u{e9}\n", |text| text.push_str(";r=2"));
        assert_eq!(list, r#""per-user";r=1, "a\"b\\c??";r=2"#);
    }
}
