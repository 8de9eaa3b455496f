//! Certificates that change, expire or are read by another clock, with a real operator, its Secrets in a real API server and
//! clients that look at them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, date_time_ymd,
};
use rustls::ClientConfig;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use serde_json::{Value, json};
use tidegate_e2e::cluster::progress::Progress;
use tidegate_e2e::harness::{RELEASE_NAMESPACE, eventually};
use tidegate_e2e::scale::{Reviewer, Scene, Size, believing};
use tokio::task::JoinSet;

use crate::scale::operator;

const SIZE: Size = Size { pods: 10, nodes: 2, policies: 4 };
const PATIENCE: Duration = Duration::from_mins(3);
const MINUTE: i64 = 60;
const DAY: i64 = 24 * 60 * MINUTE;

/// An authority of the operator's that its key makes again as of another time.
struct Authority {
    name: DistinguishedName,
    key: KeyPair,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut distinguished = DistinguishedName::new();
        distinguished.push(DnType::CommonName, name);
        Self { name: distinguished, key: KeyPair::generate().unwrap() }
    }

    fn params(&self, from: i64, until: i64) -> CertificateParams {
        let mut params = valid(CertificateParams::default(), from, until);
        params.distinguished_name = self.name.clone();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params
    }

    /// PEM, valid from and until so many seconds from now.
    fn certificate(&self, from: i64, until: i64) -> String {
        self.params(from, until).self_signed(&self.key).unwrap().pem()
    }

    /// Certificate and key (PEM) for the operator, valid from and until so many seconds from now.
    fn serving(&self, from: i64, until: i64) -> [String; 2] {
        let service = format!("tidegate-operator.{RELEASE_NAMESPACE}.svc");
        let names = vec![service.clone(), format!("{service}.cluster.local")];
        let params = valid(CertificateParams::new(names).unwrap(), from, until);
        let issuer = Issuer::new(self.params(-DAY, DAY), &self.key);
        let key = KeyPair::generate().unwrap();
        [params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem()]
    }
}

fn valid(mut params: CertificateParams, from: i64, until: i64) -> CertificateParams {
    let now = UnixTime::now().as_secs().cast_signed();
    let at = |offset: i64| date_time_ymd(1970, 1, 1) + Duration::from_secs((now + offset).cast_unsigned());
    (params.not_before, params.not_after) = (at(from), at(until));
    params
}

async fn write(scene: &Scene, secret: &str, texts: &Value) {
    let secrets: Api<Secret> = Api::namespaced(scene.server.client.clone(), RELEASE_NAMESPACE);
    let patch = Patch::Merge(json!({"stringData": texts}));
    secrets.patch(secret, &PatchParams::default(), &patch).await.unwrap();
}

/// What signs now, PEM.
async fn signs(scene: &Scene) -> String {
    let secrets: Api<Secret> = Api::namespaced(scene.server.client.clone(), RELEASE_NAMESPACE);
    let data = secrets.get("tidegate-ca").await.unwrap().data.unwrap();
    String::from_utf8(data["tls.crt"].0.clone()).unwrap()
}

/// Reviews one after the other, until it is dropped.
struct Load {
    passed: Arc<AtomicUsize>,
    failed: Arc<Mutex<Vec<String>>>,
    _task: JoinSet<()>,
}

