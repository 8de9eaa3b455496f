//! The proxies that are measured, each with its configuration: one thread of work, kept connections on both sides, no
//! log.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::Serialize;
use serde_json::json;
use tidegate_policy::PolicyDocument;
use tokio::process::Command;

use super::{agent::Agent, policy};
use crate::{
    cluster::{packages, process},
    server::{Server, free_address},
};

/// A proxy under test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// One process that is its own worker.
    Nginx,
    /// One thread.
    HaProxy,
    /// One worker thread of work.
    Envoy(PathBuf),
    /// One thread; a program of some lines.
    Pingora(PathBuf),
    /// One worker thread; the full policy is in force.
    Tidegate(PathBuf),
    /// The same without a policy.
    Unlimited(PathBuf),
    /// The same as with the full policy, and tokens are counted.
    Counting(PathBuf),
    /// The same as with the full policy, with this agent to ask about GPUs.
    Asking(PathBuf, Agent),
}

/// What clients speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 without TLS, known beforehand.
    Http2,
}

impl Peer {
    /// What the sidecar is called in the tables.
    pub const OURS: &str = "tidegate";
    /// What it is called without a policy.
    pub const OURS_UNLIMITED: &str = "tidegate without policy";
    /// What it is called when it counts tokens.
    pub const OURS_COUNTING: &str = "tidegate counting tokens";

    /// As in tables.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::HaProxy => "haproxy",
            Self::Envoy(_) => "envoy",
            Self::Pingora(_) => "pingora",
            Self::Tidegate(_) => Self::OURS,
            Self::Unlimited(_) => Self::OURS_UNLIMITED,
            Self::Counting(_) => Self::OURS_COUNTING,
            Self::Asking(_, agent) => agent.name,
        }
    }

    /// What the program says about its version.
    pub async fn version(&self) -> anyhow::Result<String> {
        let (program, flag) = match self {
            Self::Nginx => (program("nginx")?, "-v"),
            Self::HaProxy => (program("haproxy")?, "-v"),
            Self::Envoy(binary)
            | Self::Pingora(binary)
            | Self::Tidegate(binary)
            | Self::Unlimited(binary)
            | Self::Counting(binary)
            | Self::Asking(binary, _) => (binary.clone(), "--version"),
        };
        let output = process::command(&program).arg(flag).output().await?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        let line = text.lines().map(str::trim).find(|line| !line.is_empty());
        let name = if matches!(self, Self::Envoy(_)) { "envoy" } else { "" };
        // Envoy names itself by its path.
        Ok(line.map_or_else(String::new, |line| line.replace(&program.display().to_string(), name)))
    }

    /// Starts it in front of `backend`; its files go to `directory`. nginx and `HAProxy` have to be told what their
    /// clients speak.
    pub async fn start(
        &self,
        backend: SocketAddr,
        directory: &Path,
        protocol: Protocol,
    ) -> anyhow::Result<Server> {
        let address = free_address()?;
        let mut command = match self {
            Self::Nginx => nginx(address, backend, directory, protocol)?,
            Self::HaProxy => haproxy(address, backend, directory, protocol)?,
            Self::Envoy(binary) => envoy(binary, address, backend, directory)?,
            Self::Pingora(binary) => pingora(binary, address, backend),
            Self::Tidegate(binary) => tidegate_with(&policy::full()?, binary, address, backend, directory)?,
            Self::Counting(binary) => {
                tidegate_with(&policy::counting()?, binary, address, backend, directory)?
            }
            Self::Asking(binary, agent) => {
                let mut command = tidegate_with(&policy::full()?, binary, address, backend, directory)?;
                agent.tell(&mut command, directory)?;
                command
            }
            Self::Unlimited(binary) => tidegate(binary, address, backend)?,
        };
        let log = directory.join(format!("{}-{}.log", self.name().replace(' ', "-"), address.port()));
        Server::start(&mut command, address, &log)
            .await
            .with_context(|| format!("cannot start {}", self.name()))
    }
}

fn program(name: &str) -> anyhow::Result<PathBuf> {
    packages::program(name).map(PathBuf::from).with_context(|| format!("no {name} on this machine"))
}

