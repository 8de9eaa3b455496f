//! What goes on while the API server, etcd or the webhook does not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::PostParams;
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};
use tidegate_e2e::apiserver::ApiServer;
use tidegate_e2e::cluster::binaries;
use tidegate_e2e::cluster::progress::Progress;
use tidegate_e2e::harness::{apply, eventually};
use tidegate_e2e::scale::{Scene, Size};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::scale::operator;

const SIZE: Size = Size { pods: 10, nodes: 2, policies: 4 };
const STALL: Duration = Duration::from_millis(800);

#[tokio::test]
async fn streams_outlive_an_api_server_and_an_etcd_that_stand_still_or_start_again() {
    let mut scene = Scene::set(SIZE, &operator(), &Progress::start()).await.unwrap();
    scene.forget();
    scene.server.stutter(3, STALL).await.unwrap();
    scene.change().await.unwrap();
    scene.server.restart().await.unwrap();
    scene.change().await.unwrap();
    assert_eq!(scene.streams_opened(), 0, "no sidecar had to connect anew");
    assert_eq!(scene.documents(), 2 * SIZE.pods as u64, "each change once to each pod");
}

/// How a webhook fails.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Failure {
    HangsUp,
    NoAnswer,
    Garbage,
}

/// A webhook that fails.
struct Failing {
    address: SocketAddr,
    /// Whom to believe that it is the webhook.
    authority: String,
    /// How often it was asked.
    asked: Arc<AtomicUsize>,
}

const GARBAGE: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n}garbage{";

async fn serve(failure: Failure) -> Failing {
    let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.into())
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    tokio::spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), failure, Arc::clone(&asked)));
    Failing { address, authority: STANDARD.encode(certified.cert.pem()), asked }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, failure: Failure, asked: Arc<AtomicUsize>) {
    while let Ok((stream, _)) = listener.accept().await {
        asked.fetch_add(1, Ordering::Relaxed);
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            if failure == Failure::HangsUp {
                return Ok(());
            }
            let mut stream = acceptor.accept(stream).await?;
            let mut request = vec![0; 1 << 16];
            _ = stream.read(&mut request).await?;
            if failure == Failure::Garbage {
                stream.write_all(GARBAGE).await?;
            }
            // Whoever waits for more gives up by itself.
            while stream.read(&mut request).await? > 0 {}
            std::io::Result::Ok(())
        });
    }
}

/// The webhooks of the manifests, which are at this address.
fn webhooks(failing: &Failing) -> Value {
    let text = std::fs::read_to_string(binaries::workspace().join("manifests/tidegate.yaml")).unwrap();
    let part = text.split("\n---").find(|part| part.contains("\nkind: MutatingWebhookConfiguration"));
    let mut configuration: Value = serde_saphyr::from_str(part.unwrap()).unwrap();
    for webhook in configuration["webhooks"].as_array_mut().unwrap() {
        webhook["clientConfig"] =
            json!({"url": format!("https://{}/mutate", failing.address), "caBundle": failing.authority});
    }
    configuration
}

#[tokio::test]
async fn pods_are_let_in_while_the_webhook_is_down_silent_or_answers_garbage() {
    let server = ApiServer::start().await.unwrap();
    let labels = "{tidegate.dev/injection: enabled}";
    let namespace = format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: ns, labels: {labels}}}}}");
    apply(&server.client, None, &namespace).await.unwrap();
    let account = "{apiVersion: v1, kind: ServiceAccount, metadata: {name: default}}";
    apply(&server.client, Some("ns"), account).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(server.client.clone(), "ns");
    let pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "engine", "image": "i"}]}});
    let pod: Pod = serde_json::from_value(pod).unwrap();
    for failure in [Failure::HangsUp, Failure::NoAnswer, Failure::Garbage] {
        let failing = serve(failure).await;
        apply(&server.client, None, &webhooks(&failing).to_string()).await.unwrap();
        eventually("a review", Duration::from_mins(1), async || {
            let dry_run = PostParams { dry_run: true, ..PostParams::default() };
            let made = pods.create(&dry_run, &pod).await;
            let made = made.unwrap_or_else(|error| panic!("{failure:?}: {error}"));
            assert_eq!(made.spec.unwrap().init_containers, None, "{failure:?}");
            // The API server looks at its webhooks anew a moment after they changed.
            if failing.asked.load(Ordering::Relaxed) > 0 { Ok(()) } else { Err("not asked yet") }
        })
        .await
        .unwrap();
    }
}
