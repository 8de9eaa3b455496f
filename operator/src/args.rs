//! The command line, and what the operator asks of the cluster.
//!
//! Every flag is an environment variable too: `TIDEGATE_` and the flag in upper case with `_` for `-`.
//!
//! | flag | default | meaning |
//! |---|---|---|
//! | `--namespace` | required | where the operator is installed: its Secrets, its Lease, its Services |
//! | `--pod-name` (also `POD_NAME`) | the host's name | identity in the Lease and in Events |
//! | `--pod-ip` (also `POD_IP`) | none | where other replicas reach this one; without it status counts its own streams alone |
//! | `--service-account` (also `POD_SERVICE_ACCOUNT`) | `tidegate-operator` | whose pods are replicas |
//! | `--peer-token` | `/var/run/tidegate/token` | its own token, which it shows to the leader |
//! | `--sidecar-image` | required | image of the injected containers |
//! | `--sidecar-image-pull-policy` | `IfNotPresent` | `Always`, `IfNotPresent`, `Never` |
//! | `--sidecar-pull-secret` | none | Secret in each pod's own namespace by which that image is pulled; may be repeated |
//! | `--sidecar-log-level` | `info` | of injected sidecars |
//! | `--sidecar-proxy-port`, `--sidecar-admin-port` | `15120`, `15121` | ports of injected sidecars |
//! | `--sidecar-interception` | `Auto` | `Auto`, `Redirect`, `NamedPort`, where the pod does not say |
//! | `--sidecar-cpu-request` | `50m` | never empty |
//! | `--sidecar-cpu-limit` | none | |
//! | `--sidecar-memory-request`, `--sidecar-memory-limit` | `32Mi`, `128Mi` | |
//! | `--sidecar-guaranteed-cpu` | `500m` | request and limit in pods of class Guaranteed |
//! | `--operator-service`, `--operator-stream-port` | `tidegate-operator`, `8444` | what sidecars connect to |
//! | `--agent-service`, `--agent-port` | `tidegate-agent`, `8445` | empty service: no agent |
//! | `--authority-secret` | none | Secret (`tls.crt`, `tls.key`) of authorities that somebody else makes, such as cert-manager |
//! | `--webhook-configuration` | `tidegate` | both webhook configurations |
//! | `--webhook-address` | `[::]:8443` | HTTPS: `POST /mutate`, `POST /validate` |
//! | `--stream-address` | `[::]:8444` | HTTPS, HTTP/2: the policy stream |
//! | `--health-address` | `[::]:8080` | HTTP: `/healthz`, `/readyz`, `/metrics` |
//! | `--shutdown-delay` | `5` | seconds that a stopping replica still serves while Services withdraw it |
//! | `--log-level` | `info` | JSON lines on standard error |
//!
//! # Rights
//!
//! In the whole cluster:
//!
//! | group | resources | verbs | why |
//! |---|---|---|---|
//! | `tidegate.dev` | `ratelimitpolicies`, `circuitbreakerpolicies` | list, watch | which policies there are |
//! | `tidegate.dev` | their `/status` | patch | to tell their owners how they fare |
//! | core | `namespaces`, `pods`, `services` | list, watch | which pods they act on, where injection is asked for |
//! | core | `limitranges` | list, watch | what a sidecar may request in a namespace |
//! | core | `namespaces` | get | labels of a namespace that the watch has not brought yet |
//! | `apps` | `deployments`, `statefulsets`, `daemonsets`, `replicasets` | list, watch | targets (metadata only) |
//! | `batch` | `jobs` | list, watch | targets (metadata only) |
//! | `discovery.k8s.io` | `endpointslices` | list, watch | when a draining pod gets no more traffic |
//! | core | `configmaps` | create; patch those named `tidegate-ca` | the CA bundle in each injected namespace |
//! | `authentication.k8s.io` | `tokenreviews` | create | who a sidecar is |
//! | `admissionregistration.k8s.io` | both webhook configurations named `tidegate` | list, watch, patch | their `caBundle` |
//! | `events.k8s.io` | `events` | create, patch | Events on policies and pods |
//!
//! In its own namespace:
//!
//! | group | resources | verbs | why |
//! |---|---|---|---|
//! | core | `secrets` | create; get, update `tidegate-ca`, `tidegate-operator-tls`, `tidegate-agent-tls` | CA and certificates |
//! | core | `secrets` | get the one of `--authority-secret` | authorities that somebody else makes |
//! | `coordination.k8s.io` | `leases` | create; get, update `tidegate-operator` | which replica writes status |

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::Parser;
use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser, TypedValueParser};
use tidegate_operator_core::inject::{Interception, SidecarResources, SidecarSettings, SidecarTracing};

