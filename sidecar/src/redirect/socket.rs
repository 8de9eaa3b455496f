//! The way to `nf_tables`.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};

use super::RedirectError;
use super::message::replies;
use super::ruleset::Batch;

/// The kernel answers within the call that hands the batch over; this only bounds a mistake.
const PATIENCE: Duration = Duration::from_secs(5);

/// Puts a batch in force.
pub(super) fn commit(batch: &Batch) -> Result<(), RedirectError> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(NETFILTER))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    let kernel = SocketAddrNetlink::new(0, 0);
    sendto(&socket, batch.messages.as_bytes(), SendFlags::empty(), &kernel)?;
    await_verdict(&socket, batch.acknowledged)
}

/// An error to any message is an error of the batch, and comes before the acknowledgement.
fn await_verdict(socket: &OwnedFd, acknowledged: u32) -> Result<(), RedirectError> {
    let mut datagram = vec![0; 1 << 16];
    loop {
        let (length, _) = recv(socket, &mut datagram[..], RecvFlags::empty())?;
        for reply in replies(&datagram[..length]).ok_or(RedirectError::Garbled)? {
            if reply.errno != 0 {
                return Err(Errno::from_raw_os_error(reply.errno).into());
            }
            if reply.sequence == acknowledged {
                return Ok(());
            }
        }
    }
}
