//! An API server in memory, for tests: objects by path, optimistic locking, a log of calls, failures on demand.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

type Answer = (StatusCode, Value);
type Objects = BTreeMap<String, Value>;
type Change = Box<dyn FnOnce(&mut Objects) + Send>;
type Handler = Box<dyn Fn(&Value) -> Value + Send>;

#[derive(Default)]
struct State {
    objects: Objects,
    version: u64,
    calls: Vec<String>,
    failing: Option<StatusCode>,
    before_write: Option<Change>,
    handlers: BTreeMap<String, Handler>,
}

#[derive(Clone, Default)]
pub(crate) struct FakeApi(Arc<Mutex<State>>);

impl FakeApi {
    pub(crate) fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.serve(request).await) }
        });
        Client::new(service, "default")
    }

    /// Puts an object at its path, such as `/api/v1/namespaces/a/secrets/b`.
    pub(crate) fn put(&self, path: &str, mut object: Value) {
        self.with(|state| {
            state.version += 1;
            object["metadata"]["resourceVersion"] = json!(state.version.to_string());
            state.objects.insert(path.to_owned(), object);
        });
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.with(|state| state.objects.get(path).cloned())
    }

    pub(crate) fn remove(&self, path: &str) {
        self.with(|state| state.objects.remove(path));
    }

    /// Paths of objects below a prefix.
    pub(crate) fn paths(&self, prefix: &str) -> Vec<String> {
        self.with(|state| state.objects.keys().filter(|path| path.starts_with(prefix)).cloned().collect())
    }

    /// `METHOD path` of every call since the last time.
    pub(crate) fn take_calls(&self) -> Vec<String> {
        self.with(|state| std::mem::take(&mut state.calls))
    }

    /// Every call fails like this until told otherwise.
    pub(crate) fn fail(&self, status: Option<StatusCode>) {
        self.with(|state| state.failing = status);
    }

    /// Somebody else is faster, once.
    pub(crate) fn before_next_write(&self, change: impl FnOnce(&mut Objects) + Send + 'static) {
        self.with(|state| state.before_write = Some(Box::new(change)));
    }

    /// Answers POSTs to a path, such as `TokenReview`s.
    pub(crate) fn answer(&self, path: &str, handler: impl Fn(&Value) -> Value + Send + 'static) {
        self.with(|state| state.handlers.insert(path.to_owned(), Box::new(handler)));
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn serve(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let (status, answer) = self.with(|state| {
            state.calls.push(format!("{} {}", parts.method, parts.uri.path()));
            match state.failing {
                Some(status) => failure(status),
                None => state.handle(&parts.method, parts.uri.path(), body),
            }
        });
        let mut response = Response::new(Body::from(answer.to_string().into_bytes()));
        *response.status_mut() = status;
        response
    }
}

impl State {
    fn handle(&mut self, method: &Method, path: &str, body: Value) -> Answer {
        if let Some(handler) = self.handlers.get(path) {
            return (StatusCode::CREATED, handler(&body));
        }
        if *method == Method::GET {
            return self.read(path);
        }
        if let Some(change) = self.before_write.take() {
            self.version += 1;
            change(&mut self.objects);
        }
        match *method {
            Method::POST => self.create(path, body),
            Method::PUT => self.replace(path, body),
            Method::PATCH => self.patch(path.trim_end_matches("/status"), &body),
            _ => failure(StatusCode::METHOD_NOT_ALLOWED),
        }
    }

    fn read(&self, path: &str) -> Answer {
        if let Some(object) = self.objects.get(path) {
            return (StatusCode::OK, object.clone());
        }
        let prefix = format!("{path}/");
        let below = self
            .objects
            .iter()
            .filter(|(key, _)| key.strip_prefix(&prefix).is_some_and(|name| !name.contains('/')));
        let items: Vec<&Value> = below.map(|(_, object)| object).collect();
        if items.is_empty() && path.rsplit('/').nth(1) != Some("v1alpha1") {
            return failure(StatusCode::NOT_FOUND);
        }
        (StatusCode::OK, json!({"metadata": {"resourceVersion": "1"}, "items": items}))
    }

    fn create(&mut self, path: &str, body: Value) -> Answer {
        let key = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap_or_default());
        if self.objects.contains_key(&key) {
            return failure(StatusCode::CONFLICT);
        }
        self.store(key, body)
    }

    fn replace(&mut self, path: &str, body: Value) -> Answer {
        match self.objects.get(path) {
            None => failure(StatusCode::NOT_FOUND),
            Some(held) if held["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"] => {
                failure(StatusCode::CONFLICT)
            }
            Some(_) => self.store(path.to_owned(), body),
        }
    }

    fn patch(&mut self, path: &str, body: &Value) -> Answer {
        let mut object = self.objects.get(path).cloned().unwrap_or_else(|| json!({}));
        json_patch::merge(&mut object, body);
        self.store(path.to_owned(), object)
    }

    fn store(&mut self, path: String, mut object: Value) -> Answer {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(path, object.clone());
        (StatusCode::OK, object)
    }
}

fn failure(status: StatusCode) -> Answer {
    let reason = status.canonical_reason().unwrap_or_default().replace(' ', "");
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "metadata": {},
        "message": reason, "reason": reason, "code": status.as_u16(),
    });
    (status, body)
}