/// Exit code of a command line that cannot be obeyed, `EX_USAGE` of `sysexits.h`.
pub(crate) const EXIT_USAGE: u8 = 64;

const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// Watches policies and pods, injects sidecars, programs them and reports back.
#[derive(Debug, Clone, Parser)]
#[command(name = "tidegate-operator", version, about)]
pub(crate) struct Args {
    /// The namespace that the operator is installed in
    #[arg(long, env = "TIDEGATE_NAMESPACE", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) namespace: String,
    /// Name of this replica
    #[arg(long, env = "POD_NAME", default_value = "tidegate-operator")]
    pub(crate) pod_name: String,
    /// Address of this replica, where others reach it
    #[arg(long, env = "POD_IP")]
    pub(crate) pod_ip: Option<IpAddr>,
    /// Service account of the replicas
    #[arg(long, env = "POD_SERVICE_ACCOUNT", default_value = "tidegate-operator", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) service_account: String,
    /// File of the token that this replica shows to the leader
    #[arg(long, env = "TIDEGATE_PEER_TOKEN", default_value = "/var/run/tidegate/token")]
    pub(crate) peer_token: PathBuf,
    /// What is injected
    #[command(flatten)]
    pub(crate) sidecar: SidecarArgs,
    /// Service of the webhooks and of the policy stream
    #[arg(long, env = "TIDEGATE_OPERATOR_SERVICE", default_value = "tidegate-operator", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) operator_service: String,
    /// Port of the policy stream at that Service
    #[arg(long, env = "TIDEGATE_OPERATOR_STREAM_PORT", default_value_t = 8444)]
    pub(crate) operator_stream_port: u16,
    /// Service of the node agents; empty when there are none
    #[arg(long, env = "TIDEGATE_AGENT_SERVICE", default_value = "tidegate-agent")]
    pub(crate) agent_service: String,
    /// Port of the node agents at that Service
    #[arg(long, env = "TIDEGATE_AGENT_PORT", default_value_t = 8445)]
    pub(crate) agent_port: u16,
    /// Secret of the certificate authorities that somebody else makes; empty: they are made here
    #[arg(long, env = "TIDEGATE_AUTHORITY_SECRET", default_value = "")]
    pub(crate) authority_secret: String,
    /// Name of both webhook configurations
    #[arg(long, env = "TIDEGATE_WEBHOOK_CONFIGURATION", default_value = "tidegate", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) webhook_configuration: String,
    /// Where the webhooks are served
    #[arg(long, env = "TIDEGATE_WEBHOOK_ADDRESS", default_value = "[::]:8443")]
    pub(crate) webhook_address: SocketAddr,
    /// Where the policy stream is served
    #[arg(long, env = "TIDEGATE_STREAM_ADDRESS", default_value = "[::]:8444")]
    pub(crate) stream_address: SocketAddr,
    /// Where health and metrics are served
    #[arg(long, env = "TIDEGATE_HEALTH_ADDRESS", default_value = "[::]:8080")]
    pub(crate) health_address: SocketAddr,
    /// Seconds that a stopping replica still serves while Services withdraw it
    #[arg(long, env = "TIDEGATE_SHUTDOWN_DELAY", default_value_t = 5)]
    pub(crate) shutdown_delay: u64,
    /// error, warn, info, debug or trace
    #[arg(long, env = "TIDEGATE_LOG_LEVEL", default_value = "info", value_parser = PossibleValuesParser::new(LEVELS))]
    pub(crate) log_level: String,
}

