//! Sends what arrives for the guarded ports to the sidecar, by nftables rules in the network namespace that this
//! process runs in.
//!
//! The rules are written over netlink, so an image needs neither `iptables` nor `nft`. One batch creates, deletes
//! and creates table `inet tidegate`: it starts from nothing whatever was there before, and a pod is at no
//! instant without it. Traffic of the loopback interface stays untouched: it is the sidecar's own way to the
//! engine, and the engine's way to itself.

mod message;
mod ruleset;
mod socket;

use std::collections::BTreeSet;

use rustix::io::Errno;

/// Which ports go where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// Destination ports that are taken.
    pub guarded: BTreeSet<u16>,
    /// The port of this host that gets their connections.
    pub to: u16,
}

/// Why there is no redirection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RedirectError {
    /// Not allowed.
    #[error(
        "the kernel forbids to write nftables rules: run as UID 0 with capability NET_ADMIN in this network namespace"
    )]
    Forbidden,
    /// No `nf_tables`, or not with what the rules need.
    #[error(
        "this kernel lacks what the rules need ({0}): load the modules nf_tables, nft_chain_nat and nft_redir on the node, or inject with NamedPort interception"
    )]
    Unsupported(Errno),
    /// Anything else.
    #[error("the kernel refused the nftables rules: {0}")]
    Refused(Errno),
    /// The kernel's answer was not one.
    #[error("the kernel's answer to the nftables rules can't be read")]
    Garbled,
}

impl From<Errno> for RedirectError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::PERM | Errno::ACCESS => Self::Forbidden,
            Errno::NOENT | Errno::OPNOTSUPP | Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT => {
                Self::Unsupported(errno)
            }
            errno => Self::Refused(errno),
        }
    }
}

/// Replaces the redirection of this network namespace.
pub fn apply(redirect: &Redirect) -> Result<(), RedirectError> {
    socket::commit(&ruleset::batch(redirect))
}
