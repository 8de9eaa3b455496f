use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use tidegate_policy::{HeaderName, PolicyDocument, PrioritySource};

use super::*;

mod hostile;
mod interception;

fn settings() -> SidecarSettings {
    SidecarSettings {
        version: "0.1.0".to_owned(),
        image: "tidegate-sidecar:0.1.0".to_owned(),
        image_pull_policy: "IfNotPresent".to_owned(),
        pull_secrets: Vec::new(),
        operator_url: "https://tidegate-operator.tidegate-system.svc:8444".to_owned(),
        agent_url: None,
        log_level: "info".to_owned(),
        proxy_port: 15120,
        admin_port: 15121,
        interception: Interception::Auto,
        tracing: None,
        resources: SidecarResources::default(),
    }
}

fn labels(of: &[(&str, &str)]) -> BTreeMap<String, String> {
    of.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn namespace(extra: &[(&str, &str)]) -> NamespaceFacts {
    let mut labels = labels(extra);
    labels.entry("tidegate.dev/injection".to_owned()).or_insert_with(|| "enabled".to_owned());
    NamespaceFacts { labels, ..NamespaceFacts::default() }
}

fn pod() -> Value {
    json!({
        "metadata": {"name": "llama"},
        "spec": {"containers": [{"name": "engine", "image": "e", "ports": [{"containerPort": 8000}]}]},
    })
}

fn with(pod: &Value, patch: &Value) -> Value {
    let mut pod = pod.clone();
    json_patch::merge(&mut pod, patch);
    pod
}

fn run(pod: &Value, namespace: &NamespaceFacts, selected: bool) -> Outcome {
    run_with(pod, namespace, selected, &settings())
}

fn run_with(pod: &Value, namespace: &NamespaceFacts, selected: bool, settings: &SidecarSettings) -> Outcome {
    let admission = Admission {
        pod,
        namespace,
        ca_bundle: None,
        policy: None,
        selected,
        services: &[],
        sidecar_port_names: true,
        drain_token: "0011223344556677",
    };
    inject(&admission, settings)
}

#[test]
fn a_sidecar_is_told_where_to_send_traces_and_whose_they_are_only_where_there_is_a_collector() {
    let object = json!({
        "metadata": {"name": "llama-0", "namespace": "shop", "labels": {"app": "llama"}},
        "spec": {"containers": [{"name": "engine", "image": "e", "ports": [{"containerPort": 8000}]}]},
    });
    let variables = |tracing: Option<SidecarTracing>| {
        let settings = SidecarSettings { tracing, ..settings() };
        let Outcome::Injected { patch, .. } = run_with(&object, &namespace(&[]), true, &settings) else {
            panic!("not injected")
        };
        let mut pod = object.clone();
        json_patch::patch(&mut pod, &patch).unwrap();
        let containers = pod["spec"]["initContainers"].as_array().unwrap().clone();
        let sidecar =
            containers.into_iter().find(|container| container["restartPolicy"] == "Always").unwrap();
        sidecar["env"].clone()
    };
    assert_eq!(variables(None), Value::Null);
    let tracing = SidecarTracing { endpoint: "http://otel:4318".to_owned(), ratio: "0.5".to_owned() };
    let field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
    let expected = json!([
        {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://otel:4318"},
        {"name": "OTEL_TRACES_SAMPLER_ARG", "value": "0.5"},
        {"name": "POD_NAMESPACE", "valueFrom": field("metadata.namespace")},
        {"name": "POD_NAME", "valueFrom": field("metadata.name")},
        {"name": "OTEL_RESOURCE_ATTRIBUTES", "value": "k8s.namespace.name=$(POD_NAMESPACE),k8s.pod.name=$(POD_NAME)"},
        {"name": "OTEL_SERVICE_NAME", "value": "llama"},
    ]);
    assert_eq!(variables(Some(tracing)), expected);
}

fn patched(pod: &Value) -> (Value, Vec<String>) {
    match run(pod, &namespace(&[]), true) {
        Outcome::Injected { patch, warnings } => {
            let mut pod = pod.clone();
            json_patch::patch(&mut pod, &patch).unwrap();
            (pod, warnings)
        }
        outcome @ Outcome::Skipped { .. } => panic!("{outcome:?}"),
    }
}

/// The reason, and what the annotation says afterwards.
fn skipped(pod: &Value, namespace: &NamespaceFacts) -> (SkipReason, Option<String>) {
    match run(pod, namespace, true) {
        Outcome::Skipped { skip, patch } => {
            assert!(!skip.detail.is_empty() && !skip.detail.contains('\n'), "{skip}");
            let mut pod = pod.clone();
            json_patch::patch(&mut pod, &patch).unwrap();
            let annotation = pod["metadata"]["annotations"][SKIPPED_ANNOTATION].as_str().map(str::to_owned);
            (skip.reason, annotation)
        }
        outcome @ Outcome::Injected { .. } => panic!("{outcome:?}"),
    }
}

#[test]
fn each_pod_that_must_not_be_injected_has_its_reason() {
    use SkipReason::{
        Bypassed, HostNetwork, InvalidAnnotation, InvalidPatch, NoPortToGuard, OptedOut, OtherMesh,
        PodSecurity, Windows,
    };
    let annotated = |name: &str, value: &str| json!({"metadata": {"annotations": {name: value}}});
    let container = |name: &str| json!({"spec": {"initContainers": [{"name": name, "image": "i"}]}});
    let udp =
        json!({"spec": {"containers": [{"name": "e", "ports": [{"containerPort": 53, "protocol": "UDP"}]}]}});
    let own = json!({"spec": {"containers": [{"name": "e", "ports": [{"containerPort": 15121}]}]}});
    let redirected = annotated(INTERCEPTION_ANNOTATION, "Redirect");
    let twice = json!({"spec": {"volumes": [{"name": "tidegate-state"}]}});
    let cases = [
        (json!({"spec": {"hostNetwork": true}}), namespace(&[]), HostNetwork),
        (json!({"metadata": {"labels": {"tidegate.dev/inject": "disabled"}}}), namespace(&[]), OptedOut),
        (udp, namespace(&[]), NoPortToGuard),
        (redirected.clone(), namespace(&[("pod-security.kubernetes.io/enforce", "baseline")]), PodSecurity),
        (redirected, namespace(&[("pod-security.kubernetes.io/enforce", "restricted")]), PodSecurity),
        (json!({}), namespace(&[("pod-security.kubernetes.io/enforce", "baseline")]), Bypassed),
        (container("istio-init"), namespace(&[]), OtherMesh),
        (container("istio-proxy"), namespace(&[]), OtherMesh),
        (container("linkerd-proxy"), namespace(&[]), OtherMesh),
        (annotated("linkerd.io/inject", "enabled"), namespace(&[]), OtherMesh),
        (annotated("sidecar.istio.io/inject", "true"), namespace(&[]), OtherMesh),
        (json!({}), namespace(&[("istio-injection", "enabled")]), OtherMesh),
        (json!({}), namespace(&[("istio.io/rev", "stable")]), OtherMesh),
        (json!({}), namespace(&[("istio.io/dataplane-mode", "ambient")]), OtherMesh),
        (json!({"spec": {"os": {"name": "windows"}}}), namespace(&[]), Windows),
        (json!({"spec": {"nodeSelector": {"kubernetes.io/os": "windows"}}}), namespace(&[]), Windows),
        (annotated("tidegate.dev/ports", "8000,http"), namespace(&[]), InvalidAnnotation),
        (annotated("tidegate.dev/ports", ""), namespace(&[]), InvalidAnnotation),
        (annotated("tidegate.dev/ports", "0"), namespace(&[]), InvalidAnnotation),
        (annotated("tidegate.dev/ports", "15120"), namespace(&[]), InvalidAnnotation),
        (annotated("tidegate.dev/opaque-ports", "70000"), namespace(&[]), InvalidAnnotation),
        (annotated("tidegate.dev/engine-metrics-port", "metrics"), namespace(&[]), InvalidAnnotation),
        (annotated("tidegate.dev/http2-ports", "h2c"), namespace(&[]), InvalidAnnotation),
        (annotated("tidegate.dev/memory-limit", "lots"), namespace(&[]), InvalidAnnotation),
        (
            json!({"metadata": {"annotations": {CPU_REQUEST_ANNOTATION: "2", CPU_LIMIT_ANNOTATION: "1"}}}),
            namespace(&[]),
            InvalidAnnotation,
        ),
        (annotated("tidegate.dev/memory-request", "1Gi"), namespace(&[]), InvalidAnnotation),
        (annotated("tidegate.dev/gpu-claims", "gpu"), namespace(&[]), InvalidAnnotation),
        (
            json!({"metadata": {"annotations": {OPAQUE_PORTS_ANNOTATION: "9000", HTTP2_PORTS_ANNOTATION: "9000"}}}),
            namespace(&[]),
            InvalidAnnotation,
        ),
        (annotated("tidegate.dev/log-level", "loud"), namespace(&[]), InvalidAnnotation),
        (json!({"metadata": {"labels": {"tidegate.dev/inject": "yes"}}}), namespace(&[]), InvalidAnnotation),
        (own, namespace(&[]), InvalidPatch),
        (twice, namespace(&[]), InvalidPatch),
    ];
    for (change, namespace, reason) in cases {
        let pod = with(&pod(), &change);
        assert_eq!(skipped(&pod, &namespace), (reason, Some(reason.to_string())), "{change}");
    }
}

#[test]
fn a_port_that_speaks_http_2_is_guarded_and_the_sidecar_is_told() {
    let annotated = json!({"metadata": {"annotations": {HTTP2_PORTS_ANNOTATION: "8001"}}});
    let pod = with(&pod(), &annotated);
    let Outcome::Injected { patch, .. } = run(&pod, &namespace(&[]), true) else { panic!("not injected") };
    let mut patched = pod;
    json_patch::patch(&mut patched, &patch).unwrap();
    let args = |container: usize| patched["spec"]["initContainers"][container]["args"].to_string();
    assert!(args(0).contains("--guard=8001"), "{}", args(0));
    assert!(args(1).contains("--guard=8001") && args(1).contains("--http2=8001"), "{}", args(1));
}

#[test]
fn a_pod_that_never_asked_is_left_without_a_word() {
    let silent = NamespaceFacts::default();
    assert_eq!(skipped(&pod(), &silent), (SkipReason::NotRequested, None));
    let disabled = with(&pod(), &json!({"metadata": {"labels": {"tidegate.dev/inject": "disabled"}}}));
    assert_eq!(skipped(&disabled, &silent), (SkipReason::NotRequested, None));
}

#[test]
fn the_namespace_label_needs_a_policy_and_the_pod_label_does_not() {
    let Outcome::Skipped { skip, patch } = run(&pod(), &namespace(&[]), false) else { panic!() };
    assert_eq!((skip.reason, patch.0.len()), (SkipReason::NoPolicy, 0));
    let asked = with(&pod(), &json!({"metadata": {"labels": {"tidegate.dev/inject": "enabled"}}}));
    assert!(matches!(run(&asked, &NamespaceFacts::default(), false), Outcome::Injected { .. }));
}

#[test]
fn a_mesh_that_is_opted_out_of_does_not_prevent_injection() {
    let own = json!({"metadata": {"labels": {"sidecar.istio.io/inject": "false"}}});
    let istio = namespace(&[("istio-injection", "enabled")]);
    assert!(matches!(run(&with(&pod(), &own), &istio, true), Outcome::Injected { .. }));
    let own = json!({"metadata": {"annotations": {"linkerd.io/inject": "disabled"}}});
    let linkerd =
        NamespaceFacts { annotations: labels(&[("linkerd.io/inject", "enabled")]), ..namespace(&[]) };
    assert!(matches!(run(&with(&pod(), &own), &linkerd, true), Outcome::Injected { .. }));
}

#[test]
fn what_is_no_pod_is_skipped_and_not_patched() {
    for garbage in
        [json!(null), json!(7), json!({}), json!({"spec": "x"}), json!({"spec": {"containers": "x"}})]
    {
        let Outcome::Skipped { skip, patch } = run(&garbage, &namespace(&[]), true) else {
            panic!("{garbage}")
        };
        assert_eq!((skip.reason, patch.0.len()), (SkipReason::InvalidPatch, 0), "{garbage}");
    }
}

#[test]
fn an_absent_annotation_map_and_a_null_list_are_made_first() {
    let (pod, _) = patched(&with(&pod(), &json!({"spec": {"volumes": []}})));
    assert_eq!(pod["metadata"]["annotations"][INJECTED_ANNOTATION], "0.1.0");
    let mut null = self::pod();
    null["spec"]["initContainers"] = Value::Null;
    assert_eq!(patched(&null).0["spec"]["initContainers"].as_array().unwrap().len(), 2);
}

#[test]
fn a_container_that_is_not_guaranteed_leaves_the_sidecar_burstable_with_a_cpu_request() {
    let (pod, _) = patched(&pod());
    let resources = &pod["spec"]["initContainers"][1]["resources"];
    assert_eq!(resources["requests"], json!({"cpu": "50m", "memory": "32Mi"}));
    assert_eq!(resources["limits"], json!({"memory": "128Mi"}));
}

#[test]
fn a_pod_with_resources_as_a_whole_gets_no_others() {
    let (pod, warnings) = patched(&with(&pod(), &json!({"spec": {"resources": {"limits": {"cpu": "1"}}}})));
    assert_eq!(pod["spec"]["initContainers"][1].get("resources"), None);
    assert_eq!(warnings.len(), 1);
}

#[test]
fn a_guarded_port_that_nobody_declares_holds_every_container() {
    let mut pod = with(&pod(), &json!({"metadata": {"annotations": {"tidegate.dev/ports": "9999"}}}));
    pod["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": "other", "image": "o"}));
    let (pod, _) = patched(&pod);
    for container in pod["spec"]["containers"].as_array().unwrap() {
        assert_eq!(container["lifecycle"]["preStop"]["httpGet"]["port"], 15121);
    }
}

