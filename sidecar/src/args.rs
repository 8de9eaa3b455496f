//! The command line. Every flag can be given as environment variable `TIDEGATE_<FLAG>` too, with lists separated
//! by commas.

use std::ffi::OsString;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

use crate::caps::Caps;
use crate::endpoint::Endpoint;
use crate::engine_metrics::EngineType;
use crate::pressure;
pub use seeing::SeeingArgs;

/// Exit code for a command line that can't be obeyed, `EX_USAGE` of `sysexits.h`.
pub const EXIT_USAGE: u8 = 64;

/// The proxy beside an inference engine that decides what its pod can take.
#[derive(Debug, Parser)]
#[command(name = "tidegate-sidecar", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Send connections for the guarded ports to the sidecar, by nftables rules in this network namespace
    Redirect(RedirectArgs),
    /// Serve, as first process of a container: hold the sockets and keep a worker alive
    Run(Box<RunArgs>),
    /// Serve with sockets that `run` has opened
    #[command(hide = true)]
    Worker(Box<WorkerArgs>),
}

/// `redirect`.
#[derive(Debug, Args)]
pub struct RedirectArgs {
    /// A port whose connections are taken
    #[arg(long, required = true, value_name = "PORT", env = "TIDEGATE_GUARD", value_delimiter = ',', value_parser = port())]
    pub guard: Vec<u16>,
    /// The port of the sidecar that gets them
    #[arg(long, value_name = "PORT", env = "TIDEGATE_TO", value_parser = port())]
    pub to: u16,
}

/// `run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// A guarded port of the pod
    #[arg(long, value_name = "PORT", env = "TIDEGATE_GUARD", value_delimiter = ',', value_parser = port())]
    pub guard: Vec<u16>,
    /// A guarded port that is spliced as bytes, without judgement
    #[arg(long, value_name = "PORT", env = "TIDEGATE_OPAQUE", value_delimiter = ',', value_parser = port())]
    pub opaque: Vec<u16>,
    /// A guarded port whose engine speaks HTTP/2 without TLS (h2c): HTTP/2 requests go on over HTTP/2, as gRPC
    /// always does
    #[arg(long, value_name = "PORT", env = "TIDEGATE_HTTP2", value_delimiter = ',', value_parser = port())]
    pub http2: Vec<u16>,
    /// A port to listen on in place of a guarded one, without redirection, such as 15130:8000; then nothing is
    /// listened on at --listen but its address
    #[arg(long, value_name = "PORT:GUARDED", env = "TIDEGATE_NAMED_PORT", value_delimiter = ',', value_parser = named_port)]
    pub named_port: Vec<NamedPort>,
    /// Where redirected connections arrive
    #[arg(long, value_name = "ADDRESS", env = "TIDEGATE_LISTEN", default_value = "[::]:15120")]
    pub listen: SocketAddr,
    /// Where metrics, status, drain and probes are served
    #[arg(long, value_name = "ADDRESS", env = "TIDEGATE_ADMIN", default_value = "[::]:15121")]
    pub admin: SocketAddr,
    /// Without redirection: where everything goes that reaches --listen
    #[arg(long, value_name = "HOST:PORT", env = "TIDEGATE_UPSTREAM", value_parser = host_and_port)]
    pub upstream: Option<SocketAddr>,
    /// An exact path that is answered by the engine without judgement, as /metrics always is; the variable
    /// holds one path, since commas can be part of it
    #[arg(long, value_name = "PATH", env = "TIDEGATE_UNLIMITED_PATH", value_parser = path)]
    pub unlimited_path: Vec<String>,
    /// Where policies come from
    #[command(flatten)]
    pub policy: PolicyArgs,
    /// How much there may be at once
    #[command(flatten)]
    pub caps: CapArgs,
    /// Folder with the API keys of clients, one in each file, as a Secret is mounted; read again when it changes
    #[arg(long, value_name = "FOLDER", env = "TIDEGATE_API_KEYS")]
    pub api_keys: Option<PathBuf>,
    /// Folder with the key sets of issuers that a policy names by file; read again when they change
    #[arg(long, value_name = "FOLDER", env = "TIDEGATE_JWKS")]
    pub jwks: Option<PathBuf>,
    /// Traces, and what the log tells
    #[command(flatten)]
    pub seeing: SeeingArgs,
    /// The node agent, which tells about the pod's GPUs
    #[arg(long, value_name = "URL", env = "TIDEGATE_AGENT", requires = "agent_token")]
    pub agent: Option<Endpoint>,
    /// File with the token that the agent asks for
    #[arg(long, value_name = "FILE", env = "TIDEGATE_AGENT_TOKEN")]
    pub agent_token: Option<PathBuf>,
    /// The NVML library, a path or a name for the loader's search, where this container itself was given the pod's GPUs
    #[arg(long, value_name = "LIBRARY", env = "TIDEGATE_NVML", conflicts_with = "agent")]
    pub nvml: Option<PathBuf>,
    /// A port of the engine with its own metrics at /metrics; default: the guarded ports that are not opaque are tried
    #[arg(long, value_name = "PORT", env = "TIDEGATE_ENGINE_METRICS", value_parser = port())]
    pub engine_metrics: Option<u16>,
    /// Which engine it is; default: the names of its metrics tell
    #[arg(long, value_name = "ENGINE", env = "TIDEGATE_ENGINE_TYPE")]
    pub engine_type: Option<EngineType>,
    /// PEM file with the authorities that operator and agent are trusted by; read again when it changes
    #[arg(long, value_name = "FILE", env = "TIDEGATE_CA")]
    pub ca: Option<PathBuf>,
    /// Read while --ca is absent or has no certificate
    #[arg(long, value_name = "FILE", env = "TIDEGATE_CA_FALLBACK")]
    pub ca_fallback: Option<PathBuf>,
    /// Secret part of the path that starts a drain
    #[arg(long, value_name = "HEX", env = "TIDEGATE_DRAIN_TOKEN", value_parser = hexadecimal)]
    pub drain_token: Option<String>,
    /// Longest time that a drain is held, such as 25s
    #[arg(long, value_name = "DURATION", env = "TIDEGATE_DRAIN_DEADLINE", default_value = "25s", value_parser = duration)]
    pub drain_deadline: Duration,
    /// Threads that serve; default: the cores that the cgroup's quota allows
    #[arg(long, value_name = "NUMBER", env = "TIDEGATE_WORKERS", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: Option<u16>,
    /// error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", env = "TIDEGATE_LOG_LEVEL", default_value = "info")]
    pub log_level: tracing::level_filters::LevelFilter,
}

