//! A node: GPUs, driver, kubelet, API server, and the agent among them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tidegate_gpu::GpuReport;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio_rustls::TlsConnector;

use crate::apiserver::ApiServer;
use crate::kubelet::Kubelet;
use crate::process::built;

pub(crate) const GIB: u64 = 1 << 30;
/// Name in the serving certificate.
const SERVICE: &str = "tidegate-agent.tidegate-system.svc";
/// For whatever a test waits for.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// One GPU's file.
#[derive(Clone)]
pub(crate) struct GpuFile(Value);

/// A healthy, empty GPU of 40 GiB, of which the driver has set 1 GiB aside.
pub(crate) fn gpu(uuid: &str, index: u32) -> GpuFile {
    GpuFile(json!({"uuid": uuid, "index": index, "memoryTotal": 40 * GIB, "memoryReserved": GIB, "mig": []}))
}

impl GpuFile {
    fn with(mut self, field: &str, value: Value) -> Self {
        self.0[field] = value;
        self
    }

    pub(crate) fn used(self, bytes: u64) -> Self {
        self.with("memoryUsed", json!(bytes))
    }

    pub(crate) fn failing(self, error: &str) -> Self {
        self.with("failure", json!(error))
    }

    pub(crate) fn hanging(self, time: Duration) -> Self {
        self.with("hangMs", json!(time.as_millis()))
    }

    /// Without the call that tells reserved from used memory.
    pub(crate) fn before_510(self) -> Self {
        self.with("memoryInfoV2", json!(false))
    }

    /// Cut, with no device that this container may see.
    pub(crate) fn cut(self) -> Self {
        self.with("migMode", json!(true))
    }

    pub(crate) fn mig(self, uuid: &str, total: u64, used: u64) -> Self {
        self.with("mig", json!([{"uuid": uuid, "memoryTotal": total, "memoryUsed": used}]))
    }
}

/// A driver's directory: the library, and the files that it reads.
pub(crate) struct Driver {
    dir: tempfile::TempDir,
}

impl Driver {
    /// No library yet.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("nvml-sim.d")).expect("a directory");
        Self { dir }
    }

    /// With the library.
    pub(crate) fn with_library() -> Self {
        let driver = Self::new();
        driver.install_library();
        driver
    }

    pub(crate) fn library(&self) -> PathBuf {
        self.dir.path().join("libnvidia-ml.so.1")
    }

    pub(crate) fn install_library(&self) {
        std::fs::copy(&built().library, self.library()).expect("a copy");
    }

    /// Puts a GPU's file in place.
    pub(crate) fn write(&self, gpu: &GpuFile) {
        self.put(gpu.0["uuid"].as_str().expect("a UUID"), &gpu.0);
    }

    /// What concerns all GPUs.
    pub(crate) fn write_driver(&self, file: &Value) {
        self.put("driver", file);
    }

    /// Takes a GPU out of the node.
    pub(crate) fn remove(&self, uuid: &str) {
        std::fs::remove_file(self.dir.path().join(format!("nvml-sim.d/{uuid}.json"))).expect("removed");
    }

    fn put(&self, name: &str, file: &Value) {
        let dir = self.dir.path().join("nvml-sim.d");
        std::fs::write(dir.join(".new"), file.to_string()).expect("written");
        std::fs::rename(dir.join(".new"), dir.join(format!("{name}.json"))).expect("in place");
    }
}

/// The node. What it started ends with it.
pub(crate) struct Node {
    pub(crate) kubelet: Kubelet,
    pub(crate) apiserver: ApiServer,
    pub(crate) driver: Driver,
    dir: tempfile::TempDir,
    agent: Child,
    log: Arc<Mutex<Vec<String>>>,
    listen: SocketAddr,
    health: SocketAddr,
}

impl Node {
    /// A node named `node-a` with GPUs, library and certificate.
    pub(crate) async fn start(gpus: &[GpuFile]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        write_certificate(dir.path());
        Self::with_agent(dir, driver_of(gpus)).await
    }

