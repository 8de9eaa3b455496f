//! Promises of the custom resources and of injected pods, each kept on a real API server. `make apiserver` runs them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod certificates;
mod golden;
mod outages;
#[path = "../../../crds/tests/rules/rows.rs"]
mod rows;
mod scale;
mod schema;
mod targets;

use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tidegate_crds::{CircuitBreakerPolicy, RateLimitPolicy};
use tidegate_e2e::apiserver::ApiServer;

use rows::{ACCEPTED, BREAKER, RATE_LIMIT, REFUSED};
use schema::{Segment, refusable, values_at};

fn api(server: &ApiServer, kind: &str) -> Api<DynamicObject> {
    let resource = match kind {
        RATE_LIMIT => ApiResource::erase::<RateLimitPolicy>(&()),
        _ => ApiResource::erase::<CircuitBreakerPolicy>(&()),
    };
    Api::namespaced_with(server.client.clone(), "default", &resource)
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "tidegate.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn spec(yaml: &str) -> Value {
    serde_saphyr::from_str(yaml).unwrap()
}

/// What the API server would keep.
async fn would_create(server: &ApiServer, kind: &str, spec: &Value) -> Result<Value, String> {
    let object: DynamicObject = serde_json::from_value(object(kind, "a", spec)).unwrap();
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let kept = api(server, kind).create(&params, &object).await.map_err(|error| error.to_string())?;
    Ok(kept.data["spec"].clone())
}

/// One after the other at one API server, whose start costs more than all that it is asked.
#[tokio::test]
async fn every_rule_default_and_list_of_the_custom_resources_holds_on_a_real_api_server() {
    let server = ApiServer::start().await.unwrap();
    every_rule_and_default_holds(&server).await;
    one_line_tells_what_an_on_call_person_needs(&server).await;
    several_writers_of_one_policy_keep_what_is_theirs(&server).await;
}

async fn every_rule_and_default_holds(server: &ApiServer) {
    let mut kept = Vec::new();
    for (kind, yaml) in ACCEPTED {
        let asked = spec(yaml);
        let spec =
            would_create(server, kind, &asked).await.unwrap_or_else(|error| panic!("{kind} {yaml}: {error}"));
        kept.push((*kind, asked, spec));
    }
    for (kind, yaml, message) in REFUSED {
        let refusal = would_create(server, kind, &spec(yaml)).await.expect_err(yaml);
        // What is of another type is refused before any rule is asked.
        assert!(refusal.contains(message) || refusal.contains("must be of type"), "{kind} {yaml}: {refusal}");
    }
    let mut without_a_row = Vec::new();
    for kind in [RATE_LIMIT, BREAKER] {
        let of_kind = || kept.iter().filter(|(one, ..)| *one == kind);
        for (path, message) in schema::rules(kind) {
            if !of_kind().any(|(_, _, spec)| !values_at(spec, &path).is_empty()) {
                without_a_row.push(format!("{kind} {}: accepts {message}", schema::shown(&path)));
            }
        }
        for (path, default) in schema::defaults(kind) {
            let row = of_kind().find(|(_, asked, spec)| {
                values_at(asked, &path).is_empty() && values_at(spec, &path).contains(&&default)
            });
            match row {
                Some((_, _, spec)) => another_type_is_refused(server, kind, spec, &path).await,
                None => without_a_row.push(format!("{kind} {}: leaves {default} out", schema::shown(&path))),
            }
        }
    }
    assert_eq!(without_a_row, Vec::<String>::new());
}

async fn another_type_is_refused(server: &ApiServer, kind: &str, spec: &Value, path: &[Segment]) {
    let refusal = would_create(server, kind, &refusable(spec, path)).await;
    let Some(Segment::Field(name)) = path.last() else { panic!("{path:?} is no field") };
    let refusal = refusal.expect_err(name);
    assert!(refusal.contains(name.as_str()), "{kind} {path:?}: {refusal}");
}

async fn apply(
    server: &ApiServer,
    kind: &str,
    name: &str,
    manager: &str,
    spec: &str,
) -> Result<Value, String> {
    let object = object(kind, name, &self::spec(spec));
    let applied = api(server, kind).patch(name, &PatchParams::apply(manager), &Patch::Apply(object)).await;
    applied.map(|object| object.data["spec"].clone()).map_err(|error| error.to_string())
}

