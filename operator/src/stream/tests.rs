use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tidegate_crds::RateLimitPolicy;
use tidegate_operator_core::key::{PodKey, PolicyKey, PolicyKind};
use tidegate_operator_core::status::PolicyStatus;
use tidegate_policy::stream::PolicyEvent;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::*;
use crate::certificates::{Certificates, Lifetimes, Names};
use crate::fake_api::FakeApi;
use crate::forward::{Forwarder, Peers};
use crate::shutdown::{self, Trigger};
use crate::world::Feed;
use crate::world::testing::sync_everything;
use crate::{events, server};

const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const PATIENCE: Duration = Duration::from_mins(1);

/// A whole server on loopback: real TLS, real HTTP/2, certificates from the operator's own authority.
struct Bench {
    api: FakeApi,
    world: Arc<World>,
    metrics: Metrics,
    trigger: Trigger,
    server: JoinHandle<()>,
    client: SendRequest<Full<Bytes>>,
    address: std::net::SocketAddr,
    certificates: Certificates,
}

async fn bench() -> Bench {
    let api = FakeApi::default();
    api.answer(REVIEWS, review);
    let (trigger, shutdown) = shutdown::channel();
    let (world, metrics) = (Arc::new(World::default()), Metrics::default());
    let names = Names { operator: Names::of_service("tidegate-operator", "tg"), agent: Vec::new() };
    let certificates = Certificates::new(&api.client(), "tg", names, Lifetimes::default(), metrics.clone());
    certificates.ensure_now().await.unwrap();
    let (events, _) = events::channel(api.client(), "r", Arc::clone(&world), metrics.clone());
    let replicas = ("tg".to_owned(), "tidegate-operator".to_owned());
    let streams =
        Streams::new(api.client(), Arc::clone(&world), events, metrics.clone(), shutdown.clone(), replicas);
    let listener = server::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let tls = Arc::new(certificates.resolver().server_config().unwrap());
    let server = tokio::spawn(server::serve(
        listener,
        Some(tls),
        streams.router(),
        shutdown,
        server::Closing::Stopped,
    ));
    let bundle = certificates.trust().borrow().clone().unwrap().bundle;
    let client = connect(address, &bundle).await;
    Bench { api, world, metrics, trigger, server, client, address, certificates }
}

async fn connect(address: std::net::SocketAddr, bundle: &str) -> SendRequest<Full<Bytes>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from("tidegate-operator.tg.svc").unwrap();
    let tcp = TcpStream::connect(address).await.unwrap();
    let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
    let (client, connection) = handshake(TokioExecutor::new(), TokioIo::new(tls)).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Tokens are `pod:<name>:<uid>`, `replica:<name>:<uid>`, `nobody`, `elsewhere` (another audience) and `human` (no pod).
fn review(body: &Value) -> Value {
    let token = body["spec"]["token"].as_str().unwrap();
    let extra = match token.split(':').collect::<Vec<_>>()[..] {
        ["pod" | "replica", name, uid] => json!({
            "authentication.kubernetes.io/pod-name": [name],
            "authentication.kubernetes.io/pod-uid": [uid],
        }),
        _ => json!({}),
    };
    let audiences =
        if token == "elsewhere" { json!(["https://kubernetes"]) } else { body["spec"]["audiences"].clone() };
    let status = if token == "nobody" {
        json!({"authenticated": false, "error": "token\nexpired"})
    } else {
        let account = if token.starts_with("replica") { "tg:tidegate-operator" } else { "inference:default" };
        let user = json!({"username": format!("system:serviceaccount:{account}"), "extra": extra});
        json!({"authenticated": true, "audiences": audiences, "user": user})
    };
    json!({"metadata": {}, "spec": body["spec"], "status": status})
}

fn pod(name: &str, uid: &str, deleting: bool) -> Pod {
    let deletion = deleting.then_some("2026-01-01T00:00:00Z");
    serde_json::from_value(json!({
        "metadata": {
            "namespace": "inference", "name": name, "uid": uid, "labels": {"app": name},
            "annotations": {"tidegate.dev/injected": "0.1.0"}, "deletionTimestamp": deletion,
        },
        "status": {"phase": "Running"},
    }))
    .unwrap()
}

fn policy(app: &str, limit: u64) -> RateLimitPolicy {
    serde_json::from_value(json!({
        "metadata": {"namespace": "inference", "name": app, "generation": 1, "uid": "p"},
        "spec": {
            "selector": {"matchLabels": {"app": app}},
            "limits": [{"name": "all", "key": [{"header": "x-api-key"}], "algorithm": "TokenBucket", "limit": limit, "window": "1m"}],
        },
    }))
    .unwrap()
}

