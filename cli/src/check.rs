//! `check`: is the installation sound, and what to do where it is not.
//!
//! Each part judges one thing and says so in findings; a part that the caller may not look at says that. Nothing is
//! changed: what is created is created as a dry run.

use std::fmt::Write as _;

use kube::Api;
use serde::Serialize;

use crate::cluster::Cluster;
use crate::command_line::CheckArguments;
use crate::print;
use crate::refused::Refused;

mod agent;
mod certificates;
mod crds;
mod network;
mod operator;
mod pods;
mod webhooks;

/// What was found out about one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) part: &'static str,
    pub(crate) verdict: Verdict,
    pub(crate) message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
}

/// The greater is the worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Ok,
    /// Works, and somebody should look.
    Warn,
    /// Does not work.
    Fail,
}

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

impl Finding {
    fn ok(part: &'static str, message: impl Into<String>) -> Self {
        Self { part, verdict: Verdict::Ok, message: message.into(), hint: None }
    }

    fn warn(part: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { part, verdict: Verdict::Warn, message: message.into(), hint: Some(hint.into()) }
    }

    fn fail(part: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { part, verdict: Verdict::Fail, message: message.into(), hint: Some(hint.into()) }
    }

    /// Something that could not be read.
    fn unread(part: &'static str, what: &str, why: &str) -> Self {
        Self::warn(
            part,
            format!("{what} cannot be read: {why}"),
            "docs/cli.md lists the rights that check needs",
        )
    }
}

#[derive(Debug, Serialize)]
struct Report {
    verdict: Verdict,
    findings: Vec<Finding>,
}

/// False when something does not work.
pub(crate) async fn run(arguments: &CheckArguments) -> Result<bool, Refused> {
    let cluster = Cluster::connect(&arguments.cluster).await?;
    reachable(&cluster).await?;
    let report = report(&cluster).await;
    print::line(&print::form(arguments.output, &report, || text(&report))?)?;
    Ok(report.verdict < Verdict::Fail)
}

/// An API server that does not answer is one mistake and not twenty.
async fn reachable(cluster: &Cluster) -> Result<(), Refused> {
    let version = cluster.client.apiserver_version().await;
    version.map(drop).map_err(|error| Refused::of(format!("API server: {}", crate::cluster::said(&error))))
}

async fn report(cluster: &Cluster) -> Report {
    let mut findings = crds::check(cluster).await;
    let (of_operator, operator) = operator::check(cluster).await;
    findings.extend(of_operator);
    findings.extend(certificates::check(cluster, &operator).await);
    findings.extend(webhooks::check(cluster).await);
    findings.extend(agent::check(cluster).await);
    let seen = pods::look(cluster).await;
    findings.extend(pods::check(cluster, &seen, &operator).await);
    findings.extend(network::check(cluster, &seen, &operator).await);
    let verdict = findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok);
    Report { verdict, findings }
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        _ = writeln!(text, "{:4}  {:12}  {}", finding.verdict.as_str(), finding.part, finding.message);
        if let Some(hint) = &finding.hint {
            for line in hint.lines() {
                _ = writeln!(text, "{:4}  {:12}  -> {line}", "", "");
            }
        }
    }
    let count = |verdict| report.findings.iter().filter(|finding| finding.verdict == verdict).count();
    _ = write!(
        text,
        "\n{} ok, {} warn, {} fail",
        count(Verdict::Ok),
        count(Verdict::Warn),
        count(Verdict::Fail)
    );
    text
}

/// Objects of the namespace that Tidegate is installed in.
fn installed<K>(cluster: &Cluster) -> Api<K>
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
{
    Api::namespaced(cluster.client.clone(), &cluster.install_namespace)
}

#[cfg(test)]
mod tests;
