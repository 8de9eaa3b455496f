//! Every kind of target in a real API server, with the custom ones as their projects publish them; no controller runs, so
//! pods are made as each would make them.

use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tidegate_crds::{RateLimitPolicy, RateLimitPolicyStatus};
use tidegate_e2e::apiserver::ApiServer;
use tidegate_e2e::cluster::{binaries, progress::Progress};
use tidegate_e2e::harness::{apply, eventually};
use tidegate_e2e::scale::{Scene, Size};

use crate::scale::operator;

const SIZE: Size = Size { pods: 1, nodes: 1, policies: 1 };
/// The operator looks for new kinds every 10 s.
const PATIENCE: Duration = Duration::from_mins(2);

/// The definitions of the custom kinds: module, version and files.
const DEFINITIONS: [(&str, &str, &[&str]); 2] = [
    ("sigs.k8s.io/lws", "v0.7.0", &["leaderworkerset.x-k8s.io_leaderworkersets.yaml"]),
    (
        "sigs.k8s.io/gateway-api-inference-extension",
        "v1.0.0",
        &[
            "inference.networking.k8s.io_inferencepools.yaml",
            "inference.networking.x-k8s.io_inferencepools.yaml",
        ],
    ),
];

/// A kind of target.
struct Target {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    spec: Value,
    /// Its definition, where not every cluster has it.
    definition: Option<&'static str>,
    /// What makes its pods, where that is not the target itself; none where it selects them.
    owner: Option<(&'static str, &'static str, &'static str)>,
}

impl Target {
    fn of(group: &'static str, version: &'static str, kind: &'static str, spec: Value) -> Self {
        Self { group, version, kind, spec, definition: None, owner: None }
    }

    fn makes_pods_by(self, api_version: &'static str, kind: &'static str, name: &'static str) -> Self {
        Self { owner: Some((api_version, kind, name)), ..self }
    }

    fn defined_by(self, definition: &'static str) -> Self {
        Self { definition: Some(definition), ..self }
    }
}

fn containers() -> Value {
    json!([{"name": "engine", "image": "i", "ports": [{"containerPort": 8000}]}])
}

fn targets() -> Vec<Target> {
    let template = |restart: &str| json!({"metadata": {"labels": {"app": "NAME"}}, "spec": {"restartPolicy": restart, "containers": containers()}});
    let selector = json!({"matchLabels": {"app": "NAME"}});
    let workload = json!({"selector": selector, "template": template("Always")});
    let mut stateful = workload.clone();
    stateful["serviceName"] = json!("NAME");
    let job = json!({"template": template("Never")});
    let cron = json!({"schedule": "0 * * * *", "jobTemplate": {"spec": job}});
    let service = json!({"selector": {"app": "NAME"}, "ports": [{"port": 80}]});
    let own = [
        Target::of("", "v1", "Service", service),
        Target::of("apps", "v1", "Deployment", workload.clone()).makes_pods_by(
            "apps/v1",
            "ReplicaSet",
            "NAME-5d4f",
        ),
        Target::of("apps", "v1", "StatefulSet", stateful).makes_pods_by("apps/v1", "StatefulSet", "NAME"),
        Target::of("apps", "v1", "DaemonSet", workload).makes_pods_by("apps/v1", "DaemonSet", "NAME"),
        Target::of("batch", "v1", "Job", job).makes_pods_by("batch/v1", "Job", "NAME"),
        Target::of("batch", "v1", "CronJob", cron).makes_pods_by("batch/v1", "Job", "NAME-29385720"),
    ];
    own.into_iter().chain(custom(&selector)).collect()
}

/// As their projects publish them.
fn custom(selector: &Value) -> [Target; 3] {
    let set = json!({"replicas": 1, "leaderWorkerTemplate": {"size": 2, "workerTemplate": {"spec": {"containers": containers()}}}});
    let picker = json!({"name": "picker", "port": {"number": 9002}});
    let pool = json!({"selector": selector, "targetPorts": [{"number": 8000}], "endpointPickerRef": picker});
    let experimental =
        json!({"selector": {"app": "NAME"}, "targetPortNumber": 8000, "extensionRef": {"name": "picker"}});
    [
        Target::of("leaderworkerset.x-k8s.io", "v1", "LeaderWorkerSet", set)
            .makes_pods_by("apps/v1", "StatefulSet", "NAME-0")
            .defined_by("leaderworkersets.leaderworkerset.x-k8s.io"),
        Target::of("inference.networking.k8s.io", "v1", "InferencePool", pool)
            .defined_by("inferencepools.inference.networking.k8s.io"),
        Target::of("inference.networking.x-k8s.io", "v1alpha2", "InferencePool", experimental)
            .defined_by("inferencepools.inference.networking.x-k8s.io"),
    ]
}

/// What of a target is made.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Part {
    Policy,
    Object,
    Pod,
}

impl Target {
    /// Unique among all kinds.
    fn name(&self, turn: usize) -> String {
        format!("{}-{}-{turn}", self.kind.to_lowercase(), self.version)
    }

