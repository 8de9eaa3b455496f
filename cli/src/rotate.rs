//! `rotate`: gives the newest sidecar to pods that have an old one or none.
//!
//! Nothing changes a sidecar in place: its pod has to be created anew. Workloads that can roll are restarted as
//! `kubectl rollout restart` does, one after the other; other pods are evicted. Both respect `PodDisruptionBudgets`:
//! the eviction API by itself, and a restart is postponed when it takes away more pods at a time than a budget allows.

use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::EvictParams;
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout_at};

use crate::cluster::{Cluster, Inventory, is_missing, namespaces, said};
use crate::command_line::{Output, RotateArguments};
use crate::print;
use crate::refused::Refused;
use plan::{Action, Sight, Step};
use workloads::{Rollout, Workloads};

mod plan;
mod report;
mod workloads;

pub(crate) use report::{Report, Told};

/// Between two looks at a rollout, and two attempts of an eviction.
const PAUSE: Duration = Duration::from_secs(2);
const OPERATOR: &str = "tidegate-operator";

/// How a plan is carried out.
#[derive(Clone, Copy)]
pub(crate) struct Manner {
    pub(crate) dry_run: bool,
    pub(crate) patience: Duration,
    pub(crate) output: Output,
}

impl Manner {
    /// As it goes on; a program is told at the end.
    pub(crate) fn say(self, line: &str) -> Result<(), Refused> {
        if self.output == Output::Table { print::line(line) } else { Ok(()) }
    }
}

/// False when something that should have been rotated was not.
pub(crate) async fn run(arguments: &RotateArguments) -> Result<bool, Refused> {
    let cluster = Cluster::connect(&arguments.scope.cluster).await?;
    let steps = plan(&cluster, arguments.scope.all_namespaces).await?;
    let patience = Duration::from_secs(arguments.timeout);
    let manner = Manner { dry_run: arguments.dry_run, patience, output: arguments.output };
    if steps.is_empty() {
        manner.say("Every pod that a policy selects has the newest sidecar.")?;
    }
    let report = carry_out_all(&cluster, &steps, manner).await?;
    if manner.output != Output::Table {
        print::line(&print::form(manner.output, &report, String::new)?)?;
    }
    Ok(report.is_done())
}

async fn carry_out_all(cluster: &Cluster, steps: &[Step], manner: Manner) -> Result<Report, Refused> {
    let mut report = Report::default();
    for step in steps {
        manner.say(&step.to_string())?;
        report.add(step, carry_out(cluster, step, manner).await?);
    }
    Ok(report)
}

/// Creates every pod anew that has a sidecar.
pub(crate) async fn without_sidecars(cluster: &Cluster, manner: Manner) -> Result<Report, Refused> {
    let steps = plan_for(cluster, None, None).await?;
    carry_out_all(cluster, &steps, manner).await
}

async fn plan(cluster: &Cluster, everywhere: bool) -> Result<Vec<Step>, Refused> {
    let namespace = (!everywhere).then_some(cluster.namespace.as_str());
    let image = sidecar_image(cluster).await?;
    plan_for(cluster, namespace, Some(&image)).await
}

async fn plan_for(
    cluster: &Cluster,
    namespace: Option<&str>,
    image: Option<&str>,
) -> Result<Vec<Step>, Refused> {
    let inventory = Inventory::read(cluster, namespace).await?;
    let objects = namespaces(cluster, namespace)
        .await
        .map_err(|error| Refused::of(format!("namespaces: {}", said(&error))))?;
    let budgets = cluster.list::<PodDisruptionBudget>(namespace).await?;
    let workloads = Workloads::read(cluster, namespace).await?;
    let labels = |namespace: &Namespace| (namespace.name_any(), namespace.clone());
    let sight = Sight {
        image,
        namespaces: objects.iter().map(labels).collect(),
        budgets: &budgets,
        workloads: &workloads,
    };
    Ok(plan::of(&inventory, &sight))
}

/// What the operator injects now.
pub(crate) async fn sidecar_image(cluster: &Cluster) -> Result<String, Refused> {
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), &cluster.install_namespace);
    let operator = deployments.get(OPERATOR).await.map_err(|error| {
        let place = &cluster.install_namespace;
        Refused::of(format!("Deployment {place}/{OPERATOR}: {}: write --install-namespace", said(&error)))
    })?;
    let image = image_of(&operator);
    image.ok_or_else(|| Refused::of(format!("Deployment {OPERATOR} has no --sidecar-image")))
}

/// The image of the sidecars that an operator injects.
pub(crate) fn image_of(operator: &Deployment) -> Option<String> {
    let containers = operator.spec.as_ref()?.template.spec.as_ref()?.containers.iter();
    let mut arguments = containers.flat_map(|container| container.args.iter().flatten());
    arguments.find_map(|argument| argument.strip_prefix("--sidecar-image=").map(str::to_owned))
}

/// Whether it was done; none where nothing was to be done.
async fn carry_out(cluster: &Cluster, step: &Step, manner: Manner) -> Result<Option<bool>, Refused> {
    let (namespace, name) = (&step.namespace, &step.name);
    let done = match &step.action {
        Action::Leave(_) => return Ok(None),
        Action::Postpone(_) => return Ok(Some(false)),
        Action::Restart(_) | Action::Evict if manner.dry_run => return Ok(None),
        Action::Restart("Deployment") => restart::<Deployment>(cluster, namespace, name, manner).await,
        Action::Restart("StatefulSet") => restart::<StatefulSet>(cluster, namespace, name, manner).await,
        Action::Restart(_) => restart::<DaemonSet>(cluster, namespace, name, manner).await,
        Action::Evict => evict(cluster, namespace, name, manner).await,
    };
    done.map(Some)
}

/// Restarts a workload and waits until its pods are new.
async fn restart<K>(cluster: &Cluster, namespace: &str, name: &str, manner: Manner) -> Result<bool, Refused>
where
    K: Rollout
        + kube::core::util::Restart
        + Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(cluster.client.clone(), namespace);
    let failed = |error: &kube::Error| Refused::of(format!("{namespace}/{name}: {}", said(error)));
    match api.restart(name).await {
        // It was deleted meanwhile, and its pods with it.
        Err(error) if is_missing(&error) => return Ok(true),
        restarted => restarted.map_err(|error| failed(&error))?,
    };
    if manner.patience.is_zero() {
        return Ok(true);
    }
    let end = Instant::now() + manner.patience;
    while Instant::now() < end {
        sleep(PAUSE).await;
        let workload = api.get_opt(name).await.map_err(|error| failed(&error))?;
        if workload.is_none_or(|workload| workload.is_rolled_out()) {
            manner.say("  done")?;
            return Ok(true);
        }
    }
    manner.say(&format!(
        "  not done after {} s: kubectl -n {namespace} rollout status",
        manner.patience.as_secs()
    ))?;
    Ok(false)
}

/// Evicts a pod as soon as its `PodDisruptionBudgets` allow it.
async fn evict(cluster: &Cluster, namespace: &str, name: &str, manner: Manner) -> Result<bool, Refused> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let end = Instant::now() + manner.patience;
    loop {
        match pods.evict(name, &EvictParams::default()).await {
            Ok(_) => return Ok(true),
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(true),
            Err(kube::Error::Api(status)) if status.code == 429 => {
                if timeout_at(end, sleep(PAUSE)).await.is_err() {
                    manner.say(&format!("  not evicted: {}", status.message))?;
                    return Ok(false);
                }
            }
            Err(error) => return Err(Refused::of(format!("{namespace}/{name}: {}", said(&error)))),
        }
    }
}

#[cfg(test)]
mod tests;