impl Load {
    /// Half of them by clients that read the bundle anew, half by those that have not since `lagging`.
    fn start(reviewer: Reviewer, lagging: Arc<Mutex<Arc<ClientConfig>>>) -> Self {
        let (passed, failed) = (Arc::default(), Arc::default());
        let mut task = JoinSet::new();
        let counts: (Arc<AtomicUsize>, Arc<Mutex<Vec<String>>>) = (Arc::clone(&passed), Arc::clone(&failed));
        task.spawn(async move {
            loop {
                let behind = Arc::clone(&lagging.lock().unwrap_or_else(PoisonError::into_inner));
                for tls in [reviewer.trust(), behind] {
                    match reviewer.review(&tls).await {
                        Ok(()) => _ = counts.0.fetch_add(1, Ordering::Relaxed),
                        Err(error) => counts.1.lock().unwrap().push(format!("{error:#}")),
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        });
        Self { passed, failed, _task: task }
    }

    /// Waits until ten more have passed: the last of them began after this did.
    async fn goes_on(&self) {
        let so_far = self.passed.load(Ordering::Relaxed);
        eventually("more reviews", PATIENCE, async || {
            let passed = self.passed.load(Ordering::Relaxed);
            if passed >= so_far + 10 { Ok(()) } else { Err(passed) }
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn no_review_and_no_stream_is_lost_while_authorities_rotate_under_load() {
    let mut scene = Scene::set(SIZE, &operator(), &Progress::start()).await.unwrap();
    scene.forget();
    let reviewer = scene.reviewer();
    let first = reviewer.trust();
    let lagging = Arc::new(Mutex::new(Arc::clone(&first)));
    let load = Load::start(reviewer.clone(), Arc::clone(&lagging));
    let next = Authority::new("tidegate-ca-next");

    // Announced: it is in the bundle and signs nothing yet.
    let announced = next.certificate(-5 * MINUTE, 900 * DAY);
    write(&scene, "tidegate-ca", &json!({"next.crt": announced, "next.key": next.key.serialize_pem()})).await;
    eventually("both authorities in the bundle", PATIENCE, async || {
        if Arc::ptr_eq(&reviewer.trust(), &first) { Err("one") } else { Ok(()) }
    })
    .await
    .unwrap();
    reviewer.review(&first).await.unwrap();
    let alone = believing(&announced).unwrap();
    reviewer.review(&alone).await.unwrap_err();
    // No client is as far behind as the overlap is long.
    *lagging.lock().unwrap() = reviewer.trust();
    load.goes_on().await;

    // A day later it signs.
    let a_day_old = next.certificate(-DAY - 10 * MINUTE, 900 * DAY);
    write(&scene, "tidegate-ca", &json!({"next.crt": a_day_old})).await;
    eventually("the next authority signs", PATIENCE, async || {
        reviewer.review(&alone).await.map_err(|error| format!("{error:#}"))
    })
    .await
    .unwrap();
    assert_eq!(signs(&scene).await, a_day_old);
    reviewer.review(&first).await.unwrap_err();
    load.goes_on().await;
    assert_eq!(*load.failed.lock().unwrap(), Vec::<String>::new());
    scene.change().await.unwrap();
    assert_eq!(scene.streams_opened(), 0, "no sidecar had to connect anew");
}

#[tokio::test]
async fn what_expired_while_the_operator_was_away_is_replaced_at_its_start() {
    let mut scene = Scene::set(SIZE, &operator(), &Progress::start()).await.unwrap();
    let reviewer = scene.reviewer();
    let old = Authority::new("tidegate-ca-old");
    let expired = old.certificate(-900 * DAY, -1);
    for authority in [old.certificate(-DAY, 900 * DAY), expired] {
        let before = signs(&scene).await;
        scene.stop().await.unwrap();
        let [certificate, key] = old.serving(-90 * DAY, -1);
        write(&scene, "tidegate-ca", &json!({"tls.crt": authority, "tls.key": old.key.serialize_pem()}))
            .await;
        write(&scene, "tidegate-operator-tls", &json!({"tls.crt": certificate, "tls.key": key})).await;
        let back = scene.restart().await.unwrap();
        assert_eq!(back.refused, 0, "{back:?}");
        assert_ne!(signs(&scene).await, before);
        reviewer.review(&reviewer.trust()).await.unwrap();
        scene.change().await.unwrap();
    }
    clocks_may_differ(&reviewer).await;
}

/// The clock of a client, so many seconds ahead.
#[derive(Debug)]
struct Ahead(i64);

impl TimeProvider for Ahead {
    fn current_time(&self) -> Option<UnixTime> {
        let now = UnixTime::now().as_secs().checked_add_signed(self.0)?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(now)))
    }
}

/// By four minutes behind a certificate that was just made, and by a third of its life ahead.
async fn clocks_may_differ(reviewer: &Reviewer) {
    let seen_from = async |ahead: i64| {
        let mut tls = ClientConfig::clone(&reviewer.trust());
        tls.time_provider = Arc::new(Ahead(ahead));
        reviewer.review(&Arc::new(tls)).await
    };
    for ahead in [-4 * MINUTE, 29 * DAY] {
        seen_from(ahead).await.unwrap_or_else(|error| panic!("{ahead} s ahead: {error:#}"));
    }
    for ahead in [-60 * MINUTE, 91 * DAY] {
        seen_from(ahead).await.expect_err("certificates are looked at");
    }
}
