//! The operator's end of the policy stream.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Frame, Incoming};
use tempfile::TempDir;
use tidegate_policy::PolicyDocument;
use tidegate_policy::report::Report;
use tidegate_policy::stream::{PolicyEvent, REPORT_PATH, WATCH_PATH};
use tokio::sync::mpsc;

use crate::authority::Authority;
use crate::server::{Body, Server, Service};

pub(crate) const TOKEN: &str = "token-of-the-pod";

pub(crate) struct Operator {
    pub(crate) server: Server,
    state: Arc<State>,
    folder: TempDir,
}

#[derive(Default)]
struct State {
    streams: Mutex<Vec<mpsc::UnboundedSender<Bytes>>>,
    /// What a new stream begins with.
    greeting: Mutex<Vec<PolicyEvent>>,
    watches: Mutex<Vec<String>>,
    reports: Mutex<Vec<Report>>,
}

impl Operator {
    pub(crate) fn start(authority: &Authority) -> Self {
        let state = Arc::new(State::default());
        let server = Server::start(authority.server(&[b"h2"]), Arc::clone(&state));
        let operator = Self { server, state, folder: tempfile::tempdir().unwrap() };
        operator.publish_ca(authority);
        std::fs::write(operator.folder.path().join("token"), TOKEN).unwrap();
        operator
    }

    /// Writes the bundle that the sidecar trusts.
    pub(crate) fn publish_ca(&self, authority: &Authority) {
        std::fs::write(self.folder.path().join("ca.crt"), authority.pem()).unwrap();
    }

    pub(crate) fn arguments(&self) -> Vec<String> {
        let file = |name: &str| self.folder.path().join(name).display().to_string();
        let endpoint = format!("https://localhost:{}", self.server.address.port());
        let flags = [("--operator", endpoint), ("--operator-token", file("token")), ("--ca", file("ca.crt"))];
        flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
    }

    /// What streams begin with; sent to those that are open, too.
    pub(crate) fn send(&self, event: PolicyEvent) {
        self.state.streams.lock().unwrap().retain(|stream| stream.send(line(&event)).is_ok());
        self.state.greeting.lock().unwrap().push(event);
    }

    pub(crate) fn send_document(&self, document: &PolicyDocument) {
        self.send(PolicyEvent::modified(document).unwrap());
    }

    /// Revisions that were asked with.
    pub(crate) fn watches(&self) -> Vec<String> {
        self.state.watches.lock().unwrap().clone()
    }

    pub(crate) fn last_report(&self) -> Option<Report> {
        self.state.reports.lock().unwrap().last().cloned()
    }
}

fn line(event: &PolicyEvent) -> Bytes {
    Bytes::from(serde_json::to_string(event).unwrap() + "\n")
}

impl Service for State {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        if request.headers().get("authorization").is_none_or(|value| value != &format!("Bearer {TOKEN}")) {
            return plain(StatusCode::UNAUTHORIZED, "token is not valid\n");
        }
        match request.uri().path() {
            WATCH_PATH => {
                self.watches.lock().unwrap().push(request.uri().query().unwrap_or_default().to_owned());
                let (sender, receiver) = mpsc::unbounded_channel();
                for event in self.greeting.lock().unwrap().iter() {
                    sender.send(line(event)).unwrap();
                }
                self.streams.lock().unwrap().push(sender);
                Response::new(Lines(receiver).boxed_unsync())
            }
            REPORT_PATH => {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                self.reports.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
                plain(StatusCode::NO_CONTENT, "")
            }
            _ => plain(StatusCode::NOT_FOUND, ""),
        }
    }
}

pub(crate) fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    Response::builder().status(status).body(Full::new(text.into()).boxed_unsync()).unwrap()
}

struct Lines(mpsc::UnboundedReceiver<Bytes>);

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}
