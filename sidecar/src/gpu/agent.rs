//! The node's agent, asked about this pod's devices.

use std::path::PathBuf;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use tidegate_gpu::{GpuReport, REPORT_PATH};
use tokio::time::timeout;

use super::{Failure, PERIOD, Problem, problem};
use crate::endpoint::Endpoint;
use crate::transport::{Driven, connect};
use crate::trust::{Trust, authorization};

const LARGEST_ANSWER: usize = 1 << 20;

/// The agent and how to speak to it.
#[derive(Debug, Clone)]
pub struct Agent {
    /// Where it is.
    pub endpoint: Endpoint,
    /// File with the token that shows which pod this is.
    pub token: PathBuf,
    /// Whom to believe that it is the agent.
    pub trust: Trust,
}

pub(super) struct Client {
    agent: Agent,
    connection: Option<(SendRequest<Empty<Bytes>>, Driven)>,
}

impl Client {
    pub(super) const fn new(agent: Agent) -> Self {
        Self { agent, connection: None }
    }

    /// One question, on the connection of the last one when that still stands.
    pub(super) async fn ask(&mut self) -> Result<GpuReport, Problem> {
        let asked = timeout(PERIOD, self.exchange()).await;
        let asked = asked.context("no answer in time").map_err(problem(Failure::Unreachable));
        let answer = asked.and_then(|answer| answer);
        if answer.is_err() {
            self.connection = None;
        }
        let (status, body) = answer?;
        if status != StatusCode::OK {
            let text = String::from_utf8_lossy(&body);
            let line = text.lines().next().unwrap_or_default();
            return Err(problem(Failure::Refused)(anyhow::anyhow!("the agent answered {status} {line}")));
        }
        serde_json::from_slice(&body)
            .context("the agent's answer can't be read")
            .map_err(problem(Failure::Garbled))
    }

    async fn exchange(&mut self) -> Result<(StatusCode, Bytes), Problem> {
        let unreachable = || problem(Failure::Unreachable);
        let request = self.request().map_err(unreachable())?;
        let sender = self.sender().await.map_err(unreachable())?;
        let response = sender.send_request(request).await.context("no answer").map_err(unreachable())?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!(error)).map_err(problem(Failure::Garbled))?;
        Ok((status, body.to_bytes()))
    }

    fn request(&self) -> Result<Request<Empty<Bytes>>> {
        let host = format!("{}:{}", self.agent.endpoint.host(), self.agent.endpoint.port());
        let request = Request::builder()
            .uri(REPORT_PATH)
            .header(header::HOST, host)
            .header(header::AUTHORIZATION, authorization(&self.agent.token)?);
        Ok(request.body(Empty::new())?)
    }

    async fn sender(&mut self) -> Result<&mut SendRequest<Empty<Bytes>>> {
        let stands = match &mut self.connection {
            Some((sender, _)) => sender.ready().await.is_ok(),
            None => false,
        };
        if !stands {
            let connection = connect(&self.agent.endpoint, &self.agent.trust, b"http/1.1").await?;
            let (sender, connection) = http1::handshake(connection).await?;
            self.connection = Some((sender, Driven::spawn(connection)));
        }
        self.connection.as_mut().map(|(sender, _)| sender).context("no connection")
    }
}
