//! What is known about a client's connection, or a stream of one, shared by its reader, its requests and its driver. All
//! of them run in one thread.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;

use super::Config;
use super::deadline::Timer;
use super::http2::Origin;
use super::pool::Pool;
use super::progress::Progress;
use super::upstream::{Target, Upstream};
use crate::pressure::Level;
use crate::shared::Shared;

/// How often a connection looks whether it waits in vain. Coarse, so that requests need no timers of their own; and
/// together with the longest idle time of an engine's connection below the 5 s after which uvicorn closes it.
pub(super) const SWEEP: Duration = Duration::from_secs(2);

/// Sweeps until a head must have arrived: 10 to 12 s.
pub(super) const HEAD_SWEEPS: u16 = 6;

/// Sweeps without a byte until a body is given up: 58 to 60 s.
const BODY_SWEEPS: u16 = 30;

/// Sweeps until a client that takes nothing of its answer is given up: 58 to 60 s.
const BLOCKED_SWEEPS: u16 = 30;

/// Sweeps until an idle connection is closed: an hour.
pub(super) const IDLE_SWEEPS: u16 = 1800;

/// Sweeps until any of them is, when there is no memory for it: 2 to 4 s.
pub(super) const HURRIED_SWEEPS: u16 = 2;

/// No more interim responses wait for a client than fit into this and one more: it does not depend on them.
const MAX_INTERIM: usize = 16 * 1024;

/// A client's HTTP/1 connection to a guarded port, or one stream of an HTTP/2 connection.
pub(super) struct Client {
    pub(super) shared: Arc<Shared>,
    pub(super) config: Arc<Config>,
    /// The client's end.
    pub(super) address: IpAddr,
    /// Where its requests go.
    pub(super) target: Target,
    /// The connections to the engine.
    pub(super) pool: Rc<Pool>,
    /// It is a stream: others are on the same connection.
    pub(super) is_stream: bool,
    /// A connection whose protocol was switched, to be spliced when the client has its 101.
    pub(super) switched: Cell<Option<Switched>>,
    /// Whose turn it is, and since how many sweeps.
    pub(super) turn: Cell<Turn>,
    sweeps: Cell<u16>,
    /// The client does not take what was written.
    blocked: Cell<bool>,
    /// Everything that there was to send was sent.
    flushed: Cell<bool>,
    /// For the deadlines of its requests, one after the other.
    pub(super) timer: Timer,
    /// Interim responses, to be sent before anything else.
    pub(super) interim: RefCell<BytesMut>,
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
    pub(super) progress: Box<Progress>,
}

impl Client {
    /// A connection of HTTP/1.
    pub(super) fn of_connection(origin: &Origin) -> Self {
        Self::new(origin, Rc::default(), false)
    }

    /// A stream of HTTP/2 on a connection with these connections to the engine.
    pub(super) fn of_stream(origin: &Origin, pool: Rc<Pool>) -> Self {
        Self::new(origin, pool, true)
    }

