//! Whose token it is. The API server says so by a `TokenReview`; what it said is remembered for a minute.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, header};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus, UserInfo};
use kube::api::PostParams;
use kube::{Api, Client};
use sha2::{Digest, Sha256};
use tidegate_operator_core::key::PodKey;
use tidegate_policy::stream::OPERATOR_AUDIENCE;
use tokio::sync::Semaphore;

use crate::brief::brief;
use crate::metrics::{Metrics, Outcome};

/// How long a token that was good is good without asking again.
const GOOD: Duration = Duration::from_mins(1);
/// How long a token that was bad is not asked about again.
const BAD: Duration = Duration::from_secs(10);
/// Most tokens that are remembered; a flood of made-up ones must not grow the memory.
const CAPACITY: usize = 16_384;
/// Reviews at the same time: made-up tokens must not flood the API server.
const AT_ONCE: usize = 32;
/// Real tokens have about 1 KiB.
const MAX_TOKEN: usize = 16 << 10;

/// A pod, by the word of the API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) pod: PodKey,
    pub(super) uid: String,
    /// Name of its `ServiceAccount`.
    pub(super) account: String,
}

/// Why nobody is let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// The token is not one of a pod, for us.
    #[error("{0}")]
    Unauthenticated(String),
    /// Nobody could say.
    #[error("{0}")]
    Unavailable(String),
}

type Verdict = Result<Identity, String>;
/// By digest of the token: until when the verdict holds.
type Known = HashMap<[u8; 32], (Instant, Verdict)>;

/// Reviews tokens.
#[derive(Clone)]
pub(super) struct Identities {
    reviews: Api<TokenReview>,
    known: Arc<Mutex<Known>>,
    permits: Arc<Semaphore>,
    metrics: Metrics,
}

impl Identities {
    pub(super) fn new(client: Client, metrics: Metrics) -> Self {
        let permits = Arc::new(Semaphore::new(AT_ONCE));
        Self { reviews: Api::all(client), known: Arc::default(), permits, metrics }
    }

    /// The pod whose token the request carries.
    pub(super) async fn of(&self, headers: &HeaderMap) -> Result<Identity, Refusal> {
        let token = bearer(headers).map_err(|message| Refusal::Unauthenticated(message.to_owned()))?;
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(verdict) = self.known(&digest) {
            return verdict.map_err(Refusal::Unauthenticated);
        }
        let verdict = {
            let _permit = self.permits.acquire().await;
            self.review(token).await?
        };
        self.remember(digest, verdict.clone());
        verdict.map_err(Refusal::Unauthenticated)
    }

    fn known(&self, digest: &[u8; 32]) -> Option<Verdict> {
        let (until, verdict) = self.cache().get(digest).cloned()?;
        (Instant::now() < until).then_some(verdict)
    }

    fn remember(&self, digest: [u8; 32], verdict: Verdict) {
        let now = Instant::now();
        let mut cache = self.cache();
        if cache.len() >= CAPACITY {
            cache.retain(|_, (until, _)| now < *until);
        }
        if cache.len() < CAPACITY {
            let valid = if verdict.is_ok() { GOOD } else { BAD };
            cache.insert(digest, (now + valid, verdict));
        }
    }

    async fn review(&self, token: &str) -> Result<Verdict, Refusal> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: Some(vec![OPERATOR_AUDIENCE.to_owned()]),
            },
            ..TokenReview::default()
        };
        let reviewed = self.reviews.create(&PostParams::default(), &review).await;
        let outcome = match &reviewed {
            Ok(review) if review.status.as_ref().is_some_and(|s| s.authenticated == Some(true)) => {
                "authenticated"
            }
            Ok(_) => "refused",
            Err(_) => "failed",
        };
        self.metrics.token_reviews.get_or_create(&Outcome { outcome }).inc();
        match reviewed {
            Ok(review) => Ok(identify(review.status.unwrap_or_default())),
            Err(error) => {
                tracing::warn!(error = brief(&error), "a token could not be reviewed");
                Err(Refusal::Unavailable("the API server cannot review tokens now: try again".to_owned()))
            }
        }
    }

    fn cache(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, &'static str> {
    let value =
        headers.get(header::AUTHORIZATION).ok_or("no authorization: send Bearer and the pod's token")?;
    let token = value.to_str().ok().and_then(|value| value.strip_prefix("Bearer ")).map(str::trim);
    token
        .filter(|token| !token.is_empty() && token.len() <= MAX_TOKEN)
        .ok_or("authorization is not Bearer and a token")
}

fn identify(status: TokenReviewStatus) -> Verdict {
    if status.authenticated != Some(true) {
        let why = status.error.map(|error| format!(": {}", error.replace('\n', " "))).unwrap_or_default();
        return Err(format!("the token is not valid for audience {OPERATOR_AUDIENCE}{why}"));
    }
    // An authenticator that knows nothing of audiences names none, and then the token may be anybody's.
    if !status.audiences.iter().flatten().any(|audience| audience == OPERATOR_AUDIENCE) {
        return Err(format!("the token is not for audience {OPERATOR_AUDIENCE}"));
    }
    pod_of(&status.user.unwrap_or_default())
        .ok_or_else(|| "the token is not bound to a pod: project it into one".to_owned())
}

fn pod_of(user: &UserInfo) -> Option<Identity> {
    let account = user.username.as_deref()?.strip_prefix("system:serviceaccount:")?;
    let (namespace, account) = account.split_once(':')?;
    let extra = |key: &str| user.extra.as_ref()?.get(key)?.first().filter(|value| !value.is_empty()).cloned();
    Some(Identity {
        pod: PodKey::new(namespace, extra("authentication.kubernetes.io/pod-name")?),
        uid: extra("authentication.kubernetes.io/pod-uid")?,
        account: account.to_owned(),
    })
}
