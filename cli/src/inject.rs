//! `inject`: pods as the webhook would make them.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};

use serde_json::{Value, json};
use tidegate_operator_core::index::Index;
use tidegate_operator_core::inject::{
    Admission, INJECTION_NAMESPACE_LABEL, Interception, NamespaceFacts, Outcome, SidecarResources,
    SidecarSettings, inject,
};

use crate::command_line::{InjectArguments, Manifest};
use crate::compile::index;
use crate::objects::{self, PodObject};
use crate::refused::Refused;

pub(crate) fn run(arguments: &InjectArguments) -> Result<String, Refused> {
    let objects = objects::load(&arguments.filenames, &arguments.namespace)?;
    if objects.pods.is_empty() {
        return Err(Refused::of("no pod in the files: write an object of kind Pod"));
    }
    let settings = SidecarSettings {
        image: arguments.image.clone(),
        interception: arguments.interception,
        ..settings(&arguments.install_namespace)
    };
    let index = index(&objects);
    let pods: Result<Vec<_>, _> =
        objects.pods.iter().map(|pod| injected(pod, &index, arguments, &settings)).collect();
    printed(pods?, arguments.output)
}

fn printed(mut pods: Vec<Value>, output: Manifest) -> Result<String, Refused> {
    match output {
        Manifest::Yaml => {
            let pods: Result<Vec<_>, _> = pods.iter().map(serde_saphyr::to_string).collect();
            Ok(pods.map_err(Refused::of)?.join("---\n"))
        }
        Manifest::Json => {
            let list = |items| json!({"apiVersion": "v1", "kind": "List", "items": items});
            let object = if pods.len() == 1 { pods.remove(0) } else { list(pods) };
            serde_json::to_string_pretty(&object).map_err(Refused::of)
        }
    }
}

fn injected(
    pod: &PodObject,
    index: &Index,
    arguments: &InjectArguments,
    settings: &SidecarSettings,
) -> Result<Value, Refused> {
    let namespace = pod.pod.metadata.namespace.as_deref().unwrap_or(&arguments.namespace);
    let document = index.document_for_new_pod(namespace, &pod.pod);
    let labels = BTreeMap::from([(INJECTION_NAMESPACE_LABEL.to_owned(), "enabled".to_owned())]);
    let admission = Admission {
        pod: &pod.value,
        namespace: &NamespaceFacts { labels, ..NamespaceFacts::default() },
        ca_bundle: None,
        policy: document.as_deref(),
        // Whoever injects by hand has decided, whether there is a policy yet or not.
        selected: true,
        services: &index.services_of_new_pod(namespace, &pod.pod),
        sidecar_port_names: true,
        drain_token: &drain_token(),
    };
    let name = pod.pod.metadata.name.as_deref().or(pod.pod.metadata.generate_name.as_deref());
    let name = name.unwrap_or_default();
    let patch = match inject(&admission, settings) {
        Outcome::Injected { patch, warnings } => {
            for warning in warnings {
                eprintln!("warning: Pod {name}: {warning}");
            }
            patch
        }
        Outcome::Skipped { skip, patch } => {
            eprintln!("skipped: Pod {name}: {skip}");
            patch
        }
    };
    let mut value = pod.value.clone();
    json_patch::patch(&mut value, &patch).map_err(Refused::of)?;
    Ok(value)
}

/// Settings of the chart's own values.
pub(crate) fn settings(install_namespace: &str) -> SidecarSettings {
    let service = |name, port| format!("https://{name}.{install_namespace}.svc:{port}");
    SidecarSettings {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        image: concat!("tidegate-sidecar:", env!("CARGO_PKG_VERSION")).to_owned(),
        image_pull_policy: "IfNotPresent".to_owned(),
        pull_secrets: Vec::new(),
        operator_url: service("tidegate-operator", 8444),
        agent_url: Some(service("tidegate-agent", 8445)),
        log_level: "info".to_owned(),
        proxy_port: 15120,
        admin_port: 15121,
        interception: Interception::Auto,
        tracing: None,
        resources: SidecarResources::default(),
    }
}

/// 128 bits that nobody can guess: the keys of a [`RandomState`] come from the operating system.
fn drain_token() -> String {
    let random = RandomState::new();
    format!("{:016x}{:016x}", random.hash_one(0), random.hash_one(1))
}
