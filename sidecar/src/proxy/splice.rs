//! Bytes both ways, without a look at them.

use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;

use super::upstream::{Target, Upstream};
use crate::shared::Shared;

/// A connection to an opaque port. It counts as in flight while it lasts.
pub(super) async fn opaque(mut client: TcpStream, target: Target, shared: &Shared) {
    let _in_flight = shared.drain.enter();
    match target.connect(None).await {
        Ok(mut engine) => {
            // Either side may break off: that ends both, and there is nobody to tell.
            let _ = copy_bidirectional(&mut client, &mut engine).await;
        }
        Err(error) => tracing::warn!(engine = %target.address(), "opaque connection failed: {error}"),
    }
}

/// A connection whose protocol both sides agreed to switch. `early` was received from the client behind its request,
/// and goes to the engine only now.
pub(super) async fn switched(mut client: TcpStream, early: &[u8], mut engine: Upstream) {
    let received = std::mem::take(&mut engine.received);
    if client.write_all(&received).await.is_ok() && engine.stream.write_all(early).await.is_ok() {
        let _ = copy_bidirectional(&mut client, &mut engine.stream).await;
    }
}
