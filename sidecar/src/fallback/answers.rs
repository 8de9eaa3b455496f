//! Whole answers of the inference engine, kept for a while under a hash of what was asked and by whom.
//!
//! An answer goes to the tenant that asked for it and to nobody else. Who that is can show in any field, so every field
//! of a request counts, but for those known to say neither who asks nor for what; and of a caller that shows no
//! credentials, the address. Of the body every byte counts.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use ring::digest::{Context, SHA256};
use tidegate_core::Tick;
use tidegate_policy::AnswerCache;

use super::CREDENTIALS;

/// One answer may take so much of the whole: an eighth.
const LARGEST: u64 = 8;

/// What an entry takes besides its body.
const OVERHEAD: u64 = 512;

/// Fields that differ between equal requests of one tenant.
const NEUTRAL: [&str; 26] = [
    "accept",
    "baggage",
    "b3",
    "connection",
    "content-length",
    "expect",
    "idempotency-key",
    "keep-alive",
    "priority",
    "te",
    "trailer",
    "transfer-encoding",
    "traceparent",
    "tracestate",
    "user-agent",
    "x-amzn-trace-id",
    "x-b3-flags",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-spanid",
    "x-b3-traceid",
    "x-client-request-id",
    "x-cloud-trace-context",
    "x-priority",
    "x-request-id",
    "x-request-priority",
];

/// With what streams of events end: of OpenAI's chat and completions, of Anthropic and of OpenAI's responses.
const LAST_LINES: [&[u8]; 4] =
    [b"data: [DONE]", b"data:[DONE]", b"event: message_stop", b"event: response.completed"];

/// What was asked, and by whom.
pub type Key = [u8; 32];

/// An answer that may be given again.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// Its status.
    pub status: StatusCode,
    /// The fields that go with the body.
    pub headers: HeaderMap,
    /// The body, in the pieces it came in.
    pub body: Vec<Bytes>,
    /// When it was whole.
    pub at: Tick,
}

/// The answers of one pod.
#[derive(Debug, Default)]
pub struct Answers(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    kept: HashMap<Key, (u64, Kept)>,
    /// In the order of their coming, with the number of each: one that was replaced is here twice.
    order: VecDeque<(Key, u64)>,
    next: u64,
    bytes: u64,
}

/// An answer on its way, of which a copy is kept.
#[derive(Debug)]
pub struct Recording {
    key: Key,
    policy: AnswerCache,
    kept: Kept,
    bytes: u64,
}

/// Who asks, and how; none of a request whose answer is not kept.
pub fn asker(parts: &Parts, client: IpAddr) -> Option<Key> {
    let no_store = |value: &HeaderValue| value.to_str().is_ok_and(|text| text.contains("no-store"));
    let refused = parts.headers.contains_key(header::RANGE)
        || parts.headers.get_all(header::CACHE_CONTROL).iter().any(no_store);
    if refused || !matches!(parts.method, Method::GET | Method::POST) {
        return None;
    }
    let mut fields: Vec<(&str, &[u8])> = parts
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .filter(|(name, _)| !NEUTRAL.contains(name) && !name.starts_with("x-stainless-"))
        .collect();
    fields.sort();
    let address = client.to_canonical().to_string();
    if !fields.iter().any(|(name, _)| CREDENTIALS.contains(name)) {
        fields.push(("", address.as_bytes()));
    }
    Some(hash(fields.iter().flat_map(|(name, value)| [name.as_bytes(), *value])))
}

/// The key of a request with this body.
pub fn key(parts: &Parts, asker: Key, body: &[u8]) -> Key {
    let target = parts.uri.path_and_query().map_or("", PathAndQuery::as_str);
    hash([&asker[..], parts.method.as_str().as_bytes(), target.as_bytes(), body])
}

