//! The limit of requests in flight and the queue before it, in front of a real pod.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use tidegate_e2e::harness::{Answer, Engine, Lab, in_namespace};
use tidegate_policy::report::Status;
use tokio::task::JoinHandle;

/// Two places, of which one is kept for high, and room for one to wait.
fn policy(timeout: &str) -> String {
    format!(
        "{{apiVersion: tidegate.dev/v1alpha1, kind: RateLimitPolicy, metadata: {{name: places}}, spec: {{
           concurrency: {{algorithm: Static, initial: 2, min: 2, max: 2}},
           queue: {{maxLength: 1, timeout: {timeout}}},
           priority: {{highAllowedFrom: [{{cidr: 0.0.0.0/0}}]}}}}}}"
    )
}

/// Sends one request and does not wait for its answer.
fn send(lab: &Lab, pod: &Pod, priority: &'static str) -> JoinHandle<anyhow::Result<Answer>> {
    let (lab, pod) = (lab.clone(), pod.clone());
    tokio::spawn(async move { lab.complete(&pod, &[("x-priority", priority)]).await })
}

fn in_flight(status: &Status, wanted: u64) -> bool {
    status.concurrency.as_ref().is_some_and(|concurrency| concurrency.in_flight == wanted)
}

fn waiting(status: &Status, wanted: u64) -> bool {
    status.queue.as_ref().is_some_and(|queue| queue.length == wanted)
}

/// A request of medium priority that hangs in the engine.
async fn one_hangs(lab: &Lab, pod: &Pod) -> anyhow::Result<JoinHandle<anyhow::Result<Answer>>> {
    lab.control(pod, "/hang", &json!({})).await?;
    let hangs = send(lab, pod, "medium");
    lab.until(pod, "a request in flight", |status| in_flight(status, 1)).await?;
    Ok(hangs)
}

#[tokio::test]
async fn a_full_engine_makes_medium_wait_and_keeps_a_place_for_high() -> anyhow::Result<()> {
    in_namespace(async |lab| {
        lab.apply(&policy("20s")).await?;
        let pods = lab.engine(&Engine::new("llama")).await?;
        let pod = &pods[0];
        lab.until(pod, "the policy", |status| in_flight(status, 0) && waiting(status, 0)).await?;
        let hangs = one_hangs(lab, pod).await?;
        let waits = send(lab, pod, "medium");
        lab.until(pod, "a request in the queue", |status| waiting(status, 1)).await?;
        let refused = lab.complete(pod, &[("x-priority", "medium")]).await?;
        let reason = format!("queue-full; policy={}/places; rule=queue", lab.namespace);
        assert_eq!((refused.status.as_u16(), refused.header("x-tidegate-reason")), (503, reason.as_str()));
        assert!(refused.header("retry-after").parse::<u64>()? >= 1, "{refused:?}");
        let high = send(lab, pod, "high");
        lab.until(pod, "high in its reserve", |status| in_flight(status, 2) && waiting(status, 1)).await?;
        lab.control(pod, "/reset", &json!({})).await?;
        for request in [hangs, waits, high] {
            assert_eq!(request.await??.status, 200);
        }
        lab.until(pod, "free places", |status| in_flight(status, 0) && waiting(status, 0)).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_wait_that_is_too_long_ends_with_503_and_a_changed_policy_says_how_long_that_is()
-> anyhow::Result<()> {
    in_namespace(async |lab| {
        lab.apply(&policy("20s")).await?;
        let pods = lab.engine(&Engine::new("llama")).await?;
        let pod = &pods[0];
        let before = lab.until(pod, "the policy", |status| waiting(status, 0)).await?.revision;
        lab.apply(&policy("500ms")).await?;
        lab.until(pod, "the changed policy", |status| status.revision != before).await?;
        let hangs = one_hangs(lab, pod).await?;
        let in_vain = lab.complete(pod, &[("x-priority", "medium")]).await?;
        let reason = format!("queue-timeout; policy={}/places; rule=queue", lab.namespace);
        assert_eq!((in_vain.status.as_u16(), in_vain.header("x-tidegate-reason")), (503, reason.as_str()));
        assert!(
            (Duration::from_millis(500)..Duration::from_secs(15)).contains(&in_vain.elapsed),
            "{in_vain:?}"
        );
        lab.control(pod, "/reset", &json!({})).await?;
        assert_eq!(hangs.await??.status, 200);
        Ok(())
    })
    .await
}
