//! The `CustomResourceDefinitions`, as the API server gets them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;
use serde_json::Value;

use crate::{CircuitBreakerPolicy, RateLimitPolicy};

/// Every `CustomResourceDefinition` of Tidegate.
pub fn definitions() -> [CustomResourceDefinition; 2] {
    [RateLimitPolicy::crd(), CircuitBreakerPolicy::crd()].map(|mut definition| {
        schemas(&mut definition).for_each(forbid_null);
        definition
    })
}

fn schemas(definition: &mut CustomResourceDefinition) -> impl Iterator<Item = &mut JSONSchemaProps> {
    definition
        .spec
        .versions
        .iter_mut()
        .filter_map(|version| version.schema.as_mut()?.open_api_v3_schema.as_mut())
}

/// A field that is not wanted is left out. `null` would be something else than absent to the CEL rules (`has()`
/// is true of it), so it is refused by the schema.
fn forbid_null(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    schema.properties.iter_mut().flat_map(std::collections::BTreeMap::values_mut).for_each(forbid_null);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        forbid_null(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        forbid_null(values);
    }
}

/// The fields of `object` that the schema of its kind does not know, as paths from the root. Where there is an API
/// server it tells; this is for files that never see one. Objects of other kinds have no unknown fields.
pub fn unknown_fields(object: &Value) -> Vec<String> {
    let kind = object.get("kind").and_then(Value::as_str);
    let mut unknown = Vec::new();
    for mut definition in definitions() {
        if kind == Some(definition.spec.names.kind.as_str()) {
            schemas(&mut definition).for_each(|schema| collect_unknown(schema, object, "", &mut unknown));
        }
    }
    unknown.retain(|path| !OF_EVERY_OBJECT.contains(&path.as_str()));
    unknown
}

/// What no schema has to name.
const OF_EVERY_OBJECT: [&str; 3] = ["apiVersion", "kind", "metadata"];

fn collect_unknown(schema: &JSONSchemaProps, value: &Value, path: &str, unknown: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match (&schema.properties, &schema.additional_properties) {
                    (Some(properties), _) if properties.contains_key(name) => {
                        collect_unknown(&properties[name], field, &path, unknown);
                    }
                    (Some(_), _) => unknown.push(path),
                    (None, Some(JSONSchemaPropsOrBool::Schema(values))) => {
                        collect_unknown(values, field, &path, unknown);
                    }
                    (None, _) => {}
                }
            }
        }
        Value::Array(items) => {
            if let Some(JSONSchemaPropsOrArray::Schema(schema)) = &schema.items {
                for (i, item) in items.iter().enumerate() {
                    collect_unknown(schema, item, &format!("{path}[{i}]"), unknown);
                }
            }
        }
        _ => {}
    }
}
