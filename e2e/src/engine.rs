//! The engine simulator: OpenAI-compatible endpoints in front of a model of batching and KV cache, in the manner of
//! vLLM, over HTTP/1.1 and HTTP/2, and one call of gRPC, with a control port by which it is told to fail, hang, slow down or run out of memory.

pub mod api;
pub mod control;
pub mod driver;
pub mod faults;
pub mod grpc;
pub mod memory;
pub mod metrics;
pub mod openai;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use axum::Router;
use clap::Args;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};

use tidegate_cli::engine_model::{BLOCK_TOKENS, Costs, ModelConfig};

use self::{api::Api, driver::Driver, memory::Gpus, metrics::Metrics};

/// Flags of `tidegate-e2e engine`.
#[derive(Debug, Clone, Args)]
pub struct EngineArgs {
    /// Where the OpenAI-compatible API listens.
    #[arg(long, default_value = "[::]:8000", env = "ENGINE_LISTEN")]
    pub listen: SocketAddr,
    /// Where the control endpoints listen: POST /fail, /hang, /slow, /oom, /gpu-memory, /reset.
    #[arg(long, default_value = "[::]:8001", env = "ENGINE_CONTROL")]
    pub control: SocketAddr,
    /// Where a plain TCP service listens that sends back what it gets.
    #[arg(long, env = "ENGINE_TCP")]
    pub tcp: Option<SocketAddr>,
    /// Name of the model.
    #[arg(long, default_value = "llama-sim", env = "ENGINE_MODEL")]
    pub model: String,
    /// Directory with the simulated GPUs' files; those named by `NVIDIA_VISIBLE_DEVICES` are written.
    #[arg(long, env = "ENGINE_GPU_DIR")]
    pub gpu_dir: Option<PathBuf>,
    /// The GPUs to write to.
    #[arg(long, default_value = "", env = "NVIDIA_VISIBLE_DEVICES")]
    pub gpus: String,
    /// Share of each GPU's memory that the weights take.
    #[arg(long, default_value_t = 0.4, env = "ENGINE_GPU_WEIGHTS")]
    pub gpu_weights: f64,
    /// Share of each GPU's memory that the full KV cache takes.
    #[arg(long, default_value_t = 0.55, env = "ENGINE_GPU_CACHE")]
    pub gpu_cache: f64,
    /// KV-cache blocks of 16 tokens.
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..), env = "ENGINE_KV_BLOCKS")]
    pub kv_blocks: u32,
    /// Most sequences computed together.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..), env = "ENGINE_MAX_BATCH")]
    pub max_batch: u32,
    /// Most tokens of prompt and answer together.
    #[arg(long, default_value_t = 16_384, env = "ENGINE_MAX_MODEL_LEN")]
    pub max_model_len: u32,
    /// Milliseconds of a decoding step of one sequence in an empty cache.
    #[arg(long, default_value_t = 20.0, env = "ENGINE_STEP_MS")]
    pub step_ms: f64,
    /// Microseconds that each prompt token adds to its step.
    #[arg(long, default_value_t = 50.0, env = "ENGINE_PREFILL_US")]
    pub prefill_us: f64,
    /// Multiplies every duration; 0.1 is an engine ten times as fast.
    #[arg(long, default_value_t = 1.0, env = "ENGINE_TIME_SCALE")]
    pub time_scale: f64,
}

impl EngineArgs {
    /// An engine for tests and demos: the flags' defaults, on free ports of the loopback interface.
    pub fn on_loopback() -> Self {
        let model = ModelConfig::default();
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            control: SocketAddr::from(([127, 0, 0, 1], 0)),
            tcp: None,
            model: "llama-sim".to_owned(),
            gpu_dir: None,
            gpus: String::new(),
            gpu_weights: 0.4,
            gpu_cache: 0.55,
            kv_blocks: model.kv_blocks,
            max_batch: 64,
            max_model_len: model.max_model_len,
            step_ms: 20.0,
            prefill_us: 50.0,
            time_scale: 1.0,
        }
    }

    fn check(&self) -> anyhow::Result<()> {
        let positive = |value: f64| value.is_finite() && value > 0.0 && value <= 1e6;
        if !positive(self.step_ms) || !positive(self.time_scale) || !(0.0..=1e6).contains(&self.prefill_us) {
            bail!("--step-ms, --prefill-us, --time-scale: write positive numbers of at most 1000000");
        }
        let share = 0.0..=1.0;
        if !share.contains(&self.gpu_weights) || !share.contains(&self.gpu_cache) {
            bail!("--gpu-weights, --gpu-cache: write shares of 0 to 1");
        }
        Ok(())
    }

    fn model_config(&self) -> ModelConfig {
        // A full batch doubles the time of a step, a full cache adds half of it.
        let step = Duration::from_secs_f64(self.step_ms / 1e3);
        let cache = f64::from(self.kv_blocks) * f64::from(BLOCK_TOKENS);
        ModelConfig {
            kv_blocks: self.kv_blocks,
            max_batch: self.max_batch as usize,
            max_model_len: self.max_model_len,
            costs: Costs {
                step,
                sequence: step / self.max_batch,
                cached_token_nanos: step.as_nanos() as f64 / 2.0 / cache,
                prompt_token: Duration::from_secs_f64(self.prefill_us / 1e6),
            },
            ..ModelConfig::default()
        }
    }
}

