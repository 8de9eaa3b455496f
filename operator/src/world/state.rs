//! What each kind of watched object changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use k8s_openapi::api::core::v1::{
    Container, LimitRange, Namespace, ObjectReference, Pod, PodSpec, PodStatus, Service,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::core::DynamicObject;
use tidegate_crds::{CircuitBreakerPolicy, RateLimitPolicy};
use tidegate_operator_core::index::{Changes, Index};
use tidegate_operator_core::inject::{
    BY_NAME_ANNOTATION, INJECTED_ANNOTATION, NamespaceFacts, SIDECAR_CONTAINER, SKIPPED_ANNOTATION,
};
use tidegate_operator_core::key::{CustomKind, PodKey, PolicyKey, PolicyKind, Unavailable};
use tidegate_operator_core::status::PolicyStatus;

use super::endpoints::Endpoints;
use super::ranges::Ranges;
use super::subscribers::View;
use super::workloads;

/// An event of a watch.
#[derive(Debug)]
pub(crate) enum Feed<K> {
    /// It is there.
    Apply(K),
    /// It is gone.
    Delete(K),
    /// These are all there are.
    Reset(Vec<K>),
}

/// A policy's object, as far as status and Events need it.
#[derive(Debug, Clone)]
pub(crate) struct PolicyObject {
    /// For Events.
    pub(crate) reference: ObjectReference,
    /// As last seen or written.
    pub(crate) status: Option<PolicyStatus>,
}

#[derive(Debug)]
struct InjectedPod {
    uid: String,
    deleting: bool,
}

/// What an event concerns.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    pub(super) changes: Changes,
    /// Pods whose endpoints or deletion changed.
    pub(super) pods: BTreeSet<PodKey>,
    /// Whether another namespace may need the CA bundle.
    pub(super) places: bool,
}

impl From<Changes> for Touched {
    fn from(changes: Changes) -> Self {
        Self { changes, ..Self::default() }
    }
}

#[derive(Debug)]
pub(crate) struct State {
    pub(super) index: Index,
    pub(super) namespaces: BTreeMap<String, NamespaceFacts>,
    pub(super) ranges: Ranges,
    pub(super) policies: BTreeMap<PolicyKey, PolicyObject>,
    injected: HashMap<PodKey, InjectedPod>,
    endpoints: Endpoints,
    unsynced: BTreeSet<&'static str>,
}

impl Default for State {
    fn default() -> Self {
        let kinds = [
            Namespace::SOURCE,
            Pod::SOURCE,
            Service::SOURCE,
            LimitRange::SOURCE,
            EndpointSlice::SOURCE,
            RateLimitPolicy::SOURCE,
            CircuitBreakerPolicy::SOURCE,
        ];
        let custom = CustomKind::ALL.into_iter().map(CustomKind::definition);
        Self {
            index: Index::new(),
            namespaces: BTreeMap::new(),
            ranges: Ranges::default(),
            policies: BTreeMap::new(),
            injected: HashMap::new(),
            endpoints: Endpoints::default(),
            unsynced: kinds.into_iter().chain(workloads::SOURCES.iter().copied()).chain(custom).collect(),
        }
    }
}

impl State {
    pub(super) fn take<K: Watched>(&mut self, feed: Feed<K>) -> Touched {
        match feed {
            Feed::Apply(object) => object.apply(self),
            Feed::Delete(object) => object.delete(self),
            Feed::Reset(objects) => {
                self.unsynced.remove(K::SOURCE);
                K::reset(objects, self)
            }
        }
    }

    pub(super) fn take_custom(&mut self, kind: CustomKind, feed: Feed<DynamicObject>) -> Touched {
        match feed {
            Feed::Apply(object) => self.index.apply_custom(kind, &object).into(),
            Feed::Delete(object) => {
                let key = pod_key(&object);
                self.index.delete_custom(kind, &key.namespace, &key.name).into()
            }
            Feed::Reset(objects) => {
                self.unsynced.remove(kind.definition());
                self.index.reset_custom(kind, &objects).into()
            }
        }
    }

    pub(super) fn set_unavailable(&mut self, kind: CustomKind, why: Unavailable) -> Touched {
        self.unsynced.remove(kind.definition());
        self.index.set_unavailable(kind, why).into()
    }

    pub(super) fn is_synced(&self) -> bool {
        self.unsynced.is_empty()
    }

