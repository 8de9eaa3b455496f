//! What is printed about a namespace when its test fails.

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{ListParams, LogParams};
use kube::{Api, Client, ResourceExt};

/// Lines of each container's log.
const LOG_LINES: i64 = 40;

/// Prints container states, events and the ends of all logs. What cannot be read is said and skipped: this runs
/// when something is broken already.
pub(super) async fn print(client: &Client, namespace: &str) {
    eprintln!("─── {namespace} ───");
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    match pods.list(&ListParams::default()).await {
        Ok(list) => {
            for pod in list {
                print_pod(&pods, &pod).await;
            }
        }
        Err(error) => eprintln!("pods cannot be listed: {error}"),
    }
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    match events.list(&ListParams::default()).await {
        Ok(list) => list.iter().for_each(|event| {
            let object = event.involved_object.name.as_deref().unwrap_or("?");
            let text = |field: &Option<String>| field.clone().unwrap_or_default();
            eprintln!("event {object}: {} {}", text(&event.reason), text(&event.message));
        }),
        Err(error) => eprintln!("events cannot be listed: {error}"),
    }
}

async fn print_pod(pods: &Api<Pod>, pod: &Pod) {
    let name = pod.name_any();
    eprintln!("pod {name}: annotations {:?}", pod.annotations().keys().collect::<Vec<_>>());
    let status = pod.status.clone().unwrap_or_default();
    let containers =
        [status.init_container_statuses, status.container_statuses].into_iter().flatten().flatten();
    for container in containers {
        eprintln!(
            "pod {name}: container {} ready={} restarts={} state={:?}",
            container.name, container.ready, container.restart_count, container.state
        );
        let parameters = LogParams {
            container: Some(container.name.clone()),
            tail_lines: Some(LOG_LINES),
            ..LogParams::default()
        };
        match pods.logs(&name, &parameters).await {
            Ok(log) => log.lines().for_each(|line| eprintln!("  {}| {line}", container.name)),
            Err(error) => eprintln!("  {}| no log: {error}", container.name),
        }
    }
}
