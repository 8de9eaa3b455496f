//! Who refused, and whom: by rule and by route. Only refusals come here; what passes is counted by [`super::Traffic`].

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Registry;
use tidegate_core::{Answer, Cause, Refusal};

use super::bounded::Bounded;
use super::stripes::Striped;
use super::verdict::{Verdict, class_name};
use crate::route::Route;

/// Rules that are counted each for itself, those of all documents since the start together.
const MOST_RULES: usize = 512;

const CLASSES: usize = 3;
/// What a rule can make of a request: all verdicts but those that let it pass unasked.
const VERDICTS: [Verdict; 3] = [Verdict::Refused, Verdict::Fallback, Verdict::ShadowRefused];
const ROUTES: usize = Route::ALL.len();

/// Counters of refusals.
#[derive(Debug)]
pub struct Decisions {
    rules: Arc<Rules>,
    callers: Arc<Callers>,
}

#[derive(Debug)]
struct Rules {
    known: Bounded<OfRule>,
    /// Those for which there was no room.
    others: OfRule,
}

#[derive(Debug)]
struct OfRule {
    policy: String,
    rule: String,
    cause: Option<Cause>,
    counts: Striped<[[AtomicU64; CLASSES]; VERDICTS.len()]>,
}

#[derive(Debug)]
struct Callers {
    /// Addresses, as many as there may be.
    known: Bounded<(IpAddr, [AtomicU64; ROUTES])>,
    /// All others: all, unless addresses are asked for.
    others: Striped<[AtomicU64; ROUTES]>,
    /// What their label says.
    label: Option<&'static str>,
}

impl Decisions {
    /// `prefixed` and `plain` are where metrics with this project's prefix and without it go. So many addresses of
    /// clients are told apart in `rate_limited_total`.
    pub(super) fn register(prefixed: &mut Registry, plain: &mut Registry, addresses: usize) -> Self {
        let rules =
            Arc::new(Rules { known: Bounded::new(MOST_RULES), others: OfRule::new("other", "other", None) });
        let callers = Arc::new(Callers {
            known: Bounded::new(addresses),
            others: Striped::new(),
            label: (addresses > 0).then_some("other"),
        });
        prefixed.register_collector(Box::new(Exported(Arc::clone(&rules))));
        plain.register_collector(Box::new(Exported(Arc::clone(&callers))));
        Self { rules, callers }
    }

    /// A rule has refused, or would have.
    pub fn refused(&self, verdict: Verdict, refusal: &Refusal, route: Route, client: IpAddr) {
        self.rules.count(verdict, refusal);
        if verdict == Verdict::Refused && refusal.cause.answer() == Answer::TooManyRequests {
            self.callers.count(route, client.to_canonical());
        }
    }
}

impl OfRule {
    fn new(policy: &str, rule: &str, cause: Option<Cause>) -> Self {
        Self { policy: policy.to_owned(), rule: rule.to_owned(), cause, counts: Striped::new() }
    }
}

impl Rules {
    fn count(&self, verdict: Verdict, refusal: &Refusal) {
        let Some(verdict) = VERDICTS.iter().position(|known| *known == verdict) else { return };
        let (rule, cause) = (&refusal.rule, refusal.cause);
        let entry = self.known.entry(
            (&rule.policy, &rule.name, cause),
            |entry| entry.cause == Some(cause) && entry.rule == rule.name && entry.policy == rule.policy,
            || OfRule::new(&rule.policy, &rule.name, Some(cause)),
        );
        let counts = entry.unwrap_or(&self.others).counts.mine();
        counts[verdict][refusal.class as usize].fetch_add(1, Ordering::Relaxed);
    }
}

