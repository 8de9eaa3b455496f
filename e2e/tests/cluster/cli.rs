//! `kubectl tidegate` against the real API server, as a person runs it.

use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::Context;
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tidegate_e2e::harness::{Engine, Lab, PATIENCE, alone, eventually, in_namespace};
use tokio::process::Command;

/// Beside this test's own, where `make e2e` has built it.
fn program() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let program = own.parent().and_then(Path::parent).context("a target directory")?.join("kubectl-tidegate");
    anyhow::ensure!(program.exists(), "{} is missing: run this through `make e2e`", program.display());
    Ok(program)
}

pub(crate) async fn tidegate(lab: &Lab, arguments: &[&str]) -> anyhow::Result<Output> {
    let namespace = ["--namespace", lab.namespace.as_str()];
    Ok(Command::new(program()?).args(arguments).args(namespace).output().await?)
}

/// What a command prints that succeeds.
pub(crate) async fn printed(lab: &Lab, arguments: &[&str]) -> anyhow::Result<String> {
    let output = tidegate(lab, arguments).await?;
    let text = String::from_utf8(output.stdout)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{arguments:?}: {text}{errors}");
    Ok(text)
}

const POLICIES: &str =
    "{apiVersion: tidegate.dev/v1alpha1, kind: RateLimitPolicy, metadata: {name: all}, spec: {
    tiers: {qps: {max: 1000}}, limits: [{name: per-user, key: [{header: x-user}], limit: 600, window: 1m}]}}
---
{apiVersion: tidegate.dev/v1alpha1, kind: RateLimitPolicy, metadata: {name: llama}, spec: {
    selector: {matchLabels: {app: llama}}, tiers: {qps: {max: 2000}}}}";

/// Conditions with their reasons, who goes before it and where, the counts, and what the limit comes to.
async fn describe_tells_the_rest(lab: &Lab) -> anyhow::Result<()> {
    let described = lab.kubectl(&["describe", "ratelimitpolicy", "all"]).await?;
    let described = described.split_whitespace().collect::<Vec<_>>().join(" ");
    for told in [
        "Type: Accepted",
        "Type: Programmed",
        "/llama goes before it on 1 pod and decides tiers",
        "Reason: PartiallyProgrammed",
        "Enforced: 1/1",
        "Matched: 1",
        "Old Sidecar: 0",
        "Tiers Tripped: Any: 0",
        "Per Pod: 600",
        "Total: 600",
    ] {
        anyhow::ensure!(described.contains(told), "no {told:?}: {described}");
    }
    Ok(())
}

async fn every_report_is_yaml_too(lab: &Lab, pod: &str) -> anyhow::Result<()> {
    let commands: [&[&str]; 5] =
        [&["status"], &["explain", pod], &["top", "--count", "1"], &["rotate", "--dry-run"], &["check"]];
    for command in commands {
        let in_form = async |form| {
            // What is judged is the form: something of the others may be amiss meanwhile.
            let output = tidegate(lab, &[command, &["-o", form]].concat()).await?;
            anyhow::Ok(String::from_utf8(output.stdout)?)
        };
        let json: Value = serde_json::from_str(&in_form("json").await?)?;
        let yaml: Value = serde_saphyr::from_str(&in_form("yaml").await?)?;
        let [json, yaml] = [json, yaml].map(|value| {
            value.as_object().into_iter().flat_map(|all| all.keys().cloned()).collect::<Vec<_>>()
        });
        anyhow::ensure!(!json.is_empty() && json == yaml, "{command:?}: {json:?} {yaml:?}");
    }
    Ok(())
}

