//! The listening sockets. The supervisor opens them and keeps them, so that connections queue in the kernel while
//! there is no worker; a worker inherits them.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::{FdFlags, fcntl_setfd};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Connections that may wait in the kernel for each socket; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Everything that is listened on.
#[derive(Debug)]
pub struct Listeners {
    /// For each thread one on every address, thread by thread; the kernel spreads connections over them.
    pub data: Vec<TcpListener>,
    /// The admin port's.
    pub admin: TcpListener,
}

impl Listeners {
    /// Opens `threads` sockets on each address of `data`, and one on `admin`. Port 0 takes a free port.
    pub fn open(data: &[SocketAddr], threads: usize, admin: SocketAddr) -> Result<Self, ListenError> {
        let mut sockets = data.iter().map(|address| open(*address)).collect::<Result<Vec<_>, _>>()?;
        for next in data.len()..data.len() * threads {
            let address = data[next % data.len()];
            // The port that the first one got, where any was asked for.
            let taken = sockets[next % data.len()].local_addr();
            sockets.push(open(taken.map_err(|error| ListenError { address, error })?)?);
        }
        Ok(Self { data: sockets, admin: open(admin)? })
    }

    /// Takes over sockets that a supervisor left open for this process.
    pub fn inherit(data: &[RawFd], admin: RawFd) -> io::Result<Self> {
        let data = data.iter().map(|&socket| inherit(socket)).collect::<io::Result<_>>()?;
        Ok(Self { data, admin: inherit(admin)? })
    }

    /// Leaves the sockets open in processes that this one starts, and tells their descriptors.
    pub fn bequeath(&self) -> io::Result<(Vec<RawFd>, RawFd)> {
        let data = self.data.iter().map(bequeath).collect::<io::Result<_>>()?;
        Ok((data, bequeath(&self.admin)?))
    }
}

/// An address that can't be listened on.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on {address}: {error}")]
pub struct ListenError {
    address: SocketAddr,
    error: io::Error,
}

fn open(address: SocketAddr) -> Result<TcpListener, ListenError> {
    listen(address).map_err(|error| ListenError { address, error })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)) {
        // A node booted with ipv6.disable=1 has no IPv6 sockets at all; the wildcard then means IPv4.
        Err(error) if address.is_ipv6() && address.ip().is_unspecified() && lacks_family(&error) => {
            return listen(SocketAddr::from(([0, 0, 0, 0], address.port())));
        }
        socket => socket?,
    };
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn lacks_family(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

fn bequeath(listener: &TcpListener) -> io::Result<RawFd> {
    fcntl_setfd(listener, FdFlags::empty())?;
    Ok(listener.as_raw_fd())
}

fn inherit(socket: RawFd) -> io::Result<TcpListener> {
    let listener = TcpListener::from(adopt(socket));
    fcntl_setfd(&listener, FdFlags::CLOEXEC)?;
    listener.local_addr()?;
    Ok(listener)
}

#[allow(unsafe_code)]
fn adopt(socket: RawFd) -> OwnedFd {
    // SAFETY: the number comes from the supervisor's command line for this process: it is a descriptor that was
    // left open across exec for the worker alone, and each is named once. One that is not open only gives errors.
    unsafe { OwnedFd::from_raw_fd(socket) }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn sockets_share_the_port_and_take_both_families() {
        let any = "[::]:0".parse().unwrap();
        let listeners = Listeners::open(&[any], 3, any).unwrap();
        let port = listeners.data[0].local_addr().unwrap().port();
        assert!(listeners.data.iter().all(|l| l.local_addr().unwrap().port() == port));
        for address in ["127.0.0.1", "::1"] {
            TcpStream::connect((address, port)).unwrap();
        }
    }

    #[test]
    fn every_thread_has_a_socket_on_every_address() {
        let any = "[::]:0".parse().unwrap();
        let listeners = Listeners::open(&[any, any], 3, any).unwrap();
        let ports: Vec<_> = listeners.data.iter().map(|l| l.local_addr().unwrap().port()).collect();
        assert_ne!(ports[0], ports[1]);
        assert_eq!(ports, [&ports[..2], &ports[..2], &ports[..2]].concat());
    }

    #[test]
    fn an_address_that_is_not_ours_is_named() {
        let error =
            Listeners::open(&["192.0.2.1:1".parse().unwrap()], 1, "[::]:0".parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("192.0.2.1:1"), "{error}");
    }
}