/// A port of the sidecar that stands for a guarded one: the container port's name leads here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamedPort {
    /// Listened on.
    pub listen: u16,
    /// The engine's port, which is guarded.
    pub guarded: u16,
}

/// Where policies come from.
#[derive(Debug, Clone, Args)]
pub struct PolicyArgs {
    /// A policy document in JSON, which is watched; for use without an operator
    #[arg(long, value_name = "FILE", env = "TIDEGATE_POLICY_FILE", conflicts_with = "operator")]
    pub policy_file: Option<PathBuf>,
    /// The document of admission time, gzip in base64
    #[arg(long, value_name = "FILE", env = "TIDEGATE_POLICY_SNAPSHOT")]
    pub policy_snapshot: Option<PathBuf>,
    /// Folder that keeps the newest accepted document across restarts
    #[arg(long, value_name = "FOLDER", env = "TIDEGATE_POLICY_STORE")]
    pub policy_store: Option<PathBuf>,
    /// The operator, which streams documents
    #[arg(long, value_name = "URL", env = "TIDEGATE_OPERATOR", requires = "operator_token")]
    pub operator: Option<Endpoint>,
    /// File with the token that the operator asks for
    #[arg(long, value_name = "FILE", env = "TIDEGATE_OPERATOR_TOKEN")]
    pub operator_token: Option<PathBuf>,
}

