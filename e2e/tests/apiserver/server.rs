//! A real API server with its etcd and nothing else, as an ordinary process; it ends with its value.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::PostParams;
use kube::config::AuthInfo;
use kube::{Api, Client, Config, ResourceExt as _};
use rcgen::KeyPair;
use tempfile::TempDir;
use tidegate_e2e::cluster::{binaries, process, progress::Progress};
use tidegate_e2e::harness::eventually;
use tidegate_e2e::server::free_address;
use tokio::process::{Child, Command};

const TOKEN: &str = "administrator";
const PATIENCE: Duration = Duration::from_mins(3);

/// The API server, with the custom resources of `manifests/crds`.
pub(crate) struct ApiServer {
    /// As its administrator.
    pub(crate) client: Client,
    url: String,
    programs: std::path::PathBuf,
    _processes: [Child; 2],
    _folder: TempDir,
}

impl ApiServer {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let _already_installed = rustls::crypto::ring::default_provider().install_default();
        let programs = binaries::kubernetes(&Progress::start()).await?;
        let folder = tempfile::tempdir()?;
        let (etcd_url, etcd) = etcd(&programs, folder.path())?;
        let port = free_address()?.port();
        let server = api_server(&programs, folder.path(), &etcd_url, port)?;
        let url = format!("https://127.0.0.1:{port}");
        let mut config = Config::new(url.parse()?);
        config.accept_invalid_certs = true;
        config.auth_info = AuthInfo { token: Some(TOKEN.to_owned().into()), ..AuthInfo::default() };
        let client = Client::try_from(config)?;
        let log = folder.path().join("kube-apiserver.log");
        eventually("the API server", PATIENCE, async || {
            client.apiserver_version().await.map_err(|error| format!("{error}: {}", process::tail(&log, 3)))
        })
        .await?;
        let started = Self { client, url, programs, _processes: [etcd, server], _folder: folder };
        started.install().await?;
        Ok(started)
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
    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = process::command(self.programs.join("kubectl"));
        command.args(["--server", &self.url, "--token", TOKEN, "--insecure-skip-tls-verify"]).args(arguments);
        process::output(&mut command).await
    }
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

fn api_server(programs: &Path, folder: &Path, etcd: &str, port: u16) -> anyhow::Result<Child> {
    let [key, public, tokens] = ["sa.key", "sa.pub", "tokens.csv"].map(|name| folder.join(name));
    let pair = KeyPair::generate()?;
    std::fs::write(&key, pair.serialize_pem())?;
    std::fs::write(&public, pair.public_key_pem())?;
    std::fs::write(&tokens, format!("{TOKEN},administrator,1,system:masters\n"))?;
    let mut command = process::command(programs.join("kube-apiserver"));
    command.args(["--etcd-servers", etcd, "--bind-address=127.0.0.1", "--authorization-mode=RBAC"]);
    command.arg(format!("--secure-port={port}"));
    command.args(["--service-cluster-ip-range=10.0.0.0/24", "--service-account-issuer=https://kubernetes"]);
    for (flag, path) in [
        ("--cert-dir", folder.join("certificates")),
        ("--token-auth-file", tokens),
        ("--service-account-key-file", public),
        ("--service-account-signing-key-file", key),
    ] {
        command.arg(flag).arg(path);
    }
    logged(&mut command, folder, "kube-apiserver")
}

fn logged(command: &mut Command, folder: &Path, name: &str) -> anyhow::Result<Child> {
    let log = std::fs::File::create(folder.join(format!("{name}.log")))?;
    command.stdout(log.try_clone()?).stderr(log).spawn().with_context(|| format!("cannot start {name}"))
}
