use std::convert::Infallible;
use std::pin::Pin;
use std::task::Poll;

use hyper::body::Frame;
use tidegate_core::Engine;
use tokio::sync::mpsc;

use super::*;
use crate::args::PolicyArgs;
use crate::clock::Clock;
use crate::policy::Start;
use crate::shared::Shared;

struct Chunks(mpsc::UnboundedReceiver<&'static str>);

impl Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|chunk| chunk.map(|chunk| Ok(Frame::data(Bytes::from(chunk)))))
    }
}

fn keeper() -> Keeper {
    let policy = PolicyArgs {
        policy_file: None,
        policy_snapshot: None,
        policy_store: None,
        operator: None,
        operator_token: None,
    };
    let start = Start::read(&policy);
    let clock = Clock::new();
    let shared =
        Shared::new(Engine::new(start.document(), 0, clock.now()), clock, crate::caps::Caps::DEFAULT);
    Keeper::new(Arc::new(shared), start, &policy)
}

const BOOKMARK: &str = "{\"type\":\"BOOKMARK\",\"revision\":\"r\"}\n";

#[test]
fn a_revision_can_hold_anything() {
    assert_eq!(encode("sha256:ab-1_2"), "sha256%3Aab-1_2");
    assert_eq!(encode("a&b=ü"), "a%26b%3D%C3%BC");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_silent_for_three_bookmarks_is_dead() {
    let (server, body) = mpsc::unbounded_channel();
    let keeper = keeper();
    let reading = read(Chunks(body), &keeper);
    tokio::pin!(reading);
    for _ in 0..10 {
        server.send(BOOKMARK).unwrap();
        let pause = SILENCE.mul_f64(0.9);
        assert!(timeout(pause, &mut reading).await.is_err(), "it was given up though it lives");
    }
    let began = Instant::now();
    let error = reading.await.unwrap_err();
    assert!(error.to_string().contains("silent for 30 s"), "{error}");
    assert!(began.elapsed() <= SILENCE, "{:?}", began.elapsed());
}

async fn read_all(chunks: &[&'static str]) -> crate::policy::State {
    let (server, body) = mpsc::unbounded_channel();
    for &chunk in chunks {
        server.send(chunk).unwrap();
    }
    drop(server);
    let keeper = keeper();
    read(Chunks(body), &keeper).await.unwrap();
    keeper.state()
}

const DOCUMENT: [&str; 2] = [
    "{\"type\":\"MODIFIED\",\"document\":{\"apiVersion\":\"policy.tidegate.dev/v1\",\"revi",
    "sion\":\"a\"}}\n{\"type\":\"ENDPOINTS\",\"withdrawn\":true}\n",
];

#[tokio::test]
async fn events_are_obeyed_in_order_and_those_of_a_newer_operator_are_passed_over() {
    let [first, second] = DOCUMENT;
    let state = read_all(&["{\"type\":\"LATER\"}\n", first, second]).await;
    assert_eq!((state.document.revision.as_str(), state.source), ("a", Source::Stream));
    assert!(state.endpoints_withdrawn && state.refused.is_none());
}

#[tokio::test]
async fn a_line_that_can_not_be_read_is_told_without_leaving_the_stream() {
    let [first, second] = DOCUMENT;
    for garbage in ["garbage\n", "{\"type\":\"MODIFIED\"}\n", "[]\n"] {
        let state =
            read_all(&[first, second, garbage, "{\"type\":\"ENDPOINTS\",\"withdrawn\":false}\n"]).await;
        assert_eq!(state.document.revision, "a");
        assert!(state.refused.is_some_and(|refused| refused.message.contains("can't be read")), "{garbage}");
        assert!(!state.endpoints_withdrawn, "{garbage} ended the stream");
    }
}
