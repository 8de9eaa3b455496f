//! Objects of kinds that a cluster has only where somebody has installed them.

use kube::ResourceExt as _;
use kube::core::DynamicObject;

use super::{Changes, Index, namespace_of, workload_of};
use crate::key::{CustomKind, Front, FrontKind, Unavailable, Workload, WorkloadKind};
use crate::service::ServiceFacts;

/// How policies see a kind.
enum Role {
    Workload(WorkloadKind),
    Front(FrontKind),
}

const fn role(kind: CustomKind) -> Role {
    match kind {
        CustomKind::LeaderWorkerSet => Role::Workload(WorkloadKind::LeaderWorkerSet),
        CustomKind::InferencePool => Role::Front(FrontKind::InferencePool),
        CustomKind::ExperimentalInferencePool => Role::Front(FrontKind::ExperimentalInferencePool),
    }
}

impl Index {
    /// An object of this kind is there.
    pub fn apply_custom(&mut self, kind: CustomKind, object: &DynamicObject) -> Changes {
        match role(kind) {
            Role::Workload(kind) => self.apply_workload(kind, &object.metadata),
            Role::Front(kind) => {
                self.edit(&namespace_of(object), |namespace| namespace.put_service(pool(kind, object)))
            }
        }
    }

    /// An object of this kind is gone.
    pub fn delete_custom(&mut self, kind: CustomKind, namespace: &str, name: &str) -> Changes {
        let name = name.to_owned();
        self.edit(namespace, |index| match role(kind) {
            Role::Workload(kind) => index.remove_workload(&Workload { kind, name }),
            Role::Front(kind) => index.remove_service(&Front { kind, name }),
        })
    }

    /// These objects are all there are of this kind, which the cluster has.
    pub fn reset_custom(&mut self, kind: CustomKind, objects: &[DynamicObject]) -> Changes {
        let mut changes = self.replace_custom(kind, objects);
        if self.unavailable.remove(&kind).is_some() {
            changes.extend(self.every_policy());
        }
        changes
    }

    /// Objects of this kind cannot be known: none is there until the next reset.
    pub fn set_unavailable(&mut self, kind: CustomKind, why: Unavailable) -> Changes {
        let mut changes = self.replace_custom(kind, &[]);
        if self.unavailable.insert(kind, why) != Some(why) {
            changes.extend(self.every_policy());
        }
        changes
    }

    fn replace_custom(&mut self, kind: CustomKind, objects: &[DynamicObject]) -> Changes {
        match role(kind) {
            Role::Workload(kind) => {
                let named = objects.iter().map(|object| workload_of(kind, &object.metadata));
                self.reset(named, |index, workloads| index.replace_workloads(kind, workloads))
            }
            Role::Front(kind) => {
                let named = objects.iter().map(|object| (namespace_of(object), pool(kind, object)));
                self.reset(named, |index, pools| index.replace_services(kind, pools))
            }
        }
    }

    fn every_policy(&self) -> Changes {
        Changes { policies: self.policies().collect(), ..Changes::default() }
    }
}

fn pool(kind: FrontKind, object: &DynamicObject) -> ServiceFacts {
    ServiceFacts::of_pool(kind, object.name_any(), &object.data["spec"])
}
