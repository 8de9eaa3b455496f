//! What a pod's owner wrote comes into the patch as data alone: nothing of it is ever a part of something that is read
//! again, be it an argument, a path of the patch, or a reference that the kubelet expands.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::sample::select;

use super::*;
use crate::inject::names::EVICTABLE_VOLUMES_ANNOTATION;

/// What means something to JSON, JSON Pointer, YAML, templates, shells, formats, the kubelet, URLs or terminals.
const META: [&str; 40] = [
    "\"",
    "'",
    "\\",
    "\n",
    "\r\n",
    "\t",
    "\u{0}",
    "\u{1b}[31m",
    "\u{202e}",
    "\u{feff}",
    "~0",
    "~1",
    "/",
    "../",
    "\"},{\"op\":\"remove\",\"path\":\"/spec\"}",
    "{",
    "}",
    "[",
    "]",
    ": ",
    "- x: y",
    "\n---\n",
    "!!map",
    "&a *a",
    "|",
    "#",
    "{{ .Values }}",
    "{}",
    "{0}",
    "%s%n",
    "$",
    "$$",
    "$(POD_NAME)",
    "$((",
    "${HOME}",
    "`id`",
    "; id",
    ",",
    "?a=b",
    "--guard=22",
];

/// Texts in the order in which a pod takes them.
const TEXTS: usize = 24;

fn hostile() -> impl Strategy<Value = Vec<String>> {
    let piece = prop_oneof![3 => select(&META[..]).prop_map(str::to_owned), 1 => ".{0,6}", 1 => "[a-z]{0,3}"];
    vec(vec(piece, 1..6).prop_map(|pieces| pieces.concat()), TEXTS)
}

/// The pod with a text wherever its owner can write one. Names that have to differ do.
fn written_by(texts: &[String]) -> Value {
    let mut texts = texts.iter();
    let mut text = || texts.next().unwrap().clone();
    let unique = |prefix: &str, text: String| format!("{prefix}{text}");
    json!({
        "metadata": {
            "name": text(), "generateName": text(), "namespace": text(),
            "labels": {"app": text(), "llm-d.ai/engine-type": unique("my-", text()), unique("label", text()): text()},
            "annotations": {EVICTABLE_VOLUMES_ANNOTATION: text(), unique("annotation", text()): text()},
        },
        "spec": {
            "serviceAccountName": text(),
            "nodeSelector": {unique("node", text()): text()},
            "resourceClaims": [{"name": "gpu", "resourceClaimName": text()}],
            "volumes": [{"name": unique("volume", text()), "emptyDir": {}}],
            "containers": [
                {
                    "name": unique("engine", text()), "image": text(), "command": ["serve"],
                    "args": [text()],
                    "env": [{"name": unique("E", text()), "value": text()}],
                    "ports": [{"containerPort": 8000, "name": unique("port", text())}],
                    "resources": {"claims": [{"name": unique("gpu", text())}]},
                    "livenessProbe": {"httpGet": {"port": 8000, "path": text()}},
                    "readinessProbe": {"grpc": {"port": 8000, "service": text()}},
                    "lifecycle": {"preStop": {"exec": {"command": ["true"]}}},
                },
                {"name": "tls", "image": "i", "ports": [{"containerPort": 8443}],
                 "livenessProbe": {"httpGet": {"port": 8443, "path": "/", "scheme": "HTTPS"}}},
            ],
        },
    })
}

fn guarded(pod: &Value, extra: &[(&str, &str)]) -> Option<(Patch, Value, Vec<String>)> {
    let tracing = SidecarTracing { endpoint: "http://otel:4318".to_owned(), ratio: "0.5".to_owned() };
    let settings = SidecarSettings { tracing: Some(tracing), ..settings() };
    let mut pod = pod.clone();
    if !extra.is_empty() {
        // By its name alone: a port without one cannot be guarded so.
        pod["spec"]["containers"].as_array_mut().unwrap().truncate(1);
    }
    match run_with(&pod, &namespace(extra), true, &settings) {
        Outcome::Injected { patch, warnings } => {
            json_patch::patch(&mut pod, &patch).unwrap();
            Some((patch, pod, warnings))
        }
        Outcome::Skipped { .. } => None,
    }
}

