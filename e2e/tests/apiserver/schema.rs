//! What the schemas say, read from the committed manifests.

use serde_json::{Value, json};
use tidegate_e2e::cluster::binaries;

use crate::rows::RATE_LIMIT;

/// One step from an object to what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Segment {
    Field(String),
    /// Every item, or every value of a map.
    Each,
}

type Path = Vec<Segment>;

/// As people write it.
pub(crate) fn shown(path: &[Segment]) -> String {
    path.iter().fold("spec".to_owned(), |all, segment| match segment {
        Segment::Field(name) => format!("{all}.{name}"),
        Segment::Each => all + "[]",
    })
}

/// The rules of the spec, each with its place and its message.
pub(crate) fn rules(kind: &str) -> Vec<(Path, String)> {
    let mut found = Vec::new();
    walk(&spec_schema(kind), &mut Vec::new(), &mut |path, node| {
        for rule in node["x-kubernetes-validations"].as_array().into_iter().flatten() {
            found.push((path.to_vec(), rule["message"].as_str().unwrap_or_default().to_owned()));
        }
    });
    assert!(!found.is_empty());
    found
}

/// The fields of the spec that have a default.
pub(crate) fn defaults(kind: &str) -> Vec<(Path, Value)> {
    let mut found = Vec::new();
    walk(&spec_schema(kind), &mut Vec::new(), &mut |path, node| {
        if !node["default"].is_null() {
            found.push((path.to_vec(), filled(node, &node["default"])));
        }
    });
    assert!(!found.is_empty());
    found
}

/// A default with those of its own fields.
fn filled(schema: &Value, default: &Value) -> Value {
    let mut value = default.clone();
    let (Some(fields), Some(properties)) = (value.as_object_mut(), schema["properties"].as_object()) else {
        return value;
    };
    for (name, property) in properties {
        if !fields.contains_key(name) && !property["default"].is_null() {
            fields.insert(name.clone(), property["default"].clone());
        }
        if let Some(field) = fields.get_mut(name) {
            *field = filled(property, field);
        }
    }
    value
}

fn spec_schema(kind: &str) -> Value {
    let file = if kind == RATE_LIMIT { "ratelimitpolicies" } else { "circuitbreakerpolicies" };
    let path = binaries::workspace().join(format!("manifests/crds/{file}.yaml"));
    let definition: Value = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone()
}

fn walk(schema: &Value, path: &mut Path, visit: &mut impl FnMut(&[Segment], &Value)) {
    visit(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        path.push(Segment::Field(name.clone()));
        walk(property, path, visit);
        path.pop();
    }
    for below in ["items", "additionalProperties"] {
        if schema[below].is_object() {
            path.push(Segment::Each);
            walk(&schema[below], path, visit);
            path.pop();
        }
    }
}

/// What stands there, in every item of every list on the way.
pub(crate) fn values_at<'a>(value: &'a Value, path: &[Segment]) -> Vec<&'a Value> {
    let Some((first, rest)) = path.split_first() else { return vec![value] };
    let below: Vec<&Value> = match (first, value) {
        (Segment::Field(name), Value::Object(fields)) => fields.get(name).into_iter().collect(),
        (Segment::Each, Value::Array(items)) => items.iter().collect(),
        (Segment::Each, Value::Object(fields)) => fields.values().collect(),
        _ => Vec::new(),
    };
    below.into_iter().flat_map(|one| values_at(one, rest)).collect()
}

/// The spec with something of another type there.
pub(crate) fn refusable(spec: &Value, path: &[Segment]) -> Value {
    let mut spec = spec.clone();
    spoil(&mut spec, path);
    spec
}

fn spoil(value: &mut Value, path: &[Segment]) {
    let Some((first, rest)) = path.split_first() else {
        *value = if value.is_array() { json!("text") } else { json!([{"of": "another type"}]) };
        return;
    };
    match (first, value) {
        (Segment::Field(name), Value::Object(fields)) => {
            fields.get_mut(name).into_iter().for_each(|field| spoil(field, rest));
        }
        (Segment::Each, Value::Array(items)) => items.iter_mut().for_each(|item| spoil(item, rest)),
        (Segment::Each, Value::Object(fields)) => fields.values_mut().for_each(|field| spoil(field, rest)),
        _ => {}
    }
}
