//! What to save when something failed: pods, events and logs, as files.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Event, Pod};
use kube::api::{ListParams, LogParams};
use kube::{Api, Client, ResourceExt};

/// Lines of each container's log that are saved.
const LOG_LINES: i64 = 1000;

/// A new directory for what is saved of one failure.
pub(super) fn new_directory(name: &str) -> anyhow::Result<PathBuf> {
    let prefix = format!("tidegate-e2e-{name}-");
    Ok(tempfile::Builder::new()
        .prefix(&prefix)
        .tempdir()
        .context("cannot make a directory for the dump")?
        .keep())
}

/// Saves pods, events and logs of one namespace, or of all when none is named. What cannot be read is left out: this runs when
/// the cluster may be broken.
pub(super) async fn save(client: &Client, namespace: Option<&str>, directory: &Path) -> anyhow::Result<()> {
    let (pods, events): (Api<Pod>, Api<Event>) = match namespace {
        Some(name) => (Api::namespaced(client.clone(), name), Api::namespaced(client.clone(), name)),
        None => (Api::all(client.clone()), Api::all(client.clone())),
    };
    if let Ok(list) = events.list(&ListParams::default()).await {
        fs::write(directory.join("events.txt"), events_text(list.items))?;
    }
    let list = pods.list(&ListParams::default()).await.context("cannot list the pods")?;
    fs::write(directory.join("pods.txt"), list.items.iter().map(summary).collect::<String>())?;
    for pod in &list.items {
        save_logs(client, pod, directory).await?;
    }
    Ok(())
}

/// One line per pod and one per container: phase, node, address, states, restarts.
pub(super) fn summary(pod: &Pod) -> String {
    let status = pod.status.clone().unwrap_or_default();
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("-");
    let mut text = format!(
        "{}/{} phase={} node={node} ip={} {}\n",
        pod.namespace().unwrap_or_default(),
        pod.name_any(),
        status.phase.as_deref().unwrap_or("-"),
        status.pod_ip.as_deref().unwrap_or("-"),
        status.message.as_deref().unwrap_or_default(),
    );
    let containers = status
        .init_container_statuses
        .into_iter()
        .flatten()
        .chain(status.container_statuses.into_iter().flatten());
    for container in containers {
        let _infallible = writeln!(text, "    {}", container_line(&container));
    }
    text
}

fn container_line(container: &ContainerStatus) -> String {
    let state = container.state.as_ref().map_or_else(|| "unknown".to_owned(), state_text);
    let last = container.last_state.as_ref().map(state_text).filter(|text| text != "-");
    let last = last.map(|text| format!(", before: {text}")).unwrap_or_default();
    format!(
        "{}: {state}, ready={}, restarts={}{last}",
        container.name, container.ready, container.restart_count
    )
}

fn state_text(state: &ContainerState) -> String {
    if let Some(ended) = &state.terminated {
        let reason = ended.reason.as_deref().unwrap_or("terminated");
        return format!(
            "{reason} (exit {}) {}",
            ended.exit_code,
            ended.message.as_deref().unwrap_or_default()
        );
    }
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.as_deref().unwrap_or("waiting");
        return format!("{reason} {}", waiting.message.as_deref().unwrap_or_default());
    }
    if state.running.is_some() { "running".to_owned() } else { "-".to_owned() }
}

fn events_text(mut events: Vec<Event>) -> String {
    events.sort_by_key(|event| event.last_timestamp.clone().map(|time| time.0));
    events.iter().fold(String::new(), |mut text, event| {
        let object = &event.involved_object;
        let _infallible = writeln!(
            text,
            "{} {} {}/{} {} {}: {}",
            event.last_timestamp.as_ref().map(|time| time.0.to_string()).unwrap_or_default(),
            event.type_.as_deref().unwrap_or("-"),
            object.namespace.as_deref().unwrap_or("-"),
            object.name.as_deref().unwrap_or("-"),
            object.kind.as_deref().unwrap_or("-"),
            event.reason.as_deref().unwrap_or("-"),
            event.message.as_deref().unwrap_or("-"),
        );
        text
    })
}

async fn save_logs(client: &Client, pod: &Pod, directory: &Path) -> anyhow::Result<()> {
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let spec = pod.spec.clone().unwrap_or_default();
    for container in spec.init_containers.into_iter().flatten().chain(spec.containers) {
        for (previous, suffix) in [(false, ""), (true, ".previous")] {
            let parameters = LogParams {
                container: Some(container.name.clone()),
                tail_lines: Some(LOG_LINES),
                previous,
                ..LogParams::default()
            };
            if let Ok(log) = api.logs(&name, &parameters).await
                && !log.is_empty()
            {
                fs::write(directory.join(format!("{namespace}_{name}_{}{suffix}.log", container.name)), log)?;
            }
        }
    }
    Ok(())
}
