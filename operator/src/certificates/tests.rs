use http::StatusCode;

use super::*;
use crate::fake_api::FakeApi;

const SECRETS: &str = "/api/v1/namespaces/tg/secrets";
const DAY: Seconds = 24 * 3600;
const T0: Seconds = 1_800_000_000;

fn lifetimes() -> Lifetimes {
    Lifetimes {
        authority: Duration::from_hours(300 * 24),
        serving: Duration::from_hours(30 * 24),
        overlap: Duration::from_hours(24),
    }
}

fn names() -> Names {
    Names {
        operator: Names::of_service("tidegate-operator", "tg"),
        agent: Names::of_service("tidegate-agent", "tg"),
    }
}

fn certificates(api: &FakeApi) -> Certificates {
    Certificates::new(&api.client(), "tg", names(), lifetimes(), Metrics::default())
}

fn bundle(certificates: &Certificates) -> Arc<str> {
    certificates.trust.borrow().clone().unwrap().bundle
}

fn count(bundle: &str) -> usize {
    bundle.matches("BEGIN CERTIFICATE").count()
}

#[tokio::test]
async fn the_first_replica_makes_everything_and_the_second_takes_the_same() {
    let api = FakeApi::default();
    let (first, second) = (certificates(&api), certificates(&api));
    first.ensure(T0).await.unwrap();
    second.ensure(T0 + 5).await.unwrap();
    assert_eq!(bundle(&first), bundle(&second));
    assert_eq!(api.paths(SECRETS).len(), 3);
    assert_eq!(count(&bundle(&first)), 1);
}

#[tokio::test]
async fn nothing_is_written_while_nothing_is_due() {
    let api = FakeApi::default();
    let certificates = certificates(&api);
    certificates.ensure(T0).await.unwrap();
    api.take_calls();
    certificates.ensure(T0 + 19 * DAY).await.unwrap();
    assert!(api.take_calls().iter().all(|call| call.starts_with("GET ")));
}

#[tokio::test]
async fn the_replica_that_loses_the_race_takes_what_the_winner_made() {
    let (api, elsewhere) = (FakeApi::default(), FakeApi::default());
    certificates(&elsewhere).ensure(T0).await.unwrap();
    let path = format!("{SECRETS}/tidegate-ca");
    let theirs = elsewhere.get(&path).unwrap();
    let (key, value) = (path.clone(), theirs.clone());
    api.before_next_write(move |objects| drop(objects.insert(key, value)));
    let loser = certificates(&api);
    loser.ensure(T0).await.unwrap();
    assert_eq!(api.get(&path).unwrap()["data"], theirs["data"]);
}

#[tokio::test]
async fn serving_certificates_are_renewed_after_two_thirds_of_their_life() {
    let api = FakeApi::default();
    let certificates = certificates(&api);
    certificates.ensure(T0).await.unwrap();
    let path = format!("{SECRETS}/tidegate-operator-tls");
    let before = api.get(&path).unwrap();
    certificates.ensure(T0 + 21 * DAY).await.unwrap();
    assert_ne!(api.get(&path).unwrap()["data"], before["data"]);
    assert_eq!(count(&bundle(&certificates)), 1, "the authority stays");
}

#[tokio::test]
async fn an_authority_is_announced_before_it_signs_and_trusted_until_it_expires() {
    let api = FakeApi::default();
    let certificates = certificates(&api);
    certificates.ensure(T0).await.unwrap();
    let first = bundle(&certificates);
    let path = format!("{SECRETS}/tidegate-operator-tls");

    certificates.ensure(T0 + 201 * DAY).await.unwrap();
    let announced = bundle(&certificates);
    assert_eq!(count(&announced), 2);
    assert!(announced.starts_with(&*first), "the first still signs");
    let signed_by_first = api.get(&path).unwrap();

    certificates.ensure(T0 + 201 * DAY + 3600).await.unwrap();
    assert_eq!(api.get(&path).unwrap()["data"], signed_by_first["data"], "the overlap is not over");

    certificates.ensure(T0 + 203 * DAY).await.unwrap();
    let promoted = bundle(&certificates);
    assert_eq!(count(&promoted), 2);
    assert!(promoted.ends_with(&*first), "the second signs, the first is trusted");
    assert_ne!(api.get(&path).unwrap()["data"], signed_by_first["data"]);

    certificates.ensure(T0 + 301 * DAY).await.unwrap();
    let last = bundle(&certificates);
    assert_eq!(count(&last), 1);
    assert!(!last.contains(&*first));
}

