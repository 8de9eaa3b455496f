//! The plugin's service: which devices there are, and what a container that is given one gets.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::routing::post;
use futures::{Stream, stream};
use tonic::{Response, Status};
use tonic_prost::ProstCodec;

use super::api::{
    self, AllocateRequest, AllocateResponse, ContainerAllocateResponse, ContainerPreferredAllocationRequest,
    ContainerPreferredAllocationResponse, Device, DevicePluginOptions, Empty, ListAndWatchResponse,
    PreStartContainerRequest, PreferredAllocationRequest, PreferredAllocationResponse,
};
use super::gpus::GpuDir;

/// How soon a change of the GPUs' health is told.
const LOOK: Duration = Duration::from_millis(500);

/// The plugin.
#[derive(Debug)]
pub(crate) struct Plugin {
    gpus: GpuDir,
    replicas: u32,
}

impl Plugin {
    /// A plugin that offers each GPU so many times.
    pub(crate) fn new(gpus: GpuDir, replicas: u32) -> Self {
        Self { gpus, replicas }
    }

    /// What the plugin can do.
    pub(crate) fn options() -> DevicePluginOptions {
        DevicePluginOptions { pre_start_required: false, get_preferred_allocation_available: true }
    }

    fn devices(&self) -> Vec<Device> {
        let mut devices = Vec::new();
        for gpu in self.gpus.list() {
            let health = if gpu.healthy { api::HEALTHY } else { api::UNHEALTHY };
            for replica in 0..self.replicas {
                let id =
                    if self.replicas == 1 { gpu.uuid.clone() } else { format!("{}::{replica}", gpu.uuid) };
                devices.push(Device { id, health: health.to_owned() });
            }
        }
        devices
    }

    /// The devices now and after each change.
    fn watch(self: Arc<Self>) -> impl Stream<Item = Result<ListAndWatchResponse, Status>> {
        stream::unfold((self, None), |(plugin, told)| async move {
            loop {
                let devices = plugin.devices();
                if told.as_ref() != Some(&devices) {
                    let answer = ListAndWatchResponse { devices: devices.clone() };
                    return Some((Ok(answer), (plugin, Some(devices))));
                }
                tokio::time::sleep(LOOK).await;
            }
        })
    }

    /// The environment that NVIDIA's plugin sets.
    fn allocate(&self, request: &AllocateRequest) -> Result<AllocateResponse, Status> {
        let offered = self.devices();
        let mut container_responses = Vec::new();
        for container in &request.container_requests {
            let mut uuids: Vec<&str> = Vec::new();
            for id in &container.device_ids {
                if !offered.iter().any(|device| device.id == *id) {
                    return Err(Status::invalid_argument(format!("there is no device {id}")));
                }
                let uuid = gpu_of(id);
                if !uuids.contains(&uuid) {
                    uuids.push(uuid);
                }
            }
            let envs = HashMap::from([("NVIDIA_VISIBLE_DEVICES".to_owned(), uuids.join(","))]);
            container_responses.push(ContainerAllocateResponse { envs });
        }
        Ok(AllocateResponse { container_responses })
    }
}

/// The GPU of a device or of its replica.
fn gpu_of(id: &str) -> &str {
    id.split_once("::").map_or(id, |(uuid, _)| uuid)
}

/// Spreads replicas: the next device is of the GPU that has most left, as NVIDIA's plugin does.
fn prefer(request: &ContainerPreferredAllocationRequest) -> Vec<String> {
    let mut chosen = request.must_include.clone();
    let mut left: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
    for id in request.available.iter().filter(|id| !chosen.contains(id)) {
        left.entry(gpu_of(id)).or_default().push(id);
    }
    for ids in left.values_mut() {
        ids.sort_by(|a, b| b.cmp(a));
    }
    let size = usize::try_from(request.size).unwrap_or(0);
    while chosen.len() < size {
        let widest = left.values_mut().rev().max_by_key(|ids| ids.len());
        match widest.and_then(Vec::pop) {
            Some(id) => chosen.push(id.clone()),
            None => break,
        }
    }
    chosen
}

/// The service as HTTP paths.
pub(crate) fn router(plugin: Arc<Plugin>) -> Router {
    let (watched, allocating) = (Arc::clone(&plugin), plugin);
    let options = |_: Empty| Ok(Plugin::options());
    let pre_start = |_: PreStartContainerRequest| Ok(Empty {});
    let preferred = |request: PreferredAllocationRequest| {
        let answer = |request| ContainerPreferredAllocationResponse { device_ids: prefer(request) };
        Ok(PreferredAllocationResponse {
            container_responses: request.container_requests.iter().map(answer).collect(),
        })
    };
    Router::new()
        .route(api::OPTIONS, post(move |request| unary(request, options)))
        .route(api::PRE_START, post(move |request| unary(request, pre_start)))
        .route(api::PREFER, post(move |request| unary(request, preferred)))
        .route(
            api::ALLOCATE,
            post(move |request| {
                let plugin = Arc::clone(&allocating);
                unary(request, move |request: AllocateRequest| plugin.allocate(&request))
            }),
        )
        .route(api::LIST_AND_WATCH, post(move |request| list_and_watch(request, Arc::clone(&watched))))
}

async fn unary<Q, A>(
    request: Request,
    answer: impl FnOnce(Q) -> Result<A, Status> + Clone,
) -> http::Response<tonic::body::Body>
where
    Q: prost::Message + Default + 'static,
    A: prost::Message + Default + 'static,
{
    let service = tower::service_fn(|request: tonic::Request<Q>| {
        let answer = answer.clone();
        async move { answer(request.into_inner()).map(Response::new) }
    });
    tonic::server::Grpc::new(ProstCodec::default()).unary(service, request).await
}

async fn list_and_watch(request: Request, plugin: Arc<Plugin>) -> http::Response<tonic::body::Body> {
    let service = tower::service_fn(|_: tonic::Request<Empty>| {
        let plugin = Arc::clone(&plugin);
        async move { Ok::<_, Status>(Response::new(plugin.watch())) }
    });
    tonic::server::Grpc::new(ProstCodec::default()).server_streaming(service, request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_spread_over_the_gpus_and_a_used_gpu_comes_last() {
        let request = |available: &[&str], must: &[&str], size| ContainerPreferredAllocationRequest {
            available: available.iter().map(|id| (*id).to_owned()).collect(),
            must_include: must.iter().map(|id| (*id).to_owned()).collect(),
            size,
        };
        assert_eq!(prefer(&request(&["B::0", "B::1", "A::1"], &[], 1)), ["B::0"]);
        assert_eq!(prefer(&request(&["A::0", "A::1", "B::0", "B::1"], &[], 2)), ["A::0", "B::0"]);
        assert_eq!(prefer(&request(&["A", "B"], &["B"], 2)), ["B", "A"]);
        assert_eq!(prefer(&request(&["A"], &[], 3)), ["A"]);
    }
}