#[tokio::test]
async fn status_and_explain_say_what_acts_on_a_pod() -> anyhow::Result<()> {
    in_namespace(async |lab| {
        lab.apply(POLICIES).await?;
        let pods = lab.engine(&Engine::new("llama")).await?;
        lab.until_programmed(&pods[0]).await?;
        let name = pods[0].name_any();
        let explained: Value = serde_json::from_str(&printed(lab, &["explain", &name, "-o", "json"]).await?)?;
        let acting = explained["acting"].as_array().context("acting")?;
        let names: Vec<_> = acting.iter().filter_map(|policy| policy["name"].as_str()).collect();
        anyhow::ensure!(names == ["llama", "all"], "{explained}");
        anyhow::ensure!(
            acting[1]["lost"] == json!([{"part": "tiers", "to": "RateLimitPolicy llama"}]),
            "{explained}"
        );
        anyhow::ensure!(explained["pod"]["state"]["upToDate"] == true, "{explained}");
        anyhow::ensure!(explained["rules"][0]["state"].is_string(), "{explained}");
        eventually("the pod and its policies in `status`", PATIENCE, async || {
            let text = printed(lab, &["status", "-o", "json"]).await.map_err(|error| format!("{error:#}"))?;
            let status: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            let programmed = status["policies"].as_array().is_some_and(|policies| {
                policies.len() == 2 && policies.iter().all(|policy| policy["pods"]["programmed"] == 1)
            });
            let connected = status["pods"][0]["state"]["operatorConnected"] == true;
            if programmed && connected { Ok(()) } else { Err(text) }
        })
        .await?;
        describe_tells_the_rest(lab).await?;
        every_report_is_yaml_too(lab, &name).await?;
        let top: Value = serde_json::from_str(&printed(lab, &["top", "--count", "1", "-o", "json"]).await?)?;
        anyhow::ensure!(top["pods"][0]["name"] == name.as_str(), "{top}");
        Ok(())
    })
    .await
}

fn messages(report: &Value, part: &str) -> Vec<String> {
    let findings = report["findings"].as_array().into_iter().flatten();
    let of_part = findings.filter(|finding| finding["part"] == part);
    of_part.map(|finding| format!("{} {}", finding["verdict"], finding["message"])).collect()
}

#[tokio::test]
async fn check_finds_a_sound_installation_sound_and_a_cut_egress() -> anyhow::Result<()> {
    alone(async |lab| {
        lab.apply(POLICIES).await?;
        let pods = lab.engine(&Engine::new("llama")).await?;
        lab.until_programmed(&pods[0]).await?;
        let check = async || -> anyhow::Result<Value> {
            Ok(serde_json::from_slice(&tidegate(lab, &["check", "-o", "json"]).await?.stdout)?)
        };
        let report = check().await?;
        for part in ["crds", "operator", "certificates", "webhooks", "agent", "network"] {
            let messages = messages(&report, part);
            let all_ok = !messages.is_empty() && messages.iter().all(|message| message.starts_with("\"ok\""));
            anyhow::ensure!(all_ok, "{part}: {messages:?}");
        }
        lab.apply(
            "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: closed}, spec: {
                podSelector: {}, policyTypes: [Egress]}}",
        )
        .await?;
        let network = messages(&check().await?, "network");
        anyhow::ensure!(
            network.iter().any(|message| message.starts_with("\"fail\"") && message.contains("closed")),
            "{network:?}"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn rotate_gives_a_sidecar_to_pods_that_were_there_before_the_policy() -> anyhow::Result<()> {
    in_namespace(async |lab| {
        // No policy selects the pod yet, so it gets no sidecar.
        let engine = Engine::new("llama");
        lab.engine(&engine).await?;
        lab.apply(POLICIES).await?;
        let planned = printed(lab, &["rotate", "--dry-run"]).await?;
        anyhow::ensure!(planned.contains("deployment llama (0 with an old sidecar, 1 without)"), "{planned}");
        // Nothing may be away meanwhile, so that the next pod is there before this one goes.
        let surge = json!({"spec": {"strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}}});
        lab.api::<Deployment>().patch("llama", &PatchParams::default(), &Patch::Merge(&surge)).await?;
        let done = printed(lab, &["rotate", "--timeout", "240"]).await?;
        anyhow::ensure!(done.contains("done"), "{done}");
        let pods = lab.ready_pods(&engine.selector(), 1).await?;
        lab.until_programmed(&pods[0]).await?;
        let nothing = printed(lab, &["rotate"]).await?;
        anyhow::ensure!(nothing.starts_with("Every pod"), "{nothing}");
        Ok(())
    })
    .await
}
