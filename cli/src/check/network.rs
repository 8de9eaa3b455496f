//! Does a `NetworkPolicy` cut sidecars off from the operator, or the operator from them?
//!
//! Judged from the objects, as the API describes them: a cluster whose network does not enforce them is fine
//! either way, and what a network adds of its own (Cilium's, Calico's policies) is not seen.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;
use kube::core::{Selector, SelectorExt as _};

use super::Finding;
use super::operator::Operator;
use super::pods::Seen;
use crate::cluster::{Cluster, namespaces, said};
use crate::sidecars::{container, is_alive};

const PART: &str = "network";
/// The policy stream, as the operator's pods listen to it.
const STREAM: (&str, i32) = ("policy", 8444);

/// One end of the stream.
#[derive(Debug, Clone)]
struct End {
    namespace: String,
    namespace_labels: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    address: Option<IpAddr>,
}

pub(super) async fn check(cluster: &Cluster, seen: &Seen, operator: &Operator) -> Vec<Finding> {
    let policies = match cluster.list::<NetworkPolicy>(None).await {
        Ok(policies) => policies,
        Err(refused) => {
            let error = refused.lines().collect::<Vec<_>>().join("; ");
            return vec![Finding::unread(PART, "NetworkPolicies", &error)];
        }
    };
    let objects = match namespaces(cluster, None).await {
        Ok(objects) => objects,
        Err(error) => return vec![Finding::unread(PART, "namespaces", &said(&error))],
    };
    let (Ok(inventory), Some(there)) = (&seen.inventory, operator.pods.first()) else {
        return Vec::new();
    };
    let there = End::of(there, &objects);
    let injected = inventory.pods.iter().filter(|pod| container(pod).is_some() && is_alive(pod));
    let cuts: BTreeSet<_> =
        injected.flat_map(|pod| cuts(&End::of(pod, &objects), &there, &policies)).collect();
    if cuts.is_empty() {
        return vec![Finding::ok(PART, "no NetworkPolicy cuts a sidecar off from the operator")];
    }
    cuts.into_iter().map(|cut| cut.finding(&there)).collect()
}

/// Policies that together let nothing pass in one direction.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Cut {
    egress: bool,
    /// Of the policies, and of the other end.
    namespace: String,
    other: String,
    policies: Vec<String>,
}

impl Cut {
    fn finding(&self, there: &End) -> Finding {
        let names = self.policies.join(", ");
        let (namespace, port) = (&self.namespace, STREAM.1);
        if self.egress {
            let message =
                format!("egress of pods of {namespace} to the operator is cut by NetworkPolicy {names}");
            let hint = format!(
                "add: egress: [{{to: [{{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {}}}}}}}], ports: [{{protocol: TCP, port: {port}}}]}}]",
                there.namespace
            );
            return Finding::fail(PART, message, hint);
        }
        let message = format!("ingress of the operator from {} is cut by NetworkPolicy {names}", self.other);
        let hint = format!(
            "add: ingress: [{{from: [{{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {}}}}}}}], ports: [{{protocol: TCP, port: {port}}}]}}]",
            self.other
        );
        Finding::fail(PART, message, hint)
    }
}

impl End {
    fn of(pod: &Pod, namespaces: &[Namespace]) -> Self {
        let namespace = pod.namespace().unwrap_or_default();
        let object = namespaces.iter().find(|object| object.name_any() == namespace);
        let address =
            pod.status.as_ref().and_then(|status| status.pod_ip.as_ref()).and_then(|ip| ip.parse().ok());
        Self {
            namespace_labels: object.map(|object| object.labels().clone()).unwrap_or_default(),
            labels: pod.labels().clone(),
            namespace,
            address,
        }
    }
}

fn cuts(here: &End, there: &End, policies: &[NetworkPolicy]) -> Vec<Cut> {
    let cut = |egress: bool, at: &End, other: &End| {
        let selecting: Vec<_> = policies.iter().filter(|policy| selects(policy, at, egress)).collect();
        let open = selecting.is_empty() || selecting.iter().any(|policy| allows(policy, egress, at, other));
        (!open).then(|| Cut {
            egress,
            namespace: at.namespace.clone(),
            other: other.namespace.clone(),
            policies: selecting.iter().map(|policy| policy.name_any()).collect(),
        })
    };
    [cut(true, here, there), cut(false, there, here)].into_iter().flatten().collect()
}

/// Whether the policy isolates the pod in this direction.
fn selects(policy: &NetworkPolicy, pod: &End, egress: bool) -> bool {
    let Some(spec) = &policy.spec else { return false };
    policy.namespace().as_deref() == Some(pod.namespace.as_str())
        && isolates(spec, egress)
        && matches(spec.pod_selector.as_ref(), &pod.labels)
}

/// Without `policyTypes` ingress always, egress when there is a rule for it.
fn isolates(spec: &NetworkPolicySpec, egress: bool) -> bool {
    match &spec.policy_types {
        Some(types) => types.iter().any(|one| one == if egress { "Egress" } else { "Ingress" }),
        None => !egress || spec.egress.is_some(),
    }
}

fn allows(policy: &NetworkPolicy, egress: bool, at: &End, other: &End) -> bool {
    let Some(spec) = &policy.spec else { return false };
    let allows = |peers: Option<&[NetworkPolicyPeer]>, ports: Option<&[NetworkPolicyPort]>| {
        let (peers, ports) = (peers.unwrap_or_default(), ports.unwrap_or_default());
        let to_peer = peers.is_empty() || peers.iter().any(|peer| is_peer(peer, at, other));
        to_peer && (ports.is_empty() || ports.iter().any(is_stream))
    };
    if egress {
        let mut rules = spec.egress.iter().flatten();
        return rules.any(|rule| allows(rule.to.as_deref(), rule.ports.as_deref()));
    }
    let mut rules = spec.ingress.iter().flatten();
    rules.any(|rule: &NetworkPolicyIngressRule| allows(rule.from.as_deref(), rule.ports.as_deref()))
}

