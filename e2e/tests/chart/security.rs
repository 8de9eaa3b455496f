//! Pod Security: the strictest level that admits each component, by the API server's own rules.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;

use serde_json::{Value, json};
use tidegate_e2e::cluster::{binaries, process, progress::Progress};
use tokio::io::AsyncWriteExt as _;

use super::{EVERYTHING, objects, of_kind, page, pods, workspace};

/// Level of each pod, and what the next stricter one forbids.
async fn levels(pods: Vec<(String, Value)>) -> BTreeMap<String, (String, String)> {
    let program = binaries::pod_security(&Progress::start()).await.unwrap();
    let mut command = process::command(program);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (names, objects): (Vec<_>, Vec<_>) = pods.into_iter().unzip();
    let input = Value::Array(objects).to_string();
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    let verdicts: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let levels = verdicts.iter().map(|verdict| (text(&verdict["level"]), text(&verdict["forbids"])));
    names.into_iter().zip(levels).collect()
}

fn injected(name: &str) -> (String, Value) {
    let file = workspace().join(format!("operator/core/tests/golden/{name}.out.yaml"));
    (name.to_owned(), serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap()).unwrap())
}

#[tokio::test]
async fn each_component_keeps_to_the_pod_security_level_that_the_page_says() {
    let mut all = pods(&objects(EVERYTHING).await);
    let mut guarded = injected("named-port");
    // What its owner would have written in such a namespace: the rest is Tidegate's.
    guarded.1["spec"]["containers"][0]["securityContext"] =
        json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    all.push(guarded);
    all.extend(["auto-in-baseline", "auto-in-restricted"].map(injected));
    all.push(injected("vllm"));
    let levels = levels(all).await;
    assert_eq!(levels["tidegate-operator"].0, "restricted", "{levels:?}");
    for name in ["named-port", "auto-in-baseline", "auto-in-restricted"] {
        assert_eq!(levels[name].0, "restricted", "{levels:?}");
    }
    // The agent needs the kubelet's socket and the driver, and what redirects needs NET_ADMIN: nothing else is amiss.
    let (agent, forbids) = &levels["tidegate-agent"];
    assert_eq!(agent, "privileged");
    assert_eq!(forbids, "hostPath volumes (volumes \"pod-resources\", \"driver\")");
    let (redirected, forbids) = &levels["vllm"];
    assert_eq!(redirected, "privileged");
    assert!(forbids.contains("NET_ADMIN") && forbids.contains("tidegate-redirect"), "{forbids}");
    let docs = page("docs/security.md");
    for row in [
        "| operator | `restricted` |",
        "| agent | `privileged` |",
        "| sidecar, `NamedPort` | `restricted` |",
        "| sidecar, `Redirect` | `privileged` |",
    ] {
        assert!(docs.contains(row), "docs/security.md has no row {row}");
    }
}

#[tokio::test]
async fn no_container_of_the_chart_may_write_to_its_root_or_gain_privileges() {
    for (name, pod) in pods(&objects(EVERYTHING).await) {
        for container in pod["spec"]["containers"].as_array().unwrap() {
            let context = &container["securityContext"];
            assert_eq!(context["readOnlyRootFilesystem"], true, "{name}");
            assert_eq!(context["allowPrivilegeEscalation"], false, "{name}");
            assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}), "{name}");
        }
        assert_ne!(pod["spec"]["hostNetwork"], true, "{name}");
        for mount in pod["spec"]["containers"][0]["volumeMounts"].as_array().into_iter().flatten() {
            assert_eq!(mount["readOnly"], true, "{name}: {mount}");
        }
    }
}

#[tokio::test]
async fn network_policies_let_in_what_the_services_and_probes_need() {
    let objects = objects(EVERYTHING).await;
    let policies: Vec<_> = of_kind(&objects, "NetworkPolicy").collect();
    assert_eq!(policies.len(), 2);
    for (workload, pod) in pods(&objects) {
        let policy = policies.iter().find(|policy| policy["metadata"]["name"] == workload.as_str()).unwrap();
        for (key, value) in policy["spec"]["podSelector"]["matchLabels"].as_object().unwrap() {
            assert_eq!(&pod["metadata"]["labels"][key], value, "{workload}: its own pods are meant");
        }
        let rules = policy["spec"]["ingress"].as_array().unwrap().iter();
        let open: Vec<_> =
            rules.flat_map(|rule| rule["ports"].as_array().unwrap()).map(|port| &port["port"]).collect();
        for port in pod["spec"]["containers"][0]["ports"].as_array().unwrap() {
            assert!(open.contains(&&port["name"]), "{workload}: nothing lets {port} in");
        }
        assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    }
}

/// Every rule of egress: to whom (an empty text is anywhere), by which protocol, to which port.
fn egress(policy: &Value) -> BTreeSet<(String, String, String)> {
    let rules = policy["spec"]["egress"].as_array().unwrap().iter();
    rules
        .flat_map(|rule| {
            let to = if rule["to"].is_null() { String::new() } else { rule["to"].to_string() };
            rule["ports"].as_array().unwrap().iter().map(move |port| {
                assert!(port["endPort"].is_null(), "{port} is a range");
                let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                (to.clone(), text(&port["protocol"]), text(&port["port"]))
            })
        })
        .collect()
}

#[tokio::test]
async fn network_policies_let_each_component_reach_what_it_needs_and_nothing_else() {
    let anywhere = |protocol: &str, port: &str| (String::new(), protocol.to_owned(), port.to_owned());
    // Names and the API server, whose address nobody can name.
    let common = |ports: &[&str]| {
        let names = [anywhere("UDP", "53"), anywhere("TCP", "53")];
        names.into_iter().chain(ports.iter().map(|port| anywhere("TCP", port))).collect::<BTreeSet<_>>()
    };
    let more = ["networkPolicies.apiServerPorts={8443}"];
    for (ports, values) in [(["443", "6443"].as_slice(), &[][..]), (["8443"].as_slice(), more.as_slice())] {
        let objects = objects(&[EVERYTHING, values].concat()).await;
        let named =
            |name: &str| of_kind(&objects, "NetworkPolicy").find(|one| one["metadata"]["name"] == name);
        // The agent asks the API server whose token it was shown, and nobody else.
        assert_eq!(egress(named("tidegate-agent").unwrap()), common(ports));
        // Replicas of the operator send the leader what sidecars report.
        let operator = named("tidegate-operator").unwrap();
        let own = json!([{"podSelector": operator["spec"]["podSelector"]}]).to_string();
        let mut expected = common(ports);
        expected.insert((own, "TCP".to_owned(), "policy".to_owned()));
        assert_eq!(egress(operator), expected);
    }
}