/// As the kubelet does (`k8s.io/kubernetes/third_party/forked/golang/expansion`): what it would look up is marked.
fn expanded(text: &str) -> String {
    let mut rest = text;
    let mut out = String::new();
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let (kept, next) = match after.chars().next() {
            Some('$') => ("$", &after[1..]),
            Some('(') if after.contains(')') => ("<looked up>", after.split_once(')').unwrap().1),
            _ => ("$", after),
        };
        out.push_str(kept);
        rest = next;
    }
    out + rest
}

fn strings<'a>(list: &'a Value, prefix: &'a str) -> impl Iterator<Item = String> + 'a {
    let texts = list.as_array().into_iter().flatten().map(|one| one.as_str().unwrap());
    texts.filter_map(move |text| Some(expanded(text.strip_prefix(prefix)?)))
}

fn sidecar_of(pod: &Value) -> Value {
    let containers = pod["spec"]["initContainers"].as_array().unwrap();
    containers.iter().find(|container| container["name"] == SIDECAR_CONTAINER).unwrap().clone()
}

/// All that was added, with the texts of the owner taken out where they may be: each as it was written.
fn without_data(patch: &Patch, pod: &Value, patched: &Value) -> Value {
    let engine = &pod["spec"]["containers"][0];
    let sidecar = sidecar_of(patched);
    let written = engine["livenessProbe"]["httpGet"]["path"].as_str().unwrap();
    let asked = if written.starts_with('/') { written.to_owned() } else { format!("/{written}") };
    let asked = asked.split(['?', '#']).next().unwrap().to_owned();
    for unlimited in strings(&sidecar["args"], "--unlimited-path=") {
        assert!(unlimited == asked || unlimited == "/metrics", "{unlimited:?} is not {asked:?}");
    }
    let service =
        sidecar["env"].as_array().unwrap().iter().find(|one| one["name"] == "OTEL_SERVICE_NAME").unwrap();
    assert_eq!(json!(expanded(service["value"].as_str().unwrap())), pod["metadata"]["labels"]["app"]);
    assert_eq!(sidecar["resources"]["claims"], engine["resources"]["claims"]);
    if sidecar["ports"].as_array().unwrap().len() > 1 {
        assert_eq!(sidecar["ports"][1]["name"], engine["ports"][0]["name"]);
    }
    let evictable = &pod["metadata"]["annotations"][EVICTABLE_VOLUMES_ANNOTATION];
    let kept = patched["metadata"]["annotations"][EVICTABLE_VOLUMES_ANNOTATION].as_str().unwrap();
    assert_eq!(kept.strip_suffix(",tidegate-state,tidegate-no-token"), evictable.as_str());
    let mut operations = serde_json::to_value(patch).unwrap();
    for operation in operations.as_array_mut().unwrap() {
        forget_data(operation);
    }
    operations
}

fn forget_data(operation: &mut Value) {
    let path = operation["path"].as_str().unwrap().to_owned();
    let value = &mut operation["value"];
    if path.ends_with("~1safe-to-evict-local-volumes") || path.ends_with("/tidegate.dev~1warning") {
        *value = json!("text");
    }
    if path.ends_with("/readinessProbe/httpGet") {
        let path = value["path"].as_str().unwrap();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%/?=".contains(&byte);
        assert!(path.bytes().all(plain) && path.matches('?').count() <= 1, "{path:?}");
        value["path"] = json!("path");
    }
    if value["name"] == SIDECAR_CONTAINER {
        let arguments = value["args"].as_array_mut().unwrap();
        arguments.retain(|argument| !argument.as_str().unwrap().starts_with("--unlimited-path="));
        for variable in value["env"].as_array_mut().unwrap() {
            if variable["name"] == "OTEL_SERVICE_NAME" {
                variable["value"] = json!("service");
            }
        }
        value["resources"]["claims"] = json!("claims");
        for port in value["ports"].as_array_mut().unwrap() {
            port["name"] = json!("name");
        }
    }
}

