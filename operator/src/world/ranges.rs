//! What namespaces ask of the resources of their pods' containers.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::LimitRange;
use kube::ResourceExt;
use tidegate_operator_core::inject::ContainerBounds;

use super::state::{State, Touched, Watched};

/// The `LimitRange`s of each namespace, by name.
#[derive(Debug, Default)]
pub(super) struct Ranges(BTreeMap<String, BTreeMap<String, LimitRange>>);

impl Ranges {
    pub(super) fn bounds(&self, namespace: &str) -> ContainerBounds {
        ContainerBounds::of(self.0.get(namespace).into_iter().flat_map(BTreeMap::values))
    }
}

/// Only pods that are created later are touched.
impl Watched for LimitRange {
    const SOURCE: &'static str = "LimitRange";

    fn strip(&mut self) {
        self.managed_fields_mut().clear();
        self.annotations_mut().clear();
    }

    fn apply(self, state: &mut State) -> Touched {
        let of_namespace = state.ranges.0.entry(self.namespace().unwrap_or_default()).or_default();
        of_namespace.insert(self.name_any(), self);
        Touched::default()
    }

    fn delete(self, state: &mut State) -> Touched {
        let namespace = self.namespace().unwrap_or_default();
        if let Some(of_namespace) = state.ranges.0.get_mut(&namespace) {
            of_namespace.remove(&self.name_any());
            if of_namespace.is_empty() {
                state.ranges.0.remove(&namespace);
            }
        }
        Touched::default()
    }

    fn reset(objects: Vec<Self>, state: &mut State) -> Touched {
        state.ranges.0.clear();
        for object in objects {
            object.apply(state);
        }
        Touched::default()
    }
}
