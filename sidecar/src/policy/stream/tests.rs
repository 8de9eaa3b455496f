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

/// When each of so many sidecars comes back whose streams an operator lost that is away for so long.
fn returns(sidecars: u64, away: Duration) -> Vec<Duration> {
    let mut state = 1;
    let mut random = move || {
        // Numbers as good as those of the sidecar's own source, and the same in every run (splitmix64).
        state = u64::wrapping_add(state, 0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    let mut all: Vec<Duration> = (0..sidecars)
        .map(|_| {
            let mut backoff = Backoff::new(FIRST_PAUSE, LAST_PAUSE);
            let mut at = pause(&mut backoff, HEALTHY_LIFE, random());
            while at < away {
                at += pause(&mut backoff, Duration::ZERO, random());
            }
            at
        })
        .collect();
    all.sort_unstable();
    all
}

#[test]
fn sidecars_that_lose_the_operator_at_one_instant_come_back_spread_out() {
    const SIDECARS: u64 = 1000;
    for millis in [0, 10, 100, 300, 700, 1_000, 2_000, 3_000, 10_000, 60_000] {
        let away = Duration::from_millis(millis);
        let all = returns(SIDECARS, away);
        let within = |from: &Duration| {
            let end = *from + Duration::from_millis(100);
            all.iter().filter(|at| (*from..end).contains(*at)).count()
        };
        let most = all.iter().map(within).max().unwrap();
        assert!(most < SIDECARS as usize / 4, "{most} of {SIDECARS} within 0.1 s after {away:?}");
        let last = *all.last().unwrap();
        assert!(last <= away + LAST_PAUSE, "{last:?} after {away:?}");
    }
}
