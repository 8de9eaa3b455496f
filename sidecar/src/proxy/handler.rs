//! One request: from its head to the head of its answer.

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use tidegate_core::{
    Admission, Claims, Decision, Facts, HeadOutcome, Headers, NoClaims, Refusal, Tick, Tokens,
};
use tidegate_policy::RelativePath;
use tokio::time::Instant;

use super::answer::{Answer, answer, instead, own};
use super::client::{Client, Turn};
use super::codec::{Framing, RequestHead, ResponseHead};
use super::exchange::{Exchange, Failure};
use super::progress::Progress;
use super::request_watch::Framed;
use super::sender::Sender;
use super::upstream::Upstream;
use crate::identity;
use crate::metrics::{Labels, ProtocolRefusal, Verdict};
use crate::refusal::{self, Trouble};
use crate::request_log;

/// A fallback is outside of the breaker, and so without its timeout; an engine that hangs must not hang the fallback
/// for ever.
const FALLBACK_TIMEOUT: Duration = Duration::from_secs(10);

/// A refused request's body is read to its end up to this size, so that the connection can be kept; beyond it,
/// closing is cheaper.
const DRAIN_UP_TO: u64 = 256 * 1024;

/// The header fields of a request as the decision engine asks for them.
struct Fields<'a>(&'a HeaderMap);

impl Headers for Fields<'_> {
    fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name).map(HeaderValue::as_bytes)
    }
}

/// A request that has not been sent yet.
struct Arrived {
    client: Rc<Client>,
    parts: Parts,
    /// Until it is sent or read.
    body: Option<Incoming>,
    framing: Framing,
    at: Tick,
}

/// Answers one request. An error ends the client's connection, because an answer cannot be given or not be ended.
pub(super) async fn handle(client: Rc<Client>, request: Request<Incoming>) -> Result<Answer, Failure> {
    let framed = client.watch.borrow_mut().take();
    let (parts, body) = request.into_parts();
    let framing = framing(&parts.headers, &body);
    let at = client.shared.clock.now();
    client.turn_to(Turn::Engine);
    // Large enough that it is lent from here on, and not handed from one function to the next.
    let mut arrived = Arrived { client, parts, body: Some(body), framing, at };
    if let Some(trouble) = arrived.trouble(framed) {
        return Ok(arrived.reject(trouble));
    }
    if arrived.is_unlimited() {
        arrived.count(Verdict::Unlimited, None);
        let progress = Progress::new(arrived.client.shared.clone(), None, at);
        return arrived.forward(progress, None).await;
    }
    arrived.judge().await
}

fn framing(headers: &HeaderMap, body: &Incoming) -> Framing {
    match body.size_hint().exact() {
        Some(0) if headers.contains_key(header::CONTENT_LENGTH) => Framing::Length(0),
        Some(0) => Framing::None,
        Some(length) => Framing::Length(length),
        None => Framing::Chunked,
    }
}

impl Arrived {
    /// What forbids to even judge it.
    fn trouble(&self, framed: Option<Framed>) -> Option<Trouble> {
        let trouble = if framed != Some(Framed::Clearly) {
            Trouble::AmbiguousFraming
        } else if self.parts.method == Method::CONNECT {
            Trouble::Connect
        } else if !self.has_target() {
            Trouble::BadTarget
        } else if !self.has_host() {
            Trouble::BadHost
        } else {
            return None;
        };
        let counted = match trouble {
            Trouble::AmbiguousFraming => ProtocolRefusal::AmbiguousFraming,
            _ => ProtocolRefusal::Malformed,
        };
        self.client.shared.metrics.traffic.protocol_refused(counted);
        Some(trouble)
    }

    /// A path, an absolute URL or, for `OPTIONS`, a star (RFC 9112, 3.2). A bare authority is for `CONNECT`, and a user
    /// in one is a trick to hide the host.
    fn has_target(&self) -> bool {
        let uri = &self.parts.uri;
        let origin = uri.scheme().is_some() || uri.authority().is_none();
        let userless = uri.authority().is_none_or(|authority| !authority.as_str().contains('@'));
        let path = match uri.path() {
            "*" => self.parts.method == Method::OPTIONS,
            "" => uri.scheme().is_some(),
            path => path.starts_with('/'),
        };
        origin && userless && path
    }

    fn has_host(&self) -> bool {
        match self.parts.headers.get_all(header::HOST).iter().count() {
            0 => self.parts.version != Version::HTTP_11,
            hosts => hosts == 1,
        }
    }

