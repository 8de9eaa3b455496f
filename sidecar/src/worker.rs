//! The process that serves: data threads, each with a socket and a runtime of its own, and one control thread for
//! everything else, which no request waits for.

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use tidegate_core::Engine;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::{error, info, warn};

use crate::admin::{self, Admin};
use crate::args::{RunArgs, WorkerArgs};
use crate::backoff::random;
use crate::clock::Clock;
use crate::engine_metrics::{self, Source};
use crate::gpu::{self, Agent};
use crate::hooks::{self, Changes};
use crate::identity;
use crate::listeners::Listeners;
use crate::memory;
use crate::policy::{Keeper, Operator, Start, follow_file, follow_operator};
use crate::proxy;
use crate::shared::Shared;
use crate::trace;
use crate::transitions::Transitions;
use crate::trust::Trust;

/// The engine learns, trips and recovers at this pace.
const TICK: Duration = Duration::from_millis(100);

/// A request is over when the last of its answer was handed to the client's connection; the kernel takes it some
/// microseconds later, or when the client reads. This long is waited for that.
const LAST_BYTES: Duration = Duration::from_millis(250);

/// So long the collector may take for the spans that are left at the end.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// Serves with the sockets of the supervisor until SIGTERM or SIGINT, then until nothing is in flight.
pub fn run(worker: &WorkerArgs) -> Result<ExitCode> {
    die_with(worker.supervisor)?;
    let listeners = Listeners::inherit(&worker.data_socket, worker.admin_socket)
        .context("the sockets of the supervisor are not there")?;
    let start = Start::read(&worker.run.policy);
    let clock = Clock::new();
    let engine = Engine::new(start.document(), random(), clock.now());
    let shared = Arc::new(Shared::new(engine, clock, worker.run.caps.caps()));
    shared.metrics.worker_restarts(worker.restarts);
    let keeper = Arc::new(Keeper::new(Arc::clone(&shared), start, &worker.run.policy));
    let spans = start_seeing(&worker.run, &shared)?;
    let mut ended = spawn_data_threads(&worker.run, listeners.data, &shared)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let admin = listeners.admin;
    admin.set_nonblocking(true)?;
    let code = runtime.block_on(async {
        let admin = tokio::net::TcpListener::from_std(admin)?;
        spawn_control(&worker.run, admin, &shared, &keeper);
        let (end, ending) = oneshot::channel();
        let exporting = spans.map(|(target, spans)| {
            tokio::spawn(trace::export(target, spans, shared.metrics.traces.clone(), ending))
        });
        let code = tokio::select! {
            told = told_to_end(&shared, worker.run.drain_deadline) => told,
            reason = ended.recv() => Err(anyhow::anyhow!("a data thread ended: {}", reason.unwrap_or_default())),
        };
        if let Some(exporting) = exporting {
            // It may have ended by itself.
            let _ = end.send(());
            if timeout(LAST_SPANS, exporting).await.is_err() {
                warn!("the last spans were not exported: the collector takes too long");
            }
        }
        code
    });
    // A lookup of a name may still hold a thread; nothing waits for it.
    runtime.shutdown_background();
    code
}

/// Before the first request. Where spans go, and those that come, if there is tracing.
fn start_seeing(
    run: &RunArgs,
    shared: &Shared,
) -> Result<Option<(trace::Target, mpsc::Receiver<trace::Record>)>> {
    // Both are empty: this is the first that is put in.
    let _ = shared.log.set(run.seeing.log());
    let Some(target) = run.seeing.target()? else { return Ok(None) };
    let counts = shared.metrics.traces.clone();
    let (tracer, spans) = trace::Tracer::new(run.seeing.trace_ratio, shared.clock, counts);
    let _ = shared.tracer.set(tracer);
    Ok(Some((target, spans)))
}

/// A worker without its supervisor would hold the port and answer to nobody.
fn die_with(supervisor: i32) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have died before; then nobody sends the signal any more, and this process was given to another.
    anyhow::ensure!(getppid().map(Pid::as_raw_pid) == Some(supervisor), "the supervisor is gone");
    Ok(())
}

/// One thread for a socket on each address. The channel tells when one of them ends: its socket would go on taking connections
/// that nobody serves, so the whole worker has to go then.
fn spawn_data_threads(
    run: &RunArgs,
    listeners: Vec<std::net::TcpListener>,
    shared: &Arc<Shared>,
) -> Result<mpsc::UnboundedReceiver<String>> {
    let config = Arc::new(proxy_config(run));
    let (end, ended) = mpsc::unbounded_channel();
    let mut listeners = listeners.into_iter();
    let of_a_thread = run.listens().len();
    for i in 0..listeners.len() / of_a_thread {
        let sockets: Vec<_> = listeners.by_ref().take(of_a_thread).collect();
        let (config, shared, end) = (Arc::clone(&config), Arc::clone(shared), end.clone());
        thread::Builder::new().name(format!("data-{i}")).spawn(move || {
            let served = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                proxy::serve(sockets, &config, &shared)
            }));
            let reason = match served {
                Ok(Ok(())) => "it returned".to_owned(),
                Ok(Err(error)) => format!("{error:#}"),
                Err(_) => "it panicked".to_owned(),
            };
            // Nobody listens any more when the worker is ending anyway.
            let _ = end.send(reason);
        })?;
    }
    Ok(ended)
}

