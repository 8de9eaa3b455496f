//! Which pod has which device, from what the kubelet's pod-resources API lists.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A pod of the node. The kubelet knows no UID here; a name is never used by two pods at once.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Devices that a device plugin gave one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceDevices {
    /// Such as `nvidia.com/gpu`.
    pub resource: String,
    /// Ids in the words of the device plugin.
    pub ids: Vec<String>,
}

/// One pod of the kubelet's list, with the devices of all its containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodEntry {
    /// The pod.
    pub pod: PodName,
    /// Its devices.
    pub resources: Vec<ResourceDevices>,
}

/// What NVML calls a device of the kubelet's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Identity {
    /// `GPU-…` or `MIG-…`.
    Uuid(String),
    /// The device plugin speaks of it in words that NVML does not know.
    Unknown {
        /// The id.
        id: String,
        /// One line.
        why: String,
    },
}

impl Identity {
    /// The UUID, or the device plugin's id.
    pub fn name(&self) -> &str {
        match self {
            Self::Uuid(uuid) => uuid,
            Self::Unknown { id, .. } => id,
        }
    }
}

/// A device of a pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Allocated {
    /// The device.
    pub identity: Identity,
    /// Others may use it too: it was given as a replica (time-slicing, MPS), or two pods have it.
    pub shared: bool,
}

/// Who has what on the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allocations {
    pods: HashMap<PodName, Vec<Allocated>>,
}

impl Allocations {
    /// Reads the kubelet's list. A device appears once for a pod, however many of its containers or replicas have it.
    ///
    /// Up to Kubernetes 1.33 the kubelet lists pods that have ended too, so a whole device that such a pod had and
    /// another has now is reported as shared until the ended pod is deleted: too careful a flag, not a wrong reading.
    pub fn from_entries(entries: &[PodEntry]) -> Self {
        let mut owners: HashMap<String, BTreeSet<&PodName>> = HashMap::new();
        let mut pods: HashMap<PodName, BTreeMap<Identity, bool>> = HashMap::new();
        for entry in entries {
            let devices = pods.entry(entry.pod.clone()).or_default();
            for (identity, replica) in entry.resources.iter().flat_map(identities) {
                owners.entry(identity.name().to_owned()).or_default().insert(&entry.pod);
                *devices.entry(identity).or_default() |= replica;
            }
        }
        let held_by_several =
            |identity: &Identity| owners.get(identity.name()).is_some_and(|pods| pods.len() > 1);
        let pods = pods
            .into_iter()
            .map(|(pod, devices)| {
                let devices = devices
                    .into_iter()
                    .map(|(identity, replica)| {
                        let shared = replica || held_by_several(&identity);
                        Allocated { identity, shared }
                    })
                    .collect();
                (pod, devices)
            })
            .collect();
        Self { pods }
    }

    /// The devices of a pod, in order of their names; `None` for a pod that the kubelet did not list.
    pub fn of(&self, pod: &PodName) -> Option<&[Allocated]> {
        self.pods.get(pod).map(Vec::as_slice)
    }

    /// Number of pods with a device.
    pub fn pods_with_devices(&self) -> usize {
        self.pods.values().filter(|devices| !devices.is_empty()).count()
    }
}

fn identities(resource: &ResourceDevices) -> impl Iterator<Item = (Identity, bool)> {
    resource.ids.iter().filter_map(|id| identity(&resource.resource, id))
}

/// The device of an id and whether it is a replica; `None` for what is no GPU.
fn identity(resource: &str, id: &str) -> Option<(Identity, bool)> {
    let (uuid, replica) = match id.split_once("::") {
        Some((uuid, _)) => (uuid, true),
        None => (id, false),
    };
    if uuid.starts_with("GPU-") || uuid.starts_with("MIG-") {
        return Some((Identity::Uuid(uuid.to_owned()), replica));
    }
    if !is_gpu_resource(resource) {
        return None;
    }
    let why = format!("the id {id:?} of resource {resource} is not a UUID of NVML (GPU-… or MIG-…)");
    Some((Identity::Unknown { id: id.to_owned(), why }, replica))
}

/// `nvidia.com` has other resources too, network devices among them, which are nobody's GPU.
fn is_gpu_resource(resource: &str) -> bool {
    resource
        .strip_prefix("nvidia.com/")
        .is_some_and(|name| name == "gpu" || name.starts_with("gpu.") || name.starts_with("mig-"))
}

#[cfg(test)]
mod tests;