impl Callers {
    fn count(&self, route: Route, client: IpAddr) {
        let entry = self.known.entry(
            client,
            |entry| entry.0 == client,
            || (client, std::array::from_fn(|_| AtomicU64::new(0))),
        );
        let counts = entry.map_or_else(|| self.others.mine(), |entry| &entry.1);
        counts[route as usize].fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Exported<T>(Arc<T>);

impl Collector for Exported<Rules> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Requests that a rule refused, sent to the fallback, or would have refused in Shadow mode";
        let mut family = encoder.encode_descriptor("decisions", help, None, MetricType::Counter)?;
        for entry in self.0.known.iter().chain([&self.0.others]) {
            let reason = entry.cause.map_or("other", Cause::as_str);
            for (v, verdict) in VERDICTS.into_iter().enumerate() {
                for class in 0..CLASSES {
                    let count = entry.counts.sum(|counts| &counts[v][class]);
                    if count > 0 {
                        let labels = [
                            ("decision", verdict.as_str()),
                            ("policy", &entry.policy),
                            ("rule", &entry.rule),
                            ("priority", class_name(class)),
                            ("reason", reason),
                        ];
                        ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Collector for Exported<Callers> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Requests answered with 429 by a rule";
        let mut family = encoder.encode_descriptor("rate_limited", help, None, MetricType::Counter)?;
        for route in Route::ALL {
            let others = self.0.others.sum(|counts| &counts[route as usize]);
            let known = self.0.known.iter().map(|(address, counts)| {
                (Some(address.to_string()), counts[route as usize].load(Ordering::Relaxed))
            });
            let all = known.chain([(self.0.label.map(str::to_owned), others)]);
            for (client, count) in all.filter(|(_, count)| *count > 0) {
                let mut labels = vec![("route", route.as_str())];
                labels.extend(client.as_deref().map(|client| ("client_ip", client)));
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidegate_core::Rule;
    use tidegate_policy::PriorityClass;

    use super::*;

    fn refusal(rule: &str, cause: Cause) -> Refusal {
        Refusal {
            cause,
            rule: Arc::new(Rule { policy: "shop/llama".to_owned(), name: rule.to_owned() }),
            class: PriorityClass::Low,
            observed: 2.0,
            limit: 1.0,
            retry_after: Duration::from_secs(1),
        }
    }

    fn lines(registry: &Registry) -> Vec<String> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
        let mut lines: Vec<_> =
            text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
        lines.sort();
        lines
    }

    #[test]
    fn refusals_are_counted_by_rule_and_reason_and_by_route_without_addresses() {
        let (mut prefixed, mut plain) = (Registry::with_prefix("tidegate"), Registry::default());
        let decisions = Decisions::register(&mut prefixed, &mut plain, 0);
        let client = IpAddr::from([10, 0, 0, 1]);
        for cause in [Cause::Limit, Cause::Limit, Cause::Breaker] {
            decisions.refused(Verdict::Refused, &refusal("per-user", cause), Route::ChatCompletions, client);
        }
        decisions.refused(Verdict::ShadowRefused, &refusal("per-user", Cause::Limit), Route::Other, client);
        let of = |decision, reason, count| {
            format!(
                "tidegate_decisions_total{{decision=\"{decision}\",policy=\"shop/llama\",rule=\"per-user\",\
                 priority=\"low\",reason=\"{reason}\"}} {count}"
            )
        };
        let expected =
            [of("refused", "breaker-open", 1), of("refused", "limit", 2), of("shadow_refused", "limit", 1)];
        assert_eq!(lines(&prefixed), expected);
        assert_eq!(lines(&plain), [r#"rate_limited_total{route="/v1/chat/completions"} 2"#]);
    }

    #[test]
    fn a_flood_of_rules_and_of_addresses_ends_in_other() {
        let (mut prefixed, mut plain) = (Registry::with_prefix("tidegate"), Registry::default());
        let decisions = Decisions::register(&mut prefixed, &mut plain, 4);
        for i in 0..2_000_u32 {
            let client = IpAddr::from(i.to_be_bytes());
            let refusal = refusal(&format!("rule-{i}"), Cause::Limit);
            decisions.refused(Verdict::Refused, &refusal, Route::Models, client);
        }
        let count = |line: &String| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
        let rules = lines(&prefixed);
        assert!(rules.len() <= MOST_RULES + 1);
        assert_eq!(rules.iter().map(count).sum::<u64>(), 2_000);
        let callers = lines(&plain);
        assert_eq!(callers.len(), 5);
        assert_eq!(callers.iter().map(count).sum::<u64>(), 2_000);
        assert!(
            callers.contains(&r#"rate_limited_total{route="/v1/models",client_ip="other"} 1996"#.to_owned())
        );
    }
}