fn proxy_config(run: &RunArgs) -> proxy::Config {
    proxy::Config {
        guarded: run.guard.clone(),
        named: run.named_port.iter().map(|port| (port.listen, port.guarded)).collect(),
        opaque: run.opaque.clone(),
        http2: run.http2.clone(),
        upstream: run.upstream,
        unlimited_paths: run.unlimited_path.clone(),
    }
}

fn spawn_control(
    run: &RunArgs,
    listener: tokio::net::TcpListener,
    shared: &Arc<Shared>,
    keeper: &Arc<Keeper>,
) {
    let trust = Trust { ca: run.ca.clone(), fallback: run.ca_fallback.clone() };
    let admin = Admin {
        shared: Arc::clone(shared),
        keeper: Arc::clone(keeper),
        ports: run.guard.iter().chain(&run.opaque).copied().collect(),
        drain_token: run.drain_token.clone(),
        drain_deadline: run.drain_deadline,
        drain_began: OnceLock::new(),
    };
    tokio::spawn(admin::serve(listener, Arc::new(admin)));
    tokio::spawn(tick(Arc::clone(shared), Arc::clone(keeper)));
    tokio::spawn(memory::keep_small());
    tokio::spawn(identity::follow(Arc::clone(shared)));
    tokio::spawn(identity::follow_files(run.jwks.clone(), Arc::clone(shared)));
    if let Some(folder) = run.api_keys.clone() {
        tokio::spawn(identity::follow_api_keys(folder, Arc::clone(shared)));
    }
    if let Some(file) = run.policy.policy_file.clone() {
        tokio::spawn(follow_file(file, Arc::clone(keeper)));
    }
    if let (Some(endpoint), Some(token)) = (run.policy.operator.clone(), run.policy.operator_token.clone()) {
        let operator = Operator { endpoint, token, trust: trust.clone() };
        tokio::spawn(follow_operator(operator, Arc::clone(keeper)));
    }
    if let (Some(endpoint), Some(token)) = (run.agent.clone(), run.agent_token.clone()) {
        let agent = gpu::Source::Agent(Agent { endpoint, token, trust });
        tokio::spawn(gpu::follow(agent, Arc::clone(shared)));
    } else if let Some(library) = run.nvml.clone() {
        tokio::spawn(gpu::follow(gpu::Source::Own(library), Arc::clone(shared)));
    }
    let source = engine_metrics_source(run);
    if !source.ports.is_empty() {
        tokio::spawn(engine_metrics::follow(source, Arc::clone(shared)));
    }
}

fn engine_metrics_source(run: &RunArgs) -> Source {
    let upstream = run.upstream.filter(|address| address.ip().is_loopback()).map(|address| address.port());
    // What is opaque need not speak HTTP.
    let guarded = run.guard.iter().copied().filter(|port| !run.opaque.contains(port)).chain(upstream);
    let ports = run.engine_metrics.map_or_else(|| guarded.collect(), |port| vec![port]);
    Source { ports, engine_type: run.engine_type }
}

async fn tick(shared: Arc<Shared>, keeper: Arc<Keeper>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut transitions = Transitions::default();
    let (mut changes, hooks) = (Changes::default(), hooks::start(&shared, &keeper));
    loop {
        ticks.tick().await;
        shared.pressure.look();
        let engine = shared.engine.load_full();
        let turns = engine.tick(shared.clock.now());
        shared.turns.call(&turns);
        let status = engine.snapshot(shared.clock.now());
        let wanted = engine.breaker_policy().map_or(&[][..], |policy| &policy.hooks);
        let mut announced_later = false;
        for told in changes.look(status.breaker.as_ref(), wanted) {
            let is_sync = told.is_sync();
            if hooks.try_send(told).is_ok() {
                announced_later |= is_sync;
            } else {
                warn!("a change of the breaker is not told to its hooks: too many wait");
            }
        }
        if transitions.look(&status) && !announced_later {
            keeper.announce();
        }
    }
}

/// After the first signal what is in flight may end, until `patience` is over or a second signal comes.
async fn told_to_end(shared: &Shared, patience: Duration) -> Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    info!(in_flight = shared.drain.in_flight(), "ending");
    shared.drain.start();
    let drained = tokio::select! {
        drained = timeout(patience, shared.drain.idle()) => drained.is_ok(),
        _ = terminate.recv() => false,
        _ = interrupt.recv() => false,
    };
    if drained {
        sleep(LAST_BYTES).await;
    } else {
        error!(in_flight = shared.drain.in_flight(), "ending with requests in flight");
    }
    Ok(ExitCode::SUCCESS)
}
