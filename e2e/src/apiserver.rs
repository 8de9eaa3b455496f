//! A real API server with its etcd and nothing else, as an ordinary process; it ends with its value.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::PostParams;
use kube::config::AuthInfo;
use kube::{Api, Client, Config, ResourceExt as _};
use rcgen::KeyPair;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::cluster::{binaries, process, progress::Progress};
use crate::harness::eventually;
use crate::server::free_address;

const TOKEN: &str = "administrator";
const PATIENCE: Duration = Duration::from_mins(3);
/// Whose requests are kept in the audit log.
const AUDITED: &str = "system:serviceaccount:tidegate-system:tidegate-operator";

/// The API server, with the custom resources of `manifests/crds`.
pub struct ApiServer {
    /// As its administrator.
    pub client: Client,
    /// Where it listens.
    pub url: String,
    programs: PathBuf,
    processes: [Child; 2],
    etcd_url: String,
    port: u16,
    folder: TempDir,
}

/// Requests by verb and resource, such as `create tokenreviews`.
pub type Requests = BTreeMap<String, u64>;

impl ApiServer {
    /// Starts both and waits until they answer.
    pub async fn start() -> anyhow::Result<Self> {
        let _already_installed = rustls::crypto::ring::default_provider().install_default();
        let programs = binaries::kubernetes(&Progress::start()).await?;
        let folder = tempfile::tempdir()?;
        let (etcd_url, etcd) = etcd(&programs, folder.path())?;
        let port = free_address()?.port();
        keys(folder.path())?;
        let server = api_server(&programs, folder.path(), &etcd_url, port)?;
        let url = format!("https://127.0.0.1:{port}");
        let mut config = Config::new(url.parse()?);
        config.accept_invalid_certs = true;
        config.auth_info = AuthInfo { token: Some(TOKEN.to_owned().into()), ..AuthInfo::default() };
        let client = Client::try_from(config)?;
        let started = Self { client, url, programs, processes: [etcd, server], etcd_url, port, folder };
        started.until_it_answers().await?;
        started.install().await?;
        Ok(started)
    }

    async fn until_it_answers(&self) -> anyhow::Result<()> {
        let log = self.folder.path().join("kube-apiserver.log");
        eventually("the API server", PATIENCE, async || {
            let version = self.client.apiserver_version().await;
            version.map(drop).map_err(|error| format!("{error}: {}", process::tail(&log, 3)))
        })
        .await
    }

    /// Kills the API server and starts it again, with the same keys at the same address.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.processes[1].kill().await?;
        self.processes[1] = api_server(&self.programs, self.folder.path(), &self.etcd_url, self.port)?;
        self.until_it_answers().await
    }

    /// Stops etcd and the API server in turn, each so often for so long, as on an overloaded machine.
    pub async fn stutter(&self, times: u32, stall: Duration) -> anyhow::Result<()> {
        for process in &self.processes {
            let pid =
                process.id().and_then(|pid| Pid::from_raw(pid.cast_signed())).context("it has ended")?;
            for _ in 0..times {
                kill_process(pid, Signal::STOP)?;
                tokio::time::sleep(stall).await;
                kill_process(pid, Signal::CONT)?;
                tokio::time::sleep(stall / 2).await;
            }
        }
        Ok(())
    }

    async fn install(&self) -> anyhow::Result<()> {
        let definitions: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let manifests = binaries::workspace().join("manifests/crds");
        for entry in std::fs::read_dir(manifests)? {
            let definition: CustomResourceDefinition =
                serde_saphyr::from_str(&std::fs::read_to_string(entry?.path())?)?;
            definitions.create(&PostParams::default(), &definition).await?;
            let name = definition.name_any();
            eventually(&format!("{name} is established"), PATIENCE, async || {
                let found = definitions.get(&name).await.map_err(|error| error.to_string())?;
                let mut conditions = found.status.and_then(|status| status.conditions).into_iter().flatten();
                conditions
                    .any(|condition| condition.type_ == "Established" && condition.status == "True")
                    .then_some(())
                    .ok_or_else(|| "not yet".to_owned())
            })
            .await?;
        }
        Ok(())
    }

    /// What a person sees.
    pub async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = process::command(self.programs.join("kubectl"));
        command.args(["--server", &self.url, "--token", TOKEN, "--insecure-skip-tls-verify"]).args(arguments);
        process::output(&mut command).await
    }
}

