//! A namespace of a test's own and what can be done in it.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use futures::FutureExt;
use http::Method;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::{Discovery, Scope};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tidegate_policy::report::Status;
use tokio::sync::RwLock;

use super::diagnosis;
use super::engine::{CONTROL_PORT, ENGINE_PORT, Engine};
use super::http::{Answer, Http};
use super::release;
use super::wait::{PATIENCE, eventually};
use crate::cluster::{binaries, process, progress::Progress};

/// Where the chart is installed.
pub const RELEASE_NAMESPACE: &str = "tidegate-system";
/// Admin port of a sidecar.
const ADMIN_PORT: u16 = 15121;
/// Longest wait for pods, on a machine that is busy with others.
const PODS_DEADLINE: Duration = Duration::from_mins(4);

/// Who the API server notes as the owner of what is applied.
const FIELD_MANAGER: &str = "tidegate-e2e";
/// Selects every pod of its namespace and refuses nobody.
const PERMISSIVE_POLICY: &str =
    "{apiVersion: tidegate.dev/v1alpha1, kind: RateLimitPolicy, metadata: {name: permissive}, spec: {
    limits: [{name: all, algorithm: TokenBucket, limit: 1000000, window: 1s}]}}";
/// Tests that take the operator away wait until no other runs, and keep others from starting.
static INSTALLATION: RwLock<()> = RwLock::const_new(());
static NAMESPACES: AtomicU32 = AtomicU32::new(0);

/// A namespace of a test's own.
#[derive(Clone)]
pub struct Lab {
    /// The API server, as its administrator.
    pub client: Client,
    /// The namespace, labelled for injection.
    pub namespace: String,
    /// Plain HTTP to pods.
    pub http: Http,
}

/// Runs a test in a fresh namespace, beside others. Prints what is in there when it fails, and deletes it.
pub async fn in_namespace(test: impl AsyncFnOnce(&Lab) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let _others_may_run = INSTALLATION.read().await;
    run(test).await
}

/// Like [`in_namespace`], for a test that takes a part of the installation away: nothing else runs meanwhile.
pub async fn alone(test: impl AsyncFnOnce(&Lab) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let _nobody_else_runs = INSTALLATION.write().await;
    run(test).await
}

