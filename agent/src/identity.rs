//! Who asks: the API server's verdict on a token (`TokenReview`), remembered for a while.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus, UserInfo};
use kube::Api;
use kube::api::PostParams;
use tidegate_gpu::PodName;
use tokio::sync::Semaphore;

use crate::metrics::{Metrics, Review};

/// How long a verdict is taken as it is.
const FRESH: Duration = Duration::from_mins(1);
/// How long a verdict still counts when the API server cannot be asked. Fail-open by choice: what is given away is how
/// full the pod's own GPUs are, to a token that was good minutes ago; what is kept is the GPU tier of every pod of the
/// node through an outage of the control plane.
const STALE: Duration = Duration::from_mins(10);
/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// Tokens remembered. A node has a few hundred pods.
const MOST: usize = 1024;
/// Reviews under way at once, so that bad tokens cannot flood the API server.
const AT_ONCE: usize = 8;
/// A projected token has about 1 KiB.
const LONGEST_TOKEN: usize = 8 << 10;

const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// Why a caller gets no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denial {
    /// 401.
    #[error("{0}")]
    Unauthenticated(String),
    /// 403.
    #[error("{0}")]
    Forbidden(String),
    /// 503: the API server does not say.
    #[error("the token could not be reviewed: {0}")]
    Failed(String),
}

/// Reviews tokens.
pub(crate) struct Reviewer {
    api: Api<TokenReview>,
    audience: String,
    node: String,
    accepted: Mutex<HashMap<String, Accepted>>,
    at_once: Semaphore,
    metrics: Arc<Metrics>,
}

#[derive(Clone)]
struct Accepted {
    pod: PodName,
    reviewed: Instant,
}

impl Reviewer {
    /// A reviewer for tokens of an audience from pods of a node.
    pub(crate) fn new(client: kube::Client, audience: &str, node: &str, metrics: Arc<Metrics>) -> Self {
        Self {
            api: Api::all(client),
            audience: audience.to_owned(),
            node: node.to_owned(),
            accepted: Mutex::default(),
            at_once: Semaphore::new(AT_ONCE),
            metrics,
        }
    }

    /// The pod that a token belongs to.
    pub(crate) async fn pod_of(&self, token: &str) -> Result<PodName, Denial> {
        if token.len() > LONGEST_TOKEN || token.split('.').count() != 3 {
            return Err(Denial::Unauthenticated(
                "the bearer token is not a service account token".to_owned(),
            ));
        }
        let remembered = self.remembered(token);
        if let Some(known) = remembered.as_ref().filter(|known| known.reviewed.elapsed() <= FRESH) {
            return Ok(known.pod.clone());
        }
        let verdict = self.review(token).await;
        self.metrics.review(match &verdict {
            Ok(_) => Review::Accepted,
            Err(Denial::Unauthenticated(_)) => Review::Unauthenticated,
            Err(Denial::Forbidden(_)) => Review::Forbidden,
            Err(Denial::Failed(_)) => Review::Failed,
        });
        match (verdict, remembered) {
            (Ok(pod), _) => {
                self.remember(token, &pod);
                Ok(pod)
            }
            (Err(Denial::Failed(why)), Some(known)) => {
                tracing::debug!("a token counts as it did before, since it could not be reviewed: {why}");
                Ok(known.pod)
            }
            (Err(denial), _) => {
                self.lock().remove(token);
                Err(denial)
            }
        }
    }

    async fn review(&self, token: &str) -> Result<PodName, Denial> {
        let spec =
            TokenReviewSpec { audiences: Some(vec![self.audience.clone()]), token: Some(token.to_owned()) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let ask = async {
            let _permit = self.at_once.acquire().await.map_err(|error| error.to_string())?;
            self.api.create(&PostParams::default(), &review).await.map_err(|error| error.to_string())
        };
        let review = tokio::time::timeout(PATIENCE, ask)
            .await
            .unwrap_or_else(|_| Err(format!("the API server did not answer within {} s", PATIENCE.as_secs())))
            .map_err(Denial::Failed)?;
        let status = review.status.ok_or_else(|| Denial::Failed("the answer has no status".to_owned()))?;
        judge(status, &self.audience, &self.node)
    }

    fn remembered(&self, token: &str) -> Option<Accepted> {
        self.lock().get(token).filter(|known| known.reviewed.elapsed() <= STALE).cloned()
    }

    fn remember(&self, token: &str, pod: &PodName) {
        let mut accepted = self.lock();
        if accepted.len() >= MOST {
            accepted.retain(|_, known| known.reviewed.elapsed() <= FRESH);
        }
        if accepted.len() >= MOST {
            let oldest =
                accepted.iter().min_by_key(|(_, known)| known.reviewed).map(|(token, _)| token.clone());
            oldest.and_then(|token| accepted.remove(&token));
        }
        accepted.insert(token.to_owned(), Accepted { pod: pod.clone(), reviewed: Instant::now() });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Accepted>> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a review says about the caller.
fn judge(status: TokenReviewStatus, audience: &str, node: &str) -> Result<PodName, Denial> {
    if !status.authenticated.unwrap_or(false) {
        let why = status.error.unwrap_or_else(|| "it is unknown or expired".to_owned());
        return Err(Denial::Unauthenticated(format!("the token is not valid: {why}")));
    }
    // An API server that does not know audiences answers without any, for a token that may be meant for others.
    if !status.audiences.unwrap_or_default().iter().any(|of| of == audience) {
        return Err(Denial::Unauthenticated(format!("the token is not of audience {audience}")));
    }
    let UserInfo { username, extra, .. } = status.user.unwrap_or_default();
    let username = username.unwrap_or_default();
    let extra = extra.unwrap_or_default();
    let namespace = username
        .strip_prefix("system:serviceaccount:")
        .and_then(|rest| rest.split_once(':'))
        .map(|(namespace, _)| namespace.to_owned());
    let (Some(namespace), Some(name)) = (namespace, only(&extra, POD_NAME)) else {
        return Err(Denial::Forbidden(format!(
            "the token of {username:?} is not bound to a pod: use a projected service account token"
        )));
    };
    match only(&extra, NODE_NAME) {
        Some(of) if of == node => Ok(PodName { namespace, name }),
        Some(of) => Err(Denial::Forbidden(format!(
            "the token is of a pod on node {of}; this agent answers the pods of node {node}"
        ))),
        None => {
            Err(Denial::Forbidden("the token names no node: Kubernetes 1.30 or newer is needed".to_owned()))
        }
    }
}

fn only(extra: &BTreeMap<String, Vec<String>>, key: &str) -> Option<String> {
    extra.get(key)?.first().filter(|value| !value.is_empty()).cloned()
}

#[cfg(test)]
mod tests;
