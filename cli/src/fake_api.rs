//! An API server in memory, for tests: objects and lists by path, a log of calls, answers on demand.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use crate::cluster::Cluster;

#[derive(Default)]
struct State {
    /// By path; a list of a namespace's objects is found by their prefix.
    objects: BTreeMap<String, Value>,
    /// `METHOD path`, and what is answered.
    answers: BTreeMap<String, (u16, Value)>,
    calls: Vec<(String, Value)>,
}

#[derive(Clone, Default)]
pub(crate) struct FakeApi(Arc<Mutex<State>>);

impl FakeApi {
    /// A connection to it, in the namespace `inference`.
    pub(crate) fn cluster(&self) -> Cluster {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.serve(request).await) }
        });
        Cluster {
            client: Client::new(service, "inference"),
            namespace: "inference".to_owned(),
            install_namespace: "tidegate-system".to_owned(),
        }
    }

    /// Puts objects from YAML below a path such as `/api/v1/namespaces/inference/pods`.
    pub(crate) fn put(&self, path: &str, yaml: &str) {
        for object in serde_saphyr::from_multiple::<Value>(yaml).unwrap_or_else(|error| panic!("{error}")) {
            let mut object = object;
            if let Some((_, rest)) = path.split_once("/namespaces/") {
                object["metadata"]["namespace"] = rest.split('/').next().unwrap_or_default().into();
            }
            let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            self.with(|state| state.objects.insert(format!("{path}/{name}"), object));
        }
    }

    /// Answers a method and path in this way.
    pub(crate) fn answer(&self, call: &str, status: u16, body: Value) {
        self.with(|state| state.answers.insert(call.to_owned(), (status, body)));
    }

    /// Answers with a failure of this status and message.
    pub(crate) fn fail(&self, call: &str, status: u16, message: &str) {
        self.answer(call, status, failure(status, message));
    }

    /// `METHOD path?query` of every call that was no GET, with its body.
    pub(crate) fn writes(&self) -> Vec<(String, Value)> {
        self.with(|state| state.calls.iter().filter(|(call, _)| !call.starts_with("GET ")).cloned().collect())
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn serve(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let (path, method) = (parts.uri.path(), &parts.method);
        let (status, answer) = self.with(|state| {
            state.calls.push((format!("{method} {}", parts.uri), body));
            state.handle(method, path)
        });
        let text = answer.as_str().map_or_else(|| answer.to_string(), str::to_owned);
        let mut response = Response::new(Body::from(text.into_bytes()));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
        response
    }
}

impl State {
    fn handle(&self, method: &Method, path: &str) -> (u16, Value) {
        if let Some(answer) = self.answers.get(&format!("{method} {path}")) {
            return answer.clone();
        }
        if method != Method::GET {
            return (200, self.objects.get(path).cloned().unwrap_or_else(|| json!({})));
        }
        if let Some(object) = self.objects.get(path) {
            return (200, object.clone());
        }
        let last = path.rsplit('/').next().unwrap_or_default();
        let in_any_namespace = |key: &str| {
            let (prefix, _) = path.rsplit_once('/').unwrap_or_default();
            let rest = key.strip_prefix(prefix).and_then(|rest| rest.strip_prefix("/namespaces/"));
            rest.and_then(|rest| rest.split('/').nth(1)) == Some(last)
        };
        let below = |key: &str| {
            let own = key.strip_prefix(path).and_then(|rest| rest.strip_prefix('/'));
            own.is_some_and(|name| !name.contains('/')) || in_any_namespace(key)
        };
        let items: Vec<_> =
            self.objects.iter().filter(|(key, _)| below(key)).map(|(_, object)| object).collect();
        if items.is_empty() && !is_collection(path) {
            return (404, failure(404, &format!("{last} not found")));
        }
        (200, json!({"metadata": {"resourceVersion": "1"}, "items": items}))
    }
}

/// `/api/v1/pods`, `/apis/apps/v1/namespaces/inference/deployments`: a plural and nothing behind it.
fn is_collection(path: &str) -> bool {
    let parts: Vec<_> = path.trim_start_matches('/').split('/').collect();
    let rest = parts.get(if parts[0] == "api" { 2 } else { 3 }..).unwrap_or_default();
    let rest = if rest.first() == Some(&"namespaces") && rest.len() > 2 { &rest[2..] } else { rest };
    rest.len() == 1
}

fn failure(status: u16, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "metadata": {},
        "message": message, "reason": "Failed", "code": status,
    })
}