async fn run(test: impl AsyncFnOnce(&Lab) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let lab = Lab::create().await?;
    let outcome = AssertUnwindSafe(test(&lab)).catch_unwind().await;
    if !matches!(outcome, Ok(Ok(()))) {
        diagnosis::print(&lab.client, &lab.namespace).await;
    }
    lab.delete().await;
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

impl Lab {
    async fn create() -> anyhow::Result<Self> {
        let _already_installed = rustls::crypto::ring::default_provider().install_default();
        let client = Client::try_default().await.context("no cluster: run this through `make e2e`")?;
        release::ensure(&client).await?;
        let number = NAMESPACES.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("e2e-{}-{number}", std::process::id());
        let object: Namespace = serde_json::from_value(json!({
            "metadata": {"name": namespace, "labels": {"tidegate.dev/injection": "enabled"}},
        }))?;
        Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &object).await?;
        Ok(Self { client, namespace, http: Http::default() })
    }

    async fn delete(&self) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        if std::env::var_os("TIDEGATE_E2E_KEEP").is_none() {
            let _gone_with_the_cluster = namespaces.delete(&self.namespace, &DeleteParams::default()).await;
        }
    }

    /// An API of this namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope>,
        <K as kube::Resource>::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// `kubectl apply`: every object of the YAML, in this namespace.
    pub async fn apply(&self, yaml: &str) -> anyhow::Result<()> {
        apply(&self.client, Some(&self.namespace), yaml).await
    }

    /// `kubectl apply --dry-run=server`.
    pub async fn would_apply(&self, yaml: &str) -> anyhow::Result<()> {
        let dry_run = PatchParams { dry_run: true, ..PatchParams::apply(FIELD_MANAGER).force() };
        patch_all(&self.client, Some(&self.namespace), yaml, &dry_run).await
    }

    /// A policy for the whole namespace that refuses nobody: pods of a namespace labelled for injection get a sidecar
    /// only when a policy selects them.
    pub async fn apply_permissive_policy(&self) -> anyhow::Result<()> {
        self.apply(PERMISSIVE_POLICY).await
    }

    /// What a person sees: the output of kubectl in this namespace.
    pub async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let found = process::succeeds("kubectl", &["version", "--client"]).await;
        let program = if found {
            PathBuf::from("kubectl")
        } else {
            binaries::kubernetes(&Progress::start()).await?.join("kubectl")
        };
        let mut command = process::command(program);
        process::output(command.args(["--namespace", &self.namespace]).args(arguments)).await
    }

    /// Creates an engine without waiting for it. The Service comes first: a policy may find the pods through it.
    pub async fn create_engine(&self, engine: &Engine) -> anyhow::Result<()> {
        self.api::<Service>().create(&PostParams::default(), &engine.service()?).await?;
        self.api::<Deployment>().create(&PostParams::default(), &engine.deployment()?).await?;
        Ok(())
    }

    /// Creates an engine and waits for all its pods.
    pub async fn engine(&self, engine: &Engine) -> anyhow::Result<Vec<Pod>> {
        self.create_engine(engine).await?;
        let replicas = engine.deployment()?.spec.and_then(|spec| spec.replicas).unwrap_or(1);
        self.ready_pods(&engine.selector(), usize::try_from(replicas)?).await
    }

    /// Waits until exactly so many pods are ready and none is going.
    pub async fn ready_pods(&self, selector: &str, count: usize) -> anyhow::Result<Vec<Pod>> {
        let pods = self.api::<Pod>();
        let parameters = ListParams::default().labels(selector);
        eventually(&format!("{count} ready pods {selector}"), PODS_DEADLINE, async || {
            let list = pods.list(&parameters).await.map_err(|error| error.to_string())?.items;
            let all_there = list.len() == count && list.iter().all(is_ready);
            if all_there {
                Ok(list)
            } else {
                Err(format!("{:?}", list.iter().map(summary).collect::<Vec<_>>()))
            }
        })
        .await
    }

    /// The state of a pod's sidecar.
    pub async fn status(&self, pod: &Pod) -> anyhow::Result<Status> {
        let answer = self.http.get(&format!("{}/throttle/status", admin_url(pod)?)).await?;
        serde_json::from_str(&answer.body).with_context(|| answer.body.clone())
    }

    /// The value of one series of a pod's sidecar; 0 when it is not there.
    pub async fn metric(&self, pod: &Pod, series: &str) -> anyhow::Result<f64> {
        let text = self.http.get(&format!("{}/metrics", admin_url(pod)?)).await?.body;
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        Ok(line.map(str::parse).transpose()?.unwrap_or(0.0))
    }

    /// Waits for a state of a pod's sidecar.
    pub async fn until(
        &self,
        pod: &Pod,
        what: &str,
        wanted: impl Fn(&Status) -> bool,
    ) -> anyhow::Result<Status> {
        eventually(what, PATIENCE, async || {
            let status = self.status(pod).await.map_err(|error| format!("{error:#}"))?;
            if wanted(&status) { Ok(status) } else { Err(format!("{status:?}")) }
        })
        .await
    }

    /// Waits until a document with rules is in force on a pod.
    pub async fn until_programmed(&self, pod: &Pod) -> anyhow::Result<Status> {
        let has_rules = |s: &Status| !s.tiers.is_empty() || !s.limits.is_empty() || s.breaker.is_some();
        self.until(pod, "a policy on the pod", has_rules).await
    }

    /// The completions of an engine through its Service, once that answers.
    pub async fn service_url(&self, name: &str) -> anyhow::Result<String> {
        let service = self.api::<Service>().get(name).await?;
        let address = service.spec.and_then(|spec| spec.cluster_ip).context("no cluster IP")?;
        eventually("an answer through the Service", PATIENCE, async || {
            let answer = self.http.get(&format!("http://{address}/health")).await;
            let status = answer.map_err(|error| format!("{error:#}"))?.status;
            if status == 200 { Ok(()) } else { Err(status.to_string()) }
        })
        .await?;
        Ok(format!("http://{address}/v1/completions"))
    }

    /// One short completion.
    pub async fn complete(&self, pod: &Pod, headers: &[(&str, &str)]) -> anyhow::Result<Answer> {
        let body = json!({"model": "sim", "prompt": "The tide", "max_tokens": 2}).to_string();
        let mut all = vec![("content-type", "application/json")];
        all.extend_from_slice(headers);
        let url = format!("{}/v1/completions", engine_url(pod)?);
        self.http.send(Method::POST, &url, &all, body).await
    }

    /// Tells an engine to fail, hang, slow down or fill its GPU.
    pub async fn control(&self, pod: &Pod, path: &str, body: &serde_json::Value) -> anyhow::Result<()> {
        let url = format!("http://{}:{CONTROL_PORT}{path}", pod_ip(pod)?);
        let headers = [("content-type", "application/json")];
        let answer = self.http.send(Method::POST, &url, &headers, body.to_string()).await?;
        if !answer.status.is_success() {
            bail!("{url}: {} {}", answer.status, answer.body);
        }
        Ok(())
    }
}

