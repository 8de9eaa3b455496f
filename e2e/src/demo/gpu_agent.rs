//! Stands in for the node agent where there is no node: answers the sidecar about one simulated GPU, over the same
//! protocol (TLS, `GET /v1/gpus`). On a cluster the real agent answers.

use std::{
    convert::Infallible,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use http::{Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Bytes, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tidegate_gpu::{DeviceReading, DeviceReport, GpuReport};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// The name in its certificate.
const HOST: &str = "localhost";
/// The simulated GPU.
pub const GPU: &str = "GPU-d3300000-0000-0000-0000-000000000000";

/// Memory of the simulated GPU: 80 GiB.
const MEMORY: u64 = 80 << 30;

/// The stand-in with the files that a sidecar needs to reach it.
#[derive(Debug)]
pub struct GpuAgent {
    /// Where it answers.
    pub url: String,
    /// The authority of its certificate.
    pub ca: PathBuf,
    /// A token; any is accepted.
    pub token: PathBuf,
    /// The file that says how much memory is used.
    pub gpu: PathBuf,
}

impl GpuAgent {
    /// Makes certificate, token and GPU in `directory` and answers on the loopback interface.
    pub async fn start(directory: &Path) -> anyhow::Result<Self> {
        let agent = rcgen::generate_simple_self_signed(vec![HOST.to_owned()])?;
        let ca = directory.join("ca.crt");
        let token = directory.join("agent-token");
        let gpu = directory.join(format!("{GPU}.json"));
        std::fs::write(&ca, agent.cert.pem())?;
        std::fs::write(&token, "demo")?;
        let device = json!({"uuid": GPU, "name": "Simulated H100", "index": 0, "memoryTotal": MEMORY,
            "memoryUsed": 0, "utilization": 0, "failure": null});
        std::fs::write(&gpu, device.to_string())?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(agent.signing_key.serialize_der()));
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![agent.cert.der().clone()], key)?;
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let url = format!("https://{HOST}:{}", listener.local_addr()?.port());
        tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), gpu.clone()));
        Ok(Self { url, ca, token, gpu })
    }

    /// Used and total bytes now.
    pub fn memory(&self) -> anyhow::Result<(u64, u64)> {
        memory(&self.gpu)
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, gpu: PathBuf) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, gpu) = (acceptor.clone(), gpu.clone());
        tokio::spawn(async move {
            if let Err(error) = connection(stream, acceptor, gpu).await {
                tracing::debug!("GPU agent: {error:#}");
            }
        });
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, gpu: PathBuf) -> anyhow::Result<()> {
    let stream = acceptor.accept(stream).await?;
    let service = service_fn(|_request| {
        let answer = report(&gpu);
        async { Ok::<_, Infallible>(answer) }
    });
    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await?;
    Ok(())
}

fn report(gpu: &Path) -> Response<Full<Bytes>> {
    let reading = match memory(gpu) {
        Ok((used_bytes, total_bytes)) => DeviceReading::Memory { used_bytes, total_bytes, age_millis: 0 },
        Err(error) => DeviceReading::Unavailable(format!("{error:#}")),
    };
    let report = GpuReport { devices: vec![DeviceReport { uuid: GPU.to_owned(), shared: false, reading }] };
    let mut response = Response::default();
    match serde_json::to_vec(&report) {
        Ok(body) => *response.body_mut() = Full::from(body),
        Err(_) => *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
    }
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

fn memory(gpu: &Path) -> anyhow::Result<(u64, u64)> {
    let device: Value = serde_json::from_slice(&std::fs::read(gpu)?)?;
    device["memoryUsed"]
        .as_u64()
        .zip(device["memoryTotal"].as_u64())
        .context("memoryUsed or memoryTotal is missing")
}