/// How much there may be at once.
#[derive(Debug, Clone, Args)]
pub struct CapArgs {
    /// Connections of clients; one more is answered 503 and closed
    #[arg(long, value_name = "NUMBER", env = "TIDEGATE_MAX_CONNECTIONS", default_value_t = Caps::DEFAULT.connections, value_parser = at_least_one)]
    pub max_connections: usize,
    /// Requests in flight; one more is answered 503
    #[arg(long, value_name = "NUMBER", env = "TIDEGATE_MAX_REQUESTS", default_value_t = Caps::DEFAULT.requests, value_parser = at_least_one)]
    pub max_requests: usize,
    /// Streams on one HTTP/2 connection; one more is refused as HTTP/2 does
    #[arg(long, value_name = "NUMBER", env = "TIDEGATE_MAX_STREAMS", default_value_t = Caps::DEFAULT.streams, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub max_streams: u32,
    /// Bytes of a request's head; a larger one is answered 431
    #[arg(long, value_name = "BYTES", env = "TIDEGATE_MAX_HEADER_BYTES", default_value_t = Caps::DEFAULT.header_bytes, value_parser = clap::value_parser!(u32).range(8192..=1_048_576))]
    pub max_header_bytes: u32,
    /// Bytes that are read of a request's body before the decision, where a policy counts tokens or by model; the
    /// body is passed on unchanged, however long it is
    #[arg(long, value_name = "BYTES", env = "TIDEGATE_MAX_PREFIX_BYTES", default_value_t = Caps::DEFAULT.prefix_bytes, value_parser = prefix_bytes)]
    pub max_prefix_bytes: usize,
    /// Addresses of clients that are told apart in the metric `rate_limited_total`; all others count as one
    #[arg(long, value_name = "NUMBER", env = "TIDEGATE_MAX_CLIENT_LABELS", default_value_t = Caps::DEFAULT.client_labels as u32, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub max_client_labels: u32,
    /// Bytes of memory: as they fill, connections, then requests, are refused; default: what the cgroup allows
    #[arg(long, value_name = "BYTES", env = "TIDEGATE_MAX_MEMORY_BYTES", value_parser = clap::value_parser!(u64).range(16_777_216..))]
    pub max_memory_bytes: Option<u64>,
}

impl CapArgs {
    /// As the proxy takes them.
    pub fn caps(&self) -> Caps {
        Caps {
            connections: self.max_connections,
            requests: self.max_requests,
            streams: self.max_streams,
            header_bytes: self.max_header_bytes,
            prefix_bytes: self.max_prefix_bytes,
            client_labels: self.max_client_labels as usize,
            memory: self.max_memory_bytes.or_else(pressure::of_cgroup),
            ..Caps::DEFAULT
        }
    }
}

/// `worker`.
#[derive(Debug, Args)]
pub struct WorkerArgs {
    /// Descriptor of a listening socket, one for each thread
    #[arg(long, required = true)]
    pub data_socket: Vec<i32>,
    /// Descriptor of the admin port's listening socket
    #[arg(long)]
    pub admin_socket: i32,
    /// Process id of `run`
    #[arg(long)]
    pub supervisor: i32,
    /// How often a worker died before
    #[arg(long)]
    pub restarts: u64,
    /// As given to `run`
    #[command(flatten)]
    pub run: RunArgs,
}

/// A command line that is not obeyed.
#[derive(Debug)]
pub enum Unparsed {
    /// Help or version was asked for; this is it.
    Asked(String),
    /// What is wrong, in one line.
    Wrong(String),
}

/// Parses a command line, program name first, and the environment.
pub fn parse<T: Into<OsString> + Clone>(arguments: impl IntoIterator<Item = T>) -> Result<Cli, Unparsed> {
    let cli = Cli::try_parse_from(arguments).map_err(|error| unparsed(&error))?;
    match &cli.command {
        Command::Redirect(redirect) if redirect.guard.contains(&redirect.to) => {
            Err(Unparsed::Wrong(format!(
                "--guard {0} --to {0}: a port can't be redirected to itself; guard the engine's ports only",
                redirect.to
            )))
        }
        Command::Run(run) => run.check().map(|()| cli).map_err(Unparsed::Wrong),
        _ => Ok(cli),
    }
}

impl RunArgs {
    /// What is listened on for requests.
    pub fn listens(&self) -> Vec<SocketAddr> {
        let named = self.named_port.iter().map(|port| SocketAddr::new(self.listen.ip(), port.listen));
        if self.named_port.is_empty() { vec![self.listen] } else { named.collect() }
    }

    fn check(&self) -> Result<(), String> {
        if self.guard.is_empty() && self.upstream.is_none() {
            return Err("no port to serve: give --guard <PORT> with redirection, or --upstream <HOST:PORT>"
                .to_owned());
        }
        for own in [self.listen.port(), self.admin.port()] {
            if own != 0 && self.guard.contains(&own) {
                return Err(format!(
                    "--guard {own} is a port of the sidecar itself: guard the engine's ports only"
                ));
            }
        }
        for named in &self.named_port {
            self.check_named(*named)?;
        }
        self.seeing.target().map_err(|error| format!("{error:#}"))?;
        let remote = self.policy.operator.is_some() || self.agent.is_some();
        if remote && self.ca.is_none() && self.ca_fallback.is_none() {
            return Err("--operator and --agent need an authority to trust: give --ca <FILE>".to_owned());
        }
        Ok(())
    }

