//! Requests to the operator and the agents as a sidecar makes them: TLS by the published CA, a bearer token.

use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::Api;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::lab::{Lab, RELEASE_NAMESPACE};

/// The status of an answer.
pub async fn status(lab: &Lab, service: &str, port: u16, path: &str, token: &str) -> anyhow::Result<u16> {
    Ok(get(lab, service, port, path, token).await?.status().as_u16())
}

/// The first line of an answer's body, which may go on for ever.
pub async fn first_line(
    lab: &Lab,
    service: &str,
    port: u16,
    path: &str,
    token: &str,
) -> anyhow::Result<String> {
    let response = get(lab, service, port, path, token).await?;
    let status = response.status();
    let mut body = response.into_body();
    let mut text = String::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            text.push_str(&String::from_utf8_lossy(&data));
        }
        if text.contains('\n') {
            break;
        }
    }
    anyhow::ensure!(status.is_success(), "{status}: {text}");
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

async fn get(
    lab: &Lab,
    service: &str,
    port: u16,
    path: &str,
    token: &str,
) -> anyhow::Result<Response<Incoming>> {
    let services: Api<Service> = Api::namespaced(lab.client.clone(), RELEASE_NAMESPACE);
    let address =
        services.get(service).await?.spec.and_then(|spec| spec.cluster_ip).context("no cluster IP")?;
    let stream = TcpStream::connect((address.as_str(), port))
        .await
        .with_context(|| format!("{service} {address}:{port}"))?;
    let host = format!("{service}.{RELEASE_NAMESPACE}.svc");
    let connector = TlsConnector::from(Arc::new(trust(lab).await?));
    let stream = connector.connect(ServerName::try_from(host.clone())?, stream).await?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get(format!("https://{host}:{port}{path}"))
        .header("authorization", format!("Bearer {token}"));
    Ok(sender.send_request(request.body(Empty::<Bytes>::new())?).await?)
}

/// Trusts what the operator publishes in the namespace.
async fn trust(lab: &Lab) -> anyhow::Result<ClientConfig> {
    let bundle = lab.api::<ConfigMap>().get("tidegate-ca").await?.data.unwrap_or_default();
    let pem = bundle.get("ca.crt").context("ConfigMap tidegate-ca has no ca.crt")?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate?)?;
    }
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}
