//! Addresses where nobody listens, and nobody else begins to while a test runs.

use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};

/// Of a socket that is bound for as long as this process lives and never listens: connections to it are refused.
pub(crate) fn nobody() -> SocketAddr {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    std::mem::forget(socket);
    address
}
