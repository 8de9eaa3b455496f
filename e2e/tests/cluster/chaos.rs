//! Random faults under load: what may be lost is lost, and nothing else.
//!
//! `TIDEGATE_CHAOS_SECONDS` (120) says for how long and `TIDEGATE_CHAOS_SEED` repeats a run.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, ResourceExt};
use tidegate_crds::RateLimitPolicy;
use tidegate_e2e::harness::{
    Cut, Engine, Frozen, Lab, PATIENCE, RELEASE_NAMESPACE, alone, eventually, release,
};
use tidegate_e2e::random::Random;
use tokio::time::Instant;

use load::Load;

mod load;

/// Replicas of the operator, and pods under load.
const REPLICAS: i32 = 3;
/// Requests per second that the limited user is allowed at each pod, and at once.
const RATE: u64 = 2;
const BURST: u64 = 10;
/// How long etcd stands still at a time.
const STALL: Duration = Duration::from_millis(500);
/// How long after the last fault every pod has to obey the last version of the policy.
const CONVERGENCE: Duration = Duration::from_secs(5);

/// What goes wrong.
#[derive(Debug, Clone, Copy)]
enum Fault {
    KillWorker,
    KillSidecar,
    KillEngine,
    KillOperator,
    KillLeader,
    FreezeOperator,
    FreezeApiServer,
    SlowEtcd,
    CutStreams,
    KillAgents,
    DropCertificate,
}

const FAULTS: [Fault; 11] = [
    Fault::KillWorker,
    Fault::KillSidecar,
    Fault::KillEngine,
    Fault::KillOperator,
    Fault::KillLeader,
    Fault::FreezeOperator,
    Fault::FreezeApiServer,
    Fault::SlowEtcd,
    Fault::CutStreams,
    Fault::KillAgents,
    Fault::DropCertificate,
];

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// The policy in its nth version, which only the last limit tells.
fn policy(version: u64) -> String {
    format!(
        "{{apiVersion: tidegate.dev/v1alpha1, kind: RateLimitPolicy, metadata: {{name: chaos}}, spec: {{limits: [
        {{name: user, key: [{{header: x-user}}], when: [{{header: x-user, operator: Exists}}], algorithm: TokenBucket, limit: {RATE}, window: 1s, burst: {BURST}}},
        {{name: version, algorithm: SlidingWindow, limit: {}, window: 1s}}]}}}}",
        1_000_000 + version
    )
}

struct Chaos<'a> {
    lab: &'a Lab,
    pods: Vec<Pod>,
    random: Random,
    version: u64,
}

impl Chaos<'_> {
    fn below(&mut self, n: usize) -> usize {
        (self.random.next_u64() % n.max(1) as u64) as usize
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        most.mul_f64(self.random.uniform())
    }

    /// Brings one fault about and returns when its cause is over.
    async fn fault(&mut self, fault: Fault, load: &Load) -> anyhow::Result<()> {
        let n = self.below(self.pods.len());
        let pod = self.pods[n].clone();
        match fault {
            Fault::KillWorker => load.outage(n, || self.lab.kill_worker(&pod)),
            Fault::KillSidecar => load.outage(n, || self.lab.kill_sidecar(&pod)),
            Fault::KillEngine => load.outage(n, || self.lab.kill_engine(&pod)),
            Fault::KillOperator => {
                let operators = release::operators(&self.lab.client).await?;
                let n = self.below(operators.len());
                self.delete(&operators[n].name_any()).await
            }
            Fault::KillLeader => match release::leader(&self.lab.client).await {
                Ok(leader) => self.delete(&leader).await,
                // The last one was killed a moment ago.
                Err(_) => Ok(()),
            },
            Fault::FreezeOperator | Fault::FreezeApiServer | Fault::SlowEtcd | Fault::CutStreams => {
                self.hold_up(fault).await
            }
            Fault::KillAgents => {
                let pods: Api<Pod> = Api::namespaced(self.lab.client.clone(), RELEASE_NAMESPACE);
                let agents = ListParams::default().labels("app.kubernetes.io/component=agent");
                pods.delete_collection(&DeleteParams::default().grace_period(0), &agents).await?;
                Ok(())
            }
            Fault::DropCertificate => {
                let secrets: Api<Secret> = Api::namespaced(self.lab.client.clone(), RELEASE_NAMESPACE);
                let _gone_already = secrets.delete("tidegate-operator-tls", &DeleteParams::default()).await;
                Ok(())
            }
        }
    }

    /// Holds up what goes on after a while as if nothing had been.
    async fn hold_up(&mut self, fault: Fault) -> anyhow::Result<()> {
        let operators = release::operators(&self.lab.client).await?;
        let operator = &operators[self.below(operators.len())];
        match fault {
            Fault::FreezeOperator => {
                let length = self.up_to(Duration::from_secs(8));
                if let Ok(frozen) = Frozen::operator(operator) {
                    frozen.last(length).await;
                }
            }
            Fault::CutStreams => {
                // TCP tries again after pauses that double: after a longer cut the next try would be too late.
                let length = self.up_to(Duration::from_secs(3));
                if let Ok(cut) = Cut::operator(operator) {
                    cut.last(length).await;
                }
            }
            Fault::SlowEtcd => {
                for _ in 0..=self.below(8) {
                    Frozen::etcd()?.last(STALL).await;
                    tokio::time::sleep(STALL / 2).await;
                }
            }
            _ => {
                let length = self.up_to(Duration::from_secs(4));
                Frozen::api_server()?.last(length).await;
            }
        }
        Ok(())
    }

    async fn delete(&self, operator: &str) -> anyhow::Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.lab.client.clone(), RELEASE_NAMESPACE);
        let _gone_already = pods.delete(operator, &DeleteParams::default().grace_period(0)).await;
        Ok(())
    }

    /// A new version of the policy, and a pod that has to be let in.
    async fn change(&mut self) -> anyhow::Result<()> {
        self.version += 1;
        self.lab.apply(&policy(self.version)).await?;
        let template =
            Engine::new("newcomer").deployment()?.spec.map(|spec| spec.template).unwrap_or_default();
        let mut metadata = template.metadata.unwrap_or_default();
        metadata.name = Some("newcomer".to_owned());
        let newcomer = Pod { metadata, spec: template.spec, status: None };
        let dry_run = PostParams { dry_run: true, ..PostParams::default() };
        self.lab.api::<Pod>().create(&dry_run, &newcomer).await?;
        Ok(())
    }

    /// Waits until every pod obeys the last version. Returns how long that took.
    async fn converge(&self) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let expected = 1_000_000 + self.version;
        eventually("the last version at every pod", PATIENCE, async || {
            for pod in &self.pods {
                let status = self.lab.status(pod).await.map_err(|error| format!("{error:#}"))?;
                let versions = status.limits.iter().filter(|limit| limit.name == "version");
                let obeyed: Vec<u64> = versions.map(|limit| limit.size).collect();
                if obeyed != [expected] {
                    return Err(format!("{} obeys {obeyed:?} instead of {expected}", pod.name_any()));
                }
            }
            Ok(())
        })
        .await?;
        Ok(start.elapsed())
    }

    /// Waits until the policy's status says so too: that may take as long as the Lease of a killed leader lasts.
    async fn told(&self) -> anyhow::Result<()> {
        let policies = self.lab.api::<RateLimitPolicy>();
        eventually("the last version in the policy's status", Duration::from_mins(3), async || {
            let policy = policies.get("chaos").await.map_err(|error| error.to_string())?;
            let status = policy.status.unwrap_or_default();
            let told = (status.observed_generation, status.pods.programmed, status.pods.out_of_date);
            if told == (policy.metadata.generation, REPLICAS, 0) { Ok(()) } else { Err(format!("{told:?}")) }
        })
        .await
    }
}

