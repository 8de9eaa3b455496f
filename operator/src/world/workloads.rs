//! The built-in kinds that make pods.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::PartialObjectMeta;
use tidegate_operator_core::key::WorkloadKind;

use super::state::{State, Touched, Watched};

/// A kind that makes pods, watched by its metadata alone.
pub(crate) trait MakesPods {
    const KIND: WorkloadKind;
}

macro_rules! makes_pods {
    ($($group:ident :: $kind:ident),*) => {
        /// Their names, as in log lines.
        pub(super) const SOURCES: &[&str] = &[$(WorkloadKind::$kind.as_str()),*];

        $(impl MakesPods for k8s_openapi::api::$group::v1::$kind {
            const KIND: WorkloadKind = WorkloadKind::$kind;
        })*
    };
}

makes_pods!(
    apps::Deployment,
    apps::StatefulSet,
    apps::ReplicaSet,
    apps::DaemonSet,
    batch::Job,
    batch::CronJob
);

impl<K: MakesPods> Watched for PartialObjectMeta<K> {
    const SOURCE: &'static str = K::KIND.as_str();

    fn strip(&mut self) {
        let ObjectMeta { name, namespace, resource_version, .. } = std::mem::take(&mut self.metadata);
        self.metadata = ObjectMeta { name, namespace, resource_version, ..ObjectMeta::default() };
    }

    fn apply(self, state: &mut State) -> Touched {
        state.index.apply_workload(K::KIND, &self.metadata).into()
    }

    fn delete(self, state: &mut State) -> Touched {
        let namespace = self.metadata.namespace.unwrap_or_default();
        state.index.delete_workload(K::KIND, &namespace, &self.metadata.name.unwrap_or_default()).into()
    }

    fn reset(objects: Vec<Self>, state: &mut State) -> Touched {
        let metadata: Vec<ObjectMeta> = objects.into_iter().map(|object| object.metadata).collect();
        state.index.reset_workloads(K::KIND, &metadata).into()
    }
}
