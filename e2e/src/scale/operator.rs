//! The operator, as a process with the rights that the manifests give it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use kube::{Api, Client};
use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::process::Child;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::objects::{NAMESPACE, token};
use crate::apiserver::ApiServer;
use crate::bench::process::cpu_time;
use crate::cluster::process;
use crate::harness::{Http, RELEASE_NAMESPACE, eventually};
use crate::server::free_address;

/// The name in its certificate.
pub(super) const SERVER_NAME: &str = "tidegate-operator.tidegate-system.svc";
const PATIENCE: Duration = Duration::from_mins(2);
/// Between two looks at the bundle.
const SYNC: Duration = Duration::from_secs(1);
/// Between two looks at the process.
const GLANCE: Duration = Duration::from_millis(200);
/// The length of the stretch whose CPU time is called a burst.
const BURST: usize = 5;

/// How to start it, again and again at the same addresses.
#[derive(Debug, Clone)]
pub(super) struct Launch {
    program: PathBuf,
    kubeconfig: PathBuf,
    log: PathBuf,
    /// Of the webhooks.
    pub(super) webhook: SocketAddr,
    /// Of the policy stream.
    pub(super) stream: SocketAddr,
    health: SocketAddr,
}

/// It runs until this is dropped.
pub(super) struct Operator {
    /// From its start until it was ready.
    pub(super) start_up: Duration,
    child: Child,
}

impl Launch {
    /// Of this program, with a token of its `ServiceAccount`.
    pub(super) async fn new(server: &ApiServer, program: &Path) -> anyhow::Result<Self> {
        let accounts: Api<ServiceAccount> = Api::namespaced(server.client.clone(), RELEASE_NAMESPACE);
        let token = token(&accounts, "tidegate-operator", &json!({"expirationSeconds": 86_400})).await?;
        let kubeconfig = server.folder().join("operator.kubeconfig");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": server.url, "insecure-skip-tls-verify": true}}],
            "users": [{"name": "u", "user": {"token": token}}],
        });
        std::fs::write(&kubeconfig, config.to_string())?;
        Ok(Self {
            program: program.to_owned(),
            kubeconfig,
            log: server.folder().join("operator.log"),
            webhook: free_address()?,
            stream: free_address()?,
            health: free_address()?,
        })
    }

    /// Starts it and waits until it is ready.
    pub(super) async fn start(&self) -> anyhow::Result<Operator> {
        let log = std::fs::File::options().create(true).append(true).open(&self.log)?;
        let mut command = process::command(&self.program);
        command.env("KUBECONFIG", &self.kubeconfig).stdout(log.try_clone()?).stderr(log);
        command.args(["--namespace", RELEASE_NAMESPACE, "--pod-name", "operator-0", "--pod-ip", "127.0.0.1"]);
        command.args(["--sidecar-image", "tidegate/tidegate-sidecar:scale", "--shutdown-delay", "0"]);
        for (flag, address) in [
            ("--webhook-address", self.webhook),
            ("--stream-address", self.stream),
            ("--health-address", self.health),
        ] {
            command.arg(flag).arg(address.to_string());
        }
        let began = Instant::now();
        let child = command.spawn().with_context(|| self.program.display().to_string())?;
        let (http, url) = (Http::default(), format!("http://{}/readyz", self.health));
        eventually("the operator is ready", PATIENCE, async || {
            let answer = http.get(&url).await.map_err(|_| process::tail(&self.log, 3))?;
            if answer.status.is_success() { Ok(()) } else { Err(answer.body) }
        })
        .await?;
        Ok(Operator { start_up: began.elapsed(), child })
    }
}

impl Operator {
    /// Its process.
    pub(super) fn pid(&self) -> anyhow::Result<u32> {
        self.child.id().context("the operator has ended")
    }

    /// SIGKILL, as when its node dies.
    pub(super) async fn kill(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Looks at the process from now on.
    pub(super) fn watch(&self) -> anyhow::Result<Watched> {
        let (pid, stop) = (self.pid()?, Arc::new(AtomicBool::new(false)));
        let ended = Arc::clone(&stop);
        let glances = tokio::spawn(async move {
            let mut glances = Vec::new();
            while let Ok(glance) = Glance::of(pid) {
                glances.push(glance);
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                tokio::time::sleep(GLANCE).await;
            }
            glances
        });
        Ok(Watched { stop, glances })
    }
}

/// What the webhooks and streams of the operator are to be believed by, as the kubelet brings it to pods: a moment after
/// the operator has written it.
pub(super) async fn trust(client: &Client) -> anyhow::Result<watch::Receiver<Arc<ClientConfig>>> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let mut held = eventually("the CA bundle", PATIENCE, async || bundle(&maps).await).await?;
    let (sender, receiver) = watch::channel(believing(&held)?);
    tokio::spawn(async move {
        while !sender.is_closed() {
            tokio::time::sleep(SYNC).await;
            if let Ok(read) = bundle(&maps).await
                && read != held
                && let Ok(config) = believing(&read)
            {
                (held, _) = (read, sender.send_replace(config));
            }
        }
    });
    Ok(receiver)
}

async fn bundle(maps: &Api<ConfigMap>) -> Result<String, String> {
    let map = maps.get("tidegate-ca").await.map_err(|error| error.to_string())?;
    map.data.and_then(|mut data| data.remove("ca.crt")).ok_or_else(|| "no ca.crt".to_owned())
}

/// A client that believes whom these certificates (PEM) have signed.
pub fn believing(bundle: &str) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(certificate?)?;
    }
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    // Each connection looks at the certificate of the moment.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

#[derive(Debug, Clone, Copy)]
struct Glance {
    at: Instant,
    cpu: Duration,
    /// In KiB.
    rss: u64,
}

impl Glance {
    fn of(pid: u32) -> anyhow::Result<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next());
        Ok(Self { at: Instant::now(), cpu: cpu_time(pid)?, rss: rss.unwrap_or_default().parse()? })
    }
}

/// A process that is being looked at.
pub(super) struct Watched {
    stop: Arc<AtomicBool>,
    glances: JoinHandle<Vec<Glance>>,
}

/// What a process needed meanwhile.
#[derive(Debug, Clone, Copy)]
pub(super) struct Needed {
    /// The most memory, in MiB.
    pub(super) rss: f64,
    /// Cores, on average.
    pub(super) cores: f64,
    /// Cores in the second that needed most.
    pub(super) burst: f64,
}

impl Watched {
    /// Looks a last time.
    pub(super) async fn end(self) -> anyhow::Result<Needed> {
        self.stop.store(true, Ordering::Relaxed);
        let glances = self.glances.await?;
        let (first, last) =
            (glances.first().context("it has ended")?, glances.last().context("it has ended")?);
        let windows = glances.windows((BURST + 1).min(glances.len()));
        let burst = windows.filter_map(|window| cores(window.first()?, window.last()?)).fold(0.0, f64::max);
        let rss = glances.iter().map(|glance| glance.rss).max().unwrap_or_default();
        Ok(Needed { rss: rss as f64 / 1024.0, cores: cores(first, last).unwrap_or_default(), burst })
    }
}

fn cores(from: &Glance, to: &Glance) -> Option<f64> {
    let length = to.at.saturating_duration_since(from.at).as_secs_f64();
    (length > 0.0).then(|| to.cpu.saturating_sub(from.cpu).as_secs_f64() / length)
}
