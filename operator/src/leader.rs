//! Which replica writes status and `ConfigMap`s: the holder of the Lease.
//!
//! A Lease that somebody else holds is taken over when it has not been renewed for its duration *by this replica's
//! own clock*: clocks of nodes differ, and a foreign timestamp is only compared with itself. A holder that cannot
//! renew steps down before that time has passed for the others.

use std::time::{Duration, Instant};

use anyhow::Context;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;

use crate::brief;
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;

/// The Lease.
const NAME: &str = "tidegate-operator";
/// Annotation of the Lease: where its holder is reached.
const ADDRESS: &str = "tidegate.dev/address";
/// How long a silent holder keeps it.
const DURATION: Duration = Duration::from_secs(15);
/// A holder that could not renew for this long acts no more.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How often it is renewed or looked at.
const PERIOD: Duration = Duration::from_secs(3);

/// Claims the Lease and says whether it is held.
pub(crate) struct Leader {
    leases: Api<Lease>,
    replica: String,
    /// Where other replicas reach this one.
    address: Option<String>,
    metrics: Metrics,
    leads: watch::Sender<bool>,
    other: watch::Sender<Option<String>>,
    renewed: Option<Instant>,
    /// The foreign holder and renewal that was seen last, and since when.
    observed: Option<(Option<LeaseSpec>, Instant)>,
}

impl Leader {
    pub(crate) fn new(
        client: Client,
        namespace: &str,
        replica: &str,
        address: Option<String>,
        metrics: Metrics,
    ) -> Self {
        Self {
            leases: Api::namespaced(client, namespace),
            replica: replica.to_owned(),
            address,
            metrics,
            leads: watch::Sender::new(false),
            other: watch::Sender::new(None),
            renewed: None,
            observed: None,
        }
    }

    /// Whether this replica leads, and whenever that changes.
    pub(crate) fn leads(&self) -> watch::Receiver<bool> {
        self.leads.subscribe()
    }

    /// Where the replica is reached that leads instead of this one, if it has said so.
    pub(crate) fn other(&self) -> watch::Receiver<Option<String>> {
        self.other.subscribe()
    }

