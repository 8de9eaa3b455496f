//! Answers to the client: the engine's, or the proxy's own.

use std::rc::Rc;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use hyper::body::Incoming;
use tidegate_core::{HeadOutcome, TimeLimits};
use tidegate_policy::AnswerCache;
use tokio::time::Instant;

use super::body::{AnswerBody, EngineBody};
use super::call::Stop;
use super::client::{Client, Switched};
use super::codec::ResponseHead;
use super::exchange::Exchange;
use super::patience::{Patience, Watch};
use super::progress::Progress;
use super::relay::RelayBody;
use crate::clock;
use crate::fallback::answers::{Key, Recording};
use crate::refusal::stream::Events;
use crate::refusal::{Dialect, grpc};

/// How long an answer may take, and since when.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Limits {
    pub(super) times: TimeLimits,
    /// When the engine had the whole request; none where the head had no limit.
    pub(super) sent: Option<Instant>,
}

/// What is sent to the client.
pub(super) type Answer = Response<AnswerBody>;

/// How the body of an answer comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// As server-sent events, as they are made.
    Events,
    /// As lines of JSON or messages of gRPC, as they are made.
    Pieces,
    /// When it is made.
    Whole,
}

impl Kind {
    /// Whether it comes as it is made.
    pub(super) fn is_stream(self) -> bool {
        self != Self::Whole
    }
}

/// The engine's answer, as far as its head.
pub(super) enum Answered {
    Http1(Box<Exchange>, ResponseHead),
    /// With what is still sent of the request.
    Http2(Box<Response<Incoming>>, Dialect, Option<Stop>),
}

impl Answered {
    /// What the decision engine is told. A call of gRPC that failed at once says so in its head.
    pub(super) fn outcome(&self) -> HeadOutcome {
        HeadOutcome::Status(match self {
            Self::Http1(_, head) => head.status.as_u16(),
            Self::Http2(response, dialect, _) => match dialect {
                Dialect::Grpc => grpc::status(response.headers()).unwrap_or(response.status().as_u16()),
                Dialect::OpenAi => response.status().as_u16(),
            },
        })
    }

    /// Its header fields.
    pub(super) fn headers(&self) -> &HeaderMap {
        match self {
            Self::Http1(_, head) => &head.headers,
            Self::Http2(response, ..) => response.headers(),
        }
    }

    /// How its body comes.
    pub(super) fn kind(&self) -> Kind {
        let media = self.headers().get(header::CONTENT_TYPE).map_or(&[][..], HeaderValue::as_bytes);
        let is = |kind: &[u8]| media.get(..kind.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(kind));
        if is(b"text/event-stream") {
            Kind::Events
        } else if matches!(self, Self::Http2(_, Dialect::Grpc, _))
            || is(b"application/x-ndjson")
            || is(b"application/jsonl")
        {
            Kind::Pieces
        } else {
            Kind::Whole
        }
    }

    /// What is needed to keep a copy of it; none when it is not kept.
    pub(super) fn recording(&self, key: Key, policy: AnswerCache) -> Option<Box<Recording>> {
        let status = match self {
            Self::Http1(_, head) => head.status,
            Self::Http2(response, ..) => response.status(),
        };
        Recording::new(key, policy, status, self.headers()).map(Box::new)
    }

    /// As it goes to the client, within `limits`. Its body comes as `kind` says. The engine had the whole request at `sent`, and the client has asked
    /// for `path`.
    pub(super) fn pass_on(
        self,
        client: Rc<Client>,
        kind: Kind,
        mut progress: Box<Progress>,
        limits: &Limits,
        path: &str,
    ) -> Answer {
        let is_stream = kind.is_stream();
        if is_stream && limits.times.first_byte.is_some() {
            progress.began_stream(self.outcome());
        } else {
            progress.responded(self.outcome());
        }
        let began = || limits.sent.unwrap_or_else(|| Instant::from_std(clock::moment()));
        let patience = if limits.times == TimeLimits::default() {
            None
        } else {
            Patience::new(&limits.times, began(), is_stream)
        };
        let watch = patience.map(|patience| {
            let plain = kind == Kind::Events
                && !self.headers().contains_key(header::CONTENT_ENCODING)
                && !self.headers().contains_key(header::CONTENT_LENGTH);
            let events = plain.then(|| Events::of(path));
            Box::new(Watch { patience, is_stream, events })
        });
        match self {
            Self::Http1(exchange, head) => from_http1(client, exchange, head, kind, progress, watch),
            Self::Http2(response, dialect, stop) => {
                client.shared.metrics.traffic.responded(response.status().as_u16());
                progress.begins(response.headers(), kind == Kind::Events);
                response.map(|body| AnswerBody::relay(RelayBody::new(body, progress, dialect, watch, stop)))
            }
        }
    }
}

fn from_http1(
    client: Rc<Client>,
    exchange: Box<Exchange>,
    head: ResponseHead,
    kind: Kind,
    mut progress: Box<Progress>,
    watch: Option<Box<Watch>>,
) -> Answer {
    let ResponseHead { status, headers, upgrade, .. } = head;
    client.shared.metrics.traffic.responded(status.as_u16());
    progress.begins(&headers, kind == Kind::Events);
    let mut answer = Response::new(AnswerBody::empty());
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    if status == StatusCode::SWITCHING_PROTOCOLS {
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        if let Some(protocol) = upgrade {
            answer.headers_mut().insert(header::UPGRADE, protocol);
        }
        client.switched.set(Some(Switched { upstream: exchange.into_upstream(), progress }));
        return answer;
    }
    close_if(false, &client, &mut answer);
    *answer.body_mut() = EngineBody::answer(client, exchange, progress, watch);
    answer
}

/// The proxy's own answer.
pub(super) fn own(client: &Client, response: Response<Bytes>, closing: bool) -> Answer {
    client.shared.metrics.traffic.responded(response.status().as_u16());
    let mut answer = response.map(AnswerBody::own);
    close_if(closing, client, &mut answer);
    answer
}

/// The proxy's own answer to a request that went to the engine. How much of its body did is not known, so that the
/// connection can be kept only when it had none.
pub(super) fn instead(client: &Client, response: Response<Bytes>, request_length: Option<u64>) -> Answer {
    let bodiless = request_length == Some(0);
    if bodiless {
        client.request_over();
    }
    own(client, response, !bodiless)
}

/// While draining, every answer is the last of its connection: the next one goes to another pod. HTTP/2 has frames of
/// its own for that.
pub(super) fn close_if(closing: bool, client: &Client, answer: &mut Answer) {
    if !client.is_stream && (closing || client.shared.drain.is_draining()) {
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}