/// Flags of the injected sidecar.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SidecarArgs {
    /// Image of the injected containers
    #[arg(long = "sidecar-image", env = "TIDEGATE_SIDECAR_IMAGE", value_parser = NonEmptyStringValueParser::new())]
    image: String,
    /// When the kubelet pulls it
    #[arg(long = "sidecar-image-pull-policy", env = "TIDEGATE_SIDECAR_IMAGE_PULL_POLICY", default_value = "IfNotPresent", value_parser = ["Always", "IfNotPresent", "Never"])]
    image_pull_policy: String,
    /// Secret in each pod's own namespace by which that image is pulled; may be repeated
    #[arg(long = "sidecar-pull-secret", env = "TIDEGATE_SIDECAR_PULL_SECRET", value_delimiter = ',', value_parser = NonEmptyStringValueParser::new())]
    pull_secrets: Vec<String>,
    /// How guarded traffic comes to injected sidecars
    #[arg(long = "sidecar-interception", env = "TIDEGATE_SIDECAR_INTERCEPTION", default_value = "Auto", value_parser = interception())]
    interception: Interception,
    /// Log level of injected sidecars
    #[arg(id = "sidecar_log_level", long = "sidecar-log-level", env = "TIDEGATE_SIDECAR_LOG_LEVEL", default_value = "info", value_parser = PossibleValuesParser::new(LEVELS))]
    log_level: String,
    /// Collector that injected sidecars send traces to, by OTLP over HTTP; empty for none
    #[arg(long = "sidecar-otlp-endpoint", env = "TIDEGATE_SIDECAR_OTLP_ENDPOINT", default_value = "", value_parser = collector)]
    otlp_endpoint: String,
    /// Share of the requests that they trace, of those whose caller says nothing about it
    #[arg(long = "sidecar-trace-ratio", env = "TIDEGATE_SIDECAR_TRACE_RATIO", default_value = "0.01", value_parser = ratio)]
    trace_ratio: String,
    /// Port that guarded traffic is redirected to
    #[arg(long = "sidecar-proxy-port", env = "TIDEGATE_SIDECAR_PROXY_PORT", default_value_t = 15120, value_parser = clap::value_parser!(u16).range(1..))]
    proxy_port: u16,
    /// Port of metrics, status, probes and drain
    #[arg(long = "sidecar-admin-port", env = "TIDEGATE_SIDECAR_ADMIN_PORT", default_value_t = 15121, value_parser = clap::value_parser!(u16).range(1..))]
    admin_port: u16,
    /// CPU request
    #[arg(long = "sidecar-cpu-request", env = "TIDEGATE_SIDECAR_CPU_REQUEST", default_value = "50m", value_parser = NonEmptyStringValueParser::new())]
    cpu_request: String,
    /// CPU limit; empty for none
    #[arg(long = "sidecar-cpu-limit", env = "TIDEGATE_SIDECAR_CPU_LIMIT", default_value = "")]
    cpu_limit: String,
    /// Memory request
    #[arg(long = "sidecar-memory-request", env = "TIDEGATE_SIDECAR_MEMORY_REQUEST", default_value = "32Mi", value_parser = NonEmptyStringValueParser::new())]
    memory_request: String,
    /// Memory limit
    #[arg(long = "sidecar-memory-limit", env = "TIDEGATE_SIDECAR_MEMORY_LIMIT", default_value = "128Mi", value_parser = NonEmptyStringValueParser::new())]
    memory_limit: String,
    /// CPU request and limit in pods of class Guaranteed
    #[arg(long = "sidecar-guaranteed-cpu", env = "TIDEGATE_SIDECAR_GUARANTEED_CPU", default_value = "500m", value_parser = NonEmptyStringValueParser::new())]
    guaranteed_cpu: String,
}

