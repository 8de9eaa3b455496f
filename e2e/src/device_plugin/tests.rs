use axum::Router;
use axum::extract::Request;
use axum::routing::post;
use tokio::sync::mpsc;
use tonic::client::Grpc;
use tonic_prost::ProstCodec;

use super::api::{
    AllocateRequest, AllocateResponse, ContainerAllocateRequest, Empty, ListAndWatchResponse, RegisterRequest,
};
use super::*;

const GIB: u64 = 1 << 30;
const PATIENCE: Duration = Duration::from_mins(1);

/// A kubelet's registration service; each start of it is a new socket.
struct FakeKubelet {
    registered: mpsc::UnboundedReceiver<RegisterRequest>,
    server: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl FakeKubelet {
    /// Deletes every plugin's socket first, as the kubelet does.
    fn start(dir: &Path) -> Self {
        for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
            std::fs::remove_file(entry.path()).expect("removed");
        }
        let (sender, registered) = mpsc::unbounded_channel();
        let listener = UnixListener::bind(dir.join(KUBELET_SOCKET)).expect("a socket");
        let register = move |request: Request| {
            let sender = sender.clone();
            async move {
                let service = tower::service_fn(move |request: tonic::Request<RegisterRequest>| {
                    let sent = sender.send(request.into_inner());
                    async move {
                        sent.map_err(|_| tonic::Status::aborted("the test is over"))?;
                        Ok::<_, tonic::Status>(tonic::Response::new(Empty {}))
                    }
                });
                tonic::server::Grpc::new(ProstCodec::default()).unary(service, request).await
            }
        };
        let router = Router::new().route(api::REGISTER, post(register));
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        Self { registered, server }
    }

    async fn next(&mut self) -> RegisterRequest {
        tokio::time::timeout(PATIENCE, self.registered.recv())
            .await
            .expect("in time")
            .expect("a registration")
    }
}

/// A plugin over two GPUs, and the directories it lives in.
struct Setup {
    gpu_dir: tempfile::TempDir,
    kubelet_dir: tempfile::TempDir,
    plugin: Arc<Plugin>,
    uuids: Vec<String>,
}

fn setup(replicas: u32) -> Setup {
    let gpu_dir = tempfile::tempdir().expect("a directory");
    let kubelet_dir = tempfile::tempdir().expect("a directory");
    let gpus = GpuDir::open(gpu_dir.path()).expect("GPUs");
    gpus.fill_up(2, 40 * GIB, "node-a").expect("GPUs");
    let uuids = gpus.list().into_iter().map(|gpu| gpu.uuid).collect();
    Setup { gpu_dir, kubelet_dir, plugin: Arc::new(Plugin::new(gpus, replicas)), uuids }
}

impl Setup {
    fn serve(&self) -> tokio::task::JoinHandle<anyhow::Result<()>> {
        let (plugin, dir) = (Arc::clone(&self.plugin), self.kubelet_dir.path().to_owned());
        tokio::spawn(async move { serve(&plugin, &dir, "nvidia.com/gpu").await })
    }

    async fn watch(&self) -> tonic::Streaming<ListAndWatchResponse> {
        let channel = registration::connect(&self.kubelet_dir.path().join(SOCKET)).await.expect("a channel");
        let mut grpc = Grpc::new(channel);
        grpc.ready().await.expect("ready");
        let path = http::uri::PathAndQuery::from_static(api::LIST_AND_WATCH);
        let codec = ProstCodec::<Empty, ListAndWatchResponse>::default();
        grpc.server_streaming(tonic::Request::new(Empty {}), path, codec)
            .await
            .expect("a stream")
            .into_inner()
    }

    async fn allocate(&self, ids: &[String]) -> Result<AllocateResponse, tonic::Status> {
        let channel = registration::connect(&self.kubelet_dir.path().join(SOCKET)).await.expect("a channel");
        let mut grpc = Grpc::new(channel);
        grpc.ready().await.expect("ready");
        let path = http::uri::PathAndQuery::from_static(api::ALLOCATE);
        let container = ContainerAllocateRequest { device_ids: ids.to_vec() };
        let request = tonic::Request::new(AllocateRequest { container_requests: vec![container] });
        let codec = ProstCodec::<AllocateRequest, AllocateResponse>::default();
        grpc.unary(request, path, codec).await.map(tonic::Response::into_inner)
    }
}