    fn part(&self, part: Part, turn: usize) -> String {
        let api_version = if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        };
        let object = match part {
            Part::Policy => json!({
                "apiVersion": "tidegate.dev/v1alpha1", "kind": "RateLimitPolicy", "metadata": {"name": "NAME"},
                "spec": {
                    "targetRefs": [{"group": self.group, "kind": self.kind, "name": "NAME"}],
                    "limits": [{"name": "NAME", "limit": 5, "window": "1s"}],
                },
            }),
            Part::Object => json!({
                "apiVersion": api_version, "kind": self.kind, "metadata": {"name": "NAME"}, "spec": self.spec,
            }),
            Part::Pod => self.pod(),
        };
        object.to_string().replace("NAME", &self.name(turn))
    }

    fn pod(&self) -> Value {
        let mut metadata = json!({"name": "NAME", "labels": {"app": "NAME", "pod-template-hash": "5d4f"}});
        if self.kind == "LeaderWorkerSet" {
            metadata["labels"]["leaderworkerset.sigs.k8s.io/name"] = json!("NAME");
        }
        if let Some((api_version, kind, name)) = self.owner {
            let uid = "5e2b6a60-0000-4000-8000-000000000000";
            metadata["ownerReferences"] = json!([{"apiVersion": api_version, "kind": kind, "name": name, "uid": uid, "controller": true}]);
        }
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
            "spec": {"containers": [{"name": "engine", "image": "i", "ports": [{"containerPort": 8000}]}]},
        })
    }
}

async fn install_definitions(server: &ApiServer) {
    for (module, version, files) in DEFINITIONS {
        let folder = binaries::module_files(module, version, &Progress::start()).await.unwrap();
        for file in files {
            let text =
                std::fs::read_to_string(PathBuf::from(&folder).join("config/crd/bases").join(file)).unwrap();
            let start = text.find("apiVersion").unwrap();
            until_applied(server, None, &text[start..]).await;
        }
    }
}

/// A group is known a moment before it is served, and a kind is served a moment after its definition was made.
async fn until_applied(server: &ApiServer, namespace: Option<&str>, object: &str) {
    eventually("an object is taken", PATIENCE, async || {
        apply(&server.client, namespace, object).await.map_err(|error| format!("{error:#}"))
    })
    .await
    .unwrap();
}

const NAMESPACE: &str = "targets";

async fn make(server: &ApiServer, target: &Target, part: Part, turn: usize) {
    let text = target.part(part, turn);
    until_applied(server, Some(NAMESPACE), &text).await;
    if part == Part::Pod {
        let pods: Api<Pod> = Api::namespaced(server.client.clone(), NAMESPACE);
        let running = json!({"status": {"phase": "Running"}});
        let name = target.name(turn);
        pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(running)).await.unwrap();
    }
}

async fn until(server: &ApiServer, name: &str, wanted: impl Fn(&RateLimitPolicyStatus) -> bool) {
    let policies: Api<RateLimitPolicy> = Api::namespaced(server.client.clone(), NAMESPACE);
    eventually(&format!("the status of {name}"), PATIENCE, async || {
        let status = policies.get(name).await.map_err(|error| error.to_string())?.status.ok_or("none")?;
        if wanted(&status) { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await
    .unwrap();
}

fn accepted(status: &RateLimitPolicyStatus) -> (String, String, String) {
    let condition = status.conditions.iter().find(|condition| condition.type_ == "Accepted");
    let condition = condition.cloned().unwrap();
    (condition.status, condition.reason, condition.message)
}

fn acts_on_one_pod(status: &RateLimitPolicyStatus) -> bool {
    (accepted(status).0.as_str(), status.pods.matched, status.pods.uninjected) == ("True", 1, 1)
}

#[tokio::test]
async fn policies_act_on_every_kind_of_target_whatever_is_made_first() {
    let scene = Scene::set(SIZE, &operator(), &Progress::start()).await.unwrap();
    let server = &scene.server;
    for object in [
        "{apiVersion: v1, kind: Namespace, metadata: {name: targets, labels: {tidegate.dev/injection: enabled}}}",
        "{apiVersion: v1, kind: ServiceAccount, metadata: {name: default, namespace: targets}}",
    ] {
        apply(&server.client, None, object).await.unwrap();
    }
    let targets = targets();
    for target in &targets {
        make(server, target, Part::Policy, 0).await;
    }
    for target in &targets {
        until(server, &target.name(0), |status| {
            let (verdict, reason, message) = accepted(status);
            let named = target.definition.is_none_or(|definition| message.contains(definition));
            (verdict.as_str(), reason.as_str(), named) == ("False", "TargetNotFound", true)
        })
        .await;
    }
    install_definitions(server).await;
    for (turn, parts) in [[Part::Object, Part::Pod].as_slice(), &[Part::Pod, Part::Object, Part::Policy]]
        .into_iter()
        .enumerate()
    {
        for part in parts {
            for target in &targets {
                make(server, target, *part, turn).await;
            }
        }
    }
    for target in &targets {
        for turn in [0, 1] {
            until(server, &target.name(turn), acts_on_one_pod).await;
        }
    }
    the_whole_namespace_and_a_selector(server, 2 * targets.len()).await;
}

async fn the_whole_namespace_and_a_selector(server: &ApiServer, pods: usize) {
    let policy = |name: &str, more: &str| {
        format!(
            "{{apiVersion: tidegate.dev/v1alpha1, kind: RateLimitPolicy, metadata: {{name: {name}}}, spec: {{
                {more} limits: [{{name: {name}, limit: 5, window: 1s}}]}}}}"
        )
    };
    let by_label =
        "selector: {matchExpressions: [{key: app, operator: In, values: [job-v1-0, cronjob-v1-1]}]},";
    for (name, more, matched) in [("everything", "", pods), ("two", by_label, 2)] {
        apply(&server.client, Some(NAMESPACE), &policy(name, more)).await.unwrap();
        until(server, name, |status| {
            accepted(status).0 == "True" && usize::try_from(status.pods.matched) == Ok(matched)
        })
        .await;
    }
}
