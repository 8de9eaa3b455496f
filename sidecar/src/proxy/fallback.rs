//! What answers in place of the inference engine: while its breaker is open, and when it has failed before the head of
//! its answer. Behind that head nothing is replaced.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::PathAndQuery;
use tidegate_core::{Engine, HeadOutcome, Refusal, TimeLimits};
use tidegate_policy::{AnswerCache, Destination, Fallback, FallbackOn, HttpUrl, RelativePath, StaticAnswer};
use tokio::time::timeout;

use super::answer::{Answer, Answered, Limits};
use super::client::Turn;
use super::codec::{Framing, strip};
use super::exchange::Failure;
use super::forward::NoHead;
use super::hand_over::hand_over;
use super::handler::Arrived;
use super::progress::Progress;
use super::request_body::RequestBody;
use crate::caps::Room;
use crate::fallback::{CREDENTIALS, MARK, answers, is_marked, kind, model, remote};
use crate::identity;
use crate::metrics::{FallbackOutcome, Verdict};
use crate::refusal::{self, Dialect, Trouble};
use crate::request_log;

/// A fallback is outside of the breaker, and so without its time limits; one that hangs must not hang its client for ever.
const HEAD: Duration = Duration::from_secs(10);

/// A longer body is not kept.
const LONGEST_BODY: usize = 64 * 1024;

/// A request's whole body, and the room that it takes of all that are kept.
pub(super) struct Kept {
    body: Bytes,
    _room: Room,
}

/// Why a body is kept.
pub(super) struct Keeps {
    /// The answer is kept too.
    answers: bool,
}

/// What is said when no fallback has answered.
pub(super) enum Otherwise {
    Refusal(Refusal),
    Trouble(Trouble),
    /// The engine has answered, with a failure.
    Failed(Box<FailedAnswer>),
}

/// The engine's answer that is to be replaced, if that can be.
pub(super) struct FailedAnswer {
    pub(super) answered: Answered,
    pub(super) progress: Box<Progress>,
    pub(super) limits: Limits,
}

/// What has become of one fallback.
enum Tried {
    Answered(Answer),
    Failed,
    /// It is not for this request.
    Skipped(&'static str),
}

impl From<&'static str> for Tried {
    fn from(why: &'static str) -> Self {
        Self::Skipped(why)
    }
}

impl Arrived {
    /// Notes who asks, where answers are kept: while all fields by which that shows are there.
    pub(super) fn note_asker(&mut self, engine: &Engine) {
        if engine.breaker_policy().is_some_and(|policy| policy.answer_cache().is_some()) {
            self.asker = answers::asker(&self.parts, self.address);
        }
    }

    /// Whether the policy may need the body once the engine had it, and whether it keeps answers.
    pub(super) fn keeps(&self, engine: &Engine) -> Option<Keeps> {
        let policy = engine.breaker_policy().filter(|policy| policy.is_enforced())?;
        let answers = policy.answer_cache().is_some();
        let again = [FallbackOn::Timeout, FallbackOn::Failure].iter().any(|on| policy.falls_back_on(*on));
        let can = self.dialect != Dialect::Grpc && !self.wants_upgrade();
        (can && (answers || again)).then_some(Keeps { answers })
    }

    /// Keeps the body for a fallback. A longer one goes on as it comes.
    pub(super) async fn prepare(&mut self, keeps: Keeps) -> Result<(), Failure> {
        self.keep_body().await?;
        if let Some(kept) = self.kept.as_ref() {
            self.body = Some(RequestBody::replay(kept.body.clone()));
            if keeps.answers {
                self.answer_key = self.asker.map(|asker| answers::key(&self.parts, asker, &kept.body));
            }
        }
        Ok(())
    }

    /// Takes the body, so that it can be sent more than once; not one that is too long for that.
    async fn keep_body(&mut self) -> Result<(), Failure> {
        let shared = &self.client.shared;
        if self.kept.is_some() || self.request_length().is_some_and(|length| length > LONGEST_BODY as u64) {
            return Ok(());
        }
        if let Some(body) = &mut self.body
            && let Some(mut room) = shared.prefixes.take(shared.caps.prefix_total)
        {
            self.client.turn_to(Turn::Body);
            let whole = body.whole(LONGEST_BODY).await.map_err(Failure::Client);
            self.client.turn_to(Turn::Engine);
            self.kept = whole?.map(|body| {
                room.grow(body.len());
                Kept { body, _room: room }
            });
        }
        Ok(())
    }

