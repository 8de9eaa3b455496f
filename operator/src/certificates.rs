//! The operator's own certificate authority and the certificates it issues: for its webhooks and stream, and for
//! the node agents. Kept in Secrets, made anew in time, taken up without a restart.

mod authority;
mod pair;
mod resolver;
mod secrets;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use tokio::sync::watch;

pub(crate) use authority::Lifetimes;
pub(crate) use resolver::Resolver;

use authority::Authority;
use pair::{Pair, Seconds};

use crate::brief;
use crate::metrics::{self, Metrics};
use crate::retry::Retry;

/// Secret of the authority.
const AUTHORITY: &str = "tidegate-ca";
/// Secret of the operator's serving certificate.
const OPERATOR: &str = "tidegate-operator-tls";
/// Secret of the agents' serving certificate.
const AGENT: &str = "tidegate-agent-tls";
/// How soon one replica sees what another one wrote.
const PERIOD: Duration = Duration::from_secs(30);

/// What the rest of the operator takes from the certificates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Trust {
    /// What clients trust, PEM.
    pub(crate) bundle: Arc<str>,
}

/// Names that the certificates are issued for.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    /// DNS names of the operator's Service.
    pub(crate) operator: Vec<String>,
    /// DNS names of the agents' Service; empty when there are no agents.
    pub(crate) agent: Vec<String>,
}

impl Names {
    /// The names that a Service has inside the cluster.
    pub(crate) fn of_service(service: &str, namespace: &str) -> Vec<String> {
        let name = format!("{service}.{namespace}.svc");
        vec![name.clone(), format!("{name}.cluster.local")]
    }
}

/// Keeps Secrets, resolver and bundle right.
pub(crate) struct Certificates {
    secrets: Api<Secret>,
    /// Secret of the authorities that somebody else makes.
    source: Option<String>,
    names: Names,
    lifetimes: Lifetimes,
    resolver: Arc<Resolver>,
    trust: watch::Sender<Option<Trust>>,
    metrics: Metrics,
}

impl Certificates {
    pub(crate) fn new(
        client: &Client,
        namespace: &str,
        names: Names,
        lifetimes: Lifetimes,
        metrics: Metrics,
    ) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), namespace),
            source: None,
            names,
            lifetimes,
            resolver: Arc::default(),
            trust: watch::Sender::new(None),
            metrics,
        }
    }

    /// Takes authorities from this Secret, which somebody else keeps, in place of making them.
    pub(crate) fn with_authorities_of(self, secret: Option<String>) -> Self {
        Self { source: secret, ..self }
    }

    pub(crate) fn resolver(&self) -> Arc<Resolver> {
        Arc::clone(&self.resolver)
    }

    /// What clients trust, once it is known, and whenever it changes.
    pub(crate) fn trust(&self) -> watch::Receiver<Option<Trust>> {
        self.trust.subscribe()
    }

    /// Runs until the task is dropped. An API server that cannot be reached is asked again: certificates in use
    /// stay in use.
    pub(crate) async fn run(&self) {
        let mut retry = Retry::default();
        loop {
            let wait = match self.ensure_now().await {
                Ok(()) => {
                    retry.reset();
                    PERIOD
                }
                Err(error) => {
                    tracing::warn!(error = brief::in_context(&error), "certificates could not be checked");
                    retry.next()
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// One pass, by the wall clock.
    pub(crate) async fn ensure_now(&self) -> anyhow::Result<()> {
        self.ensure(now()).await
    }

    /// One pass: Secrets, then what is taken from them.
    async fn ensure(&self, now: Seconds) -> anyhow::Result<()> {
        let lifetimes = &self.lifetimes;
        let source = match &self.source {
            Some(name) => Some(self.made_elsewhere(name, now).await?),
            None => None,
        };
        let advance = |held: &Authority| held.advance(now, lifetimes, source.as_ref());
        let authority: Authority = secrets::agree(&self.secrets, AUTHORITY, advance).await?;
        let signer = authority.current.as_ref().context("the authority cannot sign")?;
        let serving = self.serving(OPERATOR, &self.names.operator, signer, now).await?;
        if !self.names.agent.is_empty() {
            self.serving(AGENT, &self.names.agent, signer, now).await?;
        }
        self.resolver.set(&serving)?;
        self.note_expiry("serving", &serving);
        self.note_expiry("authority", signer);
        let trust = Trust { bundle: Arc::from(authority.bundle()) };
        self.trust.send_if_modified(|held| {
            let changed = held.as_ref() != Some(&trust);
            *held = Some(trust);
            changed
        });
        Ok(())
    }

    /// The authority that somebody else keeps in a Secret, such as cert-manager.
    async fn made_elsewhere(&self, secret: &str, now: Seconds) -> anyhow::Result<Pair> {
        let pair = secrets::pair_of(&self.secrets, secret).await?;
        let valid = pair.filter(|pair| pair.validity().is_some_and(|validity| now < validity.until));
        valid.with_context(|| format!("Secret {secret} holds no authority with its key that is valid now"))
    }

    fn note_expiry(&self, certificate: &'static str, pair: &Pair) {
        let until = pair.validity().map_or(0, |validity| validity.until);
        self.metrics.certificate_expiry.get_or_create(&metrics::Certificate { certificate }).set(until);
    }

    async fn serving(
        &self,
        secret: &str,
        names: &[String],
        signer: &Pair,
        now: Seconds,
    ) -> anyhow::Result<Pair> {
        let held: Option<Pair> = secrets::agree(&self.secrets, secret, |held: &Option<Pair>| {
            let fresh = |pair: &&Pair| {
                pair.validity().is_some_and(|validity| !validity.is_due(now)) && pair.serves(names, signer)
            };
            held.as_ref().filter(fresh).map_or_else(
                || signer.issue(names, now, self.lifetimes.serving).map(Some),
                |pair| Ok(Some(pair.clone())),
            )
        })
        .await?;
        held.context("no serving certificate was made")
    }
}

/// Seconds since 1970, by the wall clock: certificates are bound to dates.
fn now() -> Seconds {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
