//! Each CEL rule accepts what it should and refuses what it should, with its message, evaluated as the API server
//! does: after defaulting.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::core::cel::{Validator, apply_defaults};
use serde_json::Value;

#[path = "rules/rows.rs"]
mod rows;

use rows::{ACCEPTED, BREAKER, RATE_LIMIT, REFUSED};

/// The schema of a kind. Making one from the types takes longer than judging an object by it, and there are hundreds.
fn schema(kind: &str) -> &'static Value {
    static SCHEMAS: LazyLock<BTreeMap<String, Value>> = LazyLock::new(|| {
        let definitions = tidegate_crds::definitions();
        definitions.iter().map(|definition| (definition.spec.names.kind.clone(), made(definition))).collect()
    });
    &SCHEMAS[kind]
}

#[allow(clippy::expect_used)] // a helper of the tests below
fn made(definition: &CustomResourceDefinition) -> Value {
    let schema = definition.spec.versions[0].schema.as_ref();
    let schema = schema.and_then(|schema| schema.open_api_v3_schema.as_ref()).expect("the kind has a schema");
    serde_json::to_value(schema).expect("a schema is JSON")
}

/// The messages with which an object is refused.
#[allow(clippy::expect_used)] // a helper of the tests below
fn refusals(kind: &str, spec: &str) -> Vec<String> {
    let yaml =
        format!("apiVersion: tidegate.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: a}}\nspec: {spec}");
    let object: Value = serde_saphyr::from_str(&yaml).expect("the fixture is YAML");
    let schema = schema(kind);
    let object = apply_defaults(schema, &object);
    match Validator::new().validate(schema, &object, None) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.iter().map(|error| error.message.clone()).collect(),
    }
}

#[test]
fn what_should_be_accepted_is_accepted() {
    for (kind, spec) in ACCEPTED {
        assert_eq!(refusals(kind, spec), Vec::<String>::new(), "{kind} {spec}");
    }
}

#[test]
fn what_should_be_refused_is_refused_for_its_own_reason_alone() {
    for (kind, spec, message) in REFUSED {
        assert_eq!(refusals(kind, spec), [*message], "{kind} {spec}");
    }
}

fn messages(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(fields) => {
            for rule in fields.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten()
            {
                found.insert(rule["message"].as_str().unwrap_or_default().to_owned());
            }
            fields.values().for_each(|value| messages(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| messages(value, found)),
        _ => {}
    }
}

#[test]
fn every_rule_has_a_message_that_says_what_to_write_and_an_example_that_it_refuses() {
    let mut found = BTreeSet::new();
    messages(schema(RATE_LIMIT), &mut found);
    messages(schema(BREAKER), &mut found);
    for message in &found {
        assert!(message.contains("write "), "{message:?} says not what to write");
    }
    let refused: BTreeSet<_> = REFUSED.iter().map(|(_, _, message)| (*message).to_owned()).collect();
    assert_eq!(found, refused);
}
