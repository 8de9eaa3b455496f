//! Pods, containers and nodes that end: with notice, by force, and for lack of memory.

use http::Method;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tidegate_e2e::harness::{
    Answer, Client, Engine, Frozen, Lab, PATIENCE, RELEASE_NAMESPACE, Traffic, alone, engine_url, eventually,
    in_namespace, is_ready, release,
};
use tidegate_policy::report::{Status, TierName, TierState};
use tokio::task::JoinHandle;

/// One request of each user in an hour.
const ONCE: &str = "{apiVersion: tidegate.dev/v1alpha1, kind: RateLimitPolicy, metadata: {name: once}, spec: {
    limits: [{name: user, key: [{header: x-user}], when: [{header: x-user, operator: Exists}], algorithm: TokenBucket, limit: 1, window: 1h, burst: 1}]}}";

/// A stream of so many tokens, fifty of them in a second, under way.
fn stream(lab: &Lab, pod: &Pod, tokens: u32) -> anyhow::Result<JoinHandle<anyhow::Result<Answer>>> {
    let (http, url) = (lab.http.clone(), format!("{}/v1/completions", engine_url(pod)?));
    let body =
        json!({"model": "sim", "prompt": "The tide", "max_tokens": tokens, "stream": true}).to_string();
    let headers = [("content-type", "application/json")];
    Ok(tokio::spawn(async move { http.send(Method::POST, &url, &headers, body).await }))
}

fn is_whole(answer: &anyhow::Result<Answer>) -> bool {
    answer.as_ref().is_ok_and(|answer| answer.status == 200 && answer.body.contains("data: [DONE]"))
}

async fn restarts(lab: &Lab, pod: &Pod, container: &str) -> Result<i32, String> {
    let pod = lab.api::<Pod>().get(&pod.name_any()).await.map_err(|error| error.to_string())?;
    let status = pod.status.unwrap_or_default();
    let all = status.init_container_statuses.into_iter().chain(status.container_statuses).flatten();
    let found = all.into_iter().find(|status| status.name == container);
    found.map(|status| status.restart_count).ok_or_else(|| format!("no container {container}"))
}

async fn restarted(lab: &Lab, pod: &Pod, container: &str) -> anyhow::Result<()> {
    eventually(&format!("a restart of {container}"), PATIENCE, async || {
        match restarts(lab, pod, container).await? {
            0 => Err("none yet".to_owned()),
            _ => Ok(()),
        }
    })
    .await
}

/// Until a request is answered as by a pod that nothing happened to.
async fn serves(lab: &Lab, pod: &Pod) -> anyhow::Result<()> {
    eventually("an answer of the engine", PATIENCE, async || {
        let answer = lab.complete(pod, &[]).await.map_err(|error| format!("{error:#}"))?;
        if answer.status == 200 { Ok(()) } else { Err(answer.status.to_string()) }
    })
    .await
}

async fn is_gone(lab: &Lab, pod: &Pod) -> anyhow::Result<()> {
    let (pods, uid) = (lab.api::<Pod>(), pod.uid());
    eventually("the end of the pod", PATIENCE, async || {
        match pods.get_opt(&pod.name_any()).await.map_err(|error| error.to_string())? {
            Some(found) if found.uid() == uid => Err("it is there".to_owned()),
            _ => Ok(()),
        }
    })
    .await
}

