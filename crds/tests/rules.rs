//! Each CEL rule accepts what it should and refuses what it should, with its message, evaluated as the API server
//! does: after defaulting.

use std::collections::BTreeSet;

use kube::core::cel::{Validator, apply_defaults};
use serde_json::Value;

#[path = "rules/rows.rs"]
mod rows;

use rows::{ACCEPTED, BREAKER, RATE_LIMIT, REFUSED};

#[allow(clippy::expect_used)] // a helper of the tests below
fn schema(kind: &str) -> Value {
    let definitions = tidegate_crds::definitions();
    let definition = definitions.iter().find(|definition| definition.spec.names.kind == kind);
    let schema = definition.and_then(|definition| definition.spec.versions[0].schema.as_ref());
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
    let object = apply_defaults(&schema, &object);
    match Validator::new().validate(&schema, &object, None) {
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
    messages(&schema(RATE_LIMIT), &mut found);
    messages(&schema(BREAKER), &mut found);
    for message in &found {
        assert!(message.contains("write "), "{message:?} says not what to write");
    }
    let refused: BTreeSet<_> = REFUSED.iter().map(|(_, _, message)| (*message).to_owned()).collect();
    assert_eq!(found, refused);
}
