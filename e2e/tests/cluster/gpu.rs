//! GPU memory, from the device plugin and NVML to the pod that it belongs to.

use http::Method;
use serde_json::json;
use tidegate_e2e::harness::{Engine, engine_url, in_namespace};
use tidegate_policy::report::{Status, TierName, TierState};

fn gpu_is(status: &Status, state: TierState) -> bool {
    status.tiers.iter().any(|tier| tier.tier == TierName::GpuMemory && tier.state == state)
}

#[tokio::test]
async fn the_gpu_tier_trips_for_the_pod_whose_gpu_fills_and_for_no_other() -> anyhow::Result<()> {
    in_namespace(async |lab| {
        lab.apply(
            "{apiVersion: tidegate.dev/v1alpha1, kind: RateLimitPolicy, metadata: {name: gpu}, spec: {
               tiers: {gpuMemory: {maxUtilization: 75%, onStale: Ignore}, recovery: {below: 90%, hold: 3s}}}}",
        )
        .await?;
        let pods = lab.engine(&Engine::new("llama").replicas(2).gpus(1)).await?;
        let [full, other] = pods.as_slice() else { anyhow::bail!("{} pods", pods.len()) };
        for pod in &pods {
            lab.until(pod, "a reading of its GPU", |status| gpu_is(status, TierState::Normal)).await?;
            lab.until(pod, "the engine's own load", |status| {
                status.engine.is_some_and(|load| load.kv_cache_usage.is_some() && load.waiting.is_some())
            })
            .await?;
        }
        lab.control(full, "/gpu-memory", &json!({"fraction": 0.9})).await?;
        let tripped = lab.until(full, "a tripped GPU tier", |status| gpu_is(status, TierState::Tripped)).await?;
        println!("{:?}", tripped.tiers);
        let low = [("x-priority", "low")];
        let refusal = lab.complete(full, &low).await?;
        assert_eq!((refusal.status.as_u16(), refusal.header("x-tidegate-reason").starts_with("gpu-memory-tier;")), (429, true));
        assert_eq!(lab.complete(other, &low).await?.status, 200, "the other pod has another GPU");
        assert!(gpu_is(&lab.status(other).await?, TierState::Normal));
        lab.control(full, "/gpu-memory", &json!({"fraction": 0.3})).await?;
        lab.until(full, "recovery of the GPU tier", |status| gpu_is(status, TierState::Normal)).await?;
        assert_eq!(lab.complete(full, &low).await?.status, 200);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_kv_cache_of_the_engine_trips_the_gpu_tier_of_a_pod_without_a_gpu() -> anyhow::Result<()> {
    in_namespace(async |lab| {
        lab.apply(
            "{apiVersion: tidegate.dev/v1alpha1, kind: RateLimitPolicy, metadata: {name: cache}, spec: {
               tiers: {gpuMemory: {source: KvCache, kvCache: {maxUsage: 50%}},
                       recovery: {below: 90%, hold: 1s, ramp: 1s}}}}",
        )
        .await?;
        // A cache of 1024 tokens.
        let pods = lab.engine(&Engine::new("llama").argument("--kv-blocks=64")).await?;
        let pod = &pods[0];
        lab.until(pod, "a reading of the engine", |status| gpu_is(status, TierState::Normal)).await?;
        let low = [("x-priority", "low")];
        assert_eq!(lab.complete(pod, &low).await?.status, 200);
        // Fifteen seconds of an answer on top of a prompt that fills most of the cache.
        lab.control(pod, "/slow", &json!({"factor": 3})).await?;
        let url = format!("{}/v1/completions", engine_url(pod)?);
        let headers = [("content-type", "application/json"), ("x-priority", "medium")];
        let body = json!({"model": "sim", "prompt_tokens": 700, "max_tokens": 250}).to_string();
        let long = lab.http.send(Method::POST, &url, &headers, body);
        let meanwhile = async {
            let tripped =
                lab.until(pod, "a tripped GPU tier", |status| gpu_is(status, TierState::Tripped)).await?;
            anyhow::Ok((tripped, lab.complete(pod, &low).await?))
        };
        let (long, meanwhile) = tokio::join!(long, meanwhile);
        assert_eq!(long?.status, 200);
        let (tripped, refused) = meanwhile?;
        assert_eq!(refused.status, 429);
        assert!(refused.header("x-tidegate-reason").starts_with("gpu-memory-tier;"), "{refused:?}");
        let tier = tripped.tiers.first().expect("the tier");
        let reason = tier.last_trigger_reason.as_deref().unwrap_or_default();
        assert!(reason.contains("of the KV cache needed"), "{tier:?}");
        lab.until(pod, "recovery of the GPU tier", |status| gpu_is(status, TierState::Normal)).await?;
        assert_eq!(lab.complete(pod, &low).await?.status, 200);
        Ok(())
    })
    .await
}
