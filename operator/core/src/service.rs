//! What the index keeps of a Service, and of what is like one.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;
use serde_json::Value;

use crate::key::{Front, FrontKind};
use crate::target::has_labels;

/// What of a Service or an `InferencePool` decides which pods it leads to, and how.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceFacts {
    /// Which of them it is.
    pub kind: FrontKind,
    /// Its name.
    pub name: String,
    /// Labels of its pods. Empty: it selects none, its endpoints are written by somebody else.
    pub selector: BTreeMap<String, String>,
    /// Its clients get the pods' own addresses, and choose the port themselves.
    pub headless: bool,
    /// Ports of its pods that it reaches by number.
    pub numbers: BTreeSet<u16>,
}

impl ServiceFacts {
    /// Whether it leads to a pod with these labels.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.selector.is_empty() && has_labels(&self.selector, labels)
    }

    /// Whether its clients reach one of these ports without its name: by number, or by the pod's own address.
    pub fn goes_around(&self, guards: impl Fn(u16) -> bool) -> bool {
        self.headless || self.numbers.iter().any(|number| guards(*number))
    }

    /// Reads them from the object. A Service of type `ExternalName` ignores its selector.
    pub fn of(service: &Service) -> Self {
        let spec = service.spec.as_ref().filter(|spec| spec.type_.as_deref() != Some("ExternalName"));
        Self {
            kind: FrontKind::Service,
            name: service.name_any(),
            selector: spec.and_then(|spec| spec.selector.clone()).unwrap_or_default(),
            headless: spec.is_some_and(|spec| spec.cluster_ip.as_deref() == Some("None")),
            numbers: spec
                .and_then(|spec| spec.ports.as_ref())
                .into_iter()
                .flatten()
                .filter_map(number)
                .collect(),
        }
    }

    /// Reads those of an `InferencePool`, from its `spec`: as it is stable (`selector.matchLabels`, `targetPorts`) and
    /// as it was before (`selector`, `targetPortNumber`). A router sends to the addresses of its pods, by number.
    pub fn of_pool(kind: FrontKind, name: String, spec: &Value) -> Self {
        let labels = spec["selector"].get("matchLabels").unwrap_or(&spec["selector"]);
        let text = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
        let listed = spec["targetPorts"].as_array().into_iter().flatten().map(|port| &port["number"]);
        let numbers = listed.chain([&spec["targetPortNumber"]]);
        Self {
            kind,
            name,
            selector: labels.as_object().into_iter().flatten().filter_map(text).collect(),
            headless: false,
            numbers: numbers.filter_map(|number| u16::try_from(number.as_u64()?).ok()).collect(),
        }
    }

    /// Its name with its kind.
    pub fn front(&self) -> Front {
        Front { kind: self.kind, name: self.name.clone() }
    }

    /// What its owner has to change so that it no longer goes around a sidecar that is reached by name.
    pub(crate) const fn remedy(&self) -> &'static str {
        match self.kind {
            FrontKind::Service => "give it a named targetPort and a cluster IP",
            FrontKind::InferencePool | FrontKind::ExperimentalInferencePool => {
                "pools reach pods by number, so let the namespace allow NET_ADMIN for the redirection"
            }
        }
    }
}

/// Without a `targetPort` the Service's own number is the pod's.
fn number(port: &ServicePort) -> Option<u16> {
    let number = match &port.target_port {
        Some(IntOrString::String(_)) => return None,
        Some(IntOrString::Int(number)) => *number,
        None => port.port,
    };
    u16::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn facts(yaml: &str) -> ServiceFacts {
        ServiceFacts::of(&serde_saphyr::from_str(yaml).unwrap())
    }

    #[test]
    fn a_port_without_a_name_as_target_is_reached_by_number() {
        let service = facts(
            "{metadata: {name: llama}, spec: {selector: {app: llama}, ports: [{port: 80, targetPort: http}, \
             {port: 81, targetPort: 8001}, {port: 8002}]}}",
        );
        assert_eq!(service.numbers, BTreeSet::from([8001, 8002]));
        assert!(!service.headless);
    }

    #[test]
    fn a_service_without_selector_selects_nothing() {
        let labels = BTreeMap::from([("app".to_owned(), "llama".to_owned())]);
        assert!(!ServiceFacts::default().selects(&labels));
        let service = ServiceFacts { selector: labels.clone(), ..ServiceFacts::default() };
        assert!(service.selects(&labels) && !service.selects(&BTreeMap::new()));
    }

    #[test]
    fn a_pool_selects_by_labels_and_reaches_pods_by_number_in_its_stable_and_its_experimental_form() {
        let labels = BTreeMap::from([("app".to_owned(), "llama".to_owned())]);
        for (kind, spec) in [
            (
                FrontKind::InferencePool,
                json!({"selector": {"matchLabels": {"app": "llama"}}, "targetPorts": [{"number": 8000}]}),
            ),
            (
                FrontKind::ExperimentalInferencePool,
                json!({"selector": {"app": "llama"}, "targetPortNumber": 8000}),
            ),
        ] {
            let pool = ServiceFacts::of_pool(kind, "pool".to_owned(), &spec);
            assert!(pool.selects(&labels) && pool.goes_around(|port| port == 8000), "{pool:?}");
            assert!(!pool.selects(&BTreeMap::new()));
        }
        let garbage =
            ServiceFacts::of_pool(FrontKind::InferencePool, "p".to_owned(), &json!({"selector": 7}));
        assert!(!garbage.selects(&labels) && garbage.numbers.is_empty());
    }

    #[test]
    fn a_headless_service_gives_away_addresses_and_an_external_name_selects_nothing() {
        assert!(facts("{metadata: {name: a}, spec: {clusterIP: None, selector: {app: llama}}}").headless);
        let external = facts("{metadata: {name: a}, spec: {type: ExternalName, selector: {app: llama}}}");
        assert_eq!(external.selector, BTreeMap::new());
    }
}
