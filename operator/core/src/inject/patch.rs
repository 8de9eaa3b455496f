//! The JSON patch, and the judge of it.
//!
//! The operations are written one by one and not found by comparing two pods: an insertion at the head of a list
//! would come out as a replacement of every element, and fields that this version does not know would be lost.

use std::collections::BTreeSet;

use json_patch::jsonptr::{PointerBuf, Token};
use json_patch::{AddOperation, Patch, PatchOperation, RemoveOperation};
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::skip::all_containers;
use super::{Skip, SkipReason};

/// Collects operations in the order in which they apply. Lists are lengthened last, so that the indices of what
/// is already in them stay right.
pub(super) struct PatchBuilder<'a> {
    pod: &'a Value,
    operations: Vec<PatchOperation>,
    annotations: Option<Value>,
}

impl<'a> PatchBuilder<'a> {
    pub(super) const fn new(pod: &'a Value) -> Self {
        Self { pod, operations: Vec::new(), annotations: None }
    }

    pub(super) fn add<'t>(&mut self, path: impl IntoIterator<Item = &'t str>, value: Value) {
        self.operations.push(PatchOperation::Add(AddOperation { path: pointer(path), value }));
    }

    pub(super) fn remove<'t>(&mut self, path: impl IntoIterator<Item = &'t str>) {
        self.operations.push(PatchOperation::Remove(RemoveOperation { path: pointer(path) }));
    }

    pub(super) fn prepend<const N: usize>(
        &mut self,
        path: [&str; 2],
        values: [Value; N],
    ) -> Result<(), Skip> {
        self.ensure_list(path)?;
        for (index, value) in values.into_iter().enumerate() {
            self.add(path.into_iter().chain([index.to_string().as_str()]), value);
        }
        Ok(())
    }

    pub(super) fn append(
        &mut self,
        path: [&str; 2],
        values: impl IntoIterator<Item = Value>,
    ) -> Result<(), Skip> {
        self.ensure_list(path)?;
        for value in values {
            self.add(path.into_iter().chain(["-"]), value);
        }
        Ok(())
    }

    fn ensure_list(&mut self, path: [&str; 2]) -> Result<(), Skip> {
        match self.pod.get(path[0]).and_then(|parent| parent.get(path[1])) {
            None | Some(Value::Null) => self.add(path, json!([])),
            Some(Value::Array(_)) => {}
            Some(_) => {
                let detail = format!("{}.{} is not a list", path[0], path[1]);
                return Err(Skip::new(SkipReason::InvalidPatch, detail));
            }
        }
        Ok(())
    }

    /// Writes an annotation; with `None`, one that is there is removed: whoever wrote it was not us.
    pub(super) fn annotate(&mut self, name: &str, value: Option<String>) {
        let pod = self.pod;
        let existing = || pod.pointer("/metadata/annotations").filter(|a| a.is_object()).cloned();
        let missing = existing().is_none() && self.annotations.is_none();
        if value.is_none() && missing {
            return;
        }
        if missing {
            self.add(["metadata", "annotations"], json!({}));
        }
        let annotations = self.annotations.get_or_insert_with(|| existing().unwrap_or_else(|| json!({})));
        let present = annotations.get(name).is_some();
        match value {
            Some(value) => {
                annotations[name] = json!(value);
                self.add(["metadata", "annotations", name], json!(value));
            }
            None if present => self.remove(["metadata", "annotations", name]),
            None => {}
        }
    }

    pub(super) fn finish(self) -> Patch {
        Patch(self.operations)
    }
}

fn pointer<'t>(path: impl IntoIterator<Item = &'t str>) -> PointerBuf {
    PointerBuf::from_tokens(path.into_iter().map(Token::new))
}

/// Reads what the API server sent.
pub(super) fn read_pod(pod: &Value) -> Result<Pod, Skip> {
    // From a reference: a copy of the object costs as much as reading it.
    Pod::deserialize(pod).map_err(|e| Skip::new(SkipReason::InvalidPatch, format!("this is not a pod: {e}")))
}

/// Applies the patch and reads the result as a pod again.
pub(super) fn check(pod: &Value, patch: &Patch) -> Result<(), Skip> {
    let mut patched = pod.clone();
    json_patch::patch(&mut patched, patch)
        .map_err(|e| Skip::new(SkipReason::InvalidPatch, format!("the patch does not apply: {e}")))?;
    let patched = read_pod(&patched)?;
    let spec = patched.spec.unwrap_or_default();
    let containers = all_containers(&spec).map(|c| ("container", c.name.as_str()));
    let volumes = spec.volumes.iter().flatten().map(|v| ("volume", v.name.as_str()));
    let mut names = BTreeSet::new();
    for (kind, name) in containers.chain(volumes) {
        if !names.insert((kind, name)) {
            return Err(Skip::new(SkipReason::InvalidPatch, format!("two {kind}s would be named {name:?}")));
        }
    }
    Ok(())
}