    /// Probes and scrapes: exact paths, and nothing that could carry a prompt or become another protocol.
    fn is_unlimited(&self) -> bool {
        let path = self.parts.uri.path();
        matches!(self.parts.method, Method::GET | Method::HEAD)
            && matches!(self.framing, Framing::None | Framing::Length(0))
            && (path == "/metrics" || self.client.config.unlimited_paths.iter().any(|p| p == path))
            && !self.wants_upgrade()
    }

    async fn judge(&mut self) -> Result<Answer, Failure> {
        let shared = self.client.shared.clone();
        let engine = shared.engine.load_full();
        let token = identity::of_request(&shared, &self.parts.headers);
        let facts = Facts {
            method: self.parts.method.as_str(),
            path: self.parts.uri.path(),
            client: self.client.address,
            headers: &Fields(&self.parts.headers),
            claims: token.as_ref().map_or(&NoClaims, |claims| claims as &dyn Claims),
            tokens: Tokens::default(),
        };
        match engine.admit(self.at, &facts) {
            Decision::Admit(admission) => {
                let Admission { ticket, class, wait, timeout, shadow } = admission;
                if let Some(refusal) = &shadow {
                    self.tell(Verdict::ShadowRefused, refusal);
                } else {
                    let labels = Labels { verdict: Verdict::Admitted, cause: None, class: Some(class) };
                    shared.metrics.traffic.judged(labels);
                }
                let mut progress = Progress::new(shared, Some((engine, ticket)), self.at);
                progress.wait_for_turn(wait).await;
                self.forward(progress, timeout).await
            }
            Decision::Refuse(refusal) => {
                self.tell(Verdict::Refused, &refusal);
                Ok(self.refuse(&refusal).await)
            }
            Decision::Fallback(path, refusal) => {
                self.tell(Verdict::Fallback, &refusal);
                self.fall_back(&path, &refusal).await
            }
        }
    }

    fn count(&self, verdict: Verdict, refusal: Option<&Refusal>) {
        let labels = Labels { verdict, cause: refusal.map(|r| r.cause), class: refusal.map(|r| r.class) };
        self.client.shared.metrics.traffic.judged(labels);
    }

    fn tell(&self, verdict: Verdict, refusal: &Refusal) {
        self.count(verdict, Some(refusal));
        let client = &self.client;
        request_log::decision(self.at, verdict, refusal, client.address, &self.parts.headers);
    }

    /// Sends it to the engine and answers with what that answers.
    async fn forward(
        &mut self,
        mut progress: Progress,
        timeout: Option<Duration>,
    ) -> Result<Answer, Failure> {
        let (exchange, head) = match self.exchange(None, timeout).await {
            Ok(answered) => answered,
            Err(NoHead::Gone(failure)) => return Err(failure),
            Err(NoHead::TimedOut) => {
                progress.responded(HeadOutcome::TimedOut);
                return Ok(self.instead(refusal::trouble(Trouble::EngineTimedOut)));
            }
            Err(NoHead::Failed(failure)) => {
                progress.responded(HeadOutcome::Failed);
                let client = &self.client;
                request_log::engine_failed(client.shared.clock.now(), client.target.address(), &failure);
                return Ok(self.instead(refusal::trouble(Trouble::EngineFailed)));
            }
        };
        progress.responded(HeadOutcome::Status(head.status.as_u16()));
        Ok(answer(self.client.clone(), exchange, head, progress))
    }

    /// Sends it to the breaker's fallback, once. When that fails too, the refusal is the answer.
    async fn fall_back(&mut self, path: &RelativePath, refusal: &Refusal) -> Result<Answer, Failure> {
        let progress = Progress::new(self.client.shared.clone(), None, self.at);
        match self.exchange(Some(path.as_str()), Some(FALLBACK_TIMEOUT)).await {
            Ok((exchange, mut head)) if !head.status.is_server_error() => {
                refusal::mark_fallback(refusal, &mut head.headers);
                Ok(answer(self.client.clone(), exchange, head, progress))
            }
            Err(NoHead::Gone(failure)) => Err(failure),
            Ok(_) | Err(NoHead::TimedOut | NoHead::Failed(_)) => Ok(self.instead(refusal::refused(refusal))),
        }
    }

    fn instead(&self, response: Response<Bytes>) -> Answer {
        instead(&self.client, response, self.request_length())
    }

    async fn refuse(&mut self, refusal: &Refusal) -> Answer {
        let drained = self.drain().await;
        own(&self.client, refusal::refused(refusal), !drained)
    }

    fn reject(&self, trouble: Trouble) -> Answer {
        own(&self.client, refusal::trouble(trouble), true)
    }

