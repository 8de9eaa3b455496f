//! What answers in place of the inference engine: while its breaker is open, and when it has failed before the head of
//! its answer. Behind that head nothing is replaced.

mod kinds;

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http::header::HeaderValue;
use kinds::Tried;
use tidegate_core::{Engine, Refusal};
use tidegate_policy::FallbackOn;

use super::answer::{Answer, Answered, Limits};
use super::client::Turn;
use super::exchange::Failure;
use super::handler::Arrived;
use super::progress::Progress;
use super::request_body::RequestBody;
use crate::caps::Room;
use crate::fallback::{MARK, answers, kind};
use crate::metrics::{FallbackOutcome, Verdict};
use crate::refusal::{self, Dialect, Trouble};
use crate::request_log;

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
}
