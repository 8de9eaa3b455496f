//! The kubelet's pod-resources API, v1: the messages and the one call that are needed, written by hand from
//! `k8s.io/kubelet/pkg/apis/podresources/v1/api.proto`, so that no protobuf compiler is needed to build.

use std::path::Path;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use tidegate_gpu::{PodEntry, PodName, ResourceDevices};
use tokio::net::UnixStream;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

/// The call.
pub(crate) const LIST_PATH: &str = "/v1.PodResourcesLister/List";
/// The kubelet's own clients take no larger answer either.
const LARGEST_ANSWER: usize = 16 << 20;

/// `ListPodResourcesRequest`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct ListPodResourcesRequest {}

/// `ListPodResourcesResponse`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct ListPodResourcesResponse {
    /// All pods of the node, those without devices too.
    #[prost(message, repeated, tag = "1")]
    pub(crate) pod_resources: Vec<PodResources>,
}

/// `PodResources`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct PodResources {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) namespace: String,
    #[prost(message, repeated, tag = "3")]
    pub(crate) containers: Vec<ContainerResources>,
}

/// `ContainerResources`, without CPUs, memory and claims.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct ContainerResources {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, repeated, tag = "2")]
    pub(crate) devices: Vec<ContainerDevices>,
}

/// `ContainerDevices`, without their topology.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct ContainerDevices {
    #[prost(string, tag = "1")]
    pub(crate) resource_name: String,
    #[prost(string, repeated, tag = "2")]
    pub(crate) device_ids: Vec<String>,
}

/// A client that connects when it is first used, and again after the kubelet restarted.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    channel: Channel,
}

impl Client {
    /// A client of a socket.
    pub(crate) fn new(socket: &Path) -> Self {
        let socket: Arc<Path> = socket.into();
        let connector = tower::service_fn(move |_| {
            let socket = Arc::clone(&socket);
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        // The name goes into the requests' authority and is nowhere looked up.
        Self { channel: Endpoint::from_static("http://kubelet").connect_with_connector_lazy(connector) }
    }

    /// All pods of the node with their devices.
    pub(crate) async fn list(&self) -> Result<Vec<PodEntry>, Status> {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(LARGEST_ANSWER);
        grpc.ready().await.map_err(|error| Status::unavailable(chain(&error)))?;
        let codec = ProstCodec::<ListPodResourcesRequest, ListPodResourcesResponse>::default();
        let path = http::uri::PathAndQuery::from_static(LIST_PATH);
        let answer = grpc.unary(Request::new(ListPodResourcesRequest {}), path, codec).await?;
        Ok(answer.into_inner().pod_resources.into_iter().map(PodEntry::from).collect())
    }
}

/// An error with its causes in one line; tonic's own text is only "transport error".
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        line = format!("{line}: {inner}");
        cause = inner.source();
    }
    line
}

impl From<PodResources> for PodEntry {
    fn from(pod: PodResources) -> Self {
        let resources = pod
            .containers
            .into_iter()
            .flat_map(|container| container.devices)
            .map(|devices| ResourceDevices { resource: devices.resource_name, ids: devices.device_ids })
            .collect();
        Self { pod: PodName { namespace: pod.namespace, name: pod.name }, resources }
    }
}