fn slice(ready: bool) -> k8s_openapi::api::discovery::v1::EndpointSlice {
    serde_json::from_value(json!({
        "metadata": {"namespace": "inference", "name": "s"}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["192.0.2.1"], "conditions": {"ready": ready}, "targetRef": {"kind": "Pod", "name": "a"}}],
    }))
    .unwrap()
}

struct Reading {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Reading {
    /// The next event; `None` at the end of the stream.
    async fn next(&mut self) -> Option<PolicyEvent> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("silence")?;
            self.buffer.extend_from_slice(frame.unwrap().data_ref().unwrap());
        }
    }

    /// The next event that is no bookmark: those come by the clock.
    async fn next_change(&mut self) -> Option<PolicyEvent> {
        loop {
            match self.next().await {
                Some(PolicyEvent::Bookmark { .. }) => {}
                event => return event,
            }
        }
    }

    /// The limits of the next document.
    async fn next_limits(&mut self) -> Vec<u64> {
        let event = self.next_change().await.expect("the stream ended");
        let PolicyEvent::Modified { document } = event else { panic!("{event:?}") };
        let limits = document["limits"].as_array().unwrap();
        limits.iter().map(|limit| limit["limit"].as_u64().unwrap()).collect()
    }
}

impl Bench {
    async fn send(
        &mut self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: &str,
    ) -> http::Response<Incoming> {
        let mut request =
            Request::builder().method(method).uri(format!("https://tidegate-operator.tg.svc{path}"));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Full::from(body.to_owned())).unwrap();
        tokio::time::timeout(PATIENCE, self.client.send_request(request)).await.unwrap().unwrap()
    }

    async fn refused(&mut self, token: Option<&str>) -> (StatusCode, String) {
        let response = self.send("GET", "/v1/policy", token, "").await;
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    async fn watch(&mut self, token: &str, revision: Option<&str>) -> Reading {
        let query = revision.map(|revision| format!("?revision={revision}")).unwrap_or_default();
        let response = self.send("GET", &format!("/v1/policy{query}"), Some(token), "").await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "application/x-ndjson");
        Reading { body: response.into_body(), buffer: Vec::new() }
    }
}

#[tokio::test]
async fn each_pod_gets_its_own_document_and_every_change_of_it() {
    let mut bench = bench().await;
    sync_everything(&bench.world);
    for (name, limit) in [("a", 10), ("b", 20)] {
        bench.world.feed(Feed::Apply(pod(name, &format!("uid-{name}"), false)));
        bench.world.feed(Feed::Apply(policy(name, limit)));
    }
    let mut a = bench.watch("pod:a:uid-a", None).await;
    let mut b = bench.watch("pod:b:uid-b", None).await;
    assert_eq!((a.next_limits().await, b.next_limits().await), (vec![10], vec![20]));
    bench.world.feed(Feed::Apply(policy("a", 11)));
    assert_eq!(a.next_limits().await, [11]);
    bench.world.feed(Feed::Delete(policy("a", 11)));
    assert_eq!(a.next_limits().await, [0_u64; 0]);
    bench.world.feed(Feed::Apply(policy("b", 21)));
    assert_eq!(b.next_limits().await, [21], "nothing of a's was told to b");
    let text = bench.metrics.encode().unwrap();
    assert!(text.contains("tidegate_policy_documents_sent_total 5\n"), "{text}");
    assert!(text.contains("tidegate_policy_streams 2\n"), "{text}");
}

#[tokio::test]
async fn a_sidecar_that_has_the_revision_already_gets_a_bookmark_and_no_document() {
    let mut bench = bench().await;
    sync_everything(&bench.world);
    bench.world.feed(Feed::Apply(pod("a", "uid-a", false)));
    bench.world.feed(Feed::Apply(policy("a", 10)));
    let mut first = bench.watch("pod:a:uid-a", None).await;
    let Some(PolicyEvent::Modified { document }) = first.next().await else { panic!() };
    let revision = document["revision"].as_str().unwrap().to_owned();
    let mut again = bench.watch("pod:a:uid-a", Some(&revision)).await;
    assert_eq!(again.next().await, Some(PolicyEvent::Bookmark { revision }));
}

#[tokio::test]
async fn nothing_is_told_before_everything_is_listed_and_the_pod_is_known() {
    let mut bench = bench().await;
    bench.world.feed(Feed::Apply(pod("a", "uid-a", false)));
    bench.world.feed(Feed::Apply(policy("a", 10)));
    let mut a = bench.watch("pod:a:uid-a", Some("old")).await;
    assert_eq!(a.next().await, Some(PolicyEvent::Bookmark { revision: "old".to_owned() }));
    sync_everything(&bench.world);
    bench.world.feed(Feed::Apply(policy("a", 10)));
    bench.world.feed(Feed::Apply(pod("a", "uid-of-another-pod-of-this-name", false)));
    bench.world.feed(Feed::Apply(pod("a", "uid-a", false)));
    assert_eq!(a.next_limits().await, [10]);
}