#[test]
fn a_probe_path_that_cannot_be_a_flag_is_limited_and_reported() {
    for path in ["/a,b", "/a b", "/\u{e9}", "/'"] {
        let mut pod = pod();
        pod["spec"]["containers"][0]["livenessProbe"] = json!({"httpGet": {"port": 8000, "path": path}});
        let (pod, warnings) = patched(&pod);
        assert_eq!(warnings.len(), 1, "{path}");
        assert_eq!(pod["metadata"]["annotations"][WARNING_ANNOTATION], warnings[0]);
        let args = pod["spec"]["initContainers"][1]["args"].to_string();
        assert_eq!(args.matches("--unlimited-path").count(), 1, "{args}");
    }
}

#[test]
fn a_snapshot_survives_the_annotation_and_is_left_out_when_it_is_too_large() {
    let mut document = PolicyDocument::default();
    let text = encode_snapshot(&document).unwrap();
    assert_eq!(PolicyDocument::from_json(&decode_snapshot(&text).unwrap()).unwrap(), document);
    document.priority.from = (0_u64..20_000)
        .map(|i| PrioritySource {
            header: HeaderName::new(&format!("x-{:016x}", i.wrapping_mul(0x9e37_79b9_7f4a_7c15))).ok(),
            ..PrioritySource::default()
        })
        .collect();
    assert_eq!(encode_snapshot(&document), None);
}

