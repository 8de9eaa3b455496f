//! Objects from YAML files.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tidegate_crds::{CircuitBreakerPolicy, RateLimitPolicy, unknown_fields};
use tidegate_operator_core::compile::{self, CompiledPolicy, Problems};

use crate::refused::Refused;

/// What the files hold of interest. Objects of other kinds are passed over.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    pub(crate) policies: Vec<Policy>,
    pub(crate) services: Vec<Service>,
    pub(crate) pods: Vec<PodObject>,
}

/// A policy as it was written, with what it compiles to.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) object: PolicyObject,
    pub(crate) compiled: CompiledPolicy,
}

#[derive(Debug)]
pub(crate) enum PolicyObject {
    RateLimit(Box<RateLimitPolicy>),
    CircuitBreaker(Box<CircuitBreakerPolicy>),
}

/// A pod, both as it was written (nothing of that may get lost) and as Kubernetes reads it.
#[derive(Debug)]
pub(crate) struct PodObject {
    pub(crate) value: Value,
    pub(crate) pod: Pod,
}

/// Reads all files. Every mistake in any of them is reported.
pub(crate) fn load(files: &[PathBuf], namespace: &str) -> Result<Objects, Refused> {
    let mut objects = Objects::default();
    let mut refused = Refused::default();
    for path in files {
        match expand(path) {
            Ok(files) => files.iter().for_each(|file| objects.add_file(file, namespace, &mut refused)),
            Err(message) => refused.add(format!("{}: {message}", path.display())),
        }
    }
    refused.unless_empty(objects)
}

/// A file as it is, and of a folder its files in order of their names, as `kubectl apply` takes them.
fn expand(path: &Path) -> Result<Vec<PathBuf>, String> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries: std::io::Result<Vec<_>> =
        std::fs::read_dir(path).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    let mut files = entries.map_err(|error| error.to_string())?;
    let extensions = ["yaml", "yml", "json"];
    files.retain(|file| {
        let extension = file.extension().and_then(|extension| extension.to_str());
        file.is_file() && extension.is_some_and(|extension| extensions.contains(&extension))
    });
    files.sort();
    if files.is_empty() {
        return Err("no file in this folder ends with .yaml, .yml or .json".to_owned());
    }
    Ok(files)
}

fn read(file: &Path) -> Result<Vec<Value>, String> {
    let text = if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    let values: Vec<Value> = serde_saphyr::from_multiple(&text.map_err(|error| error.to_string())?)
        .map_err(|error| format!("not YAML: {error}"))?;
    Ok(values.into_iter().filter(|value| !value.is_null()).collect())
}

impl Objects {
    fn add_file(&mut self, file: &Path, namespace: &str, refused: &mut Refused) {
        match read(file) {
            Ok(values) => values.into_iter().for_each(|value| self.add(file, value, namespace, refused)),
            Err(message) => refused.add(format!("{}: {message}", file.display())),
        }
    }

    fn add(&mut self, file: &Path, mut value: Value, namespace: &str, refused: &mut Refused) {
        let kind = value["kind"].as_str().unwrap_or_default().to_owned();
        if value["metadata"]["namespace"].is_null() && value["metadata"].is_object() {
            value["metadata"]["namespace"] = namespace.into();
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &value["metadata"];
        let name = format!("{}/{}", text(&metadata["namespace"]), text(&metadata["name"]));
        let origin = format!("{}: {kind} {name}", file.display());
        if let Err(lines) = self.take(&kind, value) {
            for line in lines {
                refused.add(format!("{origin}: {line}"));
            }
        }
    }

    fn take(&mut self, kind: &str, value: Value) -> Result<(), Vec<String>> {
        match kind {
            "" => return Err(vec!["no kind: write apiVersion and kind".to_owned()]),
            "RateLimitPolicy" => {
                let object: RateLimitPolicy = policy(value)?;
                let compiled = compile::rate_limit(&object).map_err(|problems| lines(&problems))?;
                let object = PolicyObject::RateLimit(Box::new(object));
                self.policies.push(Policy { object, compiled });
            }
            "CircuitBreakerPolicy" => {
                let object: CircuitBreakerPolicy = policy(value)?;
                let compiled = compile::circuit_breaker(&object).map_err(|problems| lines(&problems))?;
                let object = PolicyObject::CircuitBreaker(Box::new(object));
                self.policies.push(Policy { object, compiled });
            }
            "Service" => self.services.push(parse(value)?),
            "Pod" => self.pods.push(PodObject { pod: parse(value.clone())?, value }),
            _ => {}
        }
        Ok(())
    }
}

fn lines(problems: &Problems) -> Vec<String> {
    problems.as_slice().iter().map(ToString::to_string).collect()
}

/// A policy of another version, or with a field that nothing obeys, is not what its author thinks it is.
fn policy<T: DeserializeOwned>(value: Value) -> Result<T, Vec<String>> {
    let expected = format!("{}/{}", tidegate_crds::GROUP, tidegate_crds::VERSION);
    if value["apiVersion"] != expected.as_str() {
        return Err(vec![format!("apiVersion: {} is not known: write {expected}", value["apiVersion"])]);
    }
    let unknown = unknown_fields(&value);
    if !unknown.is_empty() {
        let line = |field| format!("{field}: no such field: correct its name, or leave it out");
        return Err(unknown.iter().map(line).collect());
    }
    parse(value)
}

fn parse<T: DeserializeOwned>(value: Value) -> Result<T, Vec<String>> {
    serde_path_to_error::deserialize(value)
        .map_err(|error| vec![format!("{}: {}", error.path(), error.inner())])
}

impl PolicyObject {
    /// When it was created, if an API server said so.
    pub(crate) fn created(&self) -> Option<Timestamp> {
        let metadata = match self {
            Self::RateLimit(policy) => &policy.metadata,
            Self::CircuitBreaker(policy) => &policy.metadata,
        };
        metadata.creation_timestamp.as_ref().map(|time| time.0)
    }
}
