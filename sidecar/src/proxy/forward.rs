//! The way of an admitted request to the engine, up to the head of the answer.

use std::task::{Context, Poll};

use bytes::BytesMut;
use http::header::{self, HeaderValue};
use http::uri::{self, PathAndQuery, Scheme};
use http::{Request, Uri, Version};
use tidegate_core::{HeadOutcome, TimeLimits};
use tidegate_policy::FallbackOn;
use tokio::time::Instant;

use super::answer::{Answer, Answered, Kind, Limits};
use super::call::Call;
use super::client::{Client, Turn};
use super::codec::{Framing, RequestHead, strip};
use super::exchange::{Exchange, Failure};
use super::fallback::{FailedAnswer, Otherwise};
use super::handler::Arrived;
use super::progress::Progress;
use super::sender::Sender;
use super::upstream::Upstream;
use crate::clock;
use crate::refusal::{self, Dialect, Trouble};
use crate::request_log;

/// A request on its way.
pub(super) trait Awaited {
    /// The head of the response.
    type Answer;

    /// Sends, and receives.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<Self::Answer, Failure>>;

    /// Whom it waits for. A call of gRPC may wait for its client as long as both like.
    fn turn(&self) -> Turn {
        Turn::Engine
    }

    /// Whether the client sent anything since this was asked last.
    fn heard_client(&mut self) -> bool;

    /// Whether everything that the client has sent so far was sent on, and more is to come.
    fn waits_for_client(&self) -> bool;

    /// Interim responses that have come, to be passed on.
    fn take_interim(&mut self) -> Option<BytesMut> {
        None
    }
}

/// Why there is no head of a response.
pub(super) enum NoHead {
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

impl Arrived {
    /// Sends it to the engine and answers with what that answers.
    pub(super) async fn forward(
        &mut self,
        mut progress: Box<Progress>,
        times: TimeLimits,
    ) -> Result<Answer, Failure> {
        self.prompts = progress.prompts();
        let mut limits = Limits { times, sent: None };
        let (outcome, on, trouble) = match self.send(None, &mut limits).await {
            Ok(answered) => {
                let outcome = answered.outcome();
                let kind = answered.kind();
                progress.hears(outcome, answered.headers(), kind.is_stream());
                return match progress.engine_that_falls_back(outcome) {
                    Some(engine) => {
                        progress.responded(outcome);
                        let failed = Otherwise::Failed(Box::new(FailedAnswer { answered, progress, limits }));
                        Box::pin(self.fall_back(engine, FallbackOn::Failure, failed)).await
                    }
                    None => Ok(self.pass_on(answered, kind, progress, &limits)),
                };
            }
            Err(NoHead::Gone(failure)) => return Err(failure),
            Err(NoHead::TimedOut) => (HeadOutcome::TimedOut, FallbackOn::Timeout, Trouble::EngineTimedOut),
            Err(NoHead::Failed(failure)) => {
                let client = &self.client;
                request_log::engine_failed(client.shared.clock.now(), client.target.address(), &failure);
                let never_had_it = matches!(failure, Failure::Connect(_));
                if never_had_it {
                    progress.unsent();
                }
                let on = if never_had_it { FallbackOn::ConnectFailure } else { FallbackOn::Failure };
                (HeadOutcome::Failed, on, Trouble::EngineFailed)
            }
        };
        let engine = progress.fail(outcome);
        match engine.filter(|engine| engine.breaker_policy().is_some_and(|policy| policy.obeys_on(on))) {
            Some(engine) => Box::pin(self.fall_back(engine, on, Otherwise::Trouble(trouble))).await,
            None => Ok(self.instead(refusal::trouble(trouble, self.form()))),
        }
    }

    /// The engine's answer, and a copy of it for later where the policy says so.
    pub(super) fn pass_on(
        &self,
        answered: Answered,
        kind: Kind,
        mut progress: Box<Progress>,
        limits: &Limits,
    ) -> Answer {
        if let Some(key) = self.answer_key
            && let Some(policy) = progress.answer_cache()
        {
            progress.record(answered.recording(key, policy));
        }
        answered.pass_on(self.client.clone(), kind, progress, limits, self.parts.uri.path())
    }

    /// Sends it, to `target` when that is given, and waits for the head of the response.
    pub(super) async fn send(
        &mut self,
        target: Option<&str>,
        limits: &mut Limits,
    ) -> Result<Answered, NoHead> {
        if self.goes_over_http2() {
            // What is rare has room of its own: the room of a request is moved with it.
            Box::pin(self.call(target, limits)).await
        } else {
            self.exchange(target, limits).await
        }
    }