async fn next(stream: &mut tonic::Streaming<ListAndWatchResponse>) -> Vec<(String, String)> {
    let message = tokio::time::timeout(PATIENCE, stream.message()).await.expect("in time");
    let message = message.expect("a healthy stream").expect("a message");
    message.devices.into_iter().map(|device| (device.id, device.health)).collect()
}

#[tokio::test]
async fn a_plugin_registers_and_tells_each_gpu_with_its_health() {
    let setup = setup(1);
    let mut kubelet = FakeKubelet::start(setup.kubelet_dir.path());
    let server = setup.serve();
    let request = kubelet.next().await;
    assert_eq!((request.version.as_str(), request.resource_name.as_str()), ("v1beta1", "nvidia.com/gpu"));
    assert_eq!(request.endpoint, SOCKET);
    let mut stream = setup.watch().await;
    let healthy = |uuid: &String| (uuid.clone(), "Healthy".to_owned());
    assert_eq!(next(&mut stream).await, setup.uuids.iter().map(healthy).collect::<Vec<_>>());
    let lost = format!(
        "{{\"uuid\":\"{}\",\"index\":0,\"memoryTotal\":1,\"failure\":\"NVML_ERROR_GPU_IS_LOST\"}}",
        setup.uuids[0]
    );
    std::fs::write(setup.gpu_dir.path().join(format!("{}.json", setup.uuids[0])), lost).expect("written");
    let mut devices = next(&mut stream).await;
    // A file that is read while it is written is a lost GPU for a moment, listed last.
    devices.sort();
    let mut expected = vec![(setup.uuids[0].clone(), "Unhealthy".to_owned()), healthy(&setup.uuids[1])];
    expected.sort();
    assert_eq!(devices, expected);
    server.abort();
}

#[tokio::test]
async fn an_allocation_names_each_gpu_once() {
    let setup = setup(2);
    let mut kubelet = FakeKubelet::start(setup.kubelet_dir.path());
    let server = setup.serve();
    kubelet.next().await;
    let [first, second] = [&setup.uuids[0], &setup.uuids[1]];
    let ids = [format!("{first}::1"), format!("{second}::0"), format!("{first}::0")];
    let answer = setup.allocate(&ids).await.expect("an allocation");
    let container = &answer.container_responses[0];
    assert_eq!(container.envs["NVIDIA_VISIBLE_DEVICES"], format!("{first},{second}"));
    let unknown =
        setup.allocate(std::slice::from_ref(first)).await.expect_err("it is offered in replicas only");
    assert_eq!(unknown.message(), format!("there is no device {first}"));
    server.abort();
}

#[tokio::test]
async fn a_plugin_registers_again_with_a_kubelet_that_restarted() {
    let setup = setup(1);
    let mut kubelet = FakeKubelet::start(setup.kubelet_dir.path());
    let server = setup.serve();
    kubelet.next().await;
    kubelet.server.abort();
    let mut kubelet = FakeKubelet::start(setup.kubelet_dir.path());
    kubelet.next().await;
    let mut stream = setup.watch().await;
    assert_eq!(next(&mut stream).await.len(), 2);
    server.abort();
}

#[test]
fn gpus_are_made_once_and_are_the_same_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let gpus = GpuDir::open(dir.path()).expect("GPUs");
    assert_eq!(gpus.fill_up(2, GIB, "node-a").expect("GPUs"), 2);
    let first = gpus.list();
    assert_eq!(gpus.fill_up(2, GIB, "node-a").expect("GPUs"), 0);
    assert_eq!(gpus.list(), first);
    let other = tempfile::tempdir().expect("a directory");
    let other = GpuDir::open(other.path()).expect("GPUs");
    other.fill_up(2, GIB, "node-b").expect("GPUs");
    assert!(other.list().iter().all(|gpu| !first.contains(gpu)), "two nodes have different GPUs");
}

#[test]
fn sizes_are_read_with_binary_suffixes() {
    assert_eq!(gpus::bytes("40Gi"), Ok(40 * GIB));
    assert_eq!(gpus::bytes("512"), Ok(512));
    for wrong in ["", "Gi", "4.5Gi", "40G", "-1Ki", "99999999999Ti"] {
        assert!(gpus::bytes(wrong).is_err(), "{wrong}");
    }
}
