//! Defaults that more than one field or the schema's generator asks for by name.

use crate::{
    Bytes, Decimal, Duration, FallbackOn, HeaderName, HookEvent, JwtAlgorithm, Percentage, Plan,
    PrioritySource, Reserved, SelectorOperator, StatusMatch,
};

pub(crate) fn sample_interval() -> Duration {
    "1s".into()
}

pub(crate) fn qps_window() -> Duration {
    "5m".into()
}

pub(crate) fn sigma() -> Decimal {
    Decimal::Text("2".to_owned())
}

pub(crate) fn qps_factor() -> Decimal {
    Decimal::Text("1.5".to_owned())
}

pub(crate) fn qps_floor() -> Decimal {
    Decimal::Text("10".to_owned())
}

pub(crate) fn qps_minimum_samples() -> i32 {
    60
}

pub(crate) fn qps_minimum_requests() -> i32 {
    10
}

pub(crate) fn growth_per_hour() -> Percentage {
    "50%".into()
}

pub(crate) fn plateau_stable_for() -> Duration {
    "1m".into()
}

pub(crate) fn plateau_growth() -> Percentage {
    "50%".into()
}

pub(crate) fn kv_cache_max_usage() -> Percentage {
    "90%".into()
}

pub(crate) fn kv_cache_stale_after() -> Duration {
    "5s".into()
}

pub(crate) fn stale_after() -> Duration {
    "10s".into()
}

pub(crate) fn percentile() -> Decimal {
    Decimal::Text("99".to_owned())
}

pub(crate) fn period() -> Duration {
    "10s".into()
}

pub(crate) fn periods() -> i32 {
    3
}

pub(crate) fn latency_minimum_samples() -> i32 {
    100
}

pub(crate) fn latency_factor() -> Decimal {
    Decimal::Text("1.8".to_owned())
}

pub(crate) fn minimum_periods() -> i32 {
    6
}

pub(crate) fn recovery_below() -> Percentage {
    "90%".into()
}

pub(crate) fn recovery_hold() -> Duration {
    "10s".into()
}

pub(crate) fn recovery_ramp() -> Duration {
    "5s".into()
}

pub(crate) fn priority_sources() -> Vec<PrioritySource> {
    let header = Some(HeaderName::from("X-Priority"));
    vec![PrioritySource { header, ..PrioritySource::default() }]
}

pub(crate) fn reserved() -> Reserved {
    Reserved { high: reserved_high() }
}

pub(crate) fn reserved_high() -> Percentage {
    "20%".into()
}

pub(crate) fn trip_threshold() -> Percentage {
    "50%".into()
}

pub(crate) fn slow_threshold() -> Percentage {
    "30%".into()
}

pub(crate) fn slower_than() -> Duration {
    "1s".into()
}

pub(crate) fn minimum_requests() -> i32 {
    20
}

pub(crate) fn open_duration() -> Duration {
    "60s".into()
}

pub(crate) fn probes() -> i32 {
    1
}

pub(crate) fn api_key_headers() -> Vec<HeaderName> {
    ["Authorization", "x-api-key", "api-key"].map(HeaderName::from).into()
}

pub(crate) fn jwt_algorithms() -> Vec<JwtAlgorithm> {
    vec![JwtAlgorithm::RS256, JwtAlgorithm::ES256, JwtAlgorithm::EdDSA]
}

pub(crate) fn failure_statuses() -> Vec<StatusMatch> {
    vec!["5xx".into()]
}

pub(crate) fn backpressure_statuses() -> Vec<StatusMatch> {
    vec!["429".into(), "503".into()]
}

pub(crate) fn trip_percentile() -> Decimal {
    Decimal::Text("95".to_owned())
}

pub(crate) fn trip_latency() -> Duration {
    "800ms".into()
}

pub(crate) fn stage_percentile() -> Decimal {
    Decimal::Text("99".to_owned())
}

pub(crate) fn stage_window() -> Duration {
    "30s".into()
}

pub(crate) fn out_of_memory_count() -> i32 {
    3
}

pub(crate) fn out_of_memory_window() -> Duration {
    "5m".into()
}

pub(crate) fn trip_in_flight() -> i32 {
    200
}

pub(crate) fn groups() -> i32 {
    64
}

pub(crate) fn concurrency_initial() -> i32 {
    20
}

pub(crate) fn concurrency_min() -> i32 {
    4
}

pub(crate) fn concurrency_max() -> i32 {
    1000
}

pub(crate) fn when_operator() -> SelectorOperator {
    SelectorOperator::In
}

pub(crate) fn plan_window() -> Duration {
    "1s".into()
}

pub(crate) fn plans() -> Vec<Plan> {
    let plan = |name: &str, limit, burst| Plan {
        name: name.to_owned(),
        limit,
        window: plan_window(),
        burst: Some(burst),
    };
    vec![plan("platinum", 5000, 2000), plan("gold", 1000, 500), plan("silver", 200, 100)]
}

pub(crate) fn fallback_on() -> Vec<FallbackOn> {
    vec![FallbackOn::Open]
}

pub(crate) fn static_status() -> i32 {
    200
}

pub(crate) fn content_type() -> String {
    "application/json".to_owned()
}

pub(crate) fn cache_ttl() -> Duration {
    "5m".into()
}

pub(crate) fn cache_entries() -> i32 {
    1000
}

pub(crate) fn cache_bytes() -> Bytes {
    "16Mi".into()
}

pub(crate) fn hook_events() -> Vec<HookEvent> {
    vec![HookEvent::Opened]
}