    /// Reads the rest of the request. Whether that was possible and worth it.
    async fn drain(&mut self) -> bool {
        let length = self.request_length();
        let worth = length.is_none_or(|length| length <= DRAIN_UP_TO);
        // A client that waits for leave to send gets the refusal in its place.
        if !worth || (length != Some(0) && self.parts.headers.contains_key(header::EXPECT)) {
            return false;
        }
        let Some(mut body) = self.body.take() else { return false };
        self.client.turn_to(Turn::Body);
        let mut drained = 0;
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let Ok(frame) = frame else { return false };
            drained += frame.data_ref().map_or(0, |data| data.len() as u64);
            if drained > DRAIN_UP_TO {
                return false;
            }
        }
        self.client.request_over();
        true
    }

    /// In bytes, none when it is chunked.
    fn request_length(&self) -> Option<u64> {
        match self.framing {
            Framing::None => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked => None,
        }
    }

    /// It can be sent again when its connection turns out to have been closed by the engine.
    fn is_replayable(&self) -> bool {
        self.parts.method.is_idempotent() && matches!(self.framing, Framing::None | Framing::Length(0))
    }

    /// HTTP/2 in the clear would carry any number of requests past the decision: that upgrade is not passed on, and
    /// the request is answered in HTTP/1.1.
    fn wants_upgrade(&self) -> bool {
        let asks = |name, token: &str| {
            self.parts.headers.get_all(name).iter().any(|value: &HeaderValue| {
                value
                    .as_bytes()
                    .split(|b| *b == b',')
                    .any(|t| t.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
            })
        };
        self.parts.version == Version::HTTP_11
            && self.parts.headers.contains_key(header::UPGRADE)
            && asks(header::CONNECTION, "upgrade")
            && !asks(header::UPGRADE, "h2c")
    }

    /// Sends it, to `target` when that is given, and waits for the head of the response.
    async fn exchange(
        &mut self,
        target: Option<&str>,
        timeout: Option<Duration>,
    ) -> Result<(Box<Exchange>, ResponseHead), NoHead> {
        let (upgrade, replayable) = (self.wants_upgrade(), self.is_replayable());
        let client = self.client.clone();
        loop {
            let idle = client.idle.take().filter(|upstream| upstream.is_usable(self.at, replayable));
            let upstream = match idle {
                Some(upstream) => upstream,
                None => Upstream::new(client.target.connect().await.map_err(Failure::Io)?),
            };
            let sender = Sender::new(self.encode(target, upgrade), self.framing, self.body.take());
            let method = self.parts.method.clone();
            let mut exchange = Box::new(Exchange::new(upstream, sender, method, upgrade));
            match wait_for_head(&client, &mut exchange, timeout).await {
                Ok(head) => return Ok((exchange, head)),
                Err(NoHead::Failed(Failure::ClosedUnanswered))
                    if replayable && exchange.on_reused_connection() => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn encode(&self, target: Option<&str>, upgrade: bool) -> BytesMut {
        let mut head = BytesMut::with_capacity(1024);
        let request = RequestHead {
            method: &self.parts.method,
            uri: &self.parts.uri,
            target,
            headers: &self.parts.headers,
            framing: self.framing,
            upgrade,
            default_host: self.client.target.address(),
        };
        request.encode(&mut head);
        head
    }
}

/// Why there is no head of a response.
enum NoHead {
    /// The client has gone.
    Gone(Failure),
    Failed(Failure),
    TimedOut,
}

impl From<Failure> for NoHead {
    fn from(failure: Failure) -> Self {
        if matches!(failure, Failure::Client(_) | Failure::Length) {
            Self::Gone(failure)
        } else {
            Self::Failed(failure)
        }
    }
}

/// The timeout runs from the last byte that the client sent: a slow upload is not the engine's fault.
async fn wait_for_head(
    client: &Client,
    exchange: &mut Exchange,
    timeout: Option<Duration>,
) -> Result<ResponseHead, NoHead> {
    let Some(timeout) = timeout else {
        return std::future::poll_fn(|cx| {
            let polled = exchange.poll_head(cx);
            client.turn_to(exchange.turn());
            polled
        })
        .await
        .map_err(NoHead::from);
    };
    let mut deadline = pin!(tokio::time::sleep(timeout));
    std::future::poll_fn(|cx| {
        if let Poll::Ready(polled) = exchange.poll_head(cx) {
            return Poll::Ready(polled.map_err(NoHead::from));
        }
        client.turn_to(exchange.turn());
        if exchange.sender().heard_client() {
            deadline.as_mut().reset(Instant::now() + timeout);
        }
        while deadline.as_mut().poll(cx).is_ready() {
            if !exchange.sender().waits_for_client() {
                return Poll::Ready(Err(NoHead::TimedOut));
            }
            deadline.as_mut().reset(Instant::now() + timeout);
        }
        Poll::Pending
    })
    .await
}
