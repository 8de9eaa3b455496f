//! The QPS and the latency tier in front of a real pod.

use std::time::Duration;

use serde_json::json;
use tidegate_crds::{RateLimitPolicy, TierCounts};
use tidegate_e2e::harness::{Client, Engine, Lab, PATIENCE, Traffic, engine_url, eventually, in_namespace};
use tidegate_policy::report::{Status, TierName, TierState, TierStatus};

fn tier(status: &Status, name: TierName) -> Option<&TierStatus> {
    status.tiers.iter().find(|tier| tier.tier == name)
}

fn is(status: &Status, name: TierName, state: TierState) -> bool {
    tier(status, name).is_some_and(|tier| tier.state == state)
}

/// Waits until the operator counts so many pods with a tripped tier.
async fn until_counted(lab: &Lab, expected: TierCounts) -> anyhow::Result<()> {
    let policies = lab.api::<RateLimitPolicy>();
    eventually("the tripped tiers in the policy's status", PATIENCE, async || {
        let status = policies.get("tiers").await.map_err(|error| error.to_string())?.status;
        let counts = status.map(|status| status.tiers_tripped);
        if counts == Some(expected) { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await
}

/// The claim of `high` is believed from everywhere.
const ANYBODY_MAY_BE_HIGH: &str = "priority: {highAllowedFrom: [{cidr: 0.0.0.0/0}]}";

async fn mixed(
    lab: &Lab,
    url: &str,
    rate: f64,
    seconds: u64,
) -> anyhow::Result<tidegate_e2e::harness::Tally> {
    let client = |priority| Client { priority, rate: rate / 3.0 };
    let clients = [client("low"), client("medium"), client("high")];
    let tally = Traffic::run(url, &clients, Duration::from_secs(seconds)).await?;
    anyhow::ensure!(tally.lost.is_empty(), "{}: lost {:?}", lab.namespace, tally.lost);
    Ok(tally)
}

#[tokio::test]
async fn the_qps_tier_refuses_low_slows_medium_passes_high_and_recovers() -> anyhow::Result<()> {
    in_namespace(async |lab| {
        lab.apply(&format!(
            "{{apiVersion: tidegate.dev/v1alpha1, kind: RateLimitPolicy, metadata: {{name: tiers}}, spec: {{
               tiers: {{qps: {{max: \"30\"}}, recovery: {{below: 90%, hold: 8s}}}}, {ANYBODY_MAY_BE_HIGH}}}}}"
        ))
        .await?;
        let pods = lab.engine(&Engine::new("llama")).await?;
        lab.until_programmed(&pods[0]).await?;
        let url = format!("{}/v1/completions", engine_url(&pods[0])?);
        let calm = mixed(lab, &url, 6.0, 3).await?;
        assert_eq!(calm.of("low", 429) + calm.of("medium", 429) + calm.of("high", 429), 0, "{calm:?}");
        let storm = mixed(lab, &url, 90.0, 6).await?;
        println!("{storm:?}");
        assert!(storm.share("low", 429) > 0.7, "low is refused: {storm:?}");
        assert!(storm.share("medium", 429) > 0.1, "medium is slowed: {storm:?}");
        assert!(storm.of("medium", 200) > 0, "medium is not stopped: {storm:?}");
        assert_eq!(storm.of("high", 200), storm.all("high"), "high passes: {storm:?}");
        let tripped = lab.status(&pods[0]).await?;
        let qps = tier(&tripped, TierName::Qps).expect("the tier");
        assert!(qps.shedding && qps.recovery_countdown_millis.is_some(), "{qps:?}");
        assert!(qps.last_trigger_reason.as_deref().is_some_and(|reason| reason.contains("30")), "{qps:?}");
        lab.until(&pods[0], "recovery of the QPS tier", |status| {
            is(status, TierName::Qps, TierState::Normal)
        })
        .await?;
        assert_eq!(lab.complete(&pods[0], &[("x-priority", "low")]).await?.status, 200);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_latency_tier_trips_after_three_bad_periods_and_recovers() -> anyhow::Result<()> {
    in_namespace(async |lab| {
        lab.apply(
            "{apiVersion: tidegate.dev/v1alpha1, kind: RateLimitPolicy, metadata: {name: tiers}, spec: {
               tiers: {latency: {signal: TotalLatency, period: 2s, periods: 3, minimumSamples: 5, max: 300ms},
                       recovery: {below: 90%, hold: 3s}}}}",
        )
        .await?;
        let pods = lab.engine(&Engine::new("llama")).await?;
        let pod = &pods[0];
        lab.until_programmed(pod).await?;
        let url = format!("{}/v1/completions", engine_url(pod)?);
        lab.control(pod, "/slow", &json!({"factor": 40})).await?;
        let traffic = Traffic::start(&url, &[Client { priority: "medium", rate: 10.0 }]);
        let slow = std::time::Instant::now();
        lab.until(pod, "a tripped latency tier", |status| is(status, TierName::Latency, TierState::Tripped))
            .await?;
        let took = slow.elapsed();
        assert!(took > Duration::from_secs(4), "three periods of 2 s were not waited for: {took:?}");
        // As long as the engine is slow.
        let counts = TierCounts { latency: 1, any: 1, ..TierCounts::default() };
        until_counted(lab, counts).await?;
        let described = lab.kubectl(&["describe", "ratelimitpolicy", "tiers"]).await?;
        let words: Vec<_> = described.split_whitespace().collect();
        let told = |pair: [&str; 2]| words.windows(2).any(|window| window == pair);
        assert!(
            described.contains("Tiers Tripped:") && told(["Latency:", "1"]) && told(["Qps:", "0"]),
            "{described}"
        );
        let listed = lab.kubectl(&["get", "rlp", "tiers"]).await?;
        let line: Vec<_> = listed.lines().nth(1).unwrap_or_default().split_whitespace().collect();
        assert_eq!(line.get(4..6), Some(["1/1", "1"].as_slice()), "{listed}");
        let refusal = lab.complete(pod, &[("x-priority", "low")]).await?;
        assert_eq!(
            (refusal.status.as_u16(), refusal.header("x-tidegate-reason").starts_with("latency-tier;")),
            (429, true)
        );
        lab.control(pod, "/reset", &json!({})).await?;
        // Once it sheds no longer, low comes back by degrees; after the ramp nothing is held back.
        lab.until(pod, "recovery of the latency tier", |status| {
            is(status, TierName::Latency, TierState::Normal)
        })
        .await?;
        traffic.stop().await?;
        assert_eq!(lab.complete(pod, &[("x-priority", "low")]).await?.status, 200);
        until_counted(lab, TierCounts::default()).await?;
        Ok(())
    })
    .await
}
