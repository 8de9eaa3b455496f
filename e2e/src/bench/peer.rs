//! The proxies that are measured, each with its configuration: one thread of work, kept connections on both sides, no
//! log.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use tokio::process::Command;

use super::policy;
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
    /// One worker thread; the full policy is in force.
    Tidegate(PathBuf),
}

impl Peer {
    /// As in tables.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::HaProxy => "haproxy",
            Self::Tidegate(_) => "tidegate",
        }
    }

    /// What the program says about its version.
    pub async fn version(&self) -> anyhow::Result<String> {
        let (program, flag) = match self {
            Self::Nginx => (program("nginx")?, "-v"),
            Self::HaProxy => (program("haproxy")?, "-v"),
            Self::Tidegate(binary) => (binary.clone(), "--version"),
        };
        let output = process::command(&program).arg(flag).output().await?;
        let text = [output.stdout, output.stderr].concat();
        Ok(String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned())
    }

    /// Starts it in front of `backend`; its files go to `directory`.
    pub async fn start(&self, backend: SocketAddr, directory: &Path) -> anyhow::Result<Server> {
        let address = free_address()?;
        let mut command = match self {
            Self::Nginx => nginx(address, backend, directory)?,
            Self::HaProxy => haproxy(address, backend, directory)?,
            Self::Tidegate(binary) => tidegate(binary, address, backend, directory)?,
        };
        let log = directory.join(format!("{}.log", self.name()));
        Server::start(&mut command, address, &log)
            .await
            .with_context(|| format!("cannot start {}", self.name()))
    }
}

fn program(name: &str) -> anyhow::Result<PathBuf> {
    packages::program(name).map(PathBuf::from).with_context(|| format!("no {name} on this machine"))
}

fn nginx(listen: SocketAddr, backend: SocketAddr, directory: &Path) -> anyhow::Result<Command> {
    let home = directory.display();
    let text = format!(
        "daemon off;\nmaster_process off;\nworker_processes 1;\npid {home}/nginx.pid;\nerror_log stderr;\n\
        events {{ worker_connections 4096; }}\n\
        http {{\n  access_log off;\n  keepalive_requests 1000000000;\n  keepalive_timeout 300s;\n\
        client_body_temp_path {home}/body;\n  proxy_temp_path {home}/proxy;\n  fastcgi_temp_path {home}/fastcgi;\n\
        uwsgi_temp_path {home}/uwsgi;\n  scgi_temp_path {home}/scgi;\n\
        upstream backend {{ server {backend}; keepalive 512; keepalive_requests 1000000000; }}\n\
        server {{\n    listen {listen};\n    location / {{\n      proxy_pass http://backend;\n\
        proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n    }}\n\
        location /v1/stream {{\n      proxy_pass http://backend;\n      proxy_http_version 1.1;\n\
        proxy_set_header Connection \"\";\n      proxy_buffering off;\n    }}\n  }}\n}}\n"
    );
    let file = directory.join("nginx.conf");
    std::fs::write(&file, text)?;
    let mut command = process::command(program("nginx")?);
    command.arg("-p").arg(directory).arg("-c").arg(file);
    Ok(command)
}

fn haproxy(listen: SocketAddr, backend: SocketAddr, directory: &Path) -> anyhow::Result<Command> {
    let text = format!(
        "global\n  nbthread 1\n  maxconn 4096\n\
        defaults\n  mode http\n  timeout connect 5s\n  timeout client 300s\n  timeout server 300s\n\
        option http-keep-alive\n  http-reuse always\n  no log\n\
        frontend front\n  bind {listen}\n  default_backend back\n\
        backend back\n  server one {backend}\n"
    );
    let file = directory.join("haproxy.cfg");
    std::fs::write(&file, text)?;
    let mut command = process::command(program("haproxy")?);
    command.arg("-q").arg("-db").arg("-f").arg(file);
    Ok(command)
}

fn tidegate(
    binary: &Path,
    listen: SocketAddr,
    backend: SocketAddr,
    directory: &Path,
) -> anyhow::Result<Command> {
    let file = directory.join("policy.json");
    std::fs::write(&file, serde_json::to_vec_pretty(&policy::full()?)?)?;
    let mut command = process::command(binary);
    command.arg("run").args(["--workers", "1", "--log-level", "warn"]);
    command.args(["--listen", &listen.to_string(), "--admin", &free_address()?.to_string()]);
    command.args(["--upstream", &backend.to_string()]).arg("--policy-file").arg(file);
    Ok(command)
}