/// Applies every object of the YAML on the server's side; objects without a namespace of their own go into the given
/// one.
pub async fn apply(client: &Client, namespace: Option<&str>, yaml: &str) -> anyhow::Result<()> {
    patch_all(client, namespace, yaml, &PatchParams::apply(FIELD_MANAGER).force()).await
}

async fn patch_all(
    client: &Client,
    namespace: Option<&str>,
    yaml: &str,
    parameters: &PatchParams,
) -> anyhow::Result<()> {
    let discovery = Discovery::new(client.clone()).run().await?;
    for text in
        yaml.split("\n---").filter(|text| text.lines().any(|line| !line.starts_with('#') && !line.is_empty()))
    {
        let object: DynamicObject = serde_saphyr::from_str(text).context("YAML of an object")?;
        let types = object.types.as_ref().context("apiVersion and kind")?;
        let kind = GroupVersionKind::try_from(types)?;
        let (resource, capabilities) =
            discovery.resolve_gvk(&kind).with_context(|| format!("{kind:?} is not served"))?;
        let api: Api<DynamicObject> =
            match (capabilities.scope, object.metadata.namespace.as_deref().or(namespace)) {
                (Scope::Namespaced, Some(namespace)) => {
                    Api::namespaced_with(client.clone(), namespace, &resource)
                }
                (Scope::Namespaced, None) => bail!("{} {} names no namespace", kind.kind, object.name_any()),
                (Scope::Cluster, _) => Api::all_with(client.clone(), &resource),
            };
        api.patch(&object.name_any(), parameters, &Patch::Apply(&object)).await?;
    }
    Ok(())
}

/// The address of a pod.
pub fn pod_ip(pod: &Pod) -> anyhow::Result<String> {
    let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
    address.with_context(|| format!("pod {} has no address", pod.name_any()))
}

/// The engine of a pod, through its sidecar.
pub fn engine_url(pod: &Pod) -> anyhow::Result<String> {
    Ok(format!("http://{}:{ENGINE_PORT}", pod_ip(pod)?))
}

/// The admin port of a pod's sidecar.
pub fn admin_url(pod: &Pod) -> anyhow::Result<String> {
    Ok(format!("http://{}:{ADMIN_PORT}", pod_ip(pod)?))
}

/// Whether a pod is ready, and not about to go.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let ready = conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    ready && pod.metadata.deletion_timestamp.is_none()
}

fn summary(pod: &Pod) -> String {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("unknown");
    format!("{} {phase} ready={}", pod.name_any(), is_ready(pod))
}
