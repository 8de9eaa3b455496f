//! A kubelet that only lists its pods, in its own protocol over its own kind of socket.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::routing::post;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::UnixListener;
use tokio::task::{AbortHandle, JoinSet};
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct ListRequest {}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct ListResponse {
    #[prost(message, repeated, tag = "1")]
    pods: Vec<Pod>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Pod {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    namespace: String,
    #[prost(message, repeated, tag = "3")]
    containers: Vec<Container>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Container {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    devices: Vec<Devices>,
    #[prost(int64, repeated, tag = "3")]
    cpu_ids: Vec<i64>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Devices {
    #[prost(string, tag = "1")]
    resource_name: String,
    #[prost(string, repeated, tag = "2")]
    device_ids: Vec<String>,
}

/// The kubelet.
#[derive(Clone)]
pub(crate) struct Kubelet {
    pods: Arc<Mutex<Vec<Pod>>>,
    socket: PathBuf,
    server: Arc<Mutex<AbortHandle>>,
}

impl Kubelet {
    /// Starts it at a socket.
    pub(crate) fn start(socket: &Path) -> Self {
        let pods = Arc::default();
        let server = serve(socket, &pods);
        Self { pods, socket: socket.to_owned(), server: Arc::new(Mutex::new(server)) }
    }

    /// Ends it with its connections; its socket stays, as after a crash.
    pub(crate) fn stop(&self) {
        self.server.lock().expect("server").abort();
    }

    /// Starts it again, with a new socket in place of the old.
    pub(crate) fn start_again(&self) {
        std::fs::remove_file(&self.socket).expect("removed");
        *self.server.lock().expect("server") = serve(&self.socket, &self.pods);
    }

    /// A new pod of namespace `inference` with devices of a resource.
    pub(crate) fn give(&self, pod: &str, resource: &str, ids: &[&str]) {
        let devices = Devices {
            resource_name: resource.to_owned(),
            device_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        };
        let engine = Container { name: "engine".to_owned(), devices: vec![devices], cpu_ids: vec![2, 3] };
        let sidecar = Container { name: "tidegate-sidecar".to_owned(), ..Container::default() };
        self.pods.lock().expect("pods").push(Pod {
            name: pod.to_owned(),
            namespace: "inference".to_owned(),
            containers: vec![engine, sidecar],
        });
    }
}

fn serve(socket: &Path, pods: &Arc<Mutex<Vec<Pod>>>) -> AbortHandle {
    let pods = Arc::clone(pods);
    let list = move |request: Request| {
        let pods = Arc::clone(&pods);
        async move {
            let service = tower::service_fn(move |_: tonic::Request<ListRequest>| {
                let pods = pods.lock().expect("pods").clone();
                async move { Ok::<_, tonic::Status>(tonic::Response::new(ListResponse { pods })) }
            });
            tonic::server::Grpc::new(ProstCodec::default()).unary(service, request).await
        }
    };
    let listener = UnixListener::bind(socket).expect("a socket");
    let router = Router::new().route("/v1.PodResourcesLister/List", post(list));
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(router.clone());
            connections.spawn(async move {
                let builder = auto::Builder::new(TokioExecutor::new());
                builder.serve_connection(TokioIo::new(stream), service).await.ok()
            });
        }
    })
    .abort_handle()
}
