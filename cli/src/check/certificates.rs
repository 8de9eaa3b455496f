//! How long do the certificates last?
//!
//! No Secret is read: the operator tells in its metrics when what it serves ends, and the webhook configurations hold
//! the authorities that the API server trusts.

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::jiff::Timestamp;
use kube::{Api, ResourceExt as _};
use x509_parser::pem::Pem;

use super::Finding;
use super::operator::Operator;
use crate::cluster::{Cluster, said};
use crate::sidecars::proxied;

const PART: &str = "certificates";
/// Of both webhook configurations.
const NAME: &str = "tidegate";
const HEALTH_PORT: u16 = 8080;
/// The operator renews after two thirds of a life, which is 30 days before the end of a serving certificate.
const SOON: i64 = 7 * 24 * 3600;

pub(super) async fn check(cluster: &Cluster, operator: &Operator) -> Vec<Finding> {
    let now = Timestamp::now().as_second();
    let mut findings = authorities(cluster, now).await;
    for pod in &operator.pods {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}:{HEALTH_PORT}/proxy/metrics");
        findings.extend(match proxied(cluster, &path).await {
            Ok(metrics) => served(&name, &metrics, now),
            Err(error) => vec![Finding::unread(PART, &format!("what {name} serves"), &error)],
        });
    }
    findings
}

async fn authorities(cluster: &Cluster, now: i64) -> Vec<Finding> {
    let mutating: Api<MutatingWebhookConfiguration> = Api::all(cluster.client.clone());
    let validating: Api<ValidatingWebhookConfiguration> = Api::all(cluster.client.clone());
    let hint = "kubectl tidegate check tells below whether the operator is there: it writes them";
    let mut bundles = Vec::new();
    let mut findings = Vec::new();
    match mutating.get(NAME).await {
        Ok(found) => {
            bundles.extend(found.webhooks.into_iter().flatten().map(|webhook| webhook.client_config));
        }
        Err(error) => findings.push(Finding::fail(PART, format!("mutating webhook: {}", said(&error)), hint)),
    }
    match validating.get(NAME).await {
        Ok(found) => {
            bundles.extend(found.webhooks.into_iter().flatten().map(|webhook| webhook.client_config));
        }
        Err(error) => {
            findings.push(Finding::fail(PART, format!("validating webhook: {}", said(&error)), hint));
        }
    }
    let mut judged: Vec<_> = bundles.iter().map(|config| authority(config.ca_bundle.as_ref(), now)).collect();
    judged.dedup();
    findings.extend(judged);
    findings
}

/// The one that lasts longest counts: others are there for the overlap.
fn authority(bundle: Option<&ByteString>, now: i64) -> Finding {
    let bytes = bundle.map(|bundle| bundle.0.as_slice()).unwrap_or_default();
    let ends = Pem::iter_from_buffer(bytes).filter_map(|pem| {
        let pem = pem.ok()?;
        pem.parse_x509().ok().map(|certificate| certificate.validity().not_after.timestamp())
    });
    match ends.max() {
        None => Finding::fail(
            PART,
            "the webhooks name no authority: the API server cannot call the operator",
            "the operator writes caBundle: look at its log",
        ),
        Some(end) => lasts("the authority that the API server trusts", end, now),
    }
}

/// `tidegate_certificate_expiry_timestamp_seconds{certificate="serving"} 1769904000`
fn served(pod: &str, metrics: &str, now: i64) -> Vec<Finding> {
    let prefix = "tidegate_certificate_expiry_timestamp_seconds{certificate=\"";
    let lines = metrics.lines().filter_map(|line| line.strip_prefix(prefix)?.split_once("\"} "));
    let findings: Vec<_> = lines
        .filter_map(|(name, end)| {
            let end = end.parse::<f64>().ok()? as i64;
            Some(lasts(&format!("the {name} certificate of {pod}"), end, now))
        })
        .collect();
    if findings.is_empty() {
        return vec![Finding::fail(PART, format!("{pod} serves no certificate"), "look at its log")];
    }
    findings
}

fn lasts(what: &str, end: i64, now: i64) -> Finding {
    let date = Timestamp::from_second(end).map_or_else(|_| end.to_string(), |end| end.to_string());
    let hint = "the operator renews it after two thirds of its life: look at its log";
    if end <= now {
        Finding::fail(PART, format!("{what} ended at {date}"), hint)
    } else if end - now < SOON {
        Finding::warn(PART, format!("{what} ends at {date}"), hint)
    } else {
        Finding::ok(PART, format!("{what} lasts until {date}"))
    }
}