fn nginx(
    listen: SocketAddr,
    backend: SocketAddr,
    directory: &Path,
    protocol: Protocol,
) -> anyhow::Result<Command> {
    let home = directory.display();
    let port = listen.port();
    let http2 = if protocol == Protocol::Http2 { " http2" } else { "" };
    let text = format!(
        "daemon off;\nmaster_process off;\nworker_processes 1;\npid {home}/nginx-{port}.pid;\nerror_log stderr;\n\
        events {{ worker_connections 4096; }}\n\
        http {{\n  access_log off;\n  keepalive_requests 1000000000;\n  keepalive_timeout 300s;\n\
        client_body_temp_path {home}/body;\n  proxy_temp_path {home}/proxy;\n  fastcgi_temp_path {home}/fastcgi;\n\
        uwsgi_temp_path {home}/uwsgi;\n  scgi_temp_path {home}/scgi;\n\
        upstream backend {{ server {backend}; keepalive 512; keepalive_requests 1000000000; }}\n\
        server {{\n    listen {listen}{http2};\n    location / {{\n      proxy_pass http://backend;\n\
        proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n    }}\n\
        location /v1/chat/ {{\n      proxy_pass http://backend;\n      proxy_http_version 1.1;\n\
        proxy_set_header Connection \"\";\n      proxy_buffering off;\n    }}\n  }}\n}}\n"
    );
    let file = directory.join(format!("nginx-{}.conf", listen.port()));
    std::fs::write(&file, text)?;
    let mut command = process::command(program("nginx")?);
    command.arg("-p").arg(directory).arg("-c").arg(file);
    Ok(command)
}

fn haproxy(
    listen: SocketAddr,
    backend: SocketAddr,
    directory: &Path,
    protocol: Protocol,
) -> anyhow::Result<Command> {
    let http2 = if protocol == Protocol::Http2 { " proto h2" } else { "" };
    let text = format!(
        "global\n  nbthread 1\n  maxconn 4096\n\
        defaults\n  mode http\n  timeout connect 5s\n  timeout client 300s\n  timeout server 300s\n\
        option http-keep-alive\n  http-reuse always\n  no log\n\
        frontend front\n  bind {listen}{http2}\n  default_backend back\n\
        backend back\n  server one {backend}\n"
    );
    let file = directory.join(format!("haproxy-{}.cfg", listen.port()));
    std::fs::write(&file, text)?;
    let mut command = process::command(program("haproxy")?);
    command.arg("-q").arg("-db").arg("-f").arg(file);
    Ok(command)
}

/// As Envoy's own guide for benchmarks says: one worker, no log, no statistics for each request, no circuit breaking.
fn envoy(
    binary: &Path,
    listen: SocketAddr,
    backend: SocketAddr,
    directory: &Path,
) -> anyhow::Result<Command> {
    let address = |address: SocketAddr| json!({"socket_address": {"address": address.ip(), "port_value": address.port()}});
    let router = json!({"name": "envoy.filters.http.router", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router", "dynamic_stats": false}});
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "front", "codec_type": "AUTO", "generate_request_id": false, "http_filters": [router],
        "stream_idle_timeout": "0s",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "route": {"cluster": "backend", "timeout": "0s"}}]}]},
    });
    let endpoint = json!({"lb_endpoints": [{"endpoint": {"address": address(backend)}}]});
    let threshold =
        json!({"max_connections": 1_000_000, "max_pending_requests": 1_000_000, "max_requests": 1_000_000});
    let config = json!({"static_resources": {
        "listeners": [{"address": address(listen), "filter_chains": [{"filters": [
            {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}]}],
        "clusters": [{"name": "backend", "connect_timeout": "5s", "circuit_breakers": {"thresholds": [threshold]},
            "load_assignment": {"cluster_name": "backend", "endpoints": [endpoint]}}],
    }});
    let file = directory.join(format!("envoy-{}.json", listen.port()));
    std::fs::write(&file, serde_json::to_vec_pretty(&config)?)?;
    let mut command = process::command(binary);
    command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "-c"]).arg(file);
    Ok(command)
}

fn pingora(binary: &Path, listen: SocketAddr, backend: SocketAddr) -> Command {
    let mut command = process::command(binary);
    command.args([listen, backend].map(|address| address.to_string()));
    command
}

fn tidegate(binary: &Path, listen: SocketAddr, backend: SocketAddr) -> anyhow::Result<Command> {
    let mut command = process::command(binary);
    command.arg("run").args(["--workers", "1", "--log-level", "warn"]);
    command.args(["--listen", &listen.to_string(), "--admin", &free_address()?.to_string()]);
    command.args(["--upstream", &backend.to_string()]);
    Ok(command)
}

fn tidegate_with(
    policy: &PolicyDocument,
    binary: &Path,
    listen: SocketAddr,
    backend: SocketAddr,
    directory: &Path,
) -> anyhow::Result<Command> {
    let file = directory.join(format!("policy-{}.json", listen.port()));
    std::fs::write(&file, serde_json::to_vec_pretty(policy)?)?;
    let mut command = tidegate(binary, listen, backend)?;
    command.arg("--policy-file").arg(file);
    Ok(command)
}
