//! The alert rules, and a real Prometheus that scrapes the sidecar's own binary.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_e2e::cluster::{packages, process, progress::Progress};
use tidegate_e2e::harness::{Http, eventually, release};
use tidegate_e2e::server::{Server, free_address};

const RULES: &str = include_str!("../../../helm/tidegate/rules/tidegate.yaml");
const CASES: &str = include_str!("alerts.yaml");
const DOCS: &str = include_str!("../../../docs/metrics.md");

/// Prometheus and its tool: those of this machine, else Debian's, unpacked beside all that is built once.
async fn program(name: &str) -> PathBuf {
    if let Some(path) = packages::program(name) {
        return path.into();
    }
    packages::unpacked(&Progress::start(), "prometheus").await.unwrap().join("usr/bin").join(name)
}

/// Beside this test's own, where `make` has built it.
fn sidecar_binary() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let binary = own.parent().and_then(Path::parent).unwrap().join("tidegate-sidecar");
    assert!(binary.exists(), "{} is missing: run this through `make alerts`", binary.display());
    binary
}

fn parsed(yaml: &str) -> Value {
    serde_saphyr::from_str(yaml).unwrap()
}

fn rules() -> Vec<Value> {
    parsed(RULES)["groups"].as_array().unwrap()[0]["rules"].as_array().unwrap().clone()
}

/// A sidecar before an engine that is not there, under a breaker that two failures open.
async fn sidecar(folder: &Path) -> (Server, String) {
    let document = json!({
        "apiVersion": "policy.tidegate.dev/v1", "revision": "r1",
        "breaker": {
            "policy": "a/b", "mode": "Enforce", "trip": {"consecutiveFailures": {"count": 2}},
            "openMillis": 3_600_000, "halfOpen": {"probes": 1},
        },
    });
    let policy = folder.join("policy.json");
    std::fs::write(&policy, document.to_string()).unwrap();
    let (listen, admin) = (free_address().unwrap(), free_address().unwrap());
    let mut command = process::command(sidecar_binary());
    command.args(["run", "--listen", &listen.to_string(), "--admin", &admin.to_string()]);
    command.args(["--upstream", "127.0.0.1:1"]).arg("--policy-file").arg(&policy);
    let sidecar = Server::start(&mut command, listen, &folder.join("sidecar.log")).await.unwrap();
    (sidecar, admin.to_string())
}

async fn prometheus(folder: &Path, target: &str) -> Server {
    std::fs::write(folder.join("rules.yaml"), RULES).unwrap();
    let config = json!({
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [{
            "job_name": "sidecars",
            "static_configs": [{"targets": [target], "labels": {"namespace": "shop", "pod": "llama-0"}}],
        }],
    });
    // JSON is YAML.
    let file = folder.join("prometheus.yaml");
    std::fs::write(&file, config.to_string()).unwrap();
    let listen = free_address().unwrap();
    let mut command = process::command(program("prometheus").await);
    command.arg(format!("--config.file={}", file.display()));
    command.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
    command.arg(format!("--web.listen-address={listen}"));
    Server::start(&mut command, listen, &folder.join("prometheus.log")).await.unwrap()
}

async fn ask(prometheus: &Server, path: &str) -> Result<Value, String> {
    let answer = Http::default().get(&prometheus.url(path)).await.map_err(|error| format!("{error:#}"))?;
    let value: Value =
        serde_json::from_str(&answer.body).map_err(|error| format!("{error}: {}", answer.body))?;
    Ok(value["data"].clone())
}

#[tokio::test]
async fn every_alert_fires_when_it_should_and_not_before() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rules.yaml"), RULES).unwrap();
    std::fs::write(folder.path().join("alerts.yaml"), CASES).unwrap();
    let mut promtool = process::command(program("promtool").await);
    promtool.args(["test", "rules", "alerts.yaml"]).current_dir(folder.path());
    process::output(&mut promtool).await.unwrap();
    for rule in rules() {
        let alert = rule["alert"].as_str().unwrap();
        assert!(CASES.contains(&format!("alertname: {alert}\n")), "{alert} fires in no case");
        assert!(DOCS.contains(&format!("| `{alert}` |")), "{alert} is not in docs/metrics.md");
    }
}

