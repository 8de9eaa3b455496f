//! Runs the model in real time: one task that steps while there is work, and hands each token to its request.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tidegate_cli::engine_model::{Emitted, Model, ModelConfig, Step, TooLong};
use tokio::sync::{Notify, mpsc};

use super::{faults::Faults, metrics::Metrics};

/// How often a hanging engine looks whether it may go on.
const HANG_POLL: Duration = Duration::from_millis(5);

/// What a request hears from the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// One token; `last` ends the answer.
    Token {
        /// Whether the answer is complete.
        last: bool,
    },
    /// The engine ran out of GPU memory; nothing follows.
    OutOfMemory,
}

/// The engine behind its endpoints.
#[derive(Debug)]
pub struct Driver {
    state: Mutex<State>,
    work: Notify,
    next_id: AtomicU64,
    time_scale: f64,
    /// What `/metrics` shows.
    pub metrics: Metrics,
}

#[derive(Debug)]
struct State {
    model: Model,
    faults: Faults,
    requests: HashMap<u64, Listener>,
}

#[derive(Debug)]
struct Listener {
    events: mpsc::UnboundedSender<Event>,
    arrived: Instant,
    first_token: Option<Instant>,
}

/// A request in the engine; dropping it aborts it, as vLLM does when the client is gone.
#[derive(Debug)]
pub struct Generation {
    driver: Arc<Driver>,
    id: u64,
    events: mpsc::UnboundedReceiver<Event>,
}

impl Generation {
    /// The engine's name of the request.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The next event; `None` when the engine has forgotten the request.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        let mut state = self.driver.state();
        if state.requests.remove(&self.id).is_some() {
            state.model.abort(self.id);
        }
    }
}

impl Driver {
    /// An idle engine whose steps take `time_scale` times as long as the model says.
    pub fn new(config: ModelConfig, time_scale: f64, metrics: Metrics) -> Arc<Self> {
        let state = State { model: Model::new(config), faults: Faults::default(), requests: HashMap::new() };
        Arc::new(Self {
            state: Mutex::new(state),
            work: Notify::new(),
            next_id: AtomicU64::new(1),
            time_scale,
            metrics,
        })
    }

    /// Queues a request.
    pub fn submit(self: &Arc<Self>, prompt: u32, output: u32) -> Result<Generation, TooLong> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, events) = mpsc::unbounded_channel();
        let mut state = self.state();
        state.model.submit(id, prompt, output)?;
        let listener = Listener { events: sender, arrived: Instant::now(), first_token: None };
        state.requests.insert(id, listener);
        drop(state);
        self.metrics.prompt_tokens.inc_by(u64::from(prompt));
        self.work.notify_one();
        Ok(Generation { driver: Arc::clone(self), id, events })
    }

    /// Changes or asks the faults in force.
    pub fn with_faults<T>(&self, f: impl FnOnce(&mut Faults) -> T) -> T {
        f(&mut self.state().faults)
    }

    /// Fails every request in the engine, as CUDA's out-of-memory error does.
    pub fn fail_all(&self) {
        let mut state = self.state();
        for id in state.model.abort_all() {
            if let Some(listener) = state.requests.remove(&id) {
                // A receiver that is gone has aborted on its own.
                let _gone = listener.events.send(Event::OutOfMemory);
            }
        }
    }

    /// Looks at the model.
    pub fn with_model<T>(&self, f: impl FnOnce(&Model) -> T) -> T {
        f(&self.state().model)
    }

    /// Returns when the engine does not hang.
    pub async fn until_awake(&self) {
        while self.with_faults(|faults| faults.hangs(Instant::now())) {
            tokio::time::sleep(HANG_POLL).await;
        }
    }

    /// Steps for ever. Step ends are kept on their schedule, so that a late wake-up does not slow the engine down.
    pub async fn run(self: Arc<Self>) {
        let mut due = Instant::now();
        loop {
            self.until_awake().await;
            let Some(duration) = self.begin_step() else {
                self.work.notified().await;
                due = Instant::now();
                continue;
            };
            due += duration;
            tokio::time::sleep_until(due.into()).await;
            // After a hang, time lost is not caught up.
            if due.elapsed() > duration.max(Duration::from_millis(20)) {
                due = Instant::now();
            }
            self.until_awake().await;
            self.end_step();
        }
    }

    fn begin_step(&self) -> Option<Duration> {
        let mut state = self.state();
        let slowdown = state.faults.slowdown(Instant::now());
        let Step::Takes(duration) = state.model.begin_step() else { return None };
        Some(duration.mul_f64(slowdown * self.time_scale))
    }

    fn end_step(&self) {
        let now = Instant::now();
        let mut state = self.state();
        for emitted in state.model.end_step() {
            self.deliver(&mut state.requests, emitted, now);
        }
    }

    fn deliver(&self, requests: &mut HashMap<u64, Listener>, Emitted { id, last }: Emitted, now: Instant) {
        let Some(listener) = requests.get_mut(&id) else { return };
        self.metrics.generation_tokens.inc();
        if listener.first_token.is_none() {
            listener.first_token = Some(now);
            self.metrics.time_to_first_token.observe((now - listener.arrived).as_secs_f64());
        }
        // A receiver that is gone has aborted on its own.
        let _gone = listener.events.send(Event::Token { last });
        if last {
            self.metrics.e2e_latency.observe((now - listener.arrived).as_secs_f64());
            self.metrics.succeeded.inc();
            requests.remove(&id);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