#[tokio::test]
async fn a_stream_ends_when_its_pod_is_gone() {
    let mut bench = bench().await;
    sync_everything(&bench.world);
    bench.world.feed(Feed::Apply(pod("a", "uid-a", false)));
    let mut a = bench.watch("pod:a:uid-a", None).await;
    assert!(a.next().await.is_some());
    bench.world.feed(Feed::Delete(pod("a", "uid-a", true)));
    assert_eq!(a.next_change().await, None);
}

#[tokio::test]
async fn a_pod_that_no_service_lists_is_withdrawn_as_soon_as_it_is_deleted() {
    let mut bench = bench().await;
    sync_everything(&bench.world);
    bench.world.feed(Feed::Apply(pod("a", "uid-a", false)));
    let mut a = bench.watch("pod:a:uid-a", None).await;
    assert!(matches!(a.next_change().await, Some(PolicyEvent::Modified { .. })));
    bench.world.feed(Feed::Apply(pod("a", "uid-a", true)));
    assert_eq!(a.next_change().await, Some(PolicyEvent::Endpoints { withdrawn: true }));
}

#[tokio::test]
async fn a_pod_that_a_service_lists_is_withdrawn_when_the_last_slice_lets_it_go() {
    let mut bench = bench().await;
    sync_everything(&bench.world);
    bench.world.feed(Feed::Apply(pod("a", "uid-a", false)));
    bench.world.feed(Feed::Apply(slice(true)));
    let mut a = bench.watch("pod:a:uid-a", None).await;
    assert!(matches!(a.next_change().await, Some(PolicyEvent::Modified { .. })));
    bench.world.feed(Feed::Apply(pod("a", "uid-a", true)));
    bench.world.feed(Feed::Apply(policy("a", 10)));
    assert_eq!(a.next_limits().await, [10], "still listed: no word of a withdrawal");
    bench.world.feed(Feed::Apply(slice(false)));
    assert_eq!(a.next_change().await, Some(PolicyEvent::Endpoints { withdrawn: true }));
}

#[tokio::test]
async fn who_is_not_a_pod_is_refused_with_one_line() {
    let mut bench = bench().await;
    let cases = [
        (None, "no authorization: send Bearer and the pod's token\n"),
        (Some(""), "authorization is not Bearer and a token\n"),
        (Some("nobody"), "the token is not valid for audience tidegate: token expired\n"),
        (Some("elsewhere"), "the token is not for audience tidegate\n"),
        (Some("human"), "the token is not bound to a pod: project it into one\n"),
    ];
    for (token, expected) in cases {
        assert_eq!(bench.refused(token).await, (StatusCode::UNAUTHORIZED, expected.to_owned()));
    }
}

