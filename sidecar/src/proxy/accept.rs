//! Accepts connections and finds out what they are for.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

use super::http2::Origin;
use super::upstream::Target;
use super::{Config, connection, guard, splice};
use crate::metrics::ProtocolRefusal;
use crate::refusal::{self, Form, Trouble};
use crate::request_log;
use crate::shared::Shared;

/// How long to wait when the process has no descriptor left: connections have to end first.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(50);

/// What is done with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    /// Its requests are judged.
    Guarded(Target),
    /// It is spliced.
    Opaque(Target),
    /// It was not redirected here, and nothing says where else it should go.
    Nowhere,
}

/// A listening socket, and the guarded port that it stands for where no redirection tells.
#[derive(Debug)]
pub(super) struct Door {
    listener: TcpListener,
    stands_for: Option<u16>,
}

impl Door {
    pub(super) fn open(listener: std::net::TcpListener, config: &Config) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let stands_for = config.named.iter().find(|(own, _)| *own == port).map(|(_, guarded)| *guarded);
        Ok(Self { listener: TcpListener::from_std(listener)?, stands_for })
    }
}

/// Accepts until the drain stops.
pub(super) async fn run(door: Door, config: Arc<Config>, shared: Arc<Shared>) {
    let mut stopped = std::pin::pin!(shared.drain.stopped());
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stopped => return,
            accepted = door.listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                drop(guard::spawn(
                    shared.clone(),
                    serve(stream, peer, door.stands_for, config.clone(), shared.clone()),
                ));
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::error!("cannot accept a connection: {error}");
                tokio::time::sleep(OUT_OF_DESCRIPTORS).await;
            }
        }
    }
}

/// The connection was gone before it was accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    stands_for: Option<u16>,
    config: Arc<Config>,
    shared: Arc<Shared>,
) {
    // Without it answers wait for acknowledgements; a socket that refuses it is already closed.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let Some(_place) = shared.places.take(shared.caps.connections) else {
        request_log::protocol_refused(&shared, peer.ip(), ProtocolRefusal::TooManyConnections);
        return turn_away(stream).await;
    };
    if !shared.pressure.admits_connection(shared.places.taken() - 1) {
        request_log::protocol_refused(&shared, peer.ip(), ProtocolRefusal::OutOfMemory);
        return turn_away(stream).await;
    }
    let port = stands_for.or_else(|| original_destination(&stream, peer).map(|address| address.port()));
    match config.route(port, peer) {
        Route::Guarded(target) => {
            let address = peer.ip().to_canonical();
            connection::serve(stream, Origin { shared, config, address, target }).await;
        }
        Route::Opaque(target) => Box::pin(splice::opaque(stream, target, &shared)).await,
        Route::Nowhere => {
            request_log::protocol_refused(&shared, peer.ip(), ProtocolRefusal::NotRedirected);
        }
    }
}

/// Says why, in HTTP/1.1, without having read anything: whoever speaks it understands, and nobody else was promised an
/// answer.
async fn turn_away(mut stream: TcpStream) {
    let answer = refusal::trouble(Trouble::Overloaded, Form::OpenAi);
    let mut bytes = format!("HTTP/1.1 {}\r\nconnection: close\r\n", answer.status()).into_bytes();
    for (name, value) in answer.headers() {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", answer.body().len()).as_bytes());
    bytes.extend_from_slice(answer.body());
    // It fits into the empty buffer of a new connection. A request that was sent already is not read: it would cost as
    // much as serving it, and a client that gets a reset tries again elsewhere as after this answer.
    let _ = stream.try_write(&bytes);
    let _ = stream.shutdown().await;
}

/// Where the client meant to connect to, before the connection was redirected here.
fn original_destination(stream: &TcpStream, peer: SocketAddr) -> Option<SocketAddr> {
    let socket = SockRef::from(stream);
    let destination =
        if peer.ip().to_canonical().is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    // There is none for a connection that was not redirected.
    destination.ok().and_then(|address| address.as_socket())
}

impl Config {
    /// A connection to a port that is not guarded is refused: passing it on would make the proxy an open relay, and
    /// guessing a port would judge it by another's rules.
    fn route(&self, port: Option<u16>, peer: SocketAddr) -> Route {
        if let Some(upstream) = self.upstream {
            return Route::Guarded(Target::remote(upstream));
        }
        let is_v6 = peer.ip().to_canonical().is_ipv6();
        match port {
            Some(port) if self.opaque.contains(&port) => Route::Opaque(Target::local(port, is_v6)),
            Some(port) if self.guarded.contains(&port) => Route::Guarded(Target::local(port, is_v6)),
            Some(_) | None => Route::Nowhere,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(config: &Config, port: Option<u16>, peer: &str) -> Route {
        config.route(port, peer.parse().unwrap())
    }

    #[test]
    fn a_connection_goes_to_the_port_that_it_was_meant_for() {
        let config = Config { guarded: vec![8000, 9000], opaque: vec![9000], ..Config::default() };
        let peer = "10.0.0.1:40000";
        assert_eq!(route(&config, Some(8000), peer), Route::Guarded(Target::local(8000, false)));
        assert_eq!(route(&config, Some(9000), peer), Route::Opaque(Target::local(9000, false)));
        assert_eq!(route(&config, Some(15120), peer), Route::Nowhere);
        assert_eq!(route(&config, None, peer), Route::Nowhere);
        let v6 = route(&config, Some(8000), "[fd00::1]:40000");
        assert_eq!(v6, Route::Guarded(Target::local(8000, true)));
    }

    #[test]
    fn without_redirection_everything_goes_to_the_upstream() {
        let config = Config { upstream: "127.0.0.1:8000".parse().ok(), ..Config::default() };
        let expected = Route::Guarded(Target::remote("127.0.0.1:8000".parse().unwrap()));
        assert_eq!(route(&config, None, "127.0.0.1:40000"), expected);
    }
}
