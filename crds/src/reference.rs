//! The reference of every field, as a page for people, written from the schemas that the API server enforces.

use std::fmt::Write as _;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

use crate::definitions;

const HEAD: &str = "# API reference

Every field of the custom resources, written by `make gen` from the schemas that the API server enforces; `kubectl
explain` tells the same. Examples: [RateLimitPolicy](rate-limit-policy.md),
[CircuitBreakerPolicy](circuit-breaker-policy.md).
";

/// The page, in Markdown: for each resource its fields in the order of their paths, then the rules between them.
pub fn reference() -> String {
    let mut page = HEAD.to_owned();
    for definition in definitions() {
        resource(&definition, &mut page);
    }
    page
}

fn resource(definition: &CustomResourceDefinition, page: &mut String) {
    let names = &definition.spec.names;
    for version in &definition.spec.versions {
        let Some(schema) = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref())
        else {
            continue;
        };
        let short = names.short_names.iter().flatten().map(|name| format!(", `kubectl get {name}`"));
        let about = text(schema.description.as_deref());
        let _ = write!(
            page,
            "\n## {kind}\n`{group}/{version}`{short}. {about}\n\n\
             | field | type | default | meaning |\n|---|---|---|---|\n",
            kind = names.kind,
            group = definition.spec.group,
            version = version.name,
            short = short.collect::<String>(),
        );
        let mut rules = Vec::new();
        fields(schema, "", page, &mut rules);
        page.push_str("\nRules between fields:\n\n");
        for (path, rule) in rules {
            let _ = writeln!(page, "* `{path}`: {rule}");
        }
    }
}

/// A row for each field below `parent`, and the messages of the rules there.
fn fields(schema: &JSONSchemaProps, parent: &str, page: &mut String, rules: &mut Vec<(String, String)>) {
    for rule in schema.x_kubernetes_validations.iter().flatten() {
        let said = rule.message.as_deref().or(rule.message_expression.as_deref());
        rules.push((parent.to_owned(), text(said.or(Some(&rule.rule)))));
    }
    let required = schema.required.as_deref().unwrap_or_default();
    for (name, field) in schema.properties.iter().flatten() {
        let path = if parent.is_empty() { name.clone() } else { format!("{parent}.{name}") };
        row(&path, field, required.contains(name), page);
        below(field, &path, page, rules);
    }
}

/// What is below a field: its own fields, or those of its items or values.
fn below(field: &JSONSchemaProps, path: &str, page: &mut String, rules: &mut Vec<(String, String)>) {
    match (&field.items, &field.additional_properties) {
        (Some(JSONSchemaPropsOrArray::Schema(item)), _) => fields(item, &format!("{path}[]"), page, rules),
        (_, Some(JSONSchemaPropsOrBool::Schema(value))) => fields(value, &format!("{path}.*"), page, rules),
        _ => {}
    }
    fields(field, path, page, rules);
}

fn row(path: &str, field: &JSONSchemaProps, required: bool, page: &mut String) {
    let default = match &field.default {
        Some(value) => format!("`{}`", value.0),
        None if required => "required".to_owned(),
        None => String::new(),
    };
    let (kind, meaning) = (kind(field), text(field.description.as_deref()));
    let _ = writeln!(page, "| `{path}` | {kind} | {default} | {meaning} |");
}

fn kind(field: &JSONSchemaProps) -> String {
    if field.x_kubernetes_int_or_string == Some(true) {
        return format!("integer or string{}", bounds(field));
    }
    if let Some(values) = &field.enum_ {
        let values: Vec<_> = values.iter().map(|value| format!("`{}`", plain(&value.0))).collect();
        return values.join(", ");
    }
    let of = |items: &JSONSchemaProps| items.type_.clone().unwrap_or_default();
    let name = match (field.type_.as_deref(), &field.items, &field.additional_properties) {
        (Some("array"), Some(JSONSchemaPropsOrArray::Schema(items)), _) => format!("list of {}", of(items)),
        (Some("object"), _, Some(JSONSchemaPropsOrBool::Schema(values))) => format!("map to {}", of(values)),
        (kind, ..) => kind.unwrap_or_default().to_owned(),
    };
    name + &bounds(field)
}

/// What bounds the schema sets, as they are said.
fn bounds(field: &JSONSchemaProps) -> String {
    let most = |what: &str, most: Option<i64>| most.map(|most| format!("at most {most} {what}"));
    let range = match (field.minimum, field.maximum) {
        (Some(least), Some(most)) => Some(format!("{least} to {most}")),
        (Some(least), None) => Some(format!("at least {least}")),
        (None, Some(most)) => Some(format!("at most {most}")),
        (None, None) => None,
    };
    let bounds = [
        range,
        most("items", field.max_items),
        most("entries", field.max_properties),
        most("characters", field.max_length),
    ];
    bounds.into_iter().flatten().fold(String::new(), |all, bound| all + ", " + &bound)
}

fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// In one line of a table.
fn text(said: Option<&str>) -> String {
    said.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}