#[tokio::test]
async fn a_token_is_reviewed_once_and_an_api_server_that_fails_is_not_the_sidecars_fault() {
    let mut bench = bench().await;
    bench.api.take_calls();
    for _ in 0..3 {
        assert_eq!(bench.refused(Some("nobody")).await.0, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(bench.api.take_calls(), [format!("POST {REVIEWS}")]);
    bench.api.fail(Some(StatusCode::INTERNAL_SERVER_ERROR));
    assert_eq!(bench.refused(Some("pod:a:uid-a")).await.0, StatusCode::SERVICE_UNAVAILABLE);
    bench.api.fail(None);
    sync_everything(&bench.world);
    bench.world.feed(Feed::Apply(pod("a", "uid-a", false)));
    assert!(bench.watch("pod:a:uid-a", None).await.next().await.is_some(), "the failure was not remembered");
}

#[tokio::test]
async fn reports_are_taken_from_known_pods_only_and_garbage_is_named() {
    let mut bench = bench().await;
    sync_everything(&bench.world);
    bench.world.feed(Feed::Apply(pod("a", "uid-a", false)));
    let report = json!({"version": "1", "revision": "r", "status": {"revision": "r", "pressure": 0.0, "inFlight": 0, "tiers": [], "limits": []}});
    let body = report.to_string();
    assert_eq!(
        bench.send("POST", "/v1/report", Some("pod:a:uid-a"), &body).await.status(),
        StatusCode::NO_CONTENT
    );
    let stranger = bench.send("POST", "/v1/report", Some("pod:a:uid-old"), &body).await;
    assert_eq!(stranger.status(), StatusCode::SERVICE_UNAVAILABLE);
    let garbage = bench.send("POST", "/v1/report", Some("pod:a:uid-a"), "{").await;
    assert_eq!(garbage.status(), StatusCode::BAD_REQUEST);
    assert_eq!(
        bench.send("POST", "/v1/report", Some("nobody"), &body).await.status(),
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn one_pod_cannot_open_streams_without_end() {
    let mut bench = bench().await;
    sync_everything(&bench.world);
    bench.world.feed(Feed::Apply(pod("a", "uid-a", false)));
    let mut open = Vec::new();
    for _ in 0..MAX_STREAMS_PER_POD {
        let mut stream = bench.watch("pod:a:uid-a", None).await;
        assert!(stream.next().await.is_some());
        open.push(stream);
    }
    assert_eq!(bench.refused(Some("pod:a:uid-a")).await.0, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn shutdown_ends_streams_so_that_sidecars_find_another_replica() {
    let mut bench = bench().await;
    sync_everything(&bench.world);
    bench.world.feed(Feed::Apply(pod("a", "uid-a", false)));
    let mut a = bench.watch("pod:a:uid-a", None).await;
    assert!(a.next().await.is_some());
    bench.trigger.stop();
    assert_eq!(a.next_change().await, None);
    tokio::time::timeout(PATIENCE, bench.server).await.unwrap().unwrap();
}

fn report(revision: &str) -> Report {
    let status = json!({"revision": revision, "pressure": 0.0, "inFlight": 0, "tiers": [], "limits": []});
    serde_json::from_value(json!({"version": "1", "revision": revision, "status": status})).unwrap()
}

fn programmed(world: &World) -> i32 {
    let key = PolicyKey::new(PolicyKind::RateLimitPolicy, "inference", "a");
    let now = Time("2026-01-01T00:00:00Z".parse().unwrap());
    match world.status(&key, &now).unwrap() {
        PolicyStatus::RateLimit(status) => status.pods.programmed,
        PolicyStatus::CircuitBreaker(_) => panic!(),
    }
}

/// A replica that follows the one of the bench, by a token of this name.
fn follower(
    bench: &Bench,
    world: &Arc<World>,
    token: &str,
) -> (watch::Sender<Option<String>>, JoinHandle<()>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let peers =
        Peers { server_name: "tidegate-operator.tg.svc".to_owned(), token_file: folder.path().join("token") };
    std::fs::write(&peers.token_file, token).unwrap();
    let (leader, other) = watch::channel(None);
    let forwarder =
        Forwarder::new(peers, Arc::clone(world), other, bench.certificates.trust(), bench.metrics.clone());
    (leader, tokio::spawn(forwarder.run()), folder)
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn what_sidecars_tell_another_replica_counts_at_the_leader() {
    let bench = bench().await;
    let theirs = Arc::new(World::default());
    for world in [&bench.world, &theirs] {
        sync_everything(world);
        world.feed(Feed::Apply(pod("a", "uid-a", false)));
        world.feed(Feed::Apply(policy("a", 10)));
    }
    let (leader, forwarding, _folder) = follower(&bench, &theirs, "replica:tidegate-operator-b:uid-b");
    let mut stream = theirs.subscribe(&PodKey::new("inference", "a"), "uid-a".to_owned());
    let revision = stream.view().unwrap().document.revision.clone();
    theirs.report(&PodKey::new("inference", "a"), "uid-a", report(&revision)).unwrap();
    assert_eq!((programmed(&theirs), programmed(&bench.world)), (1, 0));
    // The report came before there was a leader to send it to.
    leader.send_replace(Some(bench.address.to_string()));
    until("the leader was not told", || programmed(&bench.world) == 1).await;
    theirs.report(&PodKey::new("inference", "a"), "uid-a", report("another")).unwrap();
    until("the leader was not told of the change", || programmed(&bench.world) == 0).await;
    forwarding.abort();
}

#[tokio::test]
async fn a_pod_cannot_speak_for_others() {
    let mut bench = bench().await;
    sync_everything(&bench.world);
    bench.world.feed(Feed::Apply(pod("a", "uid-a", false)));
    bench.world.feed(Feed::Apply(policy("a", 10)));
    let forged =
        json!([{"namespace": "inference", "name": "a", "uid": "uid-a", "report": report("r")}]).to_string();
    let answer = bench.send("POST", "/v1/forwarded", Some("pod:b:uid-b"), &forged).await;
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    let text = String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
    assert_eq!(text, "pod inference/b is no replica of the operator: send /v1/report\n");
    let answer = bench.send("POST", "/v1/forwarded", Some("replica:o:uid-o"), "[{}]").await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
}