    /// Answers by the first fallback that can.
    pub(super) async fn fall_back(
        &mut self,
        engine: Arc<Engine>,
        on: FallbackOn,
        otherwise: Otherwise,
    ) -> Result<Answer, Failure> {
        let fallbacks = engine.breaker_policy().map(|policy| policy.fallbacks_on(on)).unwrap_or_default();
        self.keep_body().await?;
        let mut why_not = None;
        for fallback in &fallbacks {
            let (outcome, answer) = match self.try_fallback(fallback, on).await? {
                Tried::Answered(answer) => (FallbackOutcome::Answered, Some(answer)),
                Tried::Failed => {
                    why_not = Some("failed");
                    (FallbackOutcome::Failed, None)
                }
                Tried::Skipped(why) => {
                    why_not = Some(why);
                    (FallbackOutcome::Skipped, None)
                }
            };
            let kind = kind(fallback);
            self.client.shared.metrics.fallbacks.tried(kind, outcome);
            if let Some(mut answer) = answer {
                answer.headers_mut().insert(MARK, HeaderValue::from_static(kind));
                let reason = match &otherwise {
                    Otherwise::Refusal(refusal) => refusal::reason(refusal, None),
                    Otherwise::Trouble(trouble) => HeaderValue::from_static(trouble.code()),
                    Otherwise::Failed(_) => HeaderValue::from_static(Trouble::EngineFailed.code()),
                };
                answer.headers_mut().insert(refusal::REASON, reason);
                self.tell_fallback(&otherwise, kind);
                return Ok(answer);
            }
        }
        self.tell_fallback(&otherwise, "none");
        self.say(otherwise, why_not).await
    }

    /// What has answered in place of the engine, in the log. That nothing has answered for one that failed is told as its
    /// failure.
    fn tell_fallback(&self, otherwise: &Otherwise, kind: &str) {
        let told = self.told(&self.client.shared);
        match otherwise {
            Otherwise::Refusal(refusal) => request_log::refused(told, Verdict::Fallback, refusal, Some(kind)),
            Otherwise::Trouble(_) | Otherwise::Failed(_) if kind == "none" => {}
            Otherwise::Trouble(trouble) => request_log::replaced(told, trouble.code(), kind),
            Otherwise::Failed(_) => request_log::replaced(told, Trouble::EngineFailed.code(), kind),
        }
    }

    async fn say(&mut self, otherwise: Otherwise, why_not: Option<&str>) -> Result<Answer, Failure> {
        let mut response = match otherwise {
            Otherwise::Refusal(refusal) => {
                let mut response = self.refusal(&refusal);
                response.headers_mut().insert(refusal::REASON, refusal::reason(&refusal, why_not));
                response
            }
            Otherwise::Trouble(trouble) => refusal::trouble(trouble, self.form()),
            Otherwise::Failed(failed) => {
                let FailedAnswer { answered, progress, limits } = *failed;
                let how = answered.kind();
                return Ok(self.pass_on(answered, how, progress, &limits));
            }
        };
        response.headers_mut().remove(MARK);
        Ok(self.own(response).await)
    }

    /// An answer of ours, with the rest of the request out of the way.
    async fn own(&mut self, response: Response<Bytes>) -> Answer {
        if let Some(mut span) = self.span.take() {
            span.status(response.status().as_u16());
        }
        if self.kept.is_some() {
            self.client.request_over();
            return super::answer::own(&self.client, response, false);
        }
        if self.body.is_some() {
            let drained = self.drain().await;
            return super::answer::own(&self.client, response, !drained);
        }
        self.instead(response)
    }

    async fn try_fallback(&mut self, fallback: &Fallback, on: FallbackOn) -> Result<Tried, Failure> {
        match fallback {
            Fallback::Path(path) => self.try_engine(Some(path), None, on).await,
            Fallback::Send(Destination { url: None, path, model, .. }) => {
                self.try_engine(path.as_ref(), model.as_deref(), on).await
            }
            Fallback::Send(Destination { url: Some(url), in_cluster, path, model }) => {
                self.try_remote(url, *in_cluster, path.as_ref(), model.as_deref()).await
            }
            Fallback::Static(answer) => Ok(self.try_static(answer).await),
            Fallback::Cache(policy) => Ok(self.try_cache(policy).await),
        }
    }

