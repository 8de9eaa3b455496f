//! What each kind of fallback does: the engine again, another server, a static answer, one that was kept.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::PathAndQuery;
use tidegate_core::{HeadOutcome, TimeLimits};
use tidegate_policy::{AnswerCache, Destination, Fallback, FallbackOn, HttpUrl, RelativePath, StaticAnswer};
use tokio::time::timeout;

use super::super::answer::{self, Answer, Answered, Limits};
use super::super::codec::{Framing, strip};
use super::super::exchange::Failure;
use super::super::forward::NoHead;
use super::super::hand_over::hand_over;
use super::super::handler::Arrived;
use super::super::progress::Progress;
use super::super::request_body::RequestBody;
use crate::fallback::{CREDENTIALS, MARK, answers, is_marked, model, remote};
use crate::identity;
use crate::refusal::Dialect;
use crate::request_log;

/// A fallback is outside of the breaker, and so without its time limits; one that hangs must not hang its client for ever.
const HEAD: Duration = Duration::from_secs(10);

/// What has become of one fallback.
pub(super) enum Tried {
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
    /// Tries one.
    pub(super) async fn try_fallback(
        &mut self,
        fallback: &Fallback,
        on: FallbackOn,
    ) -> Result<Tried, Failure> {
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
        answer::close_if(closing, &self.client, &mut answer);
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