fn names(spec: &Value, list: &str) -> Vec<String> {
    let items = spec[list].as_array().into_iter().flatten();
    items.map(|item| item["name"].as_str().unwrap().to_owned()).collect()
}

async fn several_writers_of_one_policy_keep_what_is_theirs(server: &ApiServer) {
    for (kind, list, [x, more_x, y], other) in [
        (
            RATE_LIMIT,
            "limits",
            [
                "{name: one, limit: 1, window: 1s}",
                "{name: one, limit: 2, window: 1s}",
                "{name: two, limit: 3, window: 1s}",
            ],
            "priority: {}",
        ),
        (
            BREAKER,
            "hooks",
            [
                "{name: one, url: 'http://a/x'}",
                "{name: one, url: 'http://b/x'}",
                "{name: two, url: 'http://a/y'}",
            ],
            "failureThreshold: 3",
        ),
    ] {
        let apply = async |manager: &str, items: &str| {
            apply(server, kind, "shared", manager, &format!("{{{other}, {list}: [{items}]}}")).await
        };
        apply("platform", x).await.unwrap();
        let both = apply("team", y).await.unwrap();
        assert_eq!(names(&both, list), ["one", "two"], "{both}");
        let changed = apply("platform", more_x).await.unwrap();
        assert_eq!(changed[list].as_array().unwrap().len(), 2, "{changed}");
        let conflict = apply("team", x).await.unwrap_err();
        assert!(conflict.contains("conflict") && conflict.contains("platform"), "{conflict}");
        let rest = apply("platform", "").await.unwrap();
        assert_eq!(names(&rest, list), ["two"], "{rest}");
        let status =
            json!({"apiVersion": "tidegate.dev/v1alpha1", "kind": kind, "status": {"enforced": "1/2"}});
        let operator = PatchParams::apply("tidegate-operator").force();
        api(server, kind).patch_status("shared", &operator, &Patch::Apply(status)).await.unwrap();
        let after = apply("team", y).await.unwrap();
        assert_eq!(after, rest, "the operator owns nothing of the spec");
    }
}

fn condition(kind: &str, status: &str, reason: &str) -> Value {
    json!({
        "type": kind, "status": status, "reason": reason, "message": "1 of 3 pods have no sidecar",
        "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1,
    })
}

async fn one_line_tells_what_an_on_call_person_needs(server: &ApiServer) {
    apply(server, RATE_LIMIT, "a", "team", "{limits: [{name: one, limit: 1, window: 1s}]}").await.unwrap();
    apply(server, BREAKER, "a", "team", "{failureThreshold: 3}").await.unwrap();
    let conditions = json!([
        condition("Accepted", "True", "Accepted"),
        condition("Programmed", "True", "PartiallyProgrammed")
    ]);
    let reference = json!({"group": "apps", "kind": "Deployment", "namespace": "default", "name": "llama"});
    let ancestor = json!({"ancestorRef": reference, "controllerName": "tidegate.dev/operator", "conditions": conditions});
    for (kind, more) in
        [(RATE_LIMIT, json!({"tiersTripped": {"any": 1}})), (BREAKER, json!({"breakersOpen": 1}))]
    {
        let mut status = json!({"enforced": "2/3", "conditions": conditions, "ancestors": [ancestor]});
        status.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let object = json!({"apiVersion": "tidegate.dev/v1alpha1", "kind": kind, "status": status});
        let operator = PatchParams::apply("tidegate-operator").force();
        api(server, kind).patch_status("a", &operator, &Patch::Apply(object)).await.unwrap();
    }
    let shown = server.kubectl(&["get", "rlp,cbp"]).await.unwrap();
    let words: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["NAME", "MODE", "ACCEPTED", "PROGRAMMED", "PODS", "TRIPPED", "REASON", "AGE"]);
    let told = ["Enforce", "True", "True", "2/3", "1", "PartiallyProgrammed"];
    for kind in ["ratelimitpolicy", "circuitbreakerpolicy"] {
        let name = format!("{kind}.tidegate.dev/a");
        let line = words.iter().find(|line| line.first() == Some(&name.as_str())).expect("a line");
        assert_eq!(line[1..7], told, "{shown}");
    }
    let described = server.kubectl(&["describe", "rlp", "a"]).await.unwrap();
    assert!(described.contains("1 of 3 pods have no sidecar"), "{described}");
    let explained = server.kubectl(&["explain", "ratelimitpolicies.spec.limits.window"]).await.unwrap();
    assert!(explained.contains("The window"), "{explained}");
}
