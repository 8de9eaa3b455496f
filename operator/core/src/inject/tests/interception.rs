use std::collections::BTreeSet;

use super::*;

const RESTRICTED: (&str, &str) = ("pod-security.kubernetes.io/enforce", "restricted");

fn named() -> Value {
    json!({
        "metadata": {"name": "llama"},
        "spec": {"containers": [
            {"name": "engine", "image": "e", "ports": [
                {"containerPort": 8000, "name": "http"}, {"containerPort": 53, "name": "dns", "protocol": "UDP"},
            ]},
            {"name": "embedder", "image": "e", "ports": [{"containerPort": 15130, "name": "embed"}]},
        ]},
    })
}

fn annotated(pod: &Value, name: &str, value: &str) -> Value {
    with(pod, &json!({"metadata": {"annotations": {name: value}}}))
}

fn numbered(name: &str, number: u16) -> ServiceFacts {
    ServiceFacts { name: name.to_owned(), numbers: BTreeSet::from([number]), ..ServiceFacts::default() }
}

fn outcome(pod: &Value, namespace: &NamespaceFacts, services: &[ServiceFacts], names: bool) -> Outcome {
    let admission = Admission {
        pod,
        namespace,
        ca_bundle: None,
        policy: None,
        selected: true,
        services,
        sidecar_port_names: names,
        drain_token: "0011223344556677",
    };
    inject(&admission, &settings())
}

fn by_name(pod: &Value) -> Value {
    match outcome(pod, &namespace(&[RESTRICTED]), &[], true) {
        Outcome::Injected { patch, .. } => {
            let mut pod = pod.clone();
            json_patch::patch(&mut pod, &patch).unwrap();
            pod
        }
        outcome @ Outcome::Skipped { .. } => panic!("{outcome:?}"),
    }
}

fn reason(outcome: Outcome) -> (SkipReason, String) {
    let Outcome::Skipped { skip, .. } = outcome else { panic!("{outcome:?}") };
    (skip.reason, skip.detail)
}

#[test]
fn where_net_admin_is_forbidden_the_names_of_guarded_ports_move_to_the_sidecar() {
    let pod = by_name(&named());
    let init = pod["spec"]["initContainers"].as_array().unwrap();
    assert_eq!(init.len(), 1, "nothing redirects");
    let ports = init[0]["ports"].as_array().unwrap();
    let port = |name: &str| ports.iter().find(|port| port["name"] == name).unwrap()["containerPort"].clone();
    // 15130 is taken by a container of the pod.
    assert_eq!((port("http"), port("embed")), (json!(15131), json!(15132)));
    let args = init[0]["args"].to_string();
    assert!(args.contains("--named-port=15131:8000") && args.contains("--named-port=15132:15130"), "{args}");
    let engine = &pod["spec"]["containers"][0]["ports"];
    assert_eq!(engine[0], json!({"containerPort": 8000}));
    assert_eq!(engine[1]["name"], "dns", "other names stay");
    assert_eq!(pod["metadata"]["annotations"][BY_NAME_ANNOTATION], "8000,15130");
}

#[test]
fn the_pods_own_probes_and_hooks_find_the_engine_by_number_then() {
    let probe = |handler: &str| json!({handler: {"port": "http"}});
    let mut pod = named();
    let container = &mut pod["spec"]["containers"][0];
    container["readinessProbe"] = json!({"httpGet": {"port": "http", "path": "/health"}});
    container["livenessProbe"] = probe("tcpSocket");
    container["startupProbe"] = json!({"grpc": {"port": 8000}});
    container["lifecycle"] = json!({"postStart": {"httpGet": {"port": "http", "path": "/warm"}}});
    let pod = by_name(&pod);
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["readinessProbe"]["httpGet"], json!({"port": 8000, "path": "/health"}));
    assert_eq!(container["livenessProbe"], json!({"tcpSocket": {"port": 8000}}));
    assert_eq!(
        container["startupProbe"],
        json!({"grpc": {"port": 8000}}),
        "the kubelet reaches the engine itself"
    );
    assert_eq!(container["lifecycle"]["postStart"]["httpGet"]["port"], 8000);
    assert_eq!(container["lifecycle"]["preStop"]["httpGet"]["port"], 15121, "it drains as any other");
}

#[test]
fn nothing_in_the_sidecar_offends_the_restricted_level() {
    let pod = by_name(&named());
    let sidecar = &pod["spec"]["initContainers"][0];
    let context = &sidecar["securityContext"];
    assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}));
    assert_eq!(context["runAsNonRoot"], true);
    assert_eq!(context["allowPrivilegeEscalation"], false);
    assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
    for volume in pod["spec"]["volumes"].as_array().unwrap() {
        assert!(volume.get("projected").is_some() || volume.get("emptyDir").is_some(), "{volume}");
    }
}

#[test]
fn who_would_go_around_is_named_and_prevents_injection() {
    let restricted = namespace(&[RESTRICTED]);
    let mut unnamed = named();
    unnamed["spec"]["containers"][0]["ports"][0].as_object_mut().unwrap().remove("name");
    let mut host = named();
    host["spec"]["containers"][0]["ports"][0]["hostPort"] = json!(80);
    let headless = ServiceFacts { name: "peers".to_owned(), headless: true, ..ServiceFacts::default() };
    for (pod, services, named) in [
        (unnamed, vec![], "port 8000 has no name"),
        (host, vec![], "hostPort of port 8000"),
        (named(), vec![numbered("other", 9090), numbered("llama", 8000)], "Service llama"),
        (named(), vec![headless], "Service peers"),
    ] {
        let (reason, detail) = reason(outcome(&pod, &restricted, &services, true));
        assert_eq!(reason, SkipReason::Bypassed, "{detail}");
        assert!(detail.contains(named), "{detail}");
    }
}

#[test]
fn an_owner_can_consent_to_clients_that_go_around() {
    let pod = annotated(&named(), ALLOW_BYPASS_ANNOTATION, "true");
    let outcome = outcome(&pod, &namespace(&[RESTRICTED]), &[numbered("llama", 8000)], true);
    assert!(matches!(outcome, Outcome::Injected { .. }), "{outcome:?}");
}

#[test]
fn what_cannot_work_is_a_reason_and_not_a_broken_pod() {
    let restricted = namespace(&[RESTRICTED]);
    let old = reason(outcome(&named(), &restricted, &[], false));
    assert!(old.0 == SkipReason::PodSecurity && old.1.contains("1.32"), "{old:?}");
    let redirect = annotated(&named(), INTERCEPTION_ANNOTATION, "Redirect");
    let forbidden = reason(outcome(&redirect, &restricted, &[], true));
    assert!(forbidden.0 == SkipReason::PodSecurity && forbidden.1.contains("NamedPort"), "{forbidden:?}");
    let wrong = annotated(&named(), INTERCEPTION_ANNOTATION, "Iptables");
    let wrong = reason(outcome(&wrong, &namespace(&[]), &[], true));
    assert!(
        wrong.0 == SkipReason::InvalidAnnotation && wrong.1.contains("Redirect or NamedPort"),
        "{wrong:?}"
    );
}

#[test]
fn a_pod_may_ask_for_names_where_redirection_is_allowed() {
    let pod = annotated(&named(), INTERCEPTION_ANNOTATION, "NamedPort");
    let Outcome::Injected { patch, .. } = outcome(&pod, &namespace(&[]), &[], true) else { panic!() };
    let mut patched = pod;
    json_patch::patch(&mut patched, &patch).unwrap();
    assert_eq!(patched["spec"]["initContainers"].as_array().unwrap().len(), 1);
}
