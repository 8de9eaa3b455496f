//! What the sidecar reads and where it keeps what it learns.

use k8s_openapi::api::core::v1::{Pod, VolumeMount};
use serde_json::{Value, json};
use tidegate_policy::stream::{AGENT_AUDIENCE, OPERATOR_AUDIENCE};

use super::names::{
    AGENT_AUDIENCE_FILE, API_KEYS_ANNOTATION, API_KEYS_PATH, API_KEYS_VOLUME, API_TOKEN_PATH,
    CA_BUNDLE_ANNOTATION, CA_CONFIG_MAP, CA_CONFIG_MAP_KEY, CA_FALLBACK_FILE, EVICTABLE_VOLUMES_ANNOTATION,
    IDENTITY_PATH, IDENTITY_VOLUME, JWKS_ANNOTATION, JWKS_PATH, JWKS_VOLUME, NO_TOKEN_VOLUME,
    OPERATOR_AUDIENCE_FILE, SNAPSHOT_ANNOTATION, SNAPSHOT_FILE, STATE_PATH, STATE_VOLUME,
};
use super::patch::PatchBuilder;
use super::{Skip, SkipReason};

/// Lifetime of the sidecar's tokens; the kubelet renews them.
const TOKEN_SECONDS: u32 = 3600;

/// Length of the longest name of an object.
const LONGEST_NAME: usize = 253;

pub(super) fn add(pod: &Pod, patch: &mut PatchBuilder<'_>) -> Result<(), Skip> {
    let own = [identity(), empty_dir(STATE_VOLUME, "16Mi"), empty_dir(NO_TOKEN_VOLUME, "1Mi")];
    // Both may come later, and a pod whose clients are not known yet serves.
    let keys = api_keys(pod)?
        .map(|name| json!({"name": API_KEYS_VOLUME, "secret": {"secretName": name, "optional": true}}));
    let sets =
        jwks(pod)?.map(|name| json!({"name": JWKS_VOLUME, "configMap": {"name": name, "optional": true}}));
    patch.append(["spec", "volumes"], own.into_iter().chain(keys).chain(sets))
}

/// The Secret with the API keys of the pod's clients.
pub(super) fn api_keys(pod: &Pod) -> Result<Option<&str>, Skip> {
    object(pod, API_KEYS_ANNOTATION, "Secret", "llama-keys")
}

/// The `ConfigMap` with the key sets of issuers.
pub(super) fn jwks(pod: &Pod) -> Result<Option<&str>, Skip> {
    object(pod, JWKS_ANNOTATION, "ConfigMap", "issuers")
}

/// The object of this kind that the pod names.
fn object<'a>(pod: &'a Pod, annotation: &str, kind: &str, example: &str) -> Result<Option<&'a str>, Skip> {
    let Some(name) = pod.metadata.annotations.as_ref().and_then(|a| a.get(annotation)) else {
        return Ok(None);
    };
    let label = |label: &str| {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = label.as_bytes();
        bytes.first().is_some_and(|b| plain(*b))
            && bytes.last().is_some_and(|b| plain(*b))
            && bytes.iter().all(|b| plain(*b) || *b == b'-')
    };
    if name.len() <= LONGEST_NAME && name.split('.').all(label) {
        return Ok(Some(name));
    }
    let detail = format!(
        "annotation {annotation} is {name:?}: write the name of a {kind} in the pod's namespace, such as {example}"
    );
    Err(Skip::new(SkipReason::InvalidAnnotation, detail))
}

fn identity() -> Value {
    let token = |audience: &str, path: &str| json!({"serviceAccountToken": {"audience": audience, "expirationSeconds": TOKEN_SECONDS, "path": path}});
    let annotation = |path: &str, name: &str| json!({"path": path, "fieldRef": {"apiVersion": "v1", "fieldPath": format!("metadata.annotations['{name}']")}});
    json!({"name": IDENTITY_VOLUME, "projected": {"sources": [
        token(OPERATOR_AUDIENCE, OPERATOR_AUDIENCE_FILE),
        token(AGENT_AUDIENCE, AGENT_AUDIENCE_FILE),
        {"configMap": {
            "name": CA_CONFIG_MAP,
            "optional": true,
            "items": [{"key": CA_CONFIG_MAP_KEY, "path": CA_CONFIG_MAP_KEY}],
        }},
        {"downwardAPI": {"items": [
            annotation(SNAPSHOT_FILE, SNAPSHOT_ANNOTATION),
            annotation(CA_FALLBACK_FILE, CA_BUNDLE_ANNOTATION),
        ]}},
    ]}})
}

fn empty_dir(name: &str, size: &str) -> Value {
    json!({"name": name, "emptyDir": {"sizeLimit": size}})
}

/// An empty directory where the API server's token would be: without a mount there, the `ServiceAccount` admission
/// plugin, which runs again after webhooks, gives the container the pod's own token.
pub(super) fn no_token_mount() -> VolumeMount {
    mount(NO_TOKEN_VOLUME, API_TOKEN_PATH, true)
}

pub(super) fn sidecar_mounts(pod: &Pod) -> Vec<VolumeMount> {
    let mut mounts = vec![
        mount(IDENTITY_VOLUME, IDENTITY_PATH, true),
        mount(STATE_VOLUME, STATE_PATH, false),
        no_token_mount(),
    ];
    // A name that is none has ended the injection before.
    if matches!(api_keys(pod), Ok(Some(_))) {
        mounts.push(mount(API_KEYS_VOLUME, API_KEYS_PATH, true));
    }
    if matches!(jwks(pod), Ok(Some(_))) {
        mounts.push(mount(JWKS_VOLUME, JWKS_PATH, true));
    }
    mounts
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(read_only),
        ..VolumeMount::default()
    }
}

/// The pod's own list of volumes that may be lost, with ours.
pub(super) fn evictable(pod: &Pod) -> String {
    let own = pod.metadata.annotations.as_ref().and_then(|a| a.get(EVICTABLE_VOLUMES_ANNOTATION));
    let own = own.map(|names| format!("{names},")).unwrap_or_default();
    format!("{own}{STATE_VOLUME},{NO_TOKEN_VOLUME}")
}
