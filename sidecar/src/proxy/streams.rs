//! The streams of one HTTP/2 connection: each runs in a task of its own, which can be ended by itself.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use hyper::rt::Executor;
use tokio::task::AbortHandle;

use super::client::Client;
use super::guard;

/// Clones are the same streams. All of them end with [`Streams::end`].
#[derive(Clone, Default)]
pub(super) struct Streams(Rc<Table>);

#[derive(Default)]
struct Table {
    slots: RefCell<Vec<Option<Stream>>>,
    free: RefCell<Vec<usize>>,
    /// Of the request that hyper is about to start a task for.
    arriving: Cell<Option<Rc<Client>>>,
}

struct Stream {
    client: Rc<Client>,
    task: AbortHandle,
}

/// Frees a stream's slot when its task ends, however it does.
struct Leave {
    streams: Streams,
    slot: usize,
}

impl Streams {
    /// hyper starts the task of a request right after it has asked the service for its future.
    pub(super) fn arrive(&self, client: Rc<Client>) {
        self.0.arriving.set(Some(client));
    }

    /// Whether no request is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.0.slots.borrow().len() == self.0.free.borrow().len()
    }

    /// Ends the streams that wait in vain. To be called at each sweep.
    pub(super) fn sweep(&self) {
        for stream in self.0.slots.borrow().iter().flatten() {
            if stream.client.waits_in_vain() {
                stream.task.abort();
            }
        }
    }

    /// Ends all of them: there is no connection any more.
    pub(super) fn end(&self) {
        for stream in self.0.slots.borrow().iter().flatten() {
            stream.task.abort();
        }
    }

    fn enter(&self, client: Rc<Client>, future: impl Future<Output = ()> + 'static) {
        let slot = self.0.free.borrow_mut().pop().unwrap_or_else(|| {
            let mut slots = self.0.slots.borrow_mut();
            slots.push(None);
            slots.len() - 1
        });
        let leave = Leave { streams: self.clone(), slot };
        let task = guard::spawn(client.shared.clone(), async move {
            let _leave = leave;
            future.await;
        });
        if let Some(place) = self.0.slots.borrow_mut().get_mut(slot) {
            *place = Some(Stream { client, task: task.abort_handle() });
        }
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        let table = &self.streams.0;
        let left = table.slots.borrow_mut().get_mut(self.slot).and_then(Option::take);
        table.free.borrow_mut().push(self.slot);
        drop(left);
    }
}

impl<F: Future<Output = ()> + 'static> Executor<F> for Streams {
    fn execute(&self, future: F) {
        match self.0.arriving.take() {
            Some(client) => self.enter(client, future),
            None => drop(tokio::task::spawn_local(future)),
        }
    }
}
