//! What the API server, Helm and `kubectl` get.

use std::path::Path;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};
use tidegate_crds::{definitions, unknown_fields};

#[allow(clippy::expect_used)] // a helper of the tests below
fn schema(definition: &CustomResourceDefinition) -> Value {
    serde_json::to_value(&definition.spec.versions[0].schema).expect("a schema is JSON")["openAPIV3Schema"]
        .clone()
}

#[test]
fn the_committed_files_are_what_the_types_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/crds");
    for definition in definitions() {
        let name = format!("{}.yaml", definition.spec.names.plural);
        let committed = std::fs::read_to_string(folder.join(&name)).unwrap();
        assert_eq!(committed, serde_saphyr::to_string(&definition).unwrap(), "{name}: run make gen");
    }
}

/// Calls `check` with every schema node and its path.
fn walk(schema: &Value, path: &str, check: &mut impl FnMut(&str, &Value)) {
    check(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(property, &format!("{path}.{name}"), check);
    }
    for (key, suffix) in [("items", "[]"), ("additionalProperties", "{}")] {
        if schema[key].is_object() {
            walk(&schema[key], &format!("{path}{suffix}"), check);
        }
    }
}

#[test]
fn every_list_map_and_string_of_a_spec_has_a_bound() {
    for definition in definitions() {
        walk(&schema(&definition)["properties"]["spec"], "spec", &mut |path, node| {
            let bounded = match node["type"].as_str() {
                Some("string") => node["enum"].is_array() || node["maxLength"].is_u64(),
                Some("array") => node["maxItems"].is_u64(),
                Some("object") => node["properties"].is_object() || node["maxProperties"].is_u64(),
                Some("integer") => node["minimum"].is_number() && node["maximum"].is_number(),
                None => node["maxLength"].is_u64() && node["x-kubernetes-int-or-string"] == true,
                Some(_) => false,
            };
            assert!(bounded, "{path} has no bound: {node}");
        });
    }
}

#[test]
fn nothing_is_a_float_unsigned_or_null() {
    for definition in definitions() {
        walk(&schema(&definition), "", &mut |path, node| {
            assert_ne!(node["type"], "number", "{path}");
            assert!(!node["format"].as_str().unwrap_or_default().starts_with("uint"), "{path}");
            assert_eq!(node["nullable"], Value::Null, "{path}");
        });
    }
}

/// What `kubectl explain` would show of the language that this is written in, or of a page that it is not.
const NO_WORDS_OF_THE_API: [&str; 9] =
    ["crate::", "Self::", "[`", "Option", "Vec<", "`None`", "`Some", "struct", "serde"];

#[test]
fn kubectl_explain_reads_like_documentation() {
    for definition in definitions() {
        for part in ["spec", "status"] {
            walk(&schema(&definition)["properties"][part], part, &mut |path, node| {
                // What Kubernetes defines itself, its own types describe.
                if path.ends_with("[]") || path.ends_with("{}") || path.contains("conditions") {
                    return;
                }
                let text = node["description"].as_str().unwrap_or_default().trim();
                let begins = text.starts_with(|first: char| first.is_uppercase() || first == '`');
                let ends = text.ends_with('.');
                assert!(begins && ends && text.contains(' '), "{path} is no sentence: {text:?}");
                for word in NO_WORDS_OF_THE_API {
                    assert!(!text.contains(word), "{path} says {word}: {text:?}");
                }
            });
        }
    }
}

#[test]
fn named_lists_are_maps_so_that_two_writers_do_not_undo_each_other() {
    let [rate_limit, breaker] = definitions().map(|definition| schema(&definition)["properties"].clone());
    for (list, key) in [
        (&rate_limit["spec"]["properties"]["limits"], "name"),
        (&rate_limit["status"]["properties"]["conditions"], "type"),
        (&breaker["status"]["properties"]["conditions"], "type"),
    ] {
        assert_eq!(list["x-kubernetes-list-type"], "map");
        assert_eq!(list["x-kubernetes-list-map-keys"], json!([key]));
    }
}

#[test]
fn people_find_the_resources_by_short_name_and_category_and_see_what_matters() {
    for (definition, short) in definitions().iter().zip(["rlp", "cbp"]) {
        let names = &definition.spec.names;
        assert_eq!(names.short_names.as_deref(), Some(&[short.to_owned()][..]));
        assert_eq!(names.categories.as_deref(), Some(&["tidegate".to_owned()][..]));
        assert_eq!(definition.spec.scope, "Namespaced");
        let version = &definition.spec.versions[0];
        assert!(version.subresources.as_ref().is_some_and(|subresources| subresources.status.is_some()));
        let labels = definition.metadata.labels.as_ref().unwrap();
        assert_eq!(labels["gateway.networking.k8s.io/policy"], "direct");
        let columns = version.additional_printer_columns.as_deref().unwrap_or_default();
        let shown: Vec<_> =
            columns.iter().filter(|c| c.priority.is_none()).map(|c| c.name.as_str()).collect();
        let busy = if short == "rlp" { "Tripped" } else { "Open" };
        assert_eq!(shown, ["Mode", "Accepted", "Programmed", "Pods", busy, "Reason", "Age"]);
    }
}

#[test]
fn a_misspelt_field_is_found_where_it_stands() {
    let object = serde_saphyr::from_str::<Value>(
        "
kind: RateLimitPolicy
spec:
  tier: {}
  selector: {matchLabels: {any: label}}
  limits: [{name: a, limit: 1, window: 1s}, {name: b, limit: 1, window: 1s, burts: 3}]
  priority: {from: [{header: x, map: {any: High}}]}",
    );
    assert_eq!(unknown_fields(&object.unwrap()), ["spec.limits[1].burts", "spec.tier"]);
    assert_eq!(unknown_fields(&json!({"kind": "Pod", "spec": {"any": 1}})), Vec::<String>::new());
}
