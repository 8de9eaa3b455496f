//! Is the operator there, does it lead, and is it as old as this program?

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::ListParams;

use super::{Finding, installed};
use crate::cluster::{Cluster, is_missing, said};
use crate::rotate::image_of;

const PART: &str = "operator";
const NAME: &str = "tidegate-operator";

/// What the other parts need to know about it.
#[derive(Debug, Clone, Default)]
pub(super) struct Operator {
    pub(super) pods: Vec<Pod>,
    pub(super) sidecar_image: Option<String>,
}

pub(super) async fn check(cluster: &Cluster) -> (Vec<Finding>, Operator) {
    let deployment = match installed::<Deployment>(cluster).get(NAME).await {
        Ok(deployment) => deployment,
        Err(error) => return (vec![missing(cluster, &error)], Operator::default()),
    };
    let selector = ListParams::default().labels("app.kubernetes.io/component=operator");
    let pods = installed::<Pod>(cluster).list(&selector).await.map(|list| list.items);
    let mut findings = vec![readiness(&deployment)];
    match installed::<Lease>(cluster).get(NAME).await {
        Ok(lease) => findings.push(leadership(&lease, Timestamp::now())),
        Err(error) if is_missing(&error) => findings.push(Finding::fail(
            PART,
            "no replica has ever led: nobody writes status",
            format!("kubectl -n {} logs deployment/{NAME}", cluster.install_namespace),
        )),
        Err(error) => findings.push(Finding::unread(PART, "its Lease", &said(&error))),
    }
    if let Some(version) = deployment.labels().get("app.kubernetes.io/version") {
        findings.push(skew(version));
    }
    let pods = pods.unwrap_or_else(|error| {
        findings.push(Finding::unread(PART, "its pods", &said(&error)));
        Vec::new()
    });
    (findings, Operator { pods, sidecar_image: image_of(&deployment) })
}

fn missing(cluster: &Cluster, error: &kube::Error) -> Finding {
    if !is_missing(error) {
        return Finding::unread(PART, "its Deployment", &said(error));
    }
    let message = format!("there is no Deployment {NAME} in {}", cluster.install_namespace);
    Finding::fail(PART, message, "helm install the chart, or write --install-namespace")
}

fn readiness(deployment: &Deployment) -> Finding {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let ready = deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
    let logs = format!("kubectl -n {} logs deployment/{NAME}", deployment.namespace().unwrap_or_default());
    let message = format!("{ready} of {wanted} replicas are ready");
    match (wanted, ready) {
        (0, _) => Finding::fail(PART, "it is scaled to 0: no pod is injected", "scale it up"),
        (_, 0) => Finding::fail(PART, message, logs),
        (wanted, ready) if ready < wanted => Finding::warn(PART, message, logs),
        _ => Finding::ok(PART, message),
    }
}

fn leadership(lease: &Lease, now: Timestamp) -> Finding {
    let spec = lease.spec.clone().unwrap_or_default();
    let holder = spec.holder_identity.unwrap_or_default();
    let age = spec.renew_time.map(|renewed| now.duration_since(renewed.0).as_secs());
    let longest = i64::from(spec.lease_duration_seconds.unwrap_or(15));
    match age {
        Some(age) if age <= longest && !holder.is_empty() => Finding::ok(PART, format!("{holder} leads")),
        Some(age) if !holder.is_empty() => Finding::fail(
            PART,
            format!("{holder} has not renewed its Lease for {age} s: nobody writes status"),
            "look at its log, and at the API server's",
        ),
        _ => Finding::warn(PART, "no replica leads now", "look again in 15 s"),
    }
}

/// One minor version is what is tested.
fn skew(version: &str) -> Finding {
    let own = env!("CARGO_PKG_VERSION");
    let minor = |version: &str| {
        let mut numbers = version.split('.').map(|number| number.parse::<i32>().ok());
        Some((numbers.next()??, numbers.next()??))
    };
    let near = match (minor(version), minor(own)) {
        (Some(theirs), Some(ours)) => theirs.0 == ours.0 && (theirs.1 - ours.1).abs() <= 1,
        _ => false,
    };
    let message = format!("version {version}, and this kubectl-tidegate is {own}");
    if near {
        Finding::ok(PART, message)
    } else {
        Finding::warn(PART, message, "take versions that are at most one minor version apart")
    }
}
