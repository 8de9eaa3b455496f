//! The two injected containers.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction, ObjectFieldSelector, Pod,
    Probe, ResourceClaim, ResourceRequirements, SeccompProfile, SecurityContext,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::interception::Way;
use super::names::{
    AGENT_AUDIENCE_FILE, API_KEYS_PATH, CA_CONFIG_MAP_KEY, CA_FALLBACK_FILE, ENGINE_METRICS_ANNOTATION,
    ENGINE_TYPE_LABELS, IDENTITY_PATH, JWKS_PATH, LOG_LEVEL_ANNOTATION, OPERATOR_AUDIENCE_FILE,
    REDIRECT_CONTAINER, SIDECAR_CONTAINER, SNAPSHOT_FILE, STATE_PATH,
};
use super::patch::PatchBuilder;
use super::{Plan, SidecarTracing, Skip, SkipReason, claims, drain, resources, volumes};

/// The sidecar's user and group, as in its image.
const SIDECAR_UID: i64 = 65532;

/// Where the driver puts it in a container that has a GPU, the loader finds it by this name.
const NVML_LIBRARY: &str = "libnvidia-ml.so.1";

/// Puts them before every other init container: those may already need the network as it will be.
pub(super) fn add(
    plan: &Plan<'_>,
    unlimited: &BTreeSet<String>,
    patch: &mut PatchBuilder<'_>,
    warnings: &mut Vec<String>,
) -> Result<(), Skip> {
    let resources =
        resources::of_sidecar(plan.pod, &plan.settings.resources, &plan.admission.namespace.bounds)?;
    if resources.is_none() {
        warnings.push("the pod declares its resources as a whole: the sidecar shares them".to_owned());
    }
    let claims = claims::of_engine(plan)?;
    let sidecar = Container {
        args: Some(sidecar_args(plan, unlimited, !claims.is_empty())?),
        resources: with_claims(resources.clone(), claims),
        ..sidecar(plan)
    };
    let value = |container: Container| {
        serde_json::to_value(container).map_err(|e| Skip::new(SkipReason::InvalidPatch, e.to_string()))
    };
    let sidecar = value(sidecar)?;
    if *plan.way != Way::Redirect {
        return patch.prepend(["spec", "initContainers"], [sidecar]);
    }
    let redirect = value(Container { resources, ..redirect(plan) })?;
    patch.prepend(["spec", "initContainers"], [redirect, sidecar])
}

fn redirect(plan: &Plan<'_>) -> Container {
    let guards = plan.ports.all().map(|port| format!("--guard={port}"));
    let args = ["redirect".to_owned()]
        .into_iter()
        .chain(guards)
        .chain([format!("--to={}", plan.settings.proxy_port)]);
    Container {
        name: REDIRECT_CONTAINER.to_owned(),
        args: Some(args.collect()),
        volume_mounts: Some(vec![volumes::no_token_mount()]),
        // UID 0 and NET_ADMIN, here and only here, whatever the pod says about runAsNonRoot.
        security_context: Some(SecurityContext {
            run_as_user: Some(0),
            run_as_group: Some(0),
            run_as_non_root: Some(false),
            ..confined(Some("NET_ADMIN"))
        }),
        ..common(plan)
    }
}

/// The engine's claims beside the sidecar's own requests, so that it sees the engine's GPUs.
fn with_claims(
    resources: Option<ResourceRequirements>,
    claims: Vec<ResourceClaim>,
) -> Option<ResourceRequirements> {
    if claims.is_empty() {
        return resources;
    }
    Some(ResourceRequirements { claims: Some(claims), ..resources.unwrap_or_default() })
}

fn sidecar(plan: &Plan<'_>) -> Container {
    let admin = i32::from(plan.settings.admin_port);
    Container {
        name: SIDECAR_CONTAINER.to_owned(),
        env: plan.settings.tracing.as_ref().map(|tracing| tracing_env(plan.pod, tracing)),
        restart_policy: Some("Always".to_owned()),
        ports: Some(sidecar_ports(plan)),
        startup_probe: Some(Probe {
            http_get: Some(HTTPGetAction {
                path: Some("/ready".to_owned()),
                port: IntOrString::Int(admin),
                scheme: Some("HTTP".to_owned()),
                ..HTTPGetAction::default()
            }),
            period_seconds: Some(1),
            failure_threshold: Some(60),
            ..Probe::default()
        }),
        volume_mounts: Some(volumes::sidecar_mounts(plan.pod)),
        security_context: Some(SecurityContext {
            run_as_user: Some(SIDECAR_UID),
            run_as_group: Some(SIDECAR_UID),
            run_as_non_root: Some(true),
            ..confined(None)
        }),
        ..common(plan)
    }
}

/// Its own, and those whose names lead to it.
fn sidecar_ports(plan: &Plan<'_>) -> Vec<ContainerPort> {
    let port = |name: &str, number: u16| ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(number),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    let admin = port("tidegate-admin", plan.settings.admin_port);
    std::iter::once(admin).chain(plan.way.names().map(|moved| port(&moved.name, moved.listen))).collect()
}

