//! The dashboard: every metric that it asks for exists.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{EVERYTHING, objects, of_kind, page};

/// Names of metrics in a query, without what Prometheus adds to those of a histogram.
fn metrics(query: &str) -> impl Iterator<Item = &str> {
    let words = query.split(|c: char| !c.is_alphanumeric() && c != '_');
    let ours = words.filter(|word| ["tidegate_", "gen_ai_"].iter().any(|prefix| word.starts_with(prefix)));
    ours.map(|word| {
        let ends = ["_bucket", "_sum", "_count"];
        ends.iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word)
    })
}

fn queries(dashboard: &Value) -> Vec<&str> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    let of_variables = variables.filter(|one| one["type"] == "query").map(|one| &one["query"]);
    targets.map(|target| &target["expr"]).chain(of_variables).map(|query| query.as_str().unwrap()).collect()
}

#[tokio::test]
async fn the_dashboard_asks_for_metrics_that_there_are() {
    let objects = objects(EVERYTHING).await;
    let map =
        of_kind(&objects, "ConfigMap").find(|one| one["metadata"]["name"] == "tidegate-dashboard").unwrap();
    assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
    let dashboard: Value = serde_json::from_str(map["data"]["tidegate.json"].as_str().unwrap()).unwrap();
    let docs = page("docs/metrics.md");
    let queries = queries(&dashboard);
    let asked: BTreeSet<_> = queries.iter().flat_map(|query| metrics(query)).collect();
    assert!(asked.len() >= 15, "{asked:?}");
    for name in asked {
        assert!(
            docs.contains(&format!("`{name}`")),
            "{name} is not in docs/metrics.md, which lists all there are"
        );
    }
}

#[tokio::test]
async fn panels_have_titles_and_places_of_their_own() {
    let dashboard: Value = serde_json::from_str(&page("helm/tidegate/dashboards/tidegate.json")).unwrap();
    let mut ids = BTreeSet::new();
    let mut places = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(!panel["title"].as_str().unwrap().is_empty());
        assert!(ids.insert(panel["id"].as_u64().unwrap()));
        assert!(places.insert((panel["gridPos"]["x"].as_u64(), panel["gridPos"]["y"].as_u64())));
    }
}