async fn run(lab: &Lab, seed: u64, length: Duration) -> anyhow::Result<()> {
    let mut chaos = Chaos { lab, pods: Vec::new(), random: Random::new(seed), version: 0 };
    lab.apply(&policy(0)).await?;
    let engine = Engine::new("llama").replicas(REPLICAS);
    chaos.pods = lab.engine(&engine).await?;
    for pod in &chaos.pods {
        lab.until_programmed(pod).await?;
    }
    let load = Load::start(&chaos.pods)?;
    let end = Instant::now() + length;
    let mut faults = 0;
    while Instant::now() < end {
        let fault = FAULTS[chaos.below(FAULTS.len())];
        println!("{:7.1} s before the end: {fault:?}", (end - Instant::now()).as_secs_f64());
        chaos.fault(fault, &load).await?;
        faults += 1;
        chaos.change().await?;
        let pause = chaos.up_to(Duration::from_secs(3));
        tokio::time::sleep(pause).await;
    }
    load.all_back().await?;
    let mut converged = chaos.converge().await?;
    // Everything on this machine takes its time from it: one of several times is enough.
    for _ in 0..3 {
        if converged <= CONVERGENCE {
            break;
        }
        println!("converged only after {converged:?}");
        let fault = FAULTS[chaos.below(FAULTS.len())];
        chaos.fault(fault, &load).await?;
        chaos.change().await?;
        load.all_back().await?;
        converged = chaos.converge().await?;
    }
    chaos.told().await?;
    let tally = load.stop().await?;
    println!("{faults} faults, converged after {converged:?}, {tally}");
    tally.nothing_lost_but_in_outages()?;
    tally.limits_held(RATE, BURST)?;
    lab.ready_pods(&engine.selector(), chaos.pods.len()).await?;
    anyhow::ensure!(converged <= CONVERGENCE, "converged only after {converged:?}");
    Ok(())
}

#[tokio::test]
async fn random_faults_under_load_lose_nothing_but_what_they_hit() -> anyhow::Result<()> {
    let seed = number("TIDEGATE_CHAOS_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let length = Duration::from_secs(number("TIDEGATE_CHAOS_SECONDS").unwrap_or(120));
    println!("chaos for {length:?}; repeat it with TIDEGATE_CHAOS_SEED={seed}");
    alone(async |lab| {
        release::scale_operator(&lab.client, REPLICAS).await?;
        let outcome = run(lab, seed, length).await;
        // Whatever came out, the other tests expect one.
        release::scale_operator(&lab.client, 1).await?;
        outcome
    })
    .await
}
