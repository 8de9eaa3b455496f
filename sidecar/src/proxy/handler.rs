//! One request: from its head to the head of its answer.

use std::cell::RefCell;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;
use http::header;
use http::request::Parts;
use http::{Method, Response};
use http_body::Body as _;
use tidegate_core::{Refusal, Tick, TimeLimits, Tokens};

use super::answer::{Answer, instead, own};
use super::client::{Client, Turn};
use super::codec::Framing;
use super::exchange::Failure;
use super::fallback::Kept;
use super::prefix;
use super::progress::Progress;
use super::request_body::RequestBody;
use super::shape::complete_target;
use crate::fallback::answers::Key;
use crate::metrics::{Labels, ProtocolRefusal, Verdict};
use crate::quota::QuotaHeaders;
use crate::refusal::{self, Dialect, Form, Trouble, grpc};
use crate::request_log::{self, Told};
use crate::route::Route;
use crate::shared::Shared;
use crate::tokens::grpc::{Method as Call, RequestReader};
use crate::tokens::{Asked, Model};
use crate::trace::Span;

/// A refused request's body is read to its end up to this size, so that the connection can be kept; beyond it,
/// closing is cheaper.
const DRAIN_UP_TO: u64 = 256 * 1024;

/// A request that has not been sent yet.
pub(super) struct Arrived {
    pub(super) client: Rc<Client>,
    pub(super) parts: Parts,
    /// Until it is sent or read.
    pub(super) body: Option<RequestBody>,
    pub(super) framing: Framing,
    pub(super) at: Tick,
    pub(super) route: Route,
    /// How its client wants to be refused.
    pub(super) dialect: Dialect,
    /// What it asks for, where a rule needs to know.
    pub(super) asked: Option<Asked>,
    /// While it is sampled and has not been sent.
    pub(super) span: Option<Span>,
    /// Its whole body, where a fallback may need it.
    pub(super) kept: Option<Kept>,
    /// Who asks, where answers are kept.
    pub(super) asker: Option<Key>,
    /// What its answer is kept under.
    pub(super) answer_key: Option<Key>,
    /// Is to be shown the messages of a call as they are sent.
    pub(super) prompts: Option<Rc<RefCell<RequestReader>>>,
    /// What it is estimated to use.
    pub(super) estimate: Tokens,
    /// Whom it comes from, as far as is known.
    pub(super) address: IpAddr,
    /// What is left of its limits, where its answer may tell.
    pub(super) quota: Option<QuotaHeaders>,
}

/// Answers one request. An error ends the client's connection or stream, because an answer cannot be given or not be
/// ended.
///
/// Each request in flight takes the room of its answering. So what is rare has room of its own while it happens, and
/// nothing is handed from one function to the next that can be lent. Where `framing` is none, the end of the body can be read
/// in several ways.
pub(super) fn handle(
    client: Rc<Client>,
    parts: Parts,
    framing: Option<Framing>,
    body: RequestBody,
) -> impl Future<Output = Result<Answer, Failure>> {
    let mut arrived = Arrived::new(client, parts, framing.unwrap_or(Framing::None), body);
    async move { arrived.answer(framing.is_some()).await }
}

impl Arrived {
    fn new(client: Rc<Client>, mut parts: Parts, framing: Framing, body: RequestBody) -> Self {
        complete_target(&mut parts);
        let at = client.shared.clock.moment();
        client.turn_to(Turn::Engine);
        let is_call = client.is_stream && grpc::is_call(&parts.headers);
        let dialect = if is_call { Dialect::Grpc } else { Dialect::OpenAi };
        let route = Route::of(parts.uri.path());
        client.shared.metrics.traffic.asked_for(route);
        let address = client.address;
        Self {
            client,
            parts,
            body: Some(body),
            framing,
            at,
            route,
            dialect,
            asked: None,
            span: None,
            kept: None,
            asker: None,
            answer_key: None,
            prompts: None,
            estimate: Tokens::default(),
            address,
            quota: None,
        }
    }

    async fn answer(&mut self, clearly_framed: bool) -> Result<Answer, Failure> {
        if let Some(trouble) = self.trouble(clearly_framed) {
            return Ok(self.reject(trouble));
        }
        if self.is_unlimited() {
            self.count(Verdict::Unlimited, None);
            let progress = Box::new(Progress::new(self.client.shared.clone(), None, self.at));
            return self.forward(progress, TimeLimits::default()).await;
        }
        if let Some(full) = self.client.shared.full() {
            self.client.shared.metrics.traffic.protocol_refused(full);
            return Ok(self.reject(Trouble::Overloaded));
        }
        self.trace();
        self.judge().await
    }