proptest! {
    #[test]
    fn no_annotation_value_breaks_a_pod(ports in ".{0,20}", opaque in ".{0,20}", level in ".{0,8}") {
        let annotations = json!({
            PORTS_ANNOTATION: ports, OPAQUE_PORTS_ANNOTATION: opaque, LOG_LEVEL_ANNOTATION: level,
        });
        let pod = with(&pod(), &json!({"metadata": {"annotations": annotations}}));
        match run(&pod, &namespace(&[]), true) {
            Outcome::Injected { patch, .. } | Outcome::Skipped { patch, .. } => {
                prop_assert!(json_patch::patch(&mut pod.clone(), &patch).is_ok());
            }
        }
    }
}

/// What a pod names in `annotation` is mounted as this volume, and nothing but its sidecar is told of it.
fn assert_mounted(annotation: &str, volume: &str, source: &Value) {
    let annotated = |name: &str| json!({"metadata": {"annotations": {annotation: name}}});
    let (pod, _) = patched(&with(&pod(), &annotated("llama.keys-2")));
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    let mut expected = json!({"name": volume});
    expected.as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
    assert!(volumes.contains(&expected), "{volumes:?}");
    let all = ["initContainers", "containers"].map(|kind| pod["spec"][kind].as_array().unwrap().clone());
    for container in all.concat() {
        let is_sidecar = container["name"] == "tidegate-sidecar";
        let mounts = container["volumeMounts"].to_string();
        assert_eq!(mounts.contains(volume), is_sidecar, "{container}");
        let argument = format!("--{}=/var/run/{volume}", volume.trim_start_matches("tidegate-"));
        assert_eq!(container["args"].to_string().contains(&argument), is_sidecar, "{container}");
    }
    for wrong in ["", "Upper", "a/b", "-a", "a..b", &"a".repeat(254)] {
        let pod = with(&self::pod(), &annotated(wrong));
        let Outcome::Skipped { skip, .. } = run(&pod, &namespace(&[]), true) else { panic!("{wrong:?}") };
        assert_eq!(skip.reason, SkipReason::InvalidAnnotation, "{wrong:?}");
    }
}