    /// Runs until the replica is on its way out, then gives the Lease back so that another one need not wait.
    pub(crate) async fn run(mut self, shutdown: Shutdown) {
        loop {
            self.pass(Instant::now()).await;
            tokio::select! {
                () = shutdown.leaving() => break,
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
        if *self.leads.borrow() {
            self.set(false);
            if let Err(error) = self.release().await {
                tracing::warn!(error = brief::in_context(&error), "the Lease could not be given back");
            }
        }
    }

    async fn pass(&mut self, now: Instant) {
        match tokio::time::timeout(PERIOD, self.claim(now)).await {
            Ok(Ok(true)) => {
                self.renewed = Some(now);
                self.set(true);
            }
            Ok(Ok(false)) => {
                self.renewed = None;
                self.set(false);
            }
            failed => {
                let error = match failed {
                    Ok(Err(error)) => brief::in_context(&error),
                    _ => "the API server took too long".to_owned(),
                };
                tracing::warn!(error, "the Lease could not be claimed");
                let fresh = self.renewed.is_some_and(|at| now.saturating_duration_since(at) < RENEW_DEADLINE);
                self.set(fresh);
            }
        }
    }

    fn set(&self, leads: bool) {
        self.metrics.leader.set(i64::from(leads));
        let changed = self.leads.send_if_modified(|held| std::mem::replace(held, leads) != leads);
        if changed {
            tracing::info!(leads, "leadership changed");
        }
    }

    /// Whether this replica holds the Lease afterwards.
    async fn claim(&mut self, now: Instant) -> anyhow::Result<bool> {
        let held = self.leases.get_opt(NAME).await.context("the Lease cannot be read")?;
        let Some(lease) = held else { return self.write(None).await };
        if !self.may_take(lease.spec.as_ref(), now) {
            self.follow(lease.annotations().get(ADDRESS).cloned());
            return Ok(false);
        }
        self.follow(None);
        self.write(Some(lease)).await
    }

    fn follow(&self, address: Option<String>) {
        self.other.send_if_modified(|held| {
            let changed = *held != address;
            *held = address;
            changed
        });
    }

    fn may_take(&mut self, spec: Option<&LeaseSpec>, now: Instant) -> bool {
        let holder = spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        if holder == self.replica || holder.is_empty() {
            self.observed = None;
            return true;
        }
        let unchanged_since = match &self.observed {
            Some((seen, since)) if seen.as_ref() == spec => *since,
            _ => {
                self.observed = Some((spec.cloned(), now));
                now
            }
        };
        let duration = spec.and_then(|spec| spec.lease_duration_seconds).and_then(|s| u64::try_from(s).ok());
        now.saturating_duration_since(unchanged_since) >= duration.map_or(DURATION, Duration::from_secs)
    }

    async fn write(&self, lease: Option<Lease>) -> anyhow::Result<bool> {
        let params = PostParams::default();
        let now = MicroTime(Timestamp::now());
        let spec = self.claimed(lease.as_ref().and_then(|lease| lease.spec.as_ref()), now);
        let exists = lease.is_some();
        let mut lease = Lease { spec: Some(spec), ..lease.unwrap_or_default() };
        match &self.address {
            Some(address) => lease.annotations_mut().insert(ADDRESS.to_owned(), address.clone()),
            None => lease.annotations_mut().remove(ADDRESS),
        };
        let written = if exists {
            self.leases.replace(NAME, &params, &lease).await
        } else {
            lease.metadata.name = Some(NAME.to_owned());
            self.leases.create(&params, &lease).await
        };
        match written {
            Ok(_) => Ok(true),
            // Another replica was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error).context("the Lease cannot be written"),
        }
    }

    fn claimed(&self, before: Option<&LeaseSpec>, now: MicroTime) -> LeaseSpec {
        let mine = before.filter(|spec| spec.holder_identity.as_deref() == Some(&self.replica));
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.replica.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: mine.and_then(|spec| spec.acquire_time.clone()).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if mine.is_some() { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        }
    }

    async fn release(&self) -> anyhow::Result<()> {
        let lease = self.leases.get(NAME).await.context("the Lease cannot be read")?;
        let spec = lease.spec.clone().filter(|spec| spec.holder_identity.as_deref() == Some(&self.replica));
        if let Some(spec) = spec {
            let spec = LeaseSpec { holder_identity: Some(String::new()), ..spec };
            let lease = Lease { spec: Some(spec), ..lease };
            self.leases
                .replace(NAME, &PostParams::default(), &lease)
                .await
                .context("the Lease cannot be written")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_api::FakeApi;

    const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/tg/leases/tidegate-operator";

    fn replica(api: &FakeApi, name: &str) -> Leader {
        Leader::new(api.client(), "tg", name, Some(format!("{name}:8444")), Metrics::default())
    }

    fn leads(leader: &Leader) -> bool {
        *leader.leads.borrow()
    }

    #[tokio::test]
    async fn one_of_two_replicas_leads_and_the_other_takes_over_when_it_falls_silent() {
        let api = FakeApi::default();
        let (mut a, mut b) = (replica(&api, "a"), replica(&api, "b"));
        let start = Instant::now();
        a.pass(start).await;
        b.pass(start).await;
        assert_eq!((leads(&a), leads(&b)), (true, false));
        assert_eq!((&*a.other().borrow(), &*b.other().borrow()), (&None, &Some("a:8444".to_owned())));
        b.pass(start + Duration::from_secs(14)).await;
        assert!(!leads(&b), "the lease has not run out");
        b.pass(start + DURATION).await;
        assert!(leads(&b));
        a.pass(start + DURATION).await;
        assert!(!leads(&a));
        assert_eq!((&*a.other().borrow(), &*b.other().borrow()), (&Some("b:8444".to_owned()), &None));
        assert_eq!(api.get(PATH).unwrap()["spec"]["leaseTransitions"], 2);
    }

    #[tokio::test]
    async fn a_renewed_lease_is_not_taken_however_the_clocks_differ() {
        let api = FakeApi::default();
        let (mut a, mut b) = (replica(&api, "a"), replica(&api, "b"));
        let start = Instant::now();
        for second in (0..60).step_by(3) {
            a.pass(start + Duration::from_secs(second)).await;
            b.pass(start + Duration::from_secs(second)).await;
        }
        assert_eq!((leads(&a), leads(&b)), (true, false));
    }

    #[tokio::test]
    async fn a_leader_that_cannot_renew_steps_down_before_others_may_take_over() {
        let api = FakeApi::default();
        let mut a = replica(&api, "a");
        let start = Instant::now();
        a.pass(start).await;
        api.fail(Some(http::StatusCode::INTERNAL_SERVER_ERROR));
        a.pass(start + Duration::from_secs(6)).await;
        assert!(leads(&a));
        a.pass(start + RENEW_DEADLINE).await;
        assert!(!leads(&a));
    }

    #[tokio::test]
    async fn a_leader_that_leaves_gives_the_lease_back() {
        let api = FakeApi::default();
        let (mut a, mut b) = (replica(&api, "a"), replica(&api, "b"));
        let (trigger, shutdown) = crate::shutdown::channel();
        a.pass(Instant::now()).await;
        trigger.leave();
        a.run(shutdown).await;
        b.pass(Instant::now()).await;
        assert!(leads(&b));
    }
}