    /// The body to be sent, with another model's name if that is asked for.
    fn body_with(&mut self, model: Option<&str>) -> Result<(RequestBody, Framing), &'static str> {
        let kept = self.kept.as_ref();
        match (model, kept) {
            (None, Some(kept)) => {
                Ok((RequestBody::replay(kept.body.clone()), self.framing_of(kept.body.len())))
            }
            (None, None) => self.body.take().map(|body| (body, self.framing)).ok_or("body-not-kept"),
            (Some(model), Some(kept)) if !self.parts.headers.contains_key(header::CONTENT_ENCODING) => {
                let renamed = model::rename(&kept.body, model).ok_or("no-model-in-body")?;
                let framing = Framing::Length(renamed.len() as u64);
                Ok((RequestBody::replay(renamed), framing))
            }
            (Some(_), Some(_)) => Err("no-model-in-body"),
            (Some(_), None) => Err("body-too-large"),
        }
    }

    fn framing_of(&self, length: usize) -> Framing {
        match self.framing {
            Framing::None => Framing::None,
            _ => Framing::Length(length as u64),
        }
    }

    /// Something else of the same engine. What it may have begun to work on is not sent to it again.
    async fn try_engine(
        &mut self,
        path: Option<&RelativePath>,
        model: Option<&str>,
        on: FallbackOn,
    ) -> Result<Tried, Failure> {
        let again = matches!(on, FallbackOn::Timeout | FallbackOn::Failure);
        if again && !self.parts.method.is_idempotent() {
            return Ok("not-idempotent".into());
        }
        if self.goes_over_http2() && (again || model.is_some()) {
            return Ok("grpc".into());
        }
        match self.body_with(model) {
            Ok((body, framing)) => {
                self.body = Some(body);
                self.framing = framing;
            }
            Err(why) => return Ok(why.into()),
        }
        let progress = Progress::new(self.client.shared.clone(), None, self.at);
        let times = TimeLimits { first_byte: Some(HEAD), ..TimeLimits::default() };
        let target = path.map(RelativePath::as_str);
        match self.send(target, &mut Limits { times, sent: None }).await {
            Ok(answered) if !matches!(answered.outcome(), HeadOutcome::Status(500..)) => {
                let progress = Box::new(progress.traced(self.span.take()));
                let path = self.parts.uri.path();
                let (client, kind) = (self.client.clone(), answered.kind());
                Ok(Tried::Answered(answered.pass_on(client, kind, progress, &Limits::default(), path)))
            }
            Err(NoHead::Gone(failure)) => Err(failure),
            Ok(_) | Err(NoHead::TimedOut | NoHead::Failed(_)) => Ok(Tried::Failed),
        }
    }

    /// Another server, over HTTP/1.1.
    async fn try_remote(
        &mut self,
        url: &HttpUrl,
        in_cluster: bool,
        path: Option<&RelativePath>,
        model: Option<&str>,
    ) -> Result<Tried, Failure> {
        if self.goes_over_http2() || self.wants_upgrade() {
            return Ok("protocol".into());
        }
        if is_marked(&self.parts.headers) {
            return Ok("loop".into());
        }
        let (body, framing) = match self.body_with(model) {
            Ok(body) => body,
            Err(why) => return Ok(why.into()),
        };
        let (giver, received) = hand_over(body, framing);
        let own = self.parts.uri.path_and_query().cloned();
        let path = path.and_then(|path| PathAndQuery::try_from(path.as_str()).ok());
        let outgoing = remote::Outgoing {
            method: self.parts.method.clone(),
            path: path.or(own).unwrap_or(PathAndQuery::from_static("/")),
            headers: self.remote_headers(in_cluster, framing),
            body: received,
        };
        let progress = Progress::new(self.client.shared.clone(), None, self.at);
        let now = self.client.shared.clock.now();
        let response = match timeout(HEAD, giver.give_while(remote::send(url, outgoing))).await {
            Ok(Ok(Ok(response))) => response,
            Ok(Err(gone)) => return Err(Failure::Client(gone)),
            Ok(Ok(Err(error))) => {
                request_log::fallback_failed(now, url.as_str(), &format!("{error:#}"));
                return Ok(Tried::Failed);
            }
            Err(_) => {
                request_log::fallback_failed(now, url.as_str(), "no answer in time");
                return Ok(Tried::Failed);
            }
        };
        if response.status().is_server_error() {
            request_log::fallback_failed(now, url.as_str(), response.status().as_str());
            return Ok(Tried::Failed);
        }
        let mut response = response;
        strip(response.headers_mut());
        // What it was sent is whole, or nobody knows: as after an answer of our own.
        let closing = self.kept.is_none();
        if !closing {
            self.client.request_over();
        }
        let progress = Box::new(progress.traced(self.span.take()));
        let answered = Answered::Http2(Box::new(response), Dialect::OpenAi, None);
        let path = self.parts.uri.path();
        let kind = answered.kind();
        let mut answer = answered.pass_on(self.client.clone(), kind, progress, &Limits::default(), path);
        super::answer::close_if(closing, &self.client, &mut answer);
        Ok(Tried::Answered(answer))
    }

    fn remote_headers(&self, in_cluster: bool, framing: Framing) -> HeaderMap {
        let mut headers = remote_headers(&self.parts.headers, in_cluster, framing);
        if !in_cluster {
            identity::remove_keys(&self.client.shared, &mut headers);
        }
        headers
    }

    async fn try_static(&mut self, answer: &StaticAnswer) -> Tried {
        if self.dialect == Dialect::Grpc {
            return "grpc".into();
        }
        let mut response = Response::new(Bytes::copy_from_slice(answer.body.as_bytes()));
        // Both were checked with the document.
        if let (Ok(status), Ok(kind)) =
            (answer.status.try_into(), HeaderValue::from_str(&answer.content_type))
        {
            *response.status_mut() = status;
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        Tried::Answered(self.own(response).await)
    }

    async fn try_cache(&mut self, policy: &AnswerCache) -> Tried {
        let Some(body) = self.kept.as_ref().map(|kept| &kept.body).filter(|_| self.dialect != Dialect::Grpc)
        else {
            return "body-too-large".into();
        };
        let shared = self.client.shared.clone();
        let now = shared.clock.now();
        let key = self.asker.map(|asker| answers::key(&self.parts, asker, body));
        let Some(kept) = key.and_then(|key| shared.answers.find(&key, policy, now)) else {
            return "not-cached".into();
        };
        let mut response = Response::new(Bytes::from(kept.body.concat()));
        *response.status_mut() = kept.status;
        *response.headers_mut() = kept.headers;
        response.headers_mut().insert(header::AGE, HeaderValue::from(now.since(kept.at).as_secs()));
        Tried::Answered(self.own(response).await)
    }
}