#[tokio::test]
async fn a_stream_within_the_grace_period_is_whole_and_one_beyond_it_ends_with_the_pod() -> anyhow::Result<()>
{
    in_namespace(async |lab| {
        lab.apply_permissive_policy().await?;
        let engine = Engine::new("llama").replicas(2).grace_seconds(25);
        let pods = lab.engine(&engine).await?;
        let url = lab.service_url("llama").await?;
        let traffic = Traffic::start(&url, &[Client { priority: "medium", rate: 10.0 }]);
        let (short, long) = (stream(lab, &pods[0], 250)?, stream(lab, &pods[0], 3000)?);
        lab.until(&pods[0], "both streams", |status| status.in_flight >= 2).await?;
        lab.api::<Pod>().delete(&pods[0].name_any(), &DeleteParams::default()).await?;
        let short = short.await?;
        assert!(is_whole(&short), "{short:?}");
        let long = long.await?;
        assert!(!is_whole(&long), "a minute does not fit into 25 seconds: {long:?}");
        is_gone(lab, &pods[0]).await?;
        lab.ready_pods(&engine.selector(), 2).await?;
        let tally = traffic.stop().await?;
        assert_eq!(tally.lost, Vec::<String>::new());
        assert_eq!(tally.of("medium", 200), tally.all("medium"), "{tally:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_pod_deleted_by_force_takes_nobody_elses_requests_with_it() -> anyhow::Result<()> {
    in_namespace(async |lab| {
        lab.apply(ONCE).await?;
        let engine = Engine::new("llama").replicas(2);
        let pods = lab.engine(&engine).await?;
        let traffic = Traffic::start(
            &format!("{}/v1/completions", engine_url(&pods[1])?),
            &[Client { priority: "medium", rate: 20.0 }],
        );
        let under_way = stream(lab, &pods[0], 3000)?;
        lab.until(&pods[0], "the stream", |status| status.in_flight >= 1).await?;
        lab.api::<Pod>().delete(&pods[0].name_any(), &DeleteParams::default().grace_period(0)).await?;
        let under_way = under_way.await?;
        assert!(!is_whole(&under_way), "{under_way:?}");
        let now = lab.ready_pods(&engine.selector(), 2).await?;
        let tally = traffic.stop().await?;
        assert_eq!(
            (tally.lost.as_slice(), tally.of("medium", 200)),
            (&[][..], tally.all("medium")),
            "{tally:?}"
        );
        let new = now.iter().find(|pod| pod.uid() != pods[1].uid()).expect("a new pod");
        lab.until_programmed(new).await?;
        let ann = [("x-user", "ann")];
        assert_eq!(lab.complete(new, &ann).await?.status, 200);
        assert_eq!(lab.complete(new, &ann).await?.status, 429);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_engine_that_is_killed_leaves_the_sidecar_its_limits_and_serves_again() -> anyhow::Result<()> {
    in_namespace(async |lab| {
        lab.apply(ONCE).await?;
        let pods = lab.engine(&Engine::new("llama")).await?;
        let pod = &pods[0];
        lab.until_programmed(pod).await?;
        let ann = [("x-user", "ann")];
        assert_eq!(lab.complete(pod, &ann).await?.status, 200);
        // What the kernel does to a container that is out of memory.
        lab.kill_engine(pod)?;
        restarted(lab, pod, "engine").await?;
        serves(lab, pod).await?;
        assert_eq!(lab.complete(pod, &ann).await?.status, 429, "what was spent stays spent");
        let sidecar = restarts(lab, pod, "tidegate-sidecar").await;
        assert_eq!(sidecar, Ok(0));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_sidecar_that_is_killed_starts_again_under_its_policy_and_leaves_the_engine_alone()
-> anyhow::Result<()> {
    in_namespace(async |lab| {
        lab.apply(ONCE).await?;
        let pods = lab.engine(&Engine::new("llama")).await?;
        let pod = &pods[0];
        lab.until_programmed(pod).await?;
        lab.kill_sidecar(pod)?;
        restarted(lab, pod, "tidegate-sidecar").await?;
        serves(lab, pod).await?;
        let ann = [("x-user", "ann")];
        let statuses = [lab.complete(pod, &ann).await?.status, lab.complete(pod, &ann).await?.status];
        assert_eq!(
            statuses.map(|status| status.as_u16()),
            [200, 429],
            "no request passes without its policy"
        );
        assert_eq!(restarts(lab, pod, "engine").await, Ok(0));
        Ok(())
    })
    .await
}

fn is_schedulable(node: &Node) -> bool {
    let spec = node.spec.clone().unwrap_or_default();
    let taints = spec.taints.unwrap_or_default();
    spec.unschedulable != Some(true) && !taints.iter().any(|taint| taint.effect == "NoSchedule")
}

async fn cordon(nodes: &Api<Node>, node: &str, unschedulable: bool) -> anyhow::Result<()> {
    let spec = json!({"spec": {"unschedulable": unschedulable}});
    nodes.patch(node, &PatchParams::default(), &Patch::Merge(&spec)).await?;
    Ok(())
}

/// As `kubectl drain` does: evictions until none of these pods is there.
async fn evict(lab: &Lab, pods: &[Pod]) -> anyhow::Result<()> {
    for pod in pods {
        lab.api::<Pod>().evict(&pod.name_any(), &EvictParams::default()).await?;
    }
    for pod in pods {
        is_gone(lab, pod).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_drained_node_and_a_scale_down_lose_no_request() -> anyhow::Result<()> {
    alone(async |lab| {
        lab.apply_permissive_policy().await?;
        let engine = Engine::new("llama").replicas(3);
        let pods = lab.engine(&engine).await?;
        let url = lab.service_url("llama").await?;
        let traffic = Traffic::start(&url, &[Client { priority: "medium", rate: 20.0 }]);
        let nodes: Api<Node> = Api::all(lab.client.clone());
        let of = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
        let drained = of(&pods[0]);
        let others = nodes.list(&ListParams::default()).await?.items;
        let elsewhere = others.iter().any(|node| node.name_any() != drained && is_schedulable(node));
        // One pod of the node at a time, as a budget would have it: the others serve meanwhile.
        let there: Vec<Pod> = pods.into_iter().filter(|pod| of(pod) == drained).collect();
        let outcome = async {
            if elsewhere {
                cordon(&nodes, &drained, true).await?;
            }
            for pod in there {
                evict(lab, &[pod]).await?;
                lab.ready_pods(&engine.selector(), 3).await?;
            }
            anyhow::Ok(())
        }
        .await;
        cordon(&nodes, &drained, false).await?;
        outcome?;
        let scale = json!({"spec": {"replicas": 1}});
        let deployments = lab.api::<Deployment>();
        deployments.patch("llama", &PatchParams::default(), &Patch::Merge(&scale)).await?;
        lab.ready_pods(&engine.selector(), 1).await?;
        let tally = traffic.stop().await?;
        println!("{} requests while pods moved and went", tally.all("medium"));
        assert_eq!(tally.lost, Vec::<String>::new());
        assert_eq!(tally.of("medium", 200), tally.all("medium"), "{tally:?}");
        Ok(())
    })
    .await
}

fn gpu_is(status: &Status, state: TierState) -> bool {
    status.tiers.iter().any(|tier| tier.tier == TierName::GpuMemory && tier.state == state)
}

async fn fill(lab: &Lab, pod: &Pod, fraction: f64, state: TierState) -> anyhow::Result<Status> {
    lab.control(pod, "/gpu-memory", &json!({"fraction": fraction})).await?;
    lab.until(pod, &format!("a tier that is {state:?}"), |status| gpu_is(status, state)).await
}

/// Every agent's pod, once all are ready and none of these.
async fn other_agents(lab: &Lab, before: &[Pod]) -> anyhow::Result<()> {
    let old: Vec<_> = before.iter().filter_map(ResourceExt::uid).collect();
    eventually("new agents", PATIENCE, async || {
        let now = release::agents(&lab.client).await.map_err(|error| format!("{error:#}"))?;
        let new = now.iter().filter(|pod| pod.uid().is_some_and(|uid| !old.contains(&uid)) && is_ready(pod));
        let new = new.count();
        if new == before.len() { Ok(()) } else { Err(format!("{new} of {}", before.len())) }
    })
    .await
}

#[tokio::test]
async fn the_gpu_signal_outlives_agents_that_restart_and_kubelets_that_hang() -> anyhow::Result<()> {
    alone(async |lab| {
        lab.apply(
            "{apiVersion: tidegate.dev/v1alpha1, kind: RateLimitPolicy, metadata: {name: gpu}, spec: {
               tiers: {gpuMemory: {source: Nvml, maxUtilization: 75%, onStale: Ignore}, recovery: {below: 90%, hold: 1s, ramp: 1s}}}}",
        )
        .await?;
        let pods = lab.engine(&Engine::new("llama").gpus(1)).await?;
        let pod = &pods[0];
        fill(lab, pod, 0.3, TierState::Normal).await?;
        // A kubelet that says nothing: the agent goes on with its last list.
        let frozen = Frozen::kubelets()?;
        fill(lab, pod, 0.9, TierState::Tripped).await?;
        fill(lab, pod, 0.3, TierState::Normal).await?;
        drop(frozen);
        let agents = release::agents(&lab.client).await?;
        let all: Api<Pod> = Api::namespaced(lab.client.clone(), RELEASE_NAMESPACE);
        for agent in &agents {
            all.delete(&agent.name_any(), &DeleteParams::default().grace_period(0)).await?;
        }
        other_agents(lab, &agents).await?;
        fill(lab, pod, 0.9, TierState::Tripped).await?;
        assert_eq!(lab.complete(pod, &[("x-priority", "low")]).await?.status, 429);
        fill(lab, pod, 0.3, TierState::Normal).await?;
        assert_eq!(lab.complete(pod, &[("x-priority", "low")]).await?.status, 200);
        Ok(())
    })
    .await
}
