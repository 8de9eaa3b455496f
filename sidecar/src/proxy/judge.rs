//! What the decision engine says of a request, and what follows from that.

use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};
use tidegate_core::{Admission, Decision, Engine, Facts, Headers, Refusal};
use tidegate_policy::FallbackOn;

use super::answer::Answer;
use super::exchange::Failure;
use super::fallback::{Keeps, Otherwise};
use super::handler::Arrived;
use super::progress::Progress;
use super::queue;
use crate::identity;
use crate::metrics::{Labels, ProtocolRefusal, Verdict};
use crate::quota::QuotaHeaders;
use crate::refusal::{self, Dialect, Trouble, grpc};
use crate::request_log;
use crate::tokens::{Account, Asked};

/// The header fields of a request as the decision engine asks for them.
struct Fields<'a>(&'a HeaderMap);

/// Up to so many fields are compared with a name one by one, which takes less than to make a hash of it.
const FEW: usize = 24;

impl Headers for Fields<'_> {
    fn get(&self, name: &str) -> Option<&[u8]> {
        let value = if self.0.len() <= FEW {
            // Names of both are in lower case, and the first of several fields of a name comes first.
            self.0.iter().find(|(own, _)| own.as_str() == name).map(|(_, value)| value)
        } else {
            self.0.get(name)
        };
        value.map(HeaderValue::as_bytes)
    }
}

impl Arrived {
    /// Answers as is decided, and tells what is left of the limits where every answer does.
    pub(super) async fn judge(&mut self) -> Result<Answer, Failure> {
        let mut answer = self.decide().await?;
        if let Some(quota) = self.quota.take().filter(QuotaHeaders::always) {
            quota.write(self.client.shared.clock.now(), answer.headers_mut());
        }
        Ok(answer)
    }

    async fn decide(&mut self) -> Result<Answer, Failure> {
        let engine = self.client.shared.engine.load_full();
        if engine.reads_prompts() {
            Box::pin(self.look()).await?;
        }
        let Some(decision) = self.ask(&engine) else { return Ok(Box::pin(self.turn_stranger_away()).await) };
        let (mut progress, wait, keeps) = match decision {
            Decision::Admit(admission) => self.admitted(&engine, admission),
            decision => match Box::pin(self.not_at_once(&engine, decision)).await? {
                Ok(admission) => self.admitted(&engine, admission),
                Err(answer) => return Ok(answer),
            },
        };
        if wait > Duration::ZERO {
            Box::pin(progress.wait_for_turn(wait)).await;
        }
        if let Some(keeps) = keeps {
            Box::pin(self.prepare(keeps)).await?;
        }
        self.forward(progress, engine.time_limits()).await
    }

    /// Asks the decision engine. None: its client has to be known, and is not.
    fn ask(&mut self, engine: &Arc<Engine>) -> Option<Decision> {
        let caller = identity::of_request(&self.client.shared, self.client.address, &self.parts.headers);
        self.address = caller.address;
        if let Some(span) = &mut self.span {
            span.client(self.address);
        }
        if caller.is_refused {
            return None;
        }
        let facts = Facts {
            method: self.parts.method.as_str(),
            path: self.parts.uri.path(),
            client: self.address,
            headers: &Fields(&self.parts.headers),
            claims: caller.claims(),
            model: self.asked.as_ref().and_then(Asked::model),
            service_tier: self.asked.as_ref().and_then(Asked::service_tier),
            tokens: self.estimate,
        };
        let decision = engine.admit(self.at, &facts);
        self.quota = QuotaHeaders::of(engine, &facts, &decision);
        self.note_asker(engine);
        for name in engine.stripped_headers() {
            self.parts.headers.remove(name);
        }
        if caller.strips {
            identity::remove_keys(&self.client.shared, &mut self.parts.headers);
        }
        Some(decision)
    }

    /// Waits, or answers without the engine.
    async fn not_at_once(
        &mut self,
        engine: &Arc<Engine>,
        decision: Decision,
    ) -> Result<Result<Admission, Answer>, Failure> {
        match decision {
            Decision::Admit(admission) => Ok(Ok(admission)),
            Decision::Refuse(refusal) => Ok(Err(self.turn_away(&refusal).await)),
            Decision::Fallback(refusal) => {
                self.tell(Verdict::Fallback, &refusal);
                let otherwise = Otherwise::Refusal(refusal);
                self.fall_back(Arc::clone(engine), FallbackOn::Open, otherwise).await.map(Err)
            }
            Decision::Queue(waiting) => {
                // A client that waits for leave to send is not given it before its turn.
                let body = self.body.as_mut().filter(|_| !self.parts.headers.contains_key(header::EXPECT));
                if let Some(span) = &mut self.span {
                    span.event("tidegate.queued");
                }
                let waited = queue::wait(&self.client.shared, engine, waiting, body).await;
                match waited.map_err(Failure::Client)? {
                    Ok(admission) => Ok(Ok(admission)),
                    Err(refusal) => Ok(Err(self.turn_away(&refusal).await)),
                }
            }
        }
    }

    /// Notes that it was admitted. What it is from now on, how long it waits, and whether its body is kept.
    fn admitted(
        &mut self,
        engine: &Arc<Engine>,
        admission: Admission,
    ) -> (Box<Progress>, Duration, Option<Keeps>) {
        let Admission { ticket, class, wait, shadow } = admission;
        let shared = self.client.shared.clone();
        if let Some(refusal) = &shadow {
            self.tell(Verdict::ShadowRefused, refusal);
        } else {
            let labels = Labels { verdict: Verdict::Admitted, cause: None, class: Some(class) };
            shared.metrics.traffic.judged(labels);
            request_log::admitted(self.told(&shared), class);
            if let Some(span) = &mut self.span {
                span.admitted(class, self.asked.as_ref().and_then(Asked::model));
            }
        }
        let keeps = self.keeps(engine);
        let account = self.open_account(engine);
        let progress = Progress::new(shared, Some((Arc::clone(engine), ticket)), self.at)
            .of(self.route.operation())
            .charged_to(account)
            .traced(self.span.take());
        (Box::new(progress), wait, keeps)
    }

    /// Where tokens are counted, the engine is asked not to pack its answer, in which they could not be seen.
    fn open_account(&mut self, engine: &Engine) -> Option<Account> {
        let asked = self.asked.as_ref().filter(|_| engine.counts_tokens())?;
        let name = match self.dialect {
            Dialect::OpenAi => header::ACCEPT_ENCODING,
            Dialect::Grpc if asked.call().is_some() => grpc::ACCEPT_ENCODING,
            Dialect::Grpc => return None,
        };
        self.parts.headers.insert(name, HeaderValue::from_static("identity"));
        Some(Account::new(asked, self.estimate))
    }

    async fn turn_stranger_away(&mut self) -> Answer {
        let refusal = ProtocolRefusal::Unauthenticated;
        request_log::protocol_refused(&self.client.shared, self.address, refusal);
        self.say_no(refusal::trouble(Trouble::Unauthenticated, self.form())).await
    }

    async fn turn_away(&mut self, refusal: &Refusal) -> Answer {
        self.tell(Verdict::Refused, refusal);
        self.refuse(refusal).await
    }
}