    /// What forbids to even judge it.
    fn trouble(&self, clearly_framed: bool) -> Option<Trouble> {
        let trouble = if !clearly_framed {
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

    /// Probes and scrapes: exact paths, and nothing that could carry a prompt or become another protocol.
    fn is_unlimited(&self) -> bool {
        let path = self.parts.uri.path();
        matches!(self.parts.method, Method::GET | Method::HEAD)
            && matches!(self.framing, Framing::None | Framing::Length(0))
            && (path == "/metrics" || self.client.config.unlimited_paths.iter().any(|p| p == path))
            && !self.wants_upgrade()
    }

    /// Reads the begin of its body, for what that tells. An error: the client has left.
    pub(super) async fn look(&mut self) -> Result<(), Failure> {
        let length = self.request_length();
        let is_call = self.dialect == Dialect::Grpc;
        let call = Call::of(self.parts.uri.path()).filter(|_| is_call);
        let mut prompt = None;
        if length != Some(0)
            && (!is_call || call.is_some())
            && let Some(body) = &mut self.body
        {
            let client = &self.client;
            // Who sends no more of it is given up as everywhere else.
            client.turn_to(Turn::Body);
            let _in_flight = client.shared.drain.enter();
            let read = match call {
                Some(call) => prefix::read_call(&client.shared, call, body).await,
                None => prefix::read(&client.shared, &self.parts.headers, body, length).await,
            };
            prompt = Some(read.map_err(Failure::Client)?);
            client.turn_to(Turn::Engine);
        }
        let asked =
            if is_call { Asked::of_call(call, prompt) } else { Asked::new(self.parts.uri.path(), prompt) };
        self.estimate = asked.tokens(self.client.shared.usual_output.get(Model::of(asked.model())));
        self.asked = Some(asked);
        Ok(())
    }

    pub(super) fn count(&self, verdict: Verdict, refusal: Option<&Refusal>) {
        let labels = Labels { verdict, cause: refusal.map(|r| r.cause), class: refusal.map(|r| r.class) };
        self.client.shared.metrics.traffic.judged(labels);
    }

    /// Begins its span, if it is sampled.
    fn trace(&mut self) {
        let Some(tracer) = self.client.shared.tracer.get() else { return };
        let (method, path) = (self.parts.method.as_str(), self.parts.uri.path());
        let headers = &mut self.parts.headers;
        self.span = Span::begin(tracer, headers, self.route, method, path, self.client.address);
    }

    pub(super) fn told<'a>(&'a self, shared: &'a Shared) -> Told<'a> {
        Told { shared, at: self.at, route: self.route, client: self.address, headers: &self.parts.headers }
    }

    pub(super) fn tell(&mut self, verdict: Verdict, refusal: &Refusal) {
        self.count(verdict, Some(refusal));
        let client = &self.client;
        client.shared.metrics.decisions.refused(verdict, refusal, self.route, self.address);
        // With a fallback its line says which one, once that is known.
        if verdict != Verdict::Fallback {
            request_log::refused(self.told(&client.shared), verdict, refusal, None);
        }
        if let Some(span) = &mut self.span {
            span.refused(verdict, refusal);
        }
    }

    pub(super) fn instead(&self, response: Response<Bytes>) -> Answer {
        instead(&self.client, response, self.request_length())
    }

    pub(super) async fn refuse(&mut self, refusal: &Refusal) -> Answer {
        let answer = self.refusal(refusal);
        self.say_no(answer).await
    }

    /// Answers in place of the engine, which never gets the request.
    pub(super) async fn say_no(&mut self, answer: Response<Bytes>) -> Answer {
        let drained = self.drain().await;
        if let Some(mut span) = self.span.take() {
            span.status(answer.status().as_u16());
        }
        own(&self.client, answer, !drained)
    }

    /// What it is refused with. What is left of a limit is told as of the instant that `Retry-After` counts from.
    pub(super) fn refusal(&mut self, refusal: &Refusal) -> Response<Bytes> {
        let mut response = refusal::refused(refusal, self.form());
        if let Some(quota) = self.quota.take() {
            quota.write(self.at, response.headers_mut());
        }
        response
    }

    fn reject(&self, trouble: Trouble) -> Answer {
        own(&self.client, refusal::trouble(trouble, self.form()), true)
    }

    /// What the client wants our own answers to look like.
    pub(super) fn form(&self) -> Form {
        Form::of(self.dialect, &self.parts.headers)
    }

    /// Reads the rest of the request, which is in the way of the next. Whether that was possible and worth it.
    pub(super) async fn drain(&mut self) -> bool {
        if self.client.is_stream {
            return true;
        }
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
    pub(super) fn request_length(&self) -> Option<u64> {
        match self.framing {
            Framing::None => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room<F>(_answering: impl FnOnce(Rc<Client>, Parts, Option<Framing>, RequestBody) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_request_takes_little_room_for_its_answering() {
        assert!(room(handle) <= 2048, "{} bytes", room(handle));
    }
}