/// With its length in front no part can be taken for the beginning of the next.
fn hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Key {
    let mut hash = Context::new(&SHA256);
    for part in parts {
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut key = Key::default();
    key.copy_from_slice(hash.finish().as_ref());
    key
}

impl Recording {
    /// Of an answer with this head; none of one that is not kept.
    pub fn new(key: Key, policy: AnswerCache, status: StatusCode, headers: &HeaderMap) -> Option<Self> {
        let forbids = |value: &HeaderValue| {
            value.to_str().is_ok_and(|text| text.contains("no-store") || text.contains("private"))
        };
        let whole = status.is_success() && status != StatusCode::PARTIAL_CONTENT;
        let personal = headers.contains_key(header::SET_COOKIE)
            || headers.get_all(header::CACHE_CONTROL).iter().any(forbids);
        if !whole || personal {
            return None;
        }
        let mut headers = headers.clone();
        for name in [header::CONNECTION, header::DATE, header::CONTENT_LENGTH, header::TRANSFER_ENCODING] {
            headers.remove(name);
        }
        let kept = Kept { status, headers, body: Vec::new(), at: Tick::default() };
        Some(Self { key, policy, kept, bytes: OVERHEAD })
    }

    /// The next piece. Whether it still is worth it.
    pub fn push(&mut self, data: &[u8]) -> bool {
        self.bytes += data.len() as u64;
        let fits = self.bytes <= self.policy.max_bytes / LARGEST;
        if fits {
            self.kept.body.push(Bytes::copy_from_slice(data));
        }
        fits
    }

    /// A stream of events that its own client would take for whole, or no such stream.
    fn is_whole(&self) -> bool {
        let kind = self.kept.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        if !kind.is_some_and(|kind| kind.to_ascii_lowercase().starts_with(b"text/event-stream")) {
            return true;
        }
        let body = self.kept.body.concat();
        // At the begin of a line: what was generated may speak of the same words.
        let mut lines = body.split(|byte| matches!(byte, b'\n' | b'\r'));
        lines.any(|line| LAST_LINES.iter().any(|last| line.starts_with(last)))
    }
}

impl Answers {
    /// Keeps a whole answer. The oldest make room for it.
    pub fn keep(&self, recording: Recording, now: Tick) {
        if !recording.is_whole() {
            return;
        }
        let Recording { key, policy, mut kept, bytes } = recording;
        kept.at = now;
        let mut inner = self.inner();
        inner.remove(&key);
        inner.shrink(u64::from(policy.max_entries) - 1, policy.max_bytes.saturating_sub(bytes));
        let number = inner.next;
        inner.next += 1;
        inner.bytes += bytes;
        inner.order.push_back((key, number));
        inner.kept.insert(key, (number, kept));
    }

    /// The answer to this, if it is young enough.
    pub fn find(&self, key: &Key, policy: &AnswerCache, now: Tick) -> Option<Kept> {
        let inner = self.inner();
        let (_, kept) = inner.kept.get(key)?;
        (now.since(kept.at) < policy.ttl_millis.duration()).then(|| kept.clone())
    }

    /// Another policy is in force: what it has no room for goes.
    pub fn obey(&self, policy: Option<&AnswerCache>) {
        let (entries, bytes) =
            policy.map_or((0, 0), |policy| (u64::from(policy.max_entries), policy.max_bytes));
        self.inner().shrink(entries, bytes);
    }

    /// A panic while it was held leaves a cache that is at worst too small.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn bytes(&self) -> u64 {
        OVERHEAD + self.body.iter().map(|piece| piece.len() as u64).sum::<u64>()
    }
}

impl Inner {
    fn remove(&mut self, key: &Key) {
        if let Some((_, kept)) = self.kept.remove(key) {
            self.bytes -= kept.bytes();
        }
    }

