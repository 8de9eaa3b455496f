use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::Router;
use axum::extract::Request;
use axum::routing::post;
use tidegate_gpu::Identity;
use tokio::net::UnixListener;
use tonic_prost::ProstCodec;

use super::*;
use crate::pod_resources::{
    ContainerDevices, ContainerResources, LIST_PATH, ListPodResourcesRequest, ListPodResourcesResponse,
    PodResources,
};

/// A kubelet with the real transport: gRPC over a unix socket.
#[derive(Default)]
struct FakeKubelet {
    pods: Mutex<Vec<PodResources>>,
    asked: AtomicUsize,
    hangs: AtomicBool,
}

impl FakeKubelet {
    fn start(socket: &Path) -> Arc<Self> {
        let fake = Arc::new(Self::default());
        let listener = UnixListener::bind(socket).expect("a socket");
        let served = Arc::clone(&fake);
        let list = move |request: Request| {
            let served = Arc::clone(&served);
            async move {
                let answer = tower::service_fn(move |_: tonic::Request<ListPodResourcesRequest>| {
                    let served = Arc::clone(&served);
                    async move { Ok(tonic::Response::new(served.list().await)) }
                });
                tonic::server::Grpc::new(ProstCodec::default()).unary(answer, request).await
            }
        };
        let router = Router::new().route(LIST_PATH, post(list));
        tokio::spawn(async move { axum::serve(listener, router).await });
        fake
    }

    async fn list(&self) -> ListPodResourcesResponse {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        ListPodResourcesResponse { pod_resources: self.pods.lock().expect("pods").clone() }
    }

    fn add(&self, name: &str, ids: &[&str]) {
        let devices = ContainerDevices {
            resource_name: "nvidia.com/gpu".to_owned(),
            device_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        };
        let container = ContainerResources { name: "engine".to_owned(), devices: vec![devices] };
        self.pods.lock().expect("pods").push(PodResources {
            name: name.to_owned(),
            namespace: "inference".to_owned(),
            containers: vec![container],
        });
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn pod(name: &str) -> PodName {
    PodName { namespace: "inference".to_owned(), name: name.to_owned() }
}

fn device(uuid: &str, shared: bool) -> Allocated {
    Allocated { identity: Identity::Uuid(uuid.to_owned()), shared }
}

/// With times that are not over because the machine does something else.
fn start() -> (tempfile::TempDir, Arc<FakeKubelet>, Arc<Kubelet>) {
    start_with(Duration::from_mins(1))
}

fn start_with(patience: Duration) -> (tempfile::TempDir, Arc<FakeKubelet>, Arc<Kubelet>) {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("kubelet.sock");
    let fake = FakeKubelet::start(&socket);
    let fresh = Duration::from_mins(1);
    let kubelet = Kubelet { fresh, patience, ..Kubelet::new(&socket, Arc::new(Metrics::new())) };
    (dir, fake, Arc::new(kubelet))
}

fn grow_old(kubelet: &Kubelet) {
    let mut newest = kubelet.newest.lock().expect("a list");
    let list = newest.as_mut().expect("a list");
    list.asked = list.asked.checked_sub(kubelet.fresh * 2).expect("an instant in the past");
}

#[tokio::test]
async fn devices_come_from_the_kubelets_own_protocol() {
    let (_dir, fake, kubelet) = start();
    fake.add("a", &["GPU-1", "GPU-2::0"]);
    assert_eq!(kubelet.devices_of(&pod("a")).await, Ok(vec![device("GPU-1", false), device("GPU-2", true)]));
    assert_eq!(kubelet.pods_with_devices(), 1);
}

#[tokio::test]
async fn many_questions_ask_the_kubelet_once() {
    let (_dir, fake, kubelet) = start();
    fake.add("a", &["GPU-1"]);
    let questions: Vec<_> = (0..50)
        .map(|_| {
            let kubelet = Arc::clone(&kubelet);
            tokio::spawn(async move { kubelet.devices_of(&pod("a")).await })
        })
        .collect();
    for question in questions {
        assert_eq!(question.await.expect("an answer"), Ok(vec![device("GPU-1", false)]));
    }
    assert_eq!(fake.asked(), 1);
}

#[tokio::test]
async fn an_unknown_pod_refreshes_the_list_once_and_is_then_told_so() {
    let (_dir, fake, kubelet) = start();
    fake.add("a", &["GPU-1"]);
    kubelet.devices_of(&pod("a")).await.expect("listed");
    fake.add("new", &["GPU-2"]);
    assert_eq!(kubelet.devices_of(&pod("new")).await, Ok(vec![device("GPU-2", false)]));
    assert_eq!(fake.asked(), 2);
    let error = kubelet.devices_of(&pod("gone")).await.expect_err("no such pod");
    assert_eq!(error.to_string(), "the kubelet of this node lists no pod inference/gone");
    assert_eq!(fake.asked(), 3);
}

#[tokio::test]
async fn an_old_list_is_asked_anew() {
    let (_dir, fake, kubelet) = start();
    fake.add("a", &["GPU-1"]);
    kubelet.devices_of(&pod("a")).await.expect("listed");
    fake.add("b", &["GPU-1"]);
    assert_eq!(kubelet.devices_of(&pod("a")).await, Ok(vec![device("GPU-1", false)]));
    grow_old(&kubelet);
    assert_eq!(kubelet.devices_of(&pod("a")).await, Ok(vec![device("GPU-1", true)]));
}

#[tokio::test]
async fn a_hanging_kubelet_costs_a_second_and_the_last_list_still_answers() {
    assert_eq!((FRESH, PATIENCE), (Duration::from_secs(2), Duration::from_secs(1)));
    let (_dir, fake, kubelet) = start_with(PATIENCE);
    fake.add("a", &["GPU-1"]);
    // The first list may come too late on a machine that does something else for a second.
    while kubelet.devices_of(&pod("a")).await.is_err() {}
    fake.hangs.store(true, Ordering::SeqCst);
    grow_old(&kubelet);
    let (old, new) = (pod("a"), pod("new"));
    let answers = async { tokio::join!(kubelet.devices_of(&old), kubelet.devices_of(&new)) };
    let (known, unknown) =
        tokio::time::timeout(Duration::from_mins(1), answers).await.expect("no answer waits for the kubelet");
    assert_eq!(known, Ok(vec![device("GPU-1", false)]));
    let line = unknown.expect_err("the kubelet hangs").to_string();
    assert!(line.ends_with("kubelet.sock: no answer within 1 s"), "{line}");
}

#[tokio::test]
async fn a_missing_socket_is_one_clear_line_and_the_kubelet_may_come_later() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("kubelet.sock");
    let patience = Duration::from_mins(1);
    let kubelet = Kubelet { patience, ..Kubelet::new(&socket, Arc::new(Metrics::new())) };
    let line = kubelet.devices_of(&pod("a")).await.expect_err("no kubelet").to_string();
    assert!(line.contains("kubelet.sock") && line.contains("No such file"), "{line}");
    assert!(!line.contains('\n'), "{line}");
    let fake = FakeKubelet::start(&socket);
    fake.add("a", &["GPU-1"]);
    assert_eq!(kubelet.devices_of(&pod("a")).await, Ok(vec![device("GPU-1", false)]));
}
