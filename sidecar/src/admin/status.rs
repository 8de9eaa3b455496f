//! `/throttle/status`: what an operator on call reads first.

use serde::Serialize;
use tidegate_policy::report::{RefusedDocument, Status};

use super::Admin;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    version: &'static str,
    policy_source: &'static str,
    operator_connected: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<RefusedDocument>,
    draining: bool,
    /// `revision` and the state of each tier, limit and breaker.
    #[serde(flatten)]
    status: Status,
}

pub(super) fn page(admin: &Admin) -> Result<Vec<u8>, serde_json::Error> {
    let state = admin.keeper.state();
    let report = admin.keeper.report();
    let page = Page {
        version: env!("CARGO_PKG_VERSION"),
        policy_source: state.source.as_str(),
        operator_connected: state.operator_connected,
        refused: state.refused,
        draining: admin.shared.drain.is_draining(),
        status: report.status,
    };
    serde_json::to_vec_pretty(&page)
}