    fn shrink(&mut self, entries: u64, bytes: u64) {
        while self.kept.len() as u64 > entries || self.bytes > bytes {
            let Some((key, number)) = self.order.pop_front() else { return };
            if self.kept.get(&key).is_some_and(|(present, _)| *present == number) {
                self.remove(&key);
            }
        }
        // Those that were replaced are not looked for one by one.
        if self.order.len() > 2 * self.kept.len() + 16 {
            let kept = &self.kept;
            self.order.retain(|(key, number)| kept.get(key).is_some_and(|(present, _)| present == number));
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use tidegate_policy::Millis;

    use super::*;

    fn policy(max_entries: u32, max_bytes: u64) -> AnswerCache {
        AnswerCache { ttl_millis: Millis::new(60_000).unwrap(), max_entries, max_bytes }
    }

    fn second(n: u64) -> Tick {
        Tick::from_nanos(n * 1_000_000_000)
    }

    fn ask(fields: &[(&str, &str)], from: &str, body: &str) -> Option<Key> {
        let mut request = Request::post("/v1/completions?a");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let parts = request.body(()).unwrap().into_parts().0;
        asker(&parts, from.parse().unwrap()).map(|asker| key(&parts, asker, body.as_bytes()))
    }

    fn record(policy: AnswerCache, key: u8, kind: &str, pieces: &[&str]) -> Option<Recording> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
        let mut recording = Recording::new([key; 32], policy, StatusCode::OK, &headers).unwrap();
        pieces.iter().all(|piece| recording.push(piece.as_bytes())).then_some(recording)
    }

    #[test]
    fn an_answer_is_for_the_tenant_that_asked_and_for_that_question() {
        let mine = ask(&[("authorization", "Bearer a")], "10.0.0.1", "{}").unwrap();
        let again = ask(
            &[("traceparent", "00-1"), ("x-stainless-retry-count", "1"), ("authorization", "Bearer a")],
            "10.0.0.2",
            "{}",
        );
        assert_eq!(again, Some(mine), "tracing and the pod in front do not matter");
        for other in [
            ask(&[("authorization", "Bearer b")], "10.0.0.1", "{}"),
            ask(&[("authorization", "Bearer a"), ("x-tenant", "b")], "10.0.0.1", "{}"),
            ask(&[("authorization", "Bearer a"), ("x-forwarded-for", "10.0.0.9")], "10.0.0.1", "{}"),
            ask(&[("authorization", "Bearer a")], "10.0.0.1", "{ }"),
            ask(&[("x-api-key", "Bearer a")], "10.0.0.1", "{}"),
            ask(&[], "10.0.0.1", "{}"),
        ] {
            assert!(other.is_some_and(|other| other != mine));
        }
        assert_ne!(ask(&[], "10.0.0.1", ""), ask(&[], "10.0.0.2", ""), "nobody shows who he is");
        assert_eq!(ask(&[], "::ffff:10.0.0.1", ""), ask(&[], "10.0.0.1", ""));
        assert_eq!(ask(&[("cache-control", "no-store")], "10.0.0.1", ""), None);
    }

    #[test]
    fn it_is_kept_for_its_time_and_the_oldest_make_room() {
        let (answers, policy) = (Answers::default(), policy(2, 100_000));
        for (at, name) in [(1, 1_u8), (2, 2), (3, 1), (4, 3)] {
            answers.keep(record(policy, name, "text/plain", &["a", "b"]).unwrap(), second(at));
        }
        assert!(answers.find(&[2; 32], &policy, second(5)).is_none(), "the other was renewed");
        let kept = answers.find(&[1; 32], &policy, second(62)).unwrap();
        assert_eq!((kept.body.concat(), kept.at), (b"ab".to_vec(), second(3)));
        assert!(answers.find(&[1; 32], &policy, second(63)).is_none());
        answers.obey(None);
        assert!(answers.find(&[3; 32], &policy, second(5)).is_none());
        let inner = answers.inner();
        assert_eq!((inner.bytes, inner.kept.len()), (0, 0));
    }

    #[test]
    fn the_bytes_are_bounded_and_one_answer_takes_no_more_than_its_share() {
        let (answers, policy) = (Answers::default(), policy(1000, 20_000));
        assert!(record(policy, 1, "text/plain", &["x".repeat(2000).as_str()]).is_none());
        for name in 0..100 {
            answers
                .keep(record(policy, name, "text/plain", &["x".repeat(1000).as_str()]).unwrap(), second(1));
            assert!(answers.inner().bytes <= policy.max_bytes);
        }
        assert_eq!(answers.inner().kept.len(), 13);
        assert!(answers.find(&[99; 32], &policy, second(1)).is_some());
    }

    #[test]
    fn a_stream_without_its_end_is_not_kept() {
        let (answers, policy) = (Answers::default(), policy(10, 100_000));
        let events = "text/event-stream; charset=utf-8";
        answers
            .keep(record(policy, 1, events, &["data: 1\n\n", "data: {\"error\":1}\n\n"]).unwrap(), second(1));
        answers.keep(record(policy, 2, events, &["data: 1\n\ndata: [DO", "NE]\n\n"]).unwrap(), second(1));
        let quoted = "data: {\"text\": \"streams end with data: [DONE] or event: message_stop\"}\n\n";
        answers.keep(record(policy, 3, events, &[quoted]).unwrap(), second(1));
        let completed = "data: 1\n\nevent: response.completed\ndata: {}\n\n";
        answers.keep(record(policy, 4, events, &[completed]).unwrap(), second(1));
        let kept = [1, 2, 3, 4].map(|key| answers.find(&[key; 32], &policy, second(1)).is_some());
        assert_eq!(kept, [false, true, false, true]);
    }

    #[test]
    fn what_is_partial_failed_or_personal_is_not_kept() {
        let policy = policy(10, 100_000);
        let headers =
            |name: header::HeaderName, value: &str| HeaderMap::from_iter([(name, value.parse().unwrap())]);
        let new = |status, headers: HeaderMap| Recording::new([0; 32], policy, status, &headers).is_some();
        assert!(new(StatusCode::OK, HeaderMap::new()));
        assert!(!new(StatusCode::PARTIAL_CONTENT, HeaderMap::new()));
        assert!(!new(StatusCode::NOT_FOUND, HeaderMap::new()));
        assert!(!new(StatusCode::OK, headers(header::SET_COOKIE, "a=b")));
        assert!(!new(StatusCode::OK, headers(header::CACHE_CONTROL, "private, max-age=1")));
    }
}