    pub(super) fn unsynced(&self) -> Vec<&'static str> {
        self.unsynced.iter().copied().collect()
    }

    pub(super) fn uid_of(&self, pod: &PodKey) -> Option<&str> {
        self.index.uid_of(&pod.namespace, &pod.name)
    }

    /// `None` while something has not been listed, and for a pod that is not known under this uid.
    pub(super) fn view(&self, pod: &PodKey, uid: &str, since: Instant) -> Option<View> {
        if !self.is_synced() || self.uid_of(pod) != Some(uid) {
            return None;
        }
        Some(View {
            document: self.index.document_for(&pod.namespace, &pod.name)?,
            deleting: self.injected.get(pod).is_some_and(|injected| injected.deleting),
            listed: self.endpoints.list(pod),
            since,
        })
    }

    /// What is known of a namespace that is known.
    pub(super) fn namespace(&self, name: &str) -> Option<NamespaceFacts> {
        Some(NamespaceFacts { bounds: self.ranges.bounds(name), ..self.namespaces.get(name)?.clone() })
    }

    /// Namespaces that ask for injection, and those where a sidecar runs.
    pub(super) fn places(&self) -> BTreeSet<String> {
        let labelled = self.index.injected_namespaces().map(str::to_owned);
        labelled.chain(self.injected.keys().map(|pod| pod.namespace.clone())).collect()
    }

    fn note_pod(&mut self, pod: &Pod) -> bool {
        let key = pod_key(pod);
        let has_sidecar = pod.annotations().contains_key(INJECTED_ANNOTATION);
        let noted = has_sidecar.then(|| InjectedPod {
            uid: pod.uid().unwrap_or_default(),
            deleting: pod.metadata.deletion_timestamp.is_some(),
        });
        let after = noted.as_ref().map(|pod| (pod.uid.clone(), pod.deleting));
        let before = match noted {
            Some(noted) => self.injected.insert(key, noted),
            None => self.injected.remove(&key),
        };
        before.map(|pod| (pod.uid, pod.deleting)) != after
    }
}

/// A kind that is watched.
pub(crate) trait Watched: Sized {
    /// Its name, as in log lines.
    const SOURCE: &'static str;
    /// Drops what nobody here reads, before anything is kept in memory.
    fn strip(&mut self);
    fn apply(self, state: &mut State) -> Touched;
    fn delete(self, state: &mut State) -> Touched;
    fn reset(objects: Vec<Self>, state: &mut State) -> Touched;
}

fn pod_key(object: &impl ResourceExt) -> PodKey {
    PodKey::new(object.namespace().unwrap_or_default(), object.name_any())
}

fn keep(map: &mut BTreeMap<String, String>, wanted: impl Fn(&str) -> bool) {
    map.retain(|key, _| wanted(key));
}

impl Watched for Namespace {
    const SOURCE: &'static str = "Namespace";

    fn strip(&mut self) {
        self.managed_fields_mut().clear();
        keep(self.annotations_mut(), |key| key.contains("linkerd.io/") || key.contains("istio.io/"));
        (self.spec, self.status) = (None, None);
    }

    fn apply(self, state: &mut State) -> Touched {
        state.namespaces.insert(self.name_any(), facts(&self));
        Touched { places: true, ..state.index.apply_namespace(&self).into() }
    }

    fn delete(self, state: &mut State) -> Touched {
        state.namespaces.remove(&self.name_any());
        Touched { places: true, ..state.index.delete_namespace(&self.name_any()).into() }
    }

    fn reset(objects: Vec<Self>, state: &mut State) -> Touched {
        state.namespaces = objects.iter().map(|object| (object.name_any(), facts(object))).collect();
        Touched { places: true, ..state.index.reset_namespaces(&objects).into() }
    }
}

/// Without the bounds, which are objects of their own.
pub(crate) fn facts(namespace: &Namespace) -> NamespaceFacts {
    NamespaceFacts {
        labels: namespace.labels().clone(),
        annotations: namespace.annotations().clone(),
        ..NamespaceFacts::default()
    }
}

impl Watched for Pod {
    const SOURCE: &'static str = "Pod";

    fn strip(&mut self) {
        self.managed_fields_mut().clear();
        keep(self.annotations_mut(), |key| {
            [INJECTED_ANNOTATION, SKIPPED_ANNOTATION, BY_NAME_ANNOTATION].contains(&key)
        });
        // Of the spec the image of the sidecar.
        let containers = self.spec.take().and_then(|spec| spec.init_containers).unwrap_or_default();
        let sidecar = containers.into_iter().find(|container| container.name == SIDECAR_CONTAINER);
        self.spec = sidecar.map(|Container { name, image, .. }| PodSpec {
            init_containers: Some(vec![Container { name, image, ..Container::default() }]),
            ..PodSpec::default()
        });
        if let Some(status) = self.status.take() {
            self.status = Some(PodStatus { phase: status.phase, ..PodStatus::default() });
        }
    }

