//! The connections to the engine that belong to one client's connection.

use std::cell::RefCell;

use hyper::client::conn::http2::SendRequest;
use tidegate_core::Tick;

use super::call::Upload;
use super::upstream::Upstream;

/// All of them. They end with the client's connection, when nothing is under way on them.
#[derive(Default)]
pub(super) struct Pool {
    /// HTTP/1.1, while no request is on them. The one used last comes last.
    idle: RefCell<Vec<Upstream>>,
    /// HTTP/2: one, for all streams.
    http2: RefCell<Option<SendRequest<Upload>>>,
}

impl Pool {
    /// A connection that the next request can be sent on. See [`Upstream::is_usable`].
    pub(super) fn take(&self, now: Tick, replayable: bool) -> Option<Upstream> {
        let mut idle = self.idle.borrow_mut();
        std::iter::from_fn(|| idle.pop()).find(|upstream| upstream.is_usable(now, replayable))
    }

    /// Keeps a connection for the next request.
    pub(super) fn put(&self, upstream: Upstream) {
        self.idle.borrow_mut().push(upstream);
    }

    /// Engines close idle connections: what they closed, or are about to, is not kept open here.
    pub(super) fn drop_stale(&self, now: Tick) {
        self.idle.borrow_mut().retain(|upstream| upstream.is_fresh(now));
    }

    /// The HTTP/2 connection, unless it ended.
    pub(super) fn http2(&self) -> Option<SendRequest<Upload>> {
        self.http2.borrow().as_ref().filter(|sender| !sender.is_closed()).cloned()
    }

    /// There is a new HTTP/2 connection.
    pub(super) fn put_http2(&self, sender: SendRequest<Upload>) {
        *self.http2.borrow_mut() = Some(sender);
    }
}