fn is_peer(peer: &NetworkPolicyPeer, at: &End, other: &End) -> bool {
    if let Some(block) = &peer.ip_block {
        return other.address.is_some_and(|address| holds(block, address));
    }
    let in_namespace = match &peer.namespace_selector {
        Some(selector) => matches(Some(selector), &other.namespace_labels),
        None => at.namespace == other.namespace,
    };
    in_namespace && peer.pod_selector.as_ref().is_none_or(|selector| matches(Some(selector), &other.labels))
}

fn holds(block: &IPBlock, address: IpAddr) -> bool {
    let within = |cidr: &String| cidr.parse::<IpNet>().is_ok_and(|net| net.contains(&address));
    within(&block.cidr) && !block.except.iter().flatten().any(within)
}

fn is_stream(port: &NetworkPolicyPort) -> bool {
    let tcp = port.protocol.as_deref().unwrap_or("TCP") == "TCP";
    let meant = match (&port.port, port.end_port) {
        (None, _) => true,
        (Some(IntOrString::String(name)), _) => name == STREAM.0,
        (Some(IntOrString::Int(first)), last) => (*first..=last.unwrap_or(*first)).contains(&STREAM.1),
    };
    tcp && meant
}

/// No selector and an empty one match everything.
fn matches(selector: Option<&LabelSelector>, labels: &BTreeMap<String, String>) -> bool {
    let Some(selector) = selector else { return true };
    Selector::try_from(selector.clone()).is_ok_and(|selector| selector.matches(labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(namespace: &str, labels: &str, address: &str) -> End {
        let parse = |yaml: &str| serde_saphyr::from_str(yaml).unwrap();
        End {
            namespace: namespace.to_owned(),
            namespace_labels: parse(&format!("{{kubernetes.io/metadata.name: {namespace}}}")),
            labels: parse(labels),
            address: address.parse().ok(),
        }
    }

    fn policy(namespace: &str, spec: &str) -> NetworkPolicy {
        serde_saphyr::from_str(&format!("{{metadata: {{name: p, namespace: {namespace}}}, spec: {spec}}}"))
            .unwrap()
    }

    /// Whether the pod's egress, and the operator's ingress, are cut.
    fn cut(policies: &[NetworkPolicy]) -> (bool, bool) {
        let here = end("inference", "{app: llama}", "10.0.0.7");
        let there = end("tidegate-system", "{app.kubernetes.io/component: operator}", "10.1.0.9");
        let cuts = cuts(&here, &there, policies);
        (cuts.iter().any(|cut| cut.egress), cuts.iter().any(|cut| !cut.egress))
    }

    #[test]
    fn egress_is_cut_unless_a_rule_leads_to_the_stream() {
        let to = "namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: tidegate-system}}";
        for (spec, is_cut) in [
            ("{podSelector: {}, policyTypes: [Egress]}".to_owned(), true),
            ("{podSelector: {}, policyTypes: [Ingress]}".to_owned(), false),
            ("{podSelector: {matchLabels: {app: other}}, policyTypes: [Egress]}".to_owned(), false),
            ("{podSelector: {}, egress: [{}]}".to_owned(), false),
            (format!("{{podSelector: {{}}, egress: [{{to: [{{{to}}}]}}]}}"), false),
            (format!("{{podSelector: {{}}, egress: [{{to: [{{{to}}}], ports: [{{port: 8444}}]}}]}}"), false),
            (
                format!("{{podSelector: {{}}, egress: [{{to: [{{{to}}}], ports: [{{port: policy}}]}}]}}"),
                false,
            ),
            (
                format!(
                    "{{podSelector: {{}}, egress: [{{to: [{{{to}}}], ports: [{{port: 8000, endPort: 9000}}]}}]}}"
                ),
                false,
            ),
            (format!("{{podSelector: {{}}, egress: [{{to: [{{{to}}}], ports: [{{port: 443}}]}}]}}"), true),
            (
                format!(
                    "{{podSelector: {{}}, egress: [{{to: [{{{to}}}], ports: [{{port: 8444, protocol: UDP}}]}}]}}"
                ),
                true,
            ),
            ("{podSelector: {}, egress: [{to: [{podSelector: {}}]}]}".to_owned(), true),
            ("{podSelector: {}, egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}".to_owned(), false),
            (
                "{podSelector: {}, egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.1.0.0/16]}}]}]}"
                    .to_owned(),
                true,
            ),
        ] {
            assert_eq!(cut(&[policy("inference", &spec)]), (is_cut, false), "{spec}");
        }
    }

    #[test]
    fn one_policy_that_allows_is_enough_and_others_namespaces_say_nothing() {
        let closed = "{podSelector: {}, policyTypes: [Egress]}";
        let open = "{podSelector: {}, egress: [{ports: [{port: 8444}]}]}";
        assert_eq!(cut(&[policy("inference", closed), policy("inference", open)]), (false, false));
        assert_eq!(cut(&[policy("other", closed)]), (false, false));
    }

    #[test]
    fn ingress_of_the_operator_is_judged_too() {
        let closed = policy("tidegate-system", "{podSelector: {}}");
        assert_eq!(cut(std::slice::from_ref(&closed)), (false, true));
        let from = "{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}], ports: [{port: 8444}]}]}";
        assert_eq!(cut(&[closed, policy("tidegate-system", from)]), (false, false));
    }
}