#[test]
fn the_secret_that_a_pod_names_is_mounted_into_its_sidecar_alone() {
    let source = json!({"secret": {"secretName": "llama.keys-2", "optional": true}});
    assert_mounted(API_KEYS_ANNOTATION, "tidegate-api-keys", &source);
}

#[test]
fn the_config_map_with_key_sets_that_a_pod_names_is_mounted_into_its_sidecar_alone() {
    let source = json!({"configMap": {"name": "llama.keys-2", "optional": true}});
    assert_mounted(JWKS_ANNOTATION, "tidegate-jwks", &source);
}

#[test]
fn the_sidecar_is_told_which_engine_it_guards_and_where_its_metrics_are() {
    let labelled = |label: &str, value: &str| json!({"metadata": {"labels": {label: value}}});
    let annotated = |name: &str, value: &str| json!({"metadata": {"annotations": {name: value}}});
    let arguments = |change: &Value| {
        let (pod, _) = patched(&with(&pod(), change));
        let containers = pod["spec"]["initContainers"].as_array().unwrap().clone();
        let sidecar = containers.into_iter().find(|c| c["name"] == "tidegate-sidecar").unwrap();
        sidecar["args"].as_array().unwrap().clone()
    };
    for (change, argument) in [
        (annotated("tidegate.dev/engine-metrics-port", "8002"), "--engine-metrics=8002"),
        (labelled("llm-d.ai/engine-type", "sglang"), "--engine-type=sglang"),
        (labelled("inference.networking.k8s.io/engine-type", "vllm"), "--engine-type=vllm"),
    ] {
        assert!(arguments(&change).contains(&json!(argument)), "{change}");
    }
    let unknown = arguments(&labelled("llm-d.ai/engine-type", "its-own"));
    assert!(!unknown.iter().any(|found| found.as_str().unwrap().starts_with("--engine")), "{unknown:?}");
}