fn keys(map: &Value) -> BTreeSet<&String> {
    map.as_object().unwrap().keys().collect()
}

proptest! {
    #[test]
    fn whatever_a_pod_s_owner_wrote_is_in_the_patch_as_data_alone(texts in hostile()) {
        let harmless: Vec<String> = (0..TEXTS).map(|n| format!("text{n}")).collect();
        let (pod, plain) = (written_by(&texts), written_by(&harmless));
        let restricted = [("pod-security.kubernetes.io/enforce", "restricted")];
        for extra in [&[][..], &restricted] {
            let (as_plain, plain_patched, _) = guarded(&plain, extra).expect("injected");
            let (patch, patched, warnings) = guarded(&pod, extra).expect("injected");
            prop_assert_eq!(
                without_data(&patch, &pod, &patched),
                without_data(&as_plain, &plain, &plain_patched),
                "the patch is another one for other texts"
            );
            for place in ["name", "generateName", "namespace", "labels"] {
                prop_assert_eq!(&patched["metadata"][place], &pod["metadata"][place]);
            }
            let (before, after) = (&pod["spec"]["containers"][0], &patched["spec"]["containers"][0]);
            for place in ["name", "image", "command", "args", "env", "resources", "livenessProbe"] {
                prop_assert_eq!(&after[place], &before[place], "{}", place);
            }
            prop_assert_eq!(keys(before), keys(after));
            prop_assert!(warnings.iter().all(|warning| !warning.contains(char::is_control)), "{:?}", warnings);
            let wire = serde_json::to_vec(&patch).unwrap();
            prop_assert_eq!(serde_json::from_slice::<Patch>(&wire).unwrap(), patch);
        }
    }

    #[test]
    fn an_annotation_of_ours_with_any_text_is_obeyed_or_quoted_in_one_line(texts in hostile(), which in 0_usize..13) {
        let ours = [
            PORTS_ANNOTATION, OPAQUE_PORTS_ANNOTATION, HTTP2_PORTS_ANNOTATION, LOG_LEVEL_ANNOTATION, API_KEYS_ANNOTATION,
            GPU_CLAIMS_ANNOTATION, INTERCEPTION_ANNOTATION, CPU_REQUEST_ANNOTATION, CPU_LIMIT_ANNOTATION,
            MEMORY_REQUEST_ANNOTATION, MEMORY_LIMIT_ANNOTATION, "tidegate.dev/engine-metrics-port", INJECTED_ANNOTATION,
        ];
        let pod = with(&pod(), &json!({"metadata": {"annotations": {ours[which]: texts[0]}}}));
        match run(&pod, &namespace(&[]), true) {
            Outcome::Injected { patch, .. } => {
                let mut patched = pod;
                json_patch::patch(&mut patched, &patch).unwrap();
                for argument in strings(&sidecar_of(&patched)["args"], "") {
                    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-=/._:[]".contains(&byte);
                    prop_assert!(argument.bytes().all(plain), "{:?}", argument);
                }
            }
            Outcome::Skipped { skip, patch } => {
                prop_assert!(!skip.detail.contains(char::is_control), "{:?}", skip.detail);
                let mut patched = pod;
                json_patch::patch(&mut patched, &patch).unwrap();
                prop_assert_eq!(&patched["metadata"]["annotations"][SKIPPED_ANNOTATION], skip.reason.as_str());
            }
        }
    }
}

#[test]
fn a_probe_path_with_dollars_passes_without_limits_as_the_kubelet_asks_for_it() {
    for path in ["/a$b", "/a$$b", "/$", "/$$$"] {
        let mut pod = pod();
        pod["spec"]["containers"][0]["livenessProbe"] = json!({"httpGet": {"port": 8000, "path": path}});
        let unlimited: Vec<_> = strings(&sidecar_of(&patched(&pod).0)["args"], "--unlimited-path=").collect();
        assert!(unlimited.contains(&path.to_owned()), "{path}: {unlimited:?}");
    }
}