    /// gRPC is nothing without HTTP/2; of everything else only a declaration can tell that its engine speaks it.
    pub(super) fn goes_over_http2(&self) -> bool {
        let config = &self.client.config;
        self.dialect == Dialect::Grpc
            || (self.parts.version == Version::HTTP_2
                && config.http2.contains(&self.client.target.address().port()))
    }

    async fn call(&mut self, target: Option<&str>, limits: &mut Limits) -> Result<Answered, NoHead> {
        let Some(body) = self.body.take() else { return Err(NoHead::Gone(Failure::Length)) };
        let mut request = Request::new(body);
        *request.method_mut() = self.parts.method.clone();
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = self.uri(target).map_err(|_| Failure::Unwritable)?;
        *request.headers_mut() = self.parts.headers.clone();
        strip(request.headers_mut());
        for name in [header::HOST, header::EXPECT] {
            request.headers_mut().remove(name);
        }
        if self.parts.headers.get(header::TE).is_some_and(|te| te == "trailers") {
            request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
        }
        let mut call = Call::new(self.client.clone(), request, limits.times.connect, self.prompts.take());
        let response = wait_for_head(&self.client, &mut call, limits).await?;
        Ok(Answered::Http2(Box::new(response), self.dialect, Some(call.stop())))
    }

    fn uri(&self, target: Option<&str>) -> Result<Uri, http::Error> {
        let own = &self.parts.uri;
        let path = match target {
            Some(target) => PathAndQuery::try_from(target)?,
            None => own.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")),
        };
        let host = self.parts.headers.get(header::HOST).map(HeaderValue::as_bytes);
        let authority = match (own.authority(), host) {
            (Some(authority), _) => authority.clone(),
            (None, Some(host)) => uri::Authority::try_from(host)?,
            (None, None) => uri::Authority::try_from(self.client.target.address().to_string())?,
        };
        Uri::builder().scheme(Scheme::HTTP).authority(authority).path_and_query(path).build()
    }

    async fn exchange(&mut self, target: Option<&str>, limits: &mut Limits) -> Result<Answered, NoHead> {
        let (upgrade, replayable) = (self.wants_upgrade(), self.is_replayable());
        let client = self.client.clone();
        loop {
            let upstream = match client.pool.take(self.at, replayable) {
                Some(upstream) => upstream,
                None => Upstream::new(
                    Box::pin(client.target.connect(limits.times.connect)).await.map_err(Failure::Connect)?,
                ),
            };
            let sender = Sender::new(self.encode(target, upgrade), self.framing, self.body.take());
            let method = self.parts.method.clone();
            let mut exchange = Box::new(Exchange::new(upstream, sender, method, upgrade));
            if self.parts.version == Version::HTTP_11 {
                exchange.pass_interim_on();
            }
            if client.is_stream {
                exchange.read_little_at_first();
            }
            match wait_for_head(&client, &mut *exchange, limits).await {
                Ok(head) => return Ok(Answered::Http1(exchange, head)),
                Err(NoHead::Failed(Failure::ClosedUnanswered))
                    if replayable && exchange.on_reused_connection() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// It can be sent again when its connection turns out to have been closed by the engine.
    fn is_replayable(&self) -> bool {
        self.parts.method.is_idempotent() && matches!(self.framing, Framing::None | Framing::Length(0))
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

/// Waits, and notes when the engine had the whole request. The time limit runs from the last byte that the client sent: a slow upload is not the engine's fault.
async fn wait_for_head<A: Awaited>(
    client: &Client,
    awaited: &mut A,
    limits: &mut Limits,
) -> Result<A::Answer, NoHead> {
    let TimeLimits { first_byte, total_of_stream, .. } = limits.times;
    let Some(timeout) = first_byte.into_iter().chain(total_of_stream).min() else {
        return std::future::poll_fn(|cx| {
            let polled = awaited.poll_answer(cx);
            if let Some(interim) = awaited.take_interim() {
                client.send_interim(&interim);
            }
            client.turn_to(awaited.turn());
            polled
        })
        .await
        .map_err(NoHead::from);
    };
    let mut sent = Instant::from_std(clock::moment());
    let mut deadline = sent + timeout;
    std::future::poll_fn(|cx| {
        let polled = awaited.poll_answer(cx);
        if let Some(interim) = awaited.take_interim() {
            client.send_interim(&interim);
        }
        if let Poll::Ready(polled) = polled {
            limits.sent = Some(sent);
            return Poll::Ready(polled.map_err(NoHead::from));
        }
        client.turn_to(awaited.turn());
        if awaited.heard_client() {
            sent = Instant::now();
            deadline = sent + timeout;
        }
        while client.timer.poll(cx, deadline).is_ready() {
            if !awaited.waits_for_client() {
                return Poll::Ready(Err(NoHead::TimedOut));
            }
            deadline = Instant::now() + timeout;
        }
        Poll::Pending
    })
    .await
}