    fn check_named(&self, NamedPort { listen, guarded }: NamedPort) -> Result<(), String> {
        let flag = format!("--named-port {listen}:{guarded}");
        if !self.guard.contains(&guarded) {
            return Err(format!("{flag}: give --guard {guarded} too"));
        }
        if self.guard.contains(&listen) || listen == self.admin.port() {
            return Err(format!("{flag}: port {listen} is taken: listen on one that nothing else uses"));
        }
        if self.named_port.iter().filter(|other| other.listen == listen).count() > 1 {
            return Err(format!("{flag}: port {listen} can stand for one guarded port only"));
        }
        if self.upstream.is_some() {
            return Err(format!("{flag}: --upstream takes everything: give one of both"));
        }
        Ok(())
    }
}

fn unparsed(error: &clap::Error) -> Unparsed {
    let text = error.to_string();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return Unparsed::Asked(text);
    }
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand
    ) {
        return Unparsed::Wrong("no command: write redirect or run, or --help".to_owned());
    }
    let said = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let said = said.filter(|line| !line.is_empty() && !line.starts_with("For more information"));
    let line = said.collect::<Vec<_>>().join(" ");
    Unparsed::Wrong(line.strip_prefix("error: ").unwrap_or(&line).to_owned())
}

fn port() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..)
}

fn named_port(value: &str) -> Result<NamedPort, String> {
    let port = |part: &str| part.parse::<u16>().ok().filter(|port| *port != 0);
    let ports = value.split_once(':').and_then(|(listen, guarded)| Some((port(listen)?, port(guarded)?)));
    let (listen, guarded) = ports.ok_or_else(|| "not two ports: write such as 15130:8000".to_owned())?;
    Ok(NamedPort { listen, guarded })
}

fn at_least_one(value: &str) -> Result<usize, String> {
    value.parse().ok().filter(|number| *number > 0).ok_or_else(|| "write a number of 1 or more".to_owned())
}

fn prefix_bytes(value: &str) -> Result<usize, String> {
    let bytes = value.parse().ok().filter(|bytes| (1024..=1_048_576).contains(bytes));
    bytes.ok_or_else(|| "write a number from 1024 to 1048576".to_owned())
}

fn path(value: &str) -> Result<String, String> {
    if value.starts_with('/') {
        return Ok(value.to_owned());
    }
    Err("not a path: write one such as /health".to_owned())
}

/// An address, or a name that is looked up once; of several addresses an IPv4 one.
fn host_and_port(value: &str) -> Result<SocketAddr, String> {
    let wrong = |why: String| format!("{why}: write such as 127.0.0.1:8000");
    let addresses: Vec<SocketAddr> =
        value.to_socket_addrs().map_err(|error| wrong(error.to_string()))?.collect();
    let best = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first()).copied();
    best.filter(|address| address.port() != 0).ok_or_else(|| wrong("no such host and port".to_owned()))
}

fn hexadecimal(value: &str) -> Result<String, String> {
    if value.len() >= 16 && value.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(value.to_owned());
    }
    Err("not a token: write at least 16 hexadecimal digits".to_owned())
}

/// A duration as in the Gateway API (GEP-2257): `1h`, `2m30s`, `500ms`.
fn duration(value: &str) -> Result<Duration, String> {
    let wrong = || "not a duration: write such as 25s, 1m30s or 500ms".to_owned();
    let mut rest = value;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u32 = rest[..digits].parse().map_err(|_| wrong())?;
        let letters = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit = match &rest[digits..digits + letters] {
            "h" => Duration::from_hours(1),
            "m" => Duration::from_mins(1),
            "s" => Duration::from_secs(1),
            "ms" => Duration::from_millis(1),
            _ => return Err(wrong()),
        };
        total += unit * number;
        rest = &rest[digits + letters..];
    }
    if total.is_zero() { Err(wrong()) } else { Ok(total) }
}

mod seeing;

#[cfg(test)]
mod tests;
