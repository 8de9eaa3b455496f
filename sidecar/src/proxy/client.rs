//! What is known about a client's connection, shared by its reader, its requests and its driver. All of them run in
//! one task.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::sync::Arc;

use super::Config;
use super::progress::Progress;
use super::request_watch::RequestWatch;
use super::upstream::{Target, Upstream};
use crate::shared::Shared;

/// A client's connection to a guarded port.
pub(super) struct Client {
    pub(super) shared: Arc<Shared>,
    pub(super) config: Arc<Config>,
    /// The client's end.
    pub(super) address: IpAddr,
    /// Where its requests go.
    pub(super) target: Target,
    /// The connection to the engine while no request is on it.
    pub(super) idle: Cell<Option<Upstream>>,
    /// How its requests were framed when they were read.
    pub(super) watch: RefCell<RequestWatch>,
    /// A connection whose protocol was switched, to be spliced when the client has its 101.
    pub(super) switched: Cell<Option<Switched>>,
    /// Whose turn it is, and since how many sweeps.
    pub(super) turn: Cell<Turn>,
    pub(super) sweeps: Cell<u16>,
    /// The client does not take what was written.
    pub(super) blocked: Cell<bool>,
}

/// Whom a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// The client may send a request.
    Idle,
    /// It has begun to.
    Head,
    /// The rest of a request's body is its to send.
    Body,
    /// The engine's.
    Engine,
}

/// A switched connection.
#[derive(Debug)]
pub(super) struct Switched {
    pub(super) upstream: Upstream,
    /// Keeps the request in flight.
    pub(super) progress: Progress,
}

impl Client {
    pub(super) fn new(shared: Arc<Shared>, config: Arc<Config>, address: IpAddr, target: Target) -> Self {
        Self {
            shared,
            config,
            address,
            target,
            idle: Cell::new(None),
            watch: RefCell::new(RequestWatch::default()),
            switched: Cell::new(None),
            turn: Cell::new(Turn::Idle),
            sweeps: Cell::new(0),
            blocked: Cell::new(false),
        }
    }

    /// It is another's turn.
    pub(super) fn turn_to(&self, turn: Turn) {
        if self.turn.replace(turn) != turn {
            self.sweeps.set(0);
        }
    }

    /// A request was read to its end and answered.
    pub(super) fn request_over(&self) {
        self.turn_to(Turn::Idle);
    }

    /// The client took something, or nothing.
    pub(super) fn wrote(&self, blocked: bool) {
        if self.blocked.replace(blocked) != blocked {
            self.sweeps.set(0);
        }
    }

    /// Engines close idle connections: what they closed, or are about to, is not kept open here.
    pub(super) fn drop_stale_upstream(&self) {
        let now = self.shared.clock.now();
        self.idle.set(self.idle.take().filter(|upstream| upstream.is_fresh(now)));
    }

    /// The client sent `data`.
    pub(super) fn heard(&self, data: &[u8]) {
        self.sweeps.set(0);
        if self.turn.get() == Turn::Idle {
            self.turn.set(Turn::Head);
        }
        self.watch.borrow_mut().feed(data);
    }
}
