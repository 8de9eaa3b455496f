//! GPU memory, from the device plugin and NVML to the pod that it belongs to.

use serde_json::json;
use tidegate_e2e::harness::{Engine, in_namespace};
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
