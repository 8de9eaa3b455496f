//! The circuit breaker in its short form, behind a Service.

use std::time::Duration;

use serde_json::json;
use tidegate_crds::CircuitBreakerPolicy;
use tidegate_e2e::harness::{Engine, Lab, PATIENCE, eventually, in_namespace};
use tidegate_policy::report::{BreakerState, StageState, Status};

fn breaker_is(status: &Status, state: BreakerState) -> bool {
    status.breaker.as_ref().is_some_and(|breaker| breaker.state == state)
}

/// Waits until the operator counts so many pods whose breaker is not closed.
async fn until_counted(lab: &Lab, policy: &str, expected: i32) -> anyhow::Result<()> {
    let policies = lab.api::<CircuitBreakerPolicy>();
    eventually("the open breakers in the policy's status", PATIENCE, async || {
        let status = policies.get(policy).await.map_err(|error| error.to_string())?.status;
        let open = status.map(|status| status.breakers_open);
        if open == Some(expected) { Ok(()) } else { Err(format!("{open:?}")) }
    })
    .await
}

#[tokio::test]
async fn a_breaker_opens_serves_the_fallback_half_opens_and_closes() -> anyhow::Result<()> {
    in_namespace(async |lab| {
        lab.apply(
            "{apiVersion: tidegate.dev/v1alpha1, kind: CircuitBreakerPolicy, metadata: {name: payment}, spec: {
               targetService: payment, failureThreshold: 5, timeoutMs: 3000, fallbackEndpoint: /fallback/payment,
               open: {duration: 10s}}}",
        )
        .await?;
        let pods = lab.engine(&Engine::new("payment")).await?;
        let pod = &pods[0];
        lab.until_programmed(pod).await?;
        lab.control(pod, "/fail", &json!({"status": 500, "ratio": 1.0})).await?;
        for _ in 0..5 {
            assert_eq!(lab.complete(pod, &[]).await?.status, 500);
        }
        let open = lab.status(pod).await?;
        assert!(breaker_is(&open, BreakerState::Open), "{open:?}");
        let fallback = lab.complete(pod, &[]).await?;
        assert_eq!(fallback.status, 200, "{fallback:?}");
        assert!(fallback.body.contains("fallback"), "{fallback:?}");
        // Half-open counts too: nobody has seen the engine well.
        until_counted(lab, "payment", 1).await?;
        let listed = lab.kubectl(&["get", "cbp", "payment"]).await?;
        let line: Vec<_> = listed.lines().nth(1).unwrap_or_default().split_whitespace().collect();
        assert_eq!(line.get(4..6), Some(["1/1", "1"].as_slice()), "{listed}");
        lab.control(pod, "/reset", &json!({})).await?;
        let probe = lab.until(pod, "a closed breaker", |status| breaker_is(status, BreakerState::Closed));
        let requests = async {
            loop {
                lab.complete(pod, &[]).await?;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        let closed = tokio::select! {
            closed = probe => closed?,
            failed = requests => { let never: anyhow::Result<Status> = failed; never? }
        };
        let breaker = closed.breaker.expect("the breaker");
        let path: Vec<_> = breaker.transitions.iter().filter(|t| t.count > 0).map(|t| (t.from, t.to, t.count)).collect();
        assert!(path.contains(&(BreakerState::Closed, BreakerState::Open, 1)), "{path:?}");
        assert!(path.contains(&(BreakerState::Open, BreakerState::HalfOpen, 1)), "{path:?}");
        assert!(path.contains(&(BreakerState::HalfOpen, BreakerState::Closed, 1)), "{path:?}");
        assert_eq!(lab.complete(pod, &[]).await?.status, 200);
        until_counted(lab, "payment", 0).await
    })
    .await
}