impl Args {
    /// What the injector needs to know.
    pub(crate) fn sidecar_settings(&self) -> SidecarSettings {
        let sidecar = self.sidecar.clone();
        SidecarSettings {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            image: sidecar.image,
            image_pull_policy: sidecar.image_pull_policy,
            pull_secrets: sidecar.pull_secrets,
            operator_url: self.url(&self.operator_service, self.operator_stream_port),
            agent_url: (!self.agent_service.is_empty())
                .then(|| self.url(&self.agent_service, self.agent_port)),
            log_level: sidecar.log_level,
            proxy_port: sidecar.proxy_port,
            admin_port: sidecar.admin_port,
            interception: sidecar.interception,
            tracing: (!sidecar.otlp_endpoint.is_empty())
                .then_some(SidecarTracing { endpoint: sidecar.otlp_endpoint, ratio: sidecar.trace_ratio }),
            resources: SidecarResources {
                cpu_request: sidecar.cpu_request,
                cpu_limit: (!sidecar.cpu_limit.is_empty()).then_some(sidecar.cpu_limit),
                memory_request: sidecar.memory_request,
                memory_limit: sidecar.memory_limit,
                guaranteed_cpu: sidecar.guaranteed_cpu,
            },
        }
    }

    /// Where other replicas reach this one's policy stream.
    pub(crate) fn own_address(&self) -> Option<String> {
        self.pod_ip.map(|ip| SocketAddr::new(ip, self.stream_address.port()).to_string())
    }

    fn url(&self, service: &str, port: u16) -> String {
        format!("https://{service}.{}.svc:{port}", self.namespace)
    }
}

/// What an injected sidecar could not read would keep its pod from starting.
fn collector(text: &str) -> Result<String, String> {
    let host = ["http://", "https://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    let known = host.is_some_and(|host| host.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '['));
    if known || text.is_empty() {
        return Ok(text.to_owned());
    }
    Err("write an address such as http://otel-collector.monitoring:4318".to_owned())
}

fn ratio(text: &str) -> Result<String, String> {
    let share = text.parse::<f64>().is_ok_and(|ratio| (0.0..=1.0).contains(&ratio));
    if share { Ok(text.to_owned()) } else { Err("write a share from 0 to 1, such as 0.01".to_owned()) }
}

fn interception() -> impl TypedValueParser<Value = Interception> {
    PossibleValuesParser::new(Interception::ALL.map(|(name, _)| name))
        .map(|name| Interception::parse(&name).unwrap_or_default())
}

/// The first line of what clap has to say, without its label.
pub(crate) fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let joined = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    joined.trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUIRED: [&str; 5] = ["tidegate-operator", "--namespace", "tg", "--sidecar-image", "s:1"];

    fn parse(extra: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from(REQUIRED.iter().chain(extra))
    }

    #[test]
    fn sidecars_are_told_the_services_of_the_install_namespace() {
        let settings = parse(&[]).unwrap().sidecar_settings();
        assert_eq!(settings.operator_url, "https://tidegate-operator.tg.svc:8444");
        assert_eq!(settings.agent_url.as_deref(), Some("https://tidegate-agent.tg.svc:8445"));
        assert_eq!(settings.resources, SidecarResources::default());
    }

    #[test]
    fn sidecars_trace_where_a_collector_is_named() {
        assert_eq!(parse(&[]).unwrap().sidecar_settings().tracing, None);
        let tracing = parse(&["--sidecar-otlp-endpoint=http://o:4318"]).unwrap().sidecar_settings().tracing;
        let expected = SidecarTracing { endpoint: "http://o:4318".to_owned(), ratio: "0.01".to_owned() };
        assert_eq!(tracing, Some(expected));
        for wrong in ["--sidecar-otlp-endpoint=o:4318", "--sidecar-trace-ratio=2"] {
            assert!(parse(&[wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn injected_pods_pull_the_image_by_the_secrets_that_are_named() {
        let settings = |extra: &[&str]| parse(extra).unwrap().sidecar_settings().pull_secrets;
        assert!(settings(&[]).is_empty());
        assert_eq!(settings(&["--sidecar-pull-secret=a", "--sidecar-pull-secret=b"]), ["a", "b"]);
    }

    #[test]
    fn an_empty_agent_service_means_no_agent() {
        assert_eq!(parse(&["--agent-service="]).unwrap().sidecar_settings().agent_url, None);
    }

    #[test]
    fn garbage_ends_in_one_line() {
        for extra in
            [["--garbage", "1"], ["--sidecar-image-pull-policy", "Maybe"], ["--health-address", "8080"]]
        {
            let line = one_line(&parse(&extra).unwrap_err());
            assert!(!line.is_empty() && !line.contains('\n') && !line.contains("Usage"), "{line}");
        }
    }
}