    fn new(origin: &Origin, pool: Rc<Pool>, is_stream: bool) -> Self {
        Self {
            shared: origin.shared.clone(),
            config: origin.config.clone(),
            address: origin.address,
            target: origin.target,
            pool,
            is_stream,
            switched: Cell::new(None),
            turn: Cell::new(Turn::Idle),
            sweeps: Cell::new(0),
            blocked: Cell::new(false),
            flushed: Cell::new(true),
            timer: Timer::default(),
            interim: RefCell::default(),
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

    /// A stream's answer is asked for its next piece, so the one before was taken. Whether there is a piece, which the
    /// client has to take now. Its head is the first: a client that opens no window does not take that either.
    pub(super) fn offered(&self, piece: bool) {
        if self.blocked.replace(piece) || piece {
            self.sweeps.set(0);
        }
    }

    /// Everything was sent, or there is more.
    pub(super) fn flushed(&self, flushed: bool) {
        self.flushed.set(flushed);
    }

    /// Passes interim responses on. hyper has no way for those of HTTP/2.
    pub(super) fn send_interim(&self, responses: &[u8]) {
        let mut waiting = self.interim.borrow_mut();
        if !self.is_stream && waiting.len() < MAX_INTERIM {
            waiting.extend_from_slice(responses);
        }
    }

    /// The client sent so many bytes. A head has its time as a whole: byte by byte it is no faster.
    pub(super) fn heard(&self, count: usize) {
        self.shared.pressure.moved(count);
        match self.turn.get() {
            Turn::Idle => self.turn_to(Turn::Head),
            Turn::Head => {}
            Turn::Body | Turn::Engine => self.sweeps.set(0),
        }
    }

    /// While there is hardly any memory: whether to wait once before the next read, or until there is more. What is read
    /// of a head is kept until it is whole; everything else goes on to the engine.
    pub(super) fn is_to_wait(&self) -> Option<bool> {
        (self.shared.pressure.level() == Level::Full).then(|| self.turn.get() != Turn::Head)
    }

    /// Whether nothing more is to be fetched for it: there is hardly any memory, and it has not taken what there is.
    pub(super) fn holds_enough(&self) -> bool {
        self.shared.pressure.level() == Level::Full && (self.blocked.get() || !self.flushed.get())
    }

    /// Whether it has waited too long for the client. To be called at each sweep.
    pub(super) fn waits_in_vain(&self) -> bool {
        let sweeps = self.sweeps.get().saturating_add(1);
        self.sweeps.set(sweeps);
        let level = self.shared.pressure.level();
        let patience = |sweeps, hurried| if level >= hurried { HURRIED_SWEEPS } else { sweeps };
        sweeps
            >= match self.turn.get() {
                _ if self.blocked.get() => patience(BLOCKED_SWEEPS, Level::Full),
                Turn::Idle => patience(IDLE_SWEEPS, Level::Tight),
                Turn::Head => patience(HEAD_SWEEPS, Level::Full),
                Turn::Body => patience(BODY_SWEEPS, Level::Full),
                // How long an engine may take is the breaker's to say, and a stream may be silent for minutes.
                Turn::Engine => return false,
            }
    }
}

#[cfg(test)]
mod tests {
    use tidegate_core::Engine;
    use tidegate_policy::PolicyDocument;

    use super::*;
    use crate::caps::Caps;
    use crate::clock::Clock;

    fn client() -> Client {
        let clock = Clock::new();
        let engine = Engine::new(&PolicyDocument::default(), 7, clock.now());
        Client::of_connection(&Origin {
            shared: Arc::new(Shared::new(engine, clock, Caps::DEFAULT)),
            config: Arc::default(),
            address: [127, 0, 0, 1].into(),
            target: Target::remote(([127, 0, 0, 1], 8000).into()),
        })
    }

    /// Sweeps until it is given up, within a day.
    fn patience(client: &Client) -> Option<Duration> {
        (1..=43_200).find(|_| client.waits_in_vain()).map(|sweeps| SWEEP * sweeps)
    }

    #[test]
    fn who_stalls_is_given_up_in_time_and_an_engine_never() {
        for (turn, expected) in
            [(Turn::Head, Some(12)), (Turn::Body, Some(60)), (Turn::Idle, Some(3600)), (Turn::Engine, None)]
        {
            let client = client();
            client.turn_to(turn);
            assert_eq!(patience(&client), expected.map(Duration::from_secs), "{turn:?}");
        }
    }

    #[test]
    fn a_client_that_takes_nothing_is_given_up_while_its_answer_streams() {
        let client = client();
        client.turn_to(Turn::Engine);
        client.wrote(true);
        assert_eq!(patience(&client), Some(Duration::from_mins(1)));
        client.wrote(false);
        assert_eq!(patience(&client), None);
    }

    #[test]
    fn a_stream_that_takes_each_piece_in_time_is_never_given_up_and_one_that_stops_is() {
        let client = client();
        client.turn_to(Turn::Engine);
        for _ in 0..100 {
            client.offered(true);
            assert!((0..20).all(|_| !client.waits_in_vain()), "it took a piece 40 s ago");
        }
        assert_eq!(patience(&client), Some(Duration::from_secs(20)));
        client.offered(false);
        assert_eq!(patience(&client), None);
    }
}