/// What the operator asked.
impl ApiServer {
    /// A folder that lives as long as the server.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Every request of the operator's `ServiceAccount` so far. A watch counts when it begins.
    pub fn requests_of_the_operator(&self) -> anyhow::Result<Requests> {
        let log = std::fs::read_to_string(audit_log(self.folder.path())).unwrap_or_default();
        let (mut seen, mut requests) = (HashSet::new(), Requests::new());
        // The last line may be half written.
        for event in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let text = |pointer| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            if !seen.insert(text("/auditID").to_owned()) {
                continue;
            }
            let sub = Some(text("/objectRef/subresource")).filter(|sub| !sub.is_empty());
            let sub = sub.map(|sub| format!("/{sub}")).unwrap_or_default();
            let what = match text("/objectRef/resource") {
                "" => text("/requestURI"),
                resource => resource,
            };
            *requests.entry(format!("{} {what}{sub}", text("/verb"))).or_default() += 1;
        }
        Ok(requests)
    }
}

fn audit_log(folder: &Path) -> PathBuf {
    folder.join("audit.log")
}

fn etcd(programs: &Path, folder: &Path) -> anyhow::Result<(String, Child)> {
    let [client, peer] = [free_address()?, free_address()?].map(|address| format!("http://{address}"));
    let mut command = process::command(programs.join("etcd"));
    command.arg("--unsafe-no-fsync").arg("--data-dir").arg(folder.join("etcd"));
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.arg(format!("--initial-cluster=default={peer}"));
    Ok((client, logged(&mut command, folder, "etcd")?))
}

/// What signs tokens of `ServiceAccount`s.
fn keys(folder: &Path) -> anyhow::Result<()> {
    let pair = KeyPair::generate()?;
    std::fs::write(folder.join("sa.key"), pair.serialize_pem())?;
    Ok(std::fs::write(folder.join("sa.pub"), pair.public_key_pem())?)
}

fn api_server(programs: &Path, folder: &Path, etcd: &str, port: u16) -> anyhow::Result<Child> {
    let [key, public, tokens] = ["sa.key", "sa.pub", "tokens.csv"].map(|name| folder.join(name));
    std::fs::write(&tokens, format!("{TOKEN},administrator,1,system:masters\n"))?;
    let audit = folder.join("audit.yaml");
    let policy = json!({
        "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
        "rules": [{"level": "Metadata", "users": [AUDITED]}, {"level": "None"}],
    });
    std::fs::write(&audit, policy.to_string())?;
    let mut command = process::command(programs.join("kube-apiserver"));
    command.args(["--etcd-servers", etcd, "--bind-address=127.0.0.1", "--authorization-mode=RBAC"]);
    command.arg(format!("--secure-port={port}"));
    command.args(["--service-cluster-ip-range=10.0.0.0/16", "--service-account-issuer=https://kubernetes"]);
    for (flag, path) in [
        ("--cert-dir", folder.join("certificates")),
        ("--token-auth-file", tokens),
        ("--service-account-key-file", public),
        ("--service-account-signing-key-file", key),
        ("--audit-policy-file", audit),
        ("--audit-log-path", audit_log(folder)),
    ] {
        command.arg(flag).arg(path);
    }
    logged(&mut command, folder, "kube-apiserver")
}

fn logged(command: &mut Command, folder: &Path, name: &str) -> anyhow::Result<Child> {
    let log = std::fs::File::create(folder.join(format!("{name}.log")))?;
    command.stdout(log.try_clone()?).stderr(log).spawn().with_context(|| format!("cannot start {name}"))
}