    fn apply(self, state: &mut State) -> Touched {
        let mut touched = Touched::from(state.index.apply_pod(&self));
        touched.places = state.note_pod(&self);
        touched.pods.insert(pod_key(&self));
        touched
    }

    fn delete(self, state: &mut State) -> Touched {
        let key = pod_key(&self);
        let places = state.injected.remove(&key).is_some();
        Touched { places, ..state.index.delete_pod(&key.namespace, &key.name).into() }
    }

    fn reset(objects: Vec<Self>, state: &mut State) -> Touched {
        let mut pods: BTreeSet<PodKey> = state.injected.keys().cloned().collect();
        state.injected.clear();
        for pod in &objects {
            state.note_pod(pod);
        }
        pods.extend(state.injected.keys().cloned());
        Touched { places: true, pods, ..state.index.reset_pods(&objects).into() }
    }
}

impl Watched for Service {
    const SOURCE: &'static str = "Service";

    fn strip(&mut self) {
        self.managed_fields_mut().clear();
        self.annotations_mut().clear();
        self.status = None;
    }

    fn apply(self, state: &mut State) -> Touched {
        state.index.apply_service(&self).into()
    }

    fn delete(self, state: &mut State) -> Touched {
        let key = pod_key(&self);
        state.index.delete_service(&key.namespace, &key.name).into()
    }

    fn reset(objects: Vec<Self>, state: &mut State) -> Touched {
        state.index.reset_services(&objects).into()
    }
}

impl Watched for EndpointSlice {
    const SOURCE: &'static str = "EndpointSlice";

    fn strip(&mut self) {
        self.managed_fields_mut().clear();
        self.annotations_mut().clear();
        self.ports = None;
    }

    fn apply(self, state: &mut State) -> Touched {
        Touched { pods: state.endpoints.apply(&self), ..Touched::default() }
    }

    fn delete(self, state: &mut State) -> Touched {
        Touched { pods: state.endpoints.delete(&self), ..Touched::default() }
    }

    fn reset(objects: Vec<Self>, state: &mut State) -> Touched {
        Touched { pods: state.endpoints.reset(&objects), ..Touched::default() }
    }
}

macro_rules! watched_policy {
    ($kind:ident, $status:ident, $apply:ident, $delete:ident, $reset:ident) => {
        impl Watched for $kind {
            const SOURCE: &'static str = stringify!($kind);

            fn strip(&mut self) {
                self.managed_fields_mut().clear();
                self.annotations_mut().clear();
            }

            fn apply(self, state: &mut State) -> Touched {
                note_policy(state, &self, PolicyKind::$kind, self.status.clone().map(PolicyStatus::$status));
                state.index.$apply(&self).into()
            }

            fn delete(self, state: &mut State) -> Touched {
                let key = pod_key(&self);
                state.policies.remove(&PolicyKey::new(PolicyKind::$kind, &key.namespace, &key.name));
                state.index.$delete(&key.namespace, &key.name).into()
            }

            fn reset(objects: Vec<Self>, state: &mut State) -> Touched {
                state.policies.retain(|key, _| key.kind != PolicyKind::$kind);
                for policy in &objects {
                    let status = policy.status.clone().map(PolicyStatus::$status);
                    note_policy(state, policy, PolicyKind::$kind, status);
                }
                state.index.$reset(&objects).into()
            }
        }
    };
}

watched_policy!(
    RateLimitPolicy,
    RateLimit,
    apply_rate_limit_policy,
    delete_rate_limit_policy,
    reset_rate_limit_policies
);
watched_policy!(
    CircuitBreakerPolicy,
    CircuitBreaker,
    apply_circuit_breaker_policy,
    delete_circuit_breaker_policy,
    reset_circuit_breaker_policies
);

fn note_policy(
    state: &mut State,
    policy: &impl ResourceExt<DynamicType = ()>,
    kind: PolicyKind,
    status: Option<PolicyStatus>,
) {
    let key = PolicyKey::new(kind, policy.namespace().unwrap_or_default(), policy.name_any());
    state.policies.insert(key, PolicyObject { reference: policy.object_ref(&()), status });
}