#[tokio::test]
async fn authorities_made_elsewhere_are_announced_before_they_sign_too() {
    let api = FakeApi::default();
    let source = "cert-manager";
    let certificates = certificates(&api).with_authorities_of(Some(source.to_owned()));
    let error = format!("{:#}", certificates.ensure(T0).await.unwrap_err());
    assert!(error.starts_with("Secret cert-manager holds no authority"), "{error}");
    let put = |pair: &Pair| {
        let bytes =
            |text: &str| serde_json::to_value(k8s_openapi::ByteString(text.as_bytes().to_vec())).unwrap();
        let data = serde_json::json!({"tls.crt": bytes(&pair.certificate), "tls.key": bytes(&pair.key)});
        api.put(
            &format!("{SECRETS}/{source}"),
            serde_json::json!({"metadata": {"name": source}, "data": data}),
        );
    };
    let first = Pair::new_authority(T0, Duration::from_hours(90 * 24)).unwrap();
    put(&first);
    certificates.ensure(T0).await.unwrap();
    assert_eq!(&*bundle(&certificates), first.certificate);

    // It is not this operator that renews it, however old it is.
    certificates.ensure(T0 + 80 * DAY).await.unwrap();
    assert_eq!(&*bundle(&certificates), first.certificate);

    let second = Pair::new_authority(T0 + 80 * DAY, Duration::from_hours(90 * 24)).unwrap();
    put(&second);
    certificates.ensure(T0 + 80 * DAY).await.unwrap();
    assert_eq!(*bundle(&certificates), first.certificate.clone() + &second.certificate);
    certificates.ensure(T0 + 82 * DAY).await.unwrap();
    assert_eq!(*bundle(&certificates), second.certificate.clone() + &first.certificate, "the second signs");
}

#[tokio::test]
async fn garbage_in_a_secret_is_replaced() {
    let api = FakeApi::default();
    for name in ["tidegate-ca", "tidegate-operator-tls"] {
        let garbage = serde_json::json!({"metadata": {"name": name}, "data": {"tls.crt": "Z2FyYmFnZQ==", "tls.key": "AA=="}});
        api.put(&format!("{SECRETS}/{name}"), garbage);
    }
    let certificates = certificates(&api);
    certificates.ensure(T0).await.unwrap();
    assert_eq!(count(&bundle(&certificates)), 1);
}

#[tokio::test]
async fn a_certificate_for_other_names_or_from_another_authority_is_issued_anew() {
    let api = FakeApi::default();
    certificates(&api).ensure(T0).await.unwrap();
    let path = format!("{SECRETS}/tidegate-operator-tls");
    let before = api.get(&path).unwrap();
    let moved = Names { operator: Names::of_service("other", "tg"), ..names() };
    Certificates::new(&api.client(), "tg", moved.clone(), lifetimes(), Metrics::default())
        .ensure(T0)
        .await
        .unwrap();
    let renamed = api.get(&path).unwrap();
    assert_ne!(renamed["data"], before["data"]);
    api.remove(&format!("{SECRETS}/tidegate-ca"));
    Certificates::new(&api.client(), "tg", moved, lifetimes(), Metrics::default()).ensure(T0).await.unwrap();
    assert_ne!(api.get(&path).unwrap()["data"], renamed["data"]);
}

#[tokio::test]
async fn an_api_server_that_fails_leaves_what_is_in_use() {
    let api = FakeApi::default();
    let certificates = certificates(&api);
    certificates.ensure(T0).await.unwrap();
    let before = bundle(&certificates);
    api.fail(Some(StatusCode::INTERNAL_SERVER_ERROR));
    let error = format!("{:#}", certificates.ensure(T0 + 300 * DAY).await.unwrap_err());
    assert!(error.starts_with("Secret tidegate-ca cannot be read"), "{error}");
    assert_eq!(bundle(&certificates), before);
}

#[test]
fn a_serving_certificate_does_not_outlive_its_authority() {
    let authority = Pair::new_authority(T0, Duration::from_hours(1)).unwrap();
    let pair = authority.issue(&names().operator, T0, Duration::from_hours(2)).unwrap();
    assert_eq!(pair.validity().unwrap().until, T0 + 3600);
    assert!(pair.serves(&names().operator, &authority));
    assert!(!pair.serves(&names().agent, &authority));
}
