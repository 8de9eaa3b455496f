//! The table of rights in docs/security.md: exactly what the rendered chart gives, each right with its reason.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{objects, of_kind, page};

/// Who, where, on what, and what: `operator | cluster | core/pods | list, watch`.
type Right = (String, String, String, String);

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn of_rule(who: &str, place: &str, rule: &Value) -> Vec<Right> {
    let groups = strings(&rule["apiGroups"]);
    let names = strings(&rule["resourceNames"]);
    let names = if names.is_empty() { String::new() } else { format!(" named {}", names.join(", ")) };
    let verbs = strings(&rule["verbs"]).join(", ");
    let resources = strings(&rule["resources"]);
    let all = groups.iter().flat_map(|group| resources.iter().map(move |resource| (group, resource)));
    all.map(|(group, resource)| {
        let group = if group.is_empty() { "core" } else { group };
        (who.to_owned(), place.to_owned(), format!("{group}/{resource}{names}"), verbs.clone())
    })
    .collect()
}

fn rendered(objects: &[Value]) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    for (kind, place) in [("ClusterRole", "cluster"), ("Role", "own namespace")] {
        for role in of_kind(objects, kind) {
            let who = role["metadata"]["name"].as_str().unwrap().trim_start_matches("tidegate-").to_owned();
            for rule in role["rules"].as_array().unwrap() {
                rights.extend(of_rule(&who, place, rule));
            }
        }
    }
    rights
}

/// Rows of the table below the heading `Rights`, with their reasons.
fn written() -> Vec<(Right, String)> {
    let page = page("docs/security.md");
    let (_, rest) = page.split_once("\n## Rights\n").unwrap();
    let section = rest.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| ") && line.contains('`'));
    rows.map(|line| {
        let mut cells = line.trim_matches('|').split(" | ").map(|cell| cell.trim().replace('`', ""));
        let mut next = || cells.next().unwrap_or_default();
        ((next(), next(), next(), next()), next())
    })
    .collect()
}

#[tokio::test]
async fn the_table_of_rights_is_what_the_chart_gives() {
    let rows = written();
    let page: BTreeSet<_> = rows.iter().map(|(right, _)| right.clone()).collect();
    assert_eq!(page.len(), rows.len(), "no row twice");
    let chart = rendered(&objects(&[]).await);
    let missing: Vec<_> = chart.difference(&page).collect();
    let gone: Vec<_> = page.difference(&chart).collect();
    assert!(
        missing.is_empty() && gone.is_empty(),
        "not on the page: {missing:#?}\nnot in the chart: {gone:#?}"
    );
    for (right, reason) in rows {
        assert!(reason.len() > 10, "{right:?} has no reason");
    }
}

#[tokio::test]
async fn nobody_may_read_secrets_but_his_own_nor_everything_of_anything() {
    for (who, place, what, verbs) in rendered(&objects(&[]).await) {
        let all = format!("{who} {place} {what} {verbs}");
        assert!(!all.contains('*'), "{all}");
        if what.starts_with("core/secrets") {
            assert_eq!(place, "own namespace", "{all}");
            assert!(what.contains(" named ") || verbs == "create", "{all}");
        }
        let forbidden = ["escalate", "bind", "impersonate", "delete", "deletecollection"];
        assert!(forbidden.iter().all(|verb| !verbs.split(", ").any(|one| one == *verb)), "{all}");
        let never = ["pods/exec", "pods/proxy", "nodes/proxy", "serviceaccounts/token", "roles"];
        assert!(never.iter().all(|resource| !what.ends_with(resource)), "{all}");
    }
}

#[tokio::test]
async fn every_account_is_bound_to_its_own_roles_alone() {
    let objects = objects(&[]).await;
    for kind in ["ClusterRoleBinding", "RoleBinding"] {
        for binding in of_kind(&objects, kind) {
            let name = &binding["metadata"]["name"];
            assert_eq!(&binding["roleRef"]["name"], name);
            assert_eq!(binding["subjects"].as_array().unwrap().len(), 1);
            assert_eq!(&binding["subjects"][0]["name"], name);
            assert_eq!(binding["subjects"][0]["namespace"], "tidegate-system");
        }
    }
}
