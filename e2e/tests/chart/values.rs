//! The values: every one is in the schema and on the page, and no other is taken.

use serde_json::Value;
use tidegate_e2e::harness::release;

use super::page;

/// Dotted paths of the values. A map that users fill, such as labels, is one value.
fn paths(values: &Value, schema: &Value, path: &str, found: &mut Vec<String>) {
    for (name, value) in values.as_object().unwrap() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let property = &schema["properties"][name];
        assert!(property.is_object(), "{path} is not in values.schema.json");
        if property["properties"].is_object() {
            assert_eq!(property["additionalProperties"], false, "{path} takes anything");
            paths(value, property, &path, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn every_value_is_in_the_schema_and_on_the_page() {
    let values: Value = serde_saphyr::from_str(&page("helm/tidegate/values.yaml")).unwrap();
    let schema: Value = serde_json::from_str(&page("helm/tidegate/values.schema.json")).unwrap();
    assert_eq!(schema["additionalProperties"], false);
    let mut found = Vec::new();
    paths(&values, &schema, "", &mut found);
    assert!(found.len() > 30, "{found:?}");
    let docs = page("docs/install.md");
    for path in found {
        let (parent, leaf) = path.rsplit_once('.').unwrap();
        let named = docs.contains(&format!("`{path}`"))
            || docs.contains(&format!("`.{leaf}`"))
            || docs.contains(&format!("`{parent}`"));
        assert!(named, "docs/install.md does not say what {path} does");
    }
}

#[tokio::test]
async fn a_misspelt_or_impossible_value_is_refused() {
    for wrong in [
        "operater.replicas=2",
        "operator.replica=2",
        "operator.replicas=-1",
        "image.pullPolicy=Sometimes",
        "image.digests.operator=latest",
        "injection.failurePolicy=Maybe",
        "injection.timeoutSeconds=30",
        "networkPolicies.apiServerPorts[0]=70000",
        "sidecar.resources.requests.cpu=much",
        "sidecar.tracing.endpoint=collector:4318",
    ] {
        let refused = release::template(&["--set", wrong]).await;
        let error = refused.expect_err(wrong).to_string();
        assert!(error.contains("don't meet the specifications of the schema"), "{wrong}: {error}");
    }
}
