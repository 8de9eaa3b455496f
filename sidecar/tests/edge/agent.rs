//! The node agent's end.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use tempfile::TempDir;
use tidegate_gpu::{GpuReport, REPORT_PATH};

use crate::authority::Authority;
use crate::operator::plain;
use crate::server::{Body, Server, Service};

const TOKEN: &str = "token-for-the-agent";

pub(crate) struct Agent {
    pub(crate) server: Server,
    state: Arc<State>,
    folder: TempDir,
}

struct State {
    answer: Mutex<(StatusCode, Bytes)>,
    questions: Mutex<u64>,
}

impl Agent {
    pub(crate) fn start(authority: &Authority) -> Self {
        let answer = Mutex::new((StatusCode::OK, Bytes::from_static(b"{\"devices\":[]}")));
        let state = Arc::new(State { answer, questions: Mutex::new(0) });
        let server = Server::start(authority.server(&[b"h2", b"http/1.1"]), Arc::clone(&state));
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), TOKEN).unwrap();
        std::fs::write(folder.path().join("ca.crt"), authority.pem()).unwrap();
        Self { server, state, folder }
    }

    pub(crate) fn arguments(&self) -> Vec<String> {
        let file = |name: &str| self.folder.path().join(name).display().to_string();
        let endpoint = format!("https://127.0.0.1:{}", self.server.address.port());
        let flags = [("--agent", endpoint), ("--agent-token", file("token")), ("--ca", file("ca.crt"))];
        flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
    }

    pub(crate) fn report(&self, report: &GpuReport) {
        self.answer(StatusCode::OK, serde_json::to_vec(report).unwrap());
    }

    pub(crate) fn answer(&self, status: StatusCode, body: impl Into<Bytes>) {
        *self.state.answer.lock().unwrap() = (status, body.into());
    }

    pub(crate) fn questions(&self) -> u64 {
        *self.state.questions.lock().unwrap()
    }
}

impl Service for State {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        *self.questions.lock().unwrap() += 1;
        let authorized =
            request.headers().get("authorization").is_some_and(|v| v == &format!("Bearer {TOKEN}"));
        if !authorized || request.uri().path() != REPORT_PATH {
            return plain(StatusCode::FORBIDDEN, "");
        }
        let (status, body) = self.answer.lock().unwrap().clone();
        plain(status, body)
    }
}