/// What goes on to another server. Outside of the cluster nobody has to know who the client is.
fn remote_headers(own: &HeaderMap, in_cluster: bool, framing: Framing) -> HeaderMap {
    let mut headers = own.clone();
    strip(&mut headers);
    for name in [header::HOST, header::EXPECT, header::CONTENT_LENGTH] {
        headers.remove(name);
    }
    if !in_cluster {
        for name in CREDENTIALS {
            headers.remove(name);
        }
    }
    match framing {
        Framing::None => {}
        Framing::Length(length) => drop(headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length))),
        Framing::Chunked => {
            headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
    }
    headers.insert(MARK, HeaderValue::from_static("1"));
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_server_is_told_no_more_than_it_has_to_know() {
        let own: HeaderMap = [
            ("host", "llama"),
            ("authorization", "Bearer a"),
            ("x-api-key", "k"),
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("x-request-id", "7"),
        ]
        .into_iter()
        .map(|(name, value)| (name.parse::<header::HeaderName>().unwrap(), value.parse().unwrap()))
        .collect();
        let outside = remote_headers(&own, false, Framing::Length(3));
        let mut names: Vec<_> = outside.keys().map(header::HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-length", "x-request-id", "x-tidegate-fallback"]);
        let inside = remote_headers(&own, true, Framing::None);
        assert_eq!(inside["authorization"], "Bearer a");
        assert!(!inside.contains_key("x-hop") && !inside.contains_key("host"));
    }
}