#[test]
fn alerts_name_metrics_that_there_are() {
    let mut named = BTreeSet::new();
    for rule in rules() {
        let words = rule["expr"]
            .as_str()
            .unwrap()
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .map(str::to_owned);
        named.extend(words.filter(|word| word.starts_with("tidegate_")));
    }
    assert!(named.len() > 5, "{named:?}");
    for name in named {
        assert!(
            DOCS.contains(&format!("`{name}`")),
            "{name} is not in docs/metrics.md, which lists all there are"
        );
    }
}

#[tokio::test]
async fn a_real_prometheus_scrapes_the_sidecar_and_an_alert_fires() {
    let folder = tempfile::tempdir().unwrap();
    let (sidecar, admin) = sidecar(folder.path()).await;
    for status in [502, 502, 503] {
        let answer = Http::default().get(&sidecar.url("/v1/chat/completions")).await.unwrap();
        assert_eq!(answer.status.as_u16(), status);
    }
    let prometheus = prometheus(folder.path(), &admin).await;
    eventually("the alert", Duration::from_mins(4), async || {
        let alerts = ask(&prometheus, "/api/v1/alerts").await?;
        let firing = |alert: &&Value| {
            alert["labels"]["alertname"] == "TidegateBreakerOpen" && alert["state"] == "firing"
        };
        let found = alerts["alerts"].as_array().into_iter().flatten().find(firing);
        let labels = found.map(|alert| &alert["labels"]).ok_or_else(|| alerts.to_string())?;
        if labels["pod"] == "llama-0" { Ok(()) } else { Err(labels.to_string()) }
    })
    .await
    .unwrap();
    // A scrape may be late on a busy machine, and rules are evaluated one after the other.
    eventually("a target that is up", Duration::from_mins(2), async || {
        let targets = ask(&prometheus, "/api/v1/targets").await?;
        let target = &targets["activeTargets"][0];
        let is_up = target["health"] == "up" && target["lastError"] == "";
        if is_up { Ok(()) } else { Err(target.to_string()) }
    })
    .await
    .unwrap();
    eventually("rules without an error", Duration::from_mins(2), async || {
        let groups = ask(&prometheus, "/api/v1/rules").await?;
        let rules = groups["groups"][0]["rules"].as_array().cloned().unwrap_or_default();
        let all_ok = !rules.is_empty() && rules.iter().all(|rule| rule["health"] == "ok");
        if all_ok { Ok(()) } else { Err(groups.to_string()) }
    })
    .await
    .unwrap();
    let names = ask(&prometheus, "/api/v1/label/__name__/values").await.unwrap();
    let names: Vec<&str> = names.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    for name in [
        "tidegate_requests_total",
        "tidegate_decisions_total",
        "tidegate_request_duration_seconds_bucket",
        "gen_ai_server_request_duration_seconds_count",
    ] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    prometheus.stop().await.unwrap();
    sidecar.stop().await.unwrap();
}

#[tokio::test]
async fn the_chart_brings_the_same_alerts_and_has_the_sidecars_scraped() {
    let on = [
        "monitoring.rules.enabled=true",
        "monitoring.podMonitor.enabled=true",
        "monitoring.rules.labels.release=p",
    ];
    let arguments: Vec<&str> = on.into_iter().flat_map(|value| ["--set", value]).collect();
    let rendered = release::template(&arguments).await.unwrap();
    let of = |kind: &str| {
        let mut documents =
            rendered.split("\n---\n").filter(|text| text.contains(&format!("\nkind: {kind}\n")));
        parsed(documents.next().unwrap_or_else(|| panic!("no {kind} in\n{rendered}")))
    };
    let rule = of("PrometheusRule");
    assert_eq!(rule["spec"], parsed(RULES));
    assert_eq!(rule["metadata"]["labels"]["release"], "p");
    assert_eq!(of("PodMonitor")["spec"]["podMetricsEndpoints"][0]["port"], "tidegate-admin");
    assert!(
        !release::template(&[]).await.unwrap().contains("monitoring.coreos.com"),
        "both are off by default"
    );
}
