//! Which pods Services still send traffic to.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::ResourceExt;
use tidegate_operator_core::key::PodKey;

/// The pods that each `EndpointSlice` lists as ready.
#[derive(Debug, Default)]
pub(crate) struct Endpoints {
    slices: BTreeMap<(String, String), BTreeSet<String>>,
    listings: HashMap<PodKey, usize>,
}

impl Endpoints {
    /// Whether any slice lists the pod.
    pub(crate) fn list(&self, pod: &PodKey) -> bool {
        self.listings.contains_key(pod)
    }

    /// Returns the pods that are listed now and were not, or the other way round.
    pub(crate) fn apply(&mut self, slice: &EndpointSlice) -> BTreeSet<PodKey> {
        self.set(slice_key(slice), &ready_pods(slice))
    }

    /// As [`apply`](Self::apply), for a slice that is gone.
    pub(crate) fn delete(&mut self, slice: &EndpointSlice) -> BTreeSet<PodKey> {
        self.set(slice_key(slice), &BTreeSet::new())
    }

    /// As [`apply`](Self::apply): these slices are all there are.
    pub(crate) fn reset(&mut self, slices: &[EndpointSlice]) -> BTreeSet<PodKey> {
        let before: BTreeSet<PodKey> = self.listings.keys().cloned().collect();
        *self = Self::default();
        for slice in slices {
            self.apply(slice);
        }
        let after: BTreeSet<PodKey> = self.listings.keys().cloned().collect();
        before.symmetric_difference(&after).cloned().collect()
    }

    fn set(&mut self, key: (String, String), pods: &BTreeSet<String>) -> BTreeSet<PodKey> {
        let namespace = key.0.clone();
        let before = if pods.is_empty() {
            self.slices.remove(&key).unwrap_or_default()
        } else {
            self.slices.insert(key, pods.clone()).unwrap_or_default()
        };
        let mut changed = BTreeSet::new();
        for name in before.difference(pods) {
            let pod = PodKey::new(namespace.as_str(), name.as_str());
            if let Some(count) = self.listings.get_mut(&pod) {
                *count -= 1;
                if *count == 0 {
                    self.listings.remove(&pod);
                    changed.insert(pod);
                }
            }
        }
        for name in pods.difference(&before) {
            let pod = PodKey::new(namespace.as_str(), name.as_str());
            let count = self.listings.entry(pod.clone()).or_default();
            *count += 1;
            if *count == 1 {
                changed.insert(pod);
            }
        }
        changed
    }
}

fn slice_key(slice: &EndpointSlice) -> (String, String) {
    (slice.namespace().unwrap_or_default(), slice.name_any())
}

fn ready_pods(slice: &EndpointSlice) -> BTreeSet<String> {
    slice.endpoints.iter().filter(|endpoint| gets_traffic(endpoint)).filter_map(pod_name).collect()
}

/// An absent `ready` means ready. With `publishNotReadyAddresses` a pod stays ready while it is deleted, and only
/// `terminating` tells.
fn gets_traffic(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|conditions| conditions.ready);
    let terminating = conditions.and_then(|conditions| conditions.terminating);
    ready != Some(false) && terminating != Some(true)
}

fn pod_name(endpoint: &Endpoint) -> Option<String> {
    let target = endpoint.target_ref.as_ref()?;
    (target.kind.as_deref() == Some("Pod")).then(|| target.name.clone())?
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slice(name: &str, pods: &[(&str, bool, bool)]) -> EndpointSlice {
        let endpoints: Vec<_> = pods
            .iter()
            .map(|(pod, ready, terminating)| {
                json!({
                    "addresses": ["192.0.2.1"],
                    "conditions": {"ready": ready, "terminating": terminating},
                    "targetRef": {"kind": "Pod", "name": pod},
                })
            })
            .collect();
        let slice = json!({"metadata": {"namespace": "ns", "name": name}, "addressType": "IPv4", "endpoints": endpoints});
        serde_json::from_value(slice).unwrap()
    }

    fn pod(name: &str) -> PodKey {
        PodKey::new("ns", name)
    }

    #[test]
    fn a_pod_is_listed_until_the_last_slice_lets_it_go() {
        let mut endpoints = Endpoints::default();
        assert_eq!(endpoints.apply(&slice("a", &[("p", true, false)])), BTreeSet::from([pod("p")]));
        assert!(endpoints.apply(&slice("b", &[("p", true, false)])).is_empty());
        assert!(endpoints.apply(&slice("a", &[("p", false, false)])).is_empty());
        assert!(endpoints.list(&pod("p")));
        assert_eq!(endpoints.delete(&slice("b", &[])), BTreeSet::from([pod("p")]));
        assert!(!endpoints.list(&pod("p")));
    }

    #[test]
    fn a_terminating_pod_of_a_service_that_publishes_unready_addresses_counts_as_withdrawn() {
        let mut endpoints = Endpoints::default();
        endpoints.apply(&slice("a", &[("p", true, true)]));
        assert!(!endpoints.list(&pod("p")));
    }

    #[test]
    fn a_relist_tells_what_changed_meanwhile() {
        let mut endpoints = Endpoints::default();
        endpoints.apply(&slice("a", &[("gone", true, false), ("stays", true, false)]));
        let changed = endpoints.reset(&[slice("b", &[("stays", true, false), ("new", true, false)])]);
        assert_eq!(changed, BTreeSet::from([pod("gone"), pod("new")]));
    }
}
