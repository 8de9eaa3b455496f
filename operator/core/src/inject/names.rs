//! Names on pods and namespaces that users and the other parts of Tidegate know.

/// On a namespace: `enabled` asks for injection of the pods that a policy selects.
pub const INJECTION_NAMESPACE_LABEL: &str = "tidegate.dev/injection";
/// On a pod: `enabled` or `disabled`, stronger than the namespace's.
pub const INJECT_LABEL: &str = "tidegate.dev/inject";
/// On a pod: guarded ports instead of all TCP container ports.
pub const PORTS_ANNOTATION: &str = "tidegate.dev/ports";
/// On a pod: guarded ports that are passed on as bytes.
pub const OPAQUE_PORTS_ANNOTATION: &str = "tidegate.dev/opaque-ports";
/// On a pod: the engine's port with its own metrics, when that is none of the guarded ones.
pub(super) const ENGINE_METRICS_ANNOTATION: &str = "tidegate.dev/engine-metrics-port";
/// On a pod: which inference engine it runs, as llm-d has it, and what that was called before.
pub(super) const ENGINE_TYPE_LABELS: [&str; 2] =
    ["llm-d.ai/engine-type", "inference.networking.k8s.io/engine-type"];
/// On a pod: guarded ports whose engine speaks HTTP/2 without TLS.
pub const HTTP2_PORTS_ANNOTATION: &str = "tidegate.dev/http2-ports";
/// On a pod: `Auto`, `Redirect` or `NamedPort`, how guarded traffic comes to the sidecar.
pub const INTERCEPTION_ANNOTATION: &str = "tidegate.dev/interception";
/// On a pod: `true` consents to clients that go around a sidecar which is reached by name.
pub const ALLOW_BYPASS_ANNOTATION: &str = "tidegate.dev/allow-bypass";
/// On a pod: the Secret of its namespace with the API keys of its clients, one in each entry.
pub const API_KEYS_ANNOTATION: &str = "tidegate.dev/api-keys";
/// On a pod: the `ConfigMap` of its namespace with the key sets of issuers, one in each entry.
pub const JWKS_ANNOTATION: &str = "tidegate.dev/jwks";
/// On a pod: log level of its sidecar.
pub const LOG_LEVEL_ANNOTATION: &str = "tidegate.dev/log-level";
/// On a pod: CPU request of its sidecar.
pub const CPU_REQUEST_ANNOTATION: &str = "tidegate.dev/cpu-request";
/// On a pod: CPU limit of its sidecar; in a pod of class Guaranteed its request too.
pub const CPU_LIMIT_ANNOTATION: &str = "tidegate.dev/cpu-limit";
/// On a pod: memory request of its sidecar.
pub const MEMORY_REQUEST_ANNOTATION: &str = "tidegate.dev/memory-request";
/// On a pod: memory limit of its sidecar; in a pod of class Guaranteed its request too.
pub const MEMORY_LIMIT_ANNOTATION: &str = "tidegate.dev/memory-limit";
/// On a pod: which of the engine's resource claims are GPUs, or `none`.
pub const GPU_CLAIMS_ANNOTATION: &str = "tidegate.dev/gpu-claims";
/// Written on an injected pod: the version that injected it.
pub const INJECTED_ANNOTATION: &str = "tidegate.dev/injected";
/// Written on an injected pod that is not redirected: the ports whose names lead to the sidecar.
pub const BY_NAME_ANNOTATION: &str = "tidegate.dev/guarded-by-name";
/// Written on a pod that asked for a sidecar and has none: why.
pub const SKIPPED_ANNOTATION: &str = "tidegate.dev/skipped";
/// Written on an injected pod: risks that its owner should know.
pub const WARNING_ANNOTATION: &str = "tidegate.dev/warning";
/// Written on an injected pod: the policy of admission time, base64 of gzip of the document's JSON.
pub const SNAPSHOT_ANNOTATION: &str = "tidegate.dev/policy-snapshot";
/// Written on an injected pod: the CA bundle of admission time, PEM.
pub const CA_BUNDLE_ANNOTATION: &str = "tidegate.dev/ca-bundle";
/// The cluster autoscaler's: local volumes that do not keep a node alive. Without it every injected pod would.
pub(super) const EVICTABLE_VOLUMES_ANNOTATION: &str =
    "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes";

/// `ConfigMap` of the CA bundle in each injected namespace.
pub const CA_CONFIG_MAP: &str = "tidegate-ca";
/// Its key, and the file's name in the pod.
pub const CA_CONFIG_MAP_KEY: &str = "ca.crt";

/// Init container that programs the redirection.
pub const REDIRECT_CONTAINER: &str = "tidegate-redirect";
/// Native sidecar.
pub const SIDECAR_CONTAINER: &str = "tidegate-sidecar";

pub(super) const IDENTITY_VOLUME: &str = "tidegate-identity";
pub(super) const IDENTITY_PATH: &str = "/var/run/tidegate";
pub(super) const API_KEYS_VOLUME: &str = "tidegate-api-keys";
pub(super) const API_KEYS_PATH: &str = "/var/run/tidegate-api-keys";
pub(super) const JWKS_VOLUME: &str = "tidegate-jwks";
pub(super) const JWKS_PATH: &str = "/var/run/tidegate-jwks";
pub(super) const STATE_VOLUME: &str = "tidegate-state";
pub(super) const STATE_PATH: &str = "/var/lib/tidegate";
pub(super) const NO_TOKEN_VOLUME: &str = "tidegate-no-token";
pub(super) const API_TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// File of the token for the operator, in the identity volume.
pub const OPERATOR_AUDIENCE_FILE: &str = "operator-token";
/// File of the token for the node's agent, in the identity volume.
pub const AGENT_AUDIENCE_FILE: &str = "agent-token";
pub(super) const SNAPSHOT_FILE: &str = "policy-snapshot";
pub(super) const CA_FALLBACK_FILE: &str = "ca-fallback.crt";