#[tokio::test]
async fn an_engine_that_hangs_is_answered_504_in_time_and_opens_the_breaker() -> anyhow::Result<()> {
    in_namespace(async |lab| {
        lab.apply(
            "{apiVersion: tidegate.dev/v1alpha1, kind: CircuitBreakerPolicy, metadata: {name: hang}, spec: {
               targetService: llama, failureThreshold: 2, timeoutMs: 500}}",
        )
        .await?;
        let pods = lab.engine(&Engine::new("llama")).await?;
        let pod = &pods[0];
        lab.until_programmed(pod).await?;
        lab.control(pod, "/hang", &json!({})).await?;
        for _ in 0..2 {
            let answer = lab.complete(pod, &[]).await?;
            assert_eq!(answer.status, 504, "{answer:?}");
            assert!(answer.elapsed >= Duration::from_millis(500), "{answer:?}");
        }
        let refused = lab.complete(pod, &[]).await?;
        assert_eq!(refused.status, 503, "{refused:?}");
        assert!(refused.header("x-tidegate-reason").starts_with("breaker-open;"), "{refused:?}");
        assert!(refused.header("retry-after").parse::<u64>()? >= 1);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_service_answers_while_the_breaker_is_open() -> anyhow::Result<()> {
    in_namespace(async |lab| {
        lab.apply(
            "{apiVersion: tidegate.dev/v1alpha1, kind: CircuitBreakerPolicy, metadata: {name: spared}, spec: {
               targetService: llama, failureThreshold: 2,
               fallback: {to: [{service: {name: spare, port: 80}}]}}}",
        )
        .await?;
        let pods = lab.engine(&Engine::new("llama")).await?;
        lab.engine(&Engine::new("spare")).await?;
        let pod = &pods[0];
        lab.until_programmed(pod).await?;
        lab.control(pod, "/fail", &json!({"status": 500, "ratio": 1.0})).await?;
        for _ in 0..2 {
            assert_eq!(lab.complete(pod, &[]).await?.status, 500);
        }
        // A pod is ready before the node's rules lead its Service there.
        let answer = eventually("the Service", PATIENCE, async || {
            let answer = lab.complete(pod, &[]).await.map_err(|error| format!("{error:#}"))?;
            if answer.status == 200 { Ok(answer) } else { Err(format!("{answer:?}")) }
        })
        .await?;
        assert_eq!(answer.header("x-tidegate-fallback"), "service");
        assert!(answer.header("x-tidegate-reason").starts_with("breaker-open;"), "{answer:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_canary_group_opens_its_own_breaker_and_no_other() -> anyhow::Result<()> {
    in_namespace(async |lab| {
        lab.apply(
            "{apiVersion: tidegate.dev/v1alpha1, kind: CircuitBreakerPolicy, metadata: {name: canary}, spec: {
               targetService: llama, failureThreshold: 3, groupBy: {header: x-model-version},
               open: {duration: 10s}, halfOpen: {probes: 1, ramp: 0s}}}",
        )
        .await?;
        let pods = lab.engine(&Engine::new("llama")).await?;
        let pod = &pods[0];
        lab.until_programmed(pod).await?;
        let (canary, stable) = ([("x-model-version", "v2")], [("x-model-version", "v1")]);
        assert_eq!(lab.complete(pod, &stable).await?.status, 200);
        lab.control(pod, "/fail", &json!({"status": 500, "ratio": 1.0})).await?;
        for _ in 0..3 {
            assert_eq!(lab.complete(pod, &canary).await?.status, 500);
        }
        lab.control(pod, "/reset", &json!({})).await?;
        let open = lab.status(pod).await?.breaker.expect("the breaker");
        assert!(open.groups.is_some_and(|groups| (groups.tracked, groups.open) == (2, 1)), "{open:?}");
        let refused = lab.complete(pod, &canary).await?;
        assert_eq!(refused.status, 503);
        assert!(refused.header("x-tidegate-reason").starts_with("breaker-open;"), "{refused:?}");
        assert_eq!(lab.complete(pod, &stable).await?.status, 200);
        assert_eq!(
            lab.complete(pod, &[]).await?.status,
            200,
            "requests of no version have a breaker of their own"
        );
        eventually("the canary's return", PATIENCE, async || {
            let status = lab.complete(pod, &canary).await.map_err(|error| format!("{error:#}"))?.status;
            if status == 200 { Ok(()) } else { Err(status.to_string()) }
        })
        .await?;
        let closed = lab.status(pod).await?.breaker.expect("the breaker");
        assert!(closed.groups.is_some_and(|groups| (groups.tracked, groups.open) == (3, 0)), "{closed:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_stage_that_runs_out_of_memory_or_is_slow_stops_its_pod_and_says_why() -> anyhow::Result<()> {
    in_namespace(async |lab| {
        lab.apply(
            "{apiVersion: tidegate.dev/v1alpha1, kind: CircuitBreakerPolicy, metadata: {name: pipeline}, spec: {
               targetService: llama, open: {duration: 8s}, stages: [
                 {name: attention, latency: {above: 800ms}, outOfMemory: {count: 2, window: 5m}},
                 {name: prefill, latency: {percentile: 90, above: 500ms, minimumRequests: 1}}]}}",
        )
        .await?;
        let pods = lab.engine(&Engine::new("llama")).await?;
        let pod = &pods[0];
        lab.until_programmed(pod).await?;
        let stage = |status: &Status, i: usize| status.breaker.as_ref().map(|b| b.stages[i].state);
        lab.until(pod, "times of prefill", |status| stage(status, 1) == Some(StageState::Closed)).await?;
        assert_eq!(stage(&lab.status(pod).await?, 0), Some(StageState::NoSignal), "nobody tells of attention");
        lab.control(pod, "/oom", &json!({})).await?;
        for _ in 0..2 {
            assert_eq!(lab.complete(pod, &[]).await?.status, 500);
        }
        let refused = lab.complete(pod, &[]).await?;
        assert_eq!(refused.status, 503, "{refused:?}");
        assert!(refused.header("x-tidegate-reason").contains("stages.attention.outOfMemory"), "{refused:?}");
        lab.control(pod, "/reset", &json!({})).await?;
        let again = eventually("an engine that is tried again", PATIENCE, async || {
            match lab.complete(pod, &[]).await {
                Ok(answer) if answer.status == 200 => Ok(answer),
                other => Err(format!("{other:?}")),
            }
        });
        again.await?;
        // Until then only a part of the requests passes.
        lab.until(pod, "the end of the ramp", |status| stage(status, 0) == Some(StageState::NoSignal)).await?;
        lab.control(pod, "/slow", &json!({"factor": 40})).await?;
        let why = |status: &Status| {
            status.breaker.as_ref().and_then(|breaker| breaker.stages[1].last_trigger_reason.clone())
        };
        let slow = lab.until(pod, "a slow prefill", |status| why(status).is_some());
        let (status, answer) = tokio::try_join!(slow, lab.complete(pod, &[]))?;
        assert_eq!(answer.status, 200);
        let why = why(&status).unwrap_or_default();
        assert!(why.starts_with("prefill_p90_over_500ms_by_"), "{why}");
        Ok(())
    })
    .await
}