/// A running engine. Dropping it cuts every connection, as the end of the process does.
#[derive(Debug)]
pub struct Engine {
    /// Address of the API.
    pub address: SocketAddr,
    /// Address of the control endpoints.
    pub control: SocketAddr,
    /// Address of the plain TCP service, when there is one.
    pub tcp: Option<SocketAddr>,
    gpus: Option<Gpus>,
    tasks: JoinSet<()>,
}

impl Engine {
    /// Starts an engine on the current runtime; it listens when this returns.
    pub async fn start(args: &EngineArgs) -> anyhow::Result<Self> {
        args.check()?;
        let config = args.model_config();
        let metrics = Metrics::new(&args.model, &config);
        let driver = Driver::new(config, args.time_scale, metrics);
        let api = Api { driver: Arc::clone(&driver), model: args.model.as_str().into() };
        let mut tasks = JoinSet::new();
        let address = serve(&mut tasks, args.listen, api::router(api.clone())).await?;
        let control = serve(&mut tasks, args.control, control::router(api)).await?;
        let tcp = match args.tcp {
            Some(address) => Some(echo(&mut tasks, address).await?),
            None => None,
        };
        tasks.spawn(Arc::clone(&driver).run());
        let gpus = args
            .gpu_dir
            .as_deref()
            .map(|directory| Gpus::new(directory, &args.gpus, args.gpu_weights, args.gpu_cache))
            .filter(|gpus| !gpus.is_empty());
        if let Some(gpus) = gpus.clone() {
            tasks.spawn(gpus.follow(driver));
        }
        Ok(Self { address, control, tcp, gpus, tasks })
    }

    /// Ends the engine: connections are cut, GPU memory is given back.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
        if let Some(gpus) = &self.gpus {
            gpus.release();
        }
    }
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

async fn serve(tasks: &mut JoinSet<()>, address: SocketAddr, router: Router) -> anyhow::Result<SocketAddr> {
    let listener = listen(address).await?;
    let bound = listener.local_addr()?;
    tasks.spawn(async move {
        // Owned by this task, so that its end cuts the connections.
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            while connections.try_join_next().is_some() {}
            connections.spawn(serve_connection(stream, router.clone()));
        }
    });
    Ok(bound)
}

async fn serve_connection(stream: TcpStream, router: Router) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("TCP_NODELAY: {error}");
    }
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = connection.await {
        tracing::debug!("connection: {error}");
    }
}

async fn echo(tasks: &mut JoinSet<()>, address: SocketAddr) -> anyhow::Result<SocketAddr> {
    let listener = listen(address).await?;
    let bound = listener.local_addr()?;
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            while connections.try_join_next().is_some() {}
            connections.spawn(send_back(stream));
        }
    });
    Ok(bound)
}

async fn send_back(mut stream: TcpStream) {
    let (mut reader, mut writer) = stream.split();
    if let Err(error) = tokio::io::copy(&mut reader, &mut writer).await {
        tracing::debug!("tcp: {error}");
    }
}

/// Runs `tidegate-e2e engine` until SIGTERM or SIGINT, which cut every request, as vLLM does.
pub async fn run(args: EngineArgs) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let engine = Engine::start(&args).await?;
    println!(
        "engine: serving {} on http://{}, control on http://{}",
        args.model, engine.address, engine.control
    );
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    engine.stop().await;
    Ok(ExitCode::SUCCESS)
}
