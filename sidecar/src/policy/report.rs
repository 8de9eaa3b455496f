//! Reports to the operator, on the connection of its stream.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::Full;
use hyper::client::conn::http2::SendRequest;
use tidegate_policy::report::Report;
use tidegate_policy::stream::REPORT_PATH;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::warn;

use super::{Keeper, Operator};
use crate::trust::authorization;

/// Between two reports when nothing changes.
const PERIOD: Duration = Duration::from_secs(10);
/// Between two reports at least.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest time for one.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reports now, on every change and every [`PERIOD`]; ends when the connection does. A report that is not taken
/// is logged once: policies go on arriving without it.
pub(super) async fn keep_reporting(
    operator: &Operator,
    keeper: &Keeper,
    mut sender: SendRequest<Full<Bytes>>,
) -> Result<()> {
    let mut changes = keeper.changes();
    let mut refused = false;
    loop {
        changes.mark_unchanged();
        let sent = Instant::now();
        match post(operator, keeper, &mut sender).await? {
            Ok(()) => refused = false,
            Err(reason) if !refused => {
                warn!(operator = %operator.endpoint, reason, "report not taken");
                refused = true;
            }
            Err(_) => {}
        }
        sleep_until(sent + PAUSE).await;
        tokio::select! {
            () = sleep_until(sent + PERIOD) => {}
            news = changes.changed() => news.context("nothing reports any more")?,
        }
    }
}

/// The outer error is of the connection, the inner one the operator's.
async fn post(
    operator: &Operator,
    keeper: &Keeper,
    sender: &mut SendRequest<Full<Bytes>>,
) -> Result<Result<(), String>> {
    let body = serde_json::to_vec(&keeper.report())?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(operator.uri(REPORT_PATH))
        .header(header::AUTHORIZATION, authorization(&operator.token)?)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))?;
    let Ok(response) = timeout(PATIENCE, sender.send_request(request)).await else {
        bail!("no answer to a report within {} s", PATIENCE.as_secs());
    };
    let status = response.context("the connection broke under a report")?.status();
    Ok(if status.is_success() { Ok(()) } else { Err(format!("the operator answered {status}")) })
}

impl Keeper {
    /// What this sidecar tells about itself now.
    pub fn report(&self) -> Report {
        let state = self.state();
        let status = self.shared.engine.load().snapshot(self.shared.clock.now());
        Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: state.document.revision.clone(),
            refused: state.refused,
            status,
        }
    }
}