    /// A node without a driver.
    pub(crate) async fn without_library() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        write_certificate(dir.path());
        Self::with_agent(dir, Driver::new()).await
    }

    /// A node whose agent has no certificate yet.
    pub(crate) async fn without_certificate(gpus: &[GpuFile]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        Self::with_agent(dir, driver_of(gpus)).await
    }

    async fn with_agent(dir: tempfile::TempDir, driver: Driver) -> Self {
        let apiserver = ApiServer::start().await;
        let kubelet = Kubelet::start(&dir.path().join("kubelet.sock"));
        let mut agent = spawn(dir.path(), &driver, apiserver.address);
        let log = Arc::new(Mutex::new(Vec::new()));
        let (sender, listening) = tokio::sync::oneshot::channel();
        let mut lines = BufReader::new(agent.stderr.take().expect("a pipe")).lines();
        let written = Arc::clone(&log);
        tokio::spawn(async move {
            let mut sender = Some(sender);
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some((addresses, sender)) =
                    addresses(&line).zip(sender.take_if(|_| line.contains("listen")))
                {
                    let _nobody_waits = sender.send(addresses);
                }
                written.lock().expect("log").push(line);
            }
        });
        let told = tokio::time::timeout(DEADLINE, listening).await.expect("the agent listens in time");
        let Ok((listen, health)) = told else { panic!("the agent ended: {:?}", log.lock().expect("log")) };
        Self { kubelet, apiserver, driver, dir, agent, log, listen, health }
    }

    /// A new CA and certificate.
    pub(crate) fn renew_certificate(&self) {
        write_certificate(self.dir.path());
    }

    /// What a pod of this node is told about its GPUs.
    pub(crate) async fn report(&self, pod: &str) -> GpuReport {
        let (status, text) = self.ask(Some(&format!("{pod}.node-a.s"))).await;
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).expect("a report")
    }

    /// Status and body of an answer to a token.
    pub(crate) async fn ask(&self, token: Option<&str>) -> (u16, String) {
        self.try_ask(token).await.expect("an answer")
    }

    /// The same where TLS may fail.
    pub(crate) async fn try_ask(&self, token: Option<&str>) -> anyhow::Result<(u16, String)> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from(std::fs::read(self.dir.path().join("ca.der"))?))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(self.listen).await?;
        let name = ServerName::try_from(SERVICE)?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.context("TLS")?;
        get(stream, "/v1/gpus", token).await
    }

    /// Status and body of an answer in plain HTTP.
    pub(crate) async fn health(&self, path: &str) -> (u16, String) {
        let stream = TcpStream::connect(self.health).await.expect("a connection");
        get(stream, path, None).await.expect("an answer")
    }

    pub(crate) async fn metrics(&self) -> String {
        self.health("/metrics").await.1
    }

    /// The agent's log so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().expect("log").clone()
    }

    /// SIGTERM, and how the agent ended.
    pub(crate) async fn stop(mut self) -> ExitStatus {
        let id = self.agent.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?));
        let id = id.expect("the agent runs");
        rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("a signal");
        tokio::time::timeout(DEADLINE, self.agent.wait()).await.expect("in time").expect("an end")
    }
}

pub(crate) fn driver_of(gpus: &[GpuFile]) -> Driver {
    let driver = Driver::with_library();
    for gpu in gpus {
        driver.write(gpu);
    }
    driver
}

fn write_certificate(dir: &Path) {
    std::fs::create_dir_all(dir.join("tls")).expect("a directory");
    let pair = rcgen::generate_simple_self_signed(vec![SERVICE.to_owned()]).expect("a certificate");
    std::fs::write(dir.join("ca.der"), pair.cert.der()).expect("written");
    std::fs::write(dir.join("tls/tls.crt"), pair.cert.pem()).expect("written");
    std::fs::write(dir.join("tls/tls.key"), pair.signing_key.serialize_pem()).expect("written");
}

fn spawn(dir: &Path, driver: &Driver, apiserver: SocketAddr) -> Child {
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": format!("http://{apiserver}")}}],
        "users": [{"name": "test", "user": {}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    });
    std::fs::write(dir.join("kubeconfig"), kubeconfig.to_string()).expect("written");
    Command::new(&built().agent)
        .arg("--nvml-library")
        .arg(driver.library())
        .arg("--pod-resources")
        .arg(dir.join("kubelet.sock"))
        .arg("--tls-dir")
        .arg(dir.join("tls"))
        .args(["--listen=127.0.0.1:0", "--health=127.0.0.1:0", "--node-name=node-a", "--interval=100ms"])
        .env("KUBECONFIG", dir.join("kubeconfig"))
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the agent starts")
}

/// The addresses that the agent's log tells.
fn addresses(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let address = |field: &str| line[field].as_str()?.parse().ok();
    Some((address("listen")?, address("health")?))
}

async fn get<S>(stream: S, path: &str, token: Option<&str>) -> anyhow::Result<(u16, String)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut request = http::Request::get(path).header("host", SERVICE);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let response = sender.send_request(request.body(Empty::<bytes::Bytes>::new())?).await?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((status, String::from_utf8(body.to_vec())?))
}
