//! The kubelet's side: registration, and seeing that a kubelet is a new one.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::Request;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use super::api::{self, Empty, RegisterRequest};
use super::plugin::Plugin;

/// For connecting and for the call.
const PATIENCE: Duration = Duration::from_secs(5);

/// Which file a socket is; another one after a restart, even where the inode number is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SocketIdentity {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

fn identity(socket: &Path) -> Option<SocketIdentity> {
    let data = std::fs::metadata(socket).ok()?;
    Some(SocketIdentity { device: data.dev(), inode: data.ino(), changed: (data.ctime(), data.ctime_nsec()) })
}

/// Waits until the kubelet's socket is there.
pub(crate) async fn wait_for(kubelet: &Path, look: Duration) -> SocketIdentity {
    loop {
        if let Some(found) = identity(kubelet) {
            return found;
        }
        tokio::time::sleep(look).await;
    }
}

/// Waits until the kubelet's socket is another one, or our own is gone.
pub(crate) async fn until_changed(kubelet: &Path, known: SocketIdentity, own: &Path, look: Duration) {
    while identity(kubelet) == Some(known) && own.exists() {
        tokio::time::sleep(look).await;
    }
}

/// A channel to a unix socket.
pub(crate) async fn connect(socket: &Path) -> anyhow::Result<Channel> {
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://localhost")
        .connect_timeout(PATIENCE)
        .connect_with_connector(connector)
        .await
        .with_context(|| format!("cannot connect to {}", socket.display()))
}

/// Tells the kubelet of our socket.
pub(crate) async fn register(kubelet: &Path, endpoint: &str, resource: &str) -> anyhow::Result<()> {
    let mut grpc = Grpc::new(connect(kubelet).await?);
    grpc.ready().await?;
    let mut request = Request::new(RegisterRequest {
        version: api::VERSION.to_owned(),
        endpoint: endpoint.to_owned(),
        resource_name: resource.to_owned(),
        options: Some(Plugin::options()),
    });
    request.set_timeout(PATIENCE);
    let path = http::uri::PathAndQuery::from_static(api::REGISTER);
    let codec = ProstCodec::<RegisterRequest, Empty>::default();
    grpc.unary(request, path, codec).await.context(api::REGISTER)?;
    Ok(())
}
