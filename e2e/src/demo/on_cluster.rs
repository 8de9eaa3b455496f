//! The demo on a cluster: two engines with a simulated GPU each, injected by the webhook, under policies that are
//! applied as a user would.

use std::path::Path;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::Value;
use tidegate_policy::report::Status;

use super::{
    play::{Stand, play},
    story,
};
use crate::{
    cluster::progress::Progress,
    harness::{Engine, Lab, engine_url, in_namespace},
    trace::Trace,
};

/// Engines with a GPU each.
const ENGINES: i32 = 2;

/// Shows the whole story in a namespace of its own on the cluster of the current kubeconfig; returns the summary.
pub async fn run(policies: &Path, trace: &Trace, progress: &Progress) -> anyhow::Result<String> {
    let read = |name: &str| {
        let file = policies.join(name);
        std::fs::read_to_string(&file).with_context(|| file.display().to_string())
    };
    let (llama, per_key) = (read("llama.yaml")?, read("per-key.yaml")?);
    let mut summary = String::new();
    progress.say("installing the chart and the simulated GPUs");
    in_namespace(async |lab: &Lab| {
        progress.say(format_args!("deploying {ENGINES} engines into namespace {}", lab.namespace));
        lab.apply(&llama).await?;
        let pods = lab.engine(&engine()).await?;
        for pod in &pods {
            lab.until_programmed(pod).await?;
            progress.say(format_args!("{} is injected, ready and has its policies", pod.name_any()));
        }
        let stand = Deployed { lab, pods, per_key };
        summary = play(&stand, trace, progress).await?;
        Ok(())
    })
    .await?;
    Ok(summary)
}

fn engine() -> Engine {
    Engine::new("llama")
        .replicas(ENGINES)
        .gpus(1)
        .argument(&format!("--time-scale={}", story::TIME_SCALE))
        .argument(&format!("--kv-blocks={}", story::KV_BLOCKS))
}

struct Deployed<'a> {
    lab: &'a Lab,
    pods: Vec<Pod>,
    per_key: String,
}

impl Stand for Deployed<'_> {
    fn pods(&self) -> Vec<(String, String)> {
        let url = |pod: &Pod| engine_url(pod).unwrap_or_default();
        self.pods.iter().map(|pod| (pod.name_any(), url(pod))).collect()
    }

    async fn status(&self, pod: usize) -> Option<Status> {
        self.lab.status(self.pods.get(pod)?).await.ok()
    }

    async fn gpu_memory(&self, pod: usize) -> Option<(u64, u64)> {
        let pod = self.pods.get(pod)?;
        let used = self.lab.metric(pod, "tidegate_gpu_memory_used_bytes").await.ok()?;
        let total = self.lab.metric(pod, "tidegate_gpu_memory_total_bytes").await.ok()?;
        Some((used as u64, total as u64))
    }

    async fn order(&self, path: &str, body: &Value) -> anyhow::Result<()> {
        let pod = self.pods.first().context("no engine")?;
        self.lab.control(pod, &format!("/{path}"), body).await
    }

    async fn add_policy(&self) -> anyhow::Result<()> {
        self.lab.apply(&self.per_key).await
    }
}
