//! Engines to guard: a Deployment of the engine simulator with its Service.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

/// Where the simulator serves its API.
pub const ENGINE_PORT: u16 = 8000;
/// Where it is told to fail; not guarded.
pub const CONTROL_PORT: u16 = 8001;
/// Folder of the simulated driver on every node.
const DRIVER: &str = "/var/lib/tidegate-e2e/driver";

/// What a test wants of an engine.
#[derive(Debug, Clone)]
pub struct Engine {
    name: String,
    replicas: i32,
    gpus: u32,
    grace_seconds: u32,
    arguments: Vec<String>,
    labels: Value,
    annotations: Value,
    restricted: bool,
}

impl Engine {
    /// One replica without a GPU.
    pub fn new(name: &str) -> Self {
        let annotations = json!({"tidegate.dev/ports": ENGINE_PORT.to_string()});
        Self {
            name: name.to_owned(),
            replicas: 1,
            gpus: 0,
            grace_seconds: 20,
            arguments: Vec::new(),
            labels: json!({}),
            annotations,
            restricted: false,
        }
    }

    /// Several pods.
    #[must_use]
    pub fn replicas(mut self, replicas: i32) -> Self {
        self.replicas = replicas;
        self
    }

    /// GPUs for each pod.
    #[must_use]
    pub fn gpus(mut self, gpus: u32) -> Self {
        self.gpus = gpus;
        self
    }

    /// How long its pods may take to end.
    #[must_use]
    pub fn grace_seconds(mut self, seconds: u32) -> Self {
        self.grace_seconds = seconds;
        self
    }

    /// A flag of the simulator.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// A label of the pods.
    #[must_use]
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels[name] = json!(value);
        self
    }

    /// An annotation of the pods.
    #[must_use]
    pub fn annotation(mut self, name: &str, value: &str) -> Self {
        self.annotations[name] = json!(value);
        self
    }

    /// As the Pod Security level `restricted` wants it.
    #[must_use]
    pub fn restricted(mut self) -> Self {
        self.restricted = true;
        self
    }

    /// The name of Deployment, Service and label `app`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Selects the pods.
    pub fn selector(&self) -> String {
        format!("app={}", self.name)
    }

    /// The pods' labels.
    fn pod_labels(&self) -> Value {
        let mut labels = self.labels.clone();
        labels["app"] = json!(self.name);
        labels
    }

    /// The Deployment.
    pub fn deployment(&self) -> serde_json::Result<Deployment> {
        serde_json::from_value(json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": self.name},
            "spec": {
                "replicas": self.replicas,
                "selector": {"matchLabels": {"app": self.name}},
                "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
                "template": {
                    "metadata": {"labels": self.pod_labels(), "annotations": self.annotations},
                    "spec": self.pod_spec(),
                },
            },
        }))
    }

    fn pod_spec(&self) -> Value {
        let mut arguments = vec![
            "engine".to_owned(),
            format!("--listen=0.0.0.0:{ENGINE_PORT}"),
            format!("--control=0.0.0.0:{CONTROL_PORT}"),
        ];
        let mut container = json!({
            "name": "engine",
            "image": crate::cluster::images::reference("tidegate-e2e"),
            "imagePullPolicy": "IfNotPresent",
            "ports": [{"name": "http", "containerPort": ENGINE_PORT}, {"name": "control", "containerPort": CONTROL_PORT}],
            "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 1},
            "resources": {"requests": {"cpu": "20m", "memory": "32Mi"}},
        });
        let mut volumes = json!([]);
        if self.gpus > 0 {
            arguments.push("--gpu-dir=/driver/nvml-sim.d".to_owned());
            container["resources"]["limits"] = json!({"nvidia.com/gpu": self.gpus.to_string()});
            container["volumeMounts"] = json!([{"name": "driver", "mountPath": "/driver"}]);
            volumes = json!([{"name": "driver", "hostPath": {"path": DRIVER}}]);
        }
        if self.restricted {
            container["securityContext"] = json!({
                "runAsUser": 65532,
                "runAsNonRoot": true,
                "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            });
        }
        arguments.extend(self.arguments.iter().cloned());
        container["args"] = json!(arguments);
        json!({"terminationGracePeriodSeconds": self.grace_seconds, "containers": [container], "volumes": volumes})
    }

    /// The Service in front of the pods.
    pub fn service(&self) -> serde_json::Result<Service> {
        serde_json::from_value(json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": self.name},
            "spec": {
                "selector": {"app": self.name},
                "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
            },
        }))
    }
}
