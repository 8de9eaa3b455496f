//! An API server that only reviews tokens. A token `<pod>.<node>.s` is of that pod of namespace `inference` on that
//! node; one of pod `expired` is not valid.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// The API server.
pub(crate) struct ApiServer {
    /// Where it listens, in plain HTTP.
    pub(crate) address: SocketAddr,
    reviews: Arc<AtomicUsize>,
}

impl ApiServer {
    /// Starts it on a free port.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let reviews = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&reviews);
        let review = move |Json(request): Json<Value>| {
            counter.fetch_add(1, Ordering::SeqCst);
            async move { Json(review(request)) }
        };
        let router = Router::new().route("/apis/authentication.k8s.io/v1/tokenreviews", post(review));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, reviews }
    }

    /// Reviews so far.
    pub(crate) fn reviews(&self) -> usize {
        self.reviews.load(Ordering::SeqCst)
    }
}

fn review(mut request: Value) -> Value {
    let token = request["spec"]["token"].as_str().unwrap_or_default().to_owned();
    let mut parts = token.split('.');
    let (pod, node) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    request["status"] = if pod == "expired" {
        json!({"authenticated": false, "error": "token expired"})
    } else {
        json!({
            "authenticated": true,
            "audiences": request["spec"]["audiences"],
            "user": {
                "username": "system:serviceaccount:inference:default",
                "extra": {
                    "authentication.kubernetes.io/pod-name": [pod],
                    "authentication.kubernetes.io/pod-uid": ["00000000-0000-0000-0000-000000000001"],
                    "authentication.kubernetes.io/node-name": [node],
                },
            },
        })
    };
    request
}