fn sidecar_args(plan: &Plan<'_>, unlimited: &BTreeSet<String>, sees_gpus: bool) -> Result<Vec<String>, Skip> {
    let settings = plan.settings;
    let identity = |file: &str| format!("{IDENTITY_PATH}/{file}");
    let mut args = vec!["run".to_owned()];
    args.extend(plan.ports.all().map(|port| format!("--guard={port}")));
    args.extend(plan.ports.opaque().map(|port| format!("--opaque={port}")));
    args.extend(plan.ports.http2().map(|port| format!("--http2={port}")));
    args.push(format!("--listen=[::]:{}", settings.proxy_port));
    args.extend(plan.way.names().map(|moved| format!("--named-port={}:{}", moved.listen, moved.guarded)));
    args.push(format!("--admin=[::]:{}", settings.admin_port));
    args.extend(unlimited.iter().map(|path| format!("--unlimited-path={}", literal(path))));
    args.push(format!("--policy-snapshot={}", identity(SNAPSHOT_FILE)));
    args.push(format!("--policy-store={STATE_PATH}"));
    args.push(format!("--operator={}", settings.operator_url));
    args.push(format!("--operator-token={}", identity(OPERATOR_AUDIENCE_FILE)));
    if sees_gpus {
        args.push(format!("--nvml={NVML_LIBRARY}"));
    } else if let Some(agent) = &settings.agent_url {
        args.push(format!("--agent={agent}"));
        args.push(format!("--agent-token={}", identity(AGENT_AUDIENCE_FILE)));
    }
    if volumes::api_keys(plan.pod)?.is_some() {
        args.push(format!("--api-keys={API_KEYS_PATH}"));
    }
    if volumes::jwks(plan.pod)?.is_some() {
        args.push(format!("--jwks={JWKS_PATH}"));
    }
    args.extend(engine_args(plan.pod)?);
    args.push(format!("--ca={}", identity(CA_CONFIG_MAP_KEY)));
    args.push(format!("--ca-fallback={}", identity(CA_FALLBACK_FILE)));
    args.push(format!("--drain-token={}", plan.admission.drain_token));
    args.push(format!("--drain-deadline={}", drain::deadline(plan)));
    args.push(format!("--log-level={}", log_level(plan)?));
    Ok(args)
}

/// In OpenTelemetry's own spelling: where spans go, how many, and whose they are.
fn tracing_env(pod: &Pod, tracing: &SidecarTracing) -> Vec<EnvVar> {
    let value = |name: &str, value: &str| EnvVar {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        ..EnvVar::default()
    };
    let field = |name: &str, path: &str| EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: path.to_owned(),
                ..ObjectFieldSelector::default()
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    };
    let labels = pod.metadata.labels.as_ref();
    let service = ["app.kubernetes.io/name", "app"].iter().find_map(|label| labels?.get(*label));
    let mut env = vec![
        value("OTEL_EXPORTER_OTLP_ENDPOINT", &tracing.endpoint),
        value("OTEL_TRACES_SAMPLER_ARG", &tracing.ratio),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("POD_NAME", "metadata.name"),
        value("OTEL_RESOURCE_ATTRIBUTES", "k8s.namespace.name=$(POD_NAMESPACE),k8s.pod.name=$(POD_NAME)"),
    ];
    env.extend(service.map(|service| value("OTEL_SERVICE_NAME", &literal(service))));
    env
}

/// As the container gets it: in arguments and in values of the environment the kubelet replaces `$(NAME)` by a variable,
/// and `$$` by `$`.
fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

/// Where the engine's own metrics are, and which engine it is. A type that the sidecar does not know is left out: it
/// looks at the names of the metrics then.
fn engine_args(pod: &Pod) -> Result<Vec<String>, Skip> {
    const TYPES: [&str; 6] = ["vllm", "sglang", "tgi", "trtllm-serve", "triton-tensorrt-llm", "triton"];
    let mut args = Vec::new();
    if let Some(text) = pod.metadata.annotations.as_ref().and_then(|all| all.get(ENGINE_METRICS_ANNOTATION)) {
        let port = text.trim().parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(|| {
            let detail =
                format!("annotation {ENGINE_METRICS_ANNOTATION} is {text:?}: write a port such as \"8002\"");
            Skip::new(SkipReason::InvalidAnnotation, detail)
        })?;
        args.push(format!("--engine-metrics={port}"));
    }
    let labels = pod.metadata.labels.as_ref();
    let named = ENGINE_TYPE_LABELS.iter().find_map(|label| labels?.get(*label));
    args.extend(
        named.filter(|name| TYPES.contains(&name.as_str())).map(|name| format!("--engine-type={name}")),
    );
    Ok(args)
}

fn log_level<'a>(plan: &Plan<'a>) -> Result<&'a str, Skip> {
    const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
    let Some(level) = plan.pod.metadata.annotations.as_ref().and_then(|a| a.get(LOG_LEVEL_ANNOTATION)) else {
        return Ok(&plan.settings.log_level);
    };
    if LEVELS.contains(&level.as_str()) {
        return Ok(level);
    }
    let detail =
        format!("annotation {LOG_LEVEL_ANNOTATION} is {level:?}: write one of {}", LEVELS.join(", "));
    Err(Skip::new(SkipReason::InvalidAnnotation, detail))
}

fn common(plan: &Plan<'_>) -> Container {
    Container {
        image: Some(plan.settings.image.clone()),
        image_pull_policy: Some(plan.settings.image_pull_policy.clone()),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}

fn confined(capability: Option<&str>) -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        privileged: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities {
            add: capability.map(|name| vec![name.to_owned()]),
            drop: Some(vec!["ALL".to_owned()]),
        }),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
        ..SecurityContext::default()
    }
}
