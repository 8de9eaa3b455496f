//! What the operator asks of the API server, counted with so many pods that one request too much for each shows.

use std::path::{Path, PathBuf};

use tidegate_e2e::apiserver::Requests;
use tidegate_e2e::cluster::progress::Progress;
use tidegate_e2e::scale::{Scene, Size};

const SIZE: Size = Size { pods: 50, nodes: 5, policies: 12 };
/// Of the 50 pods' policy.
const CHANGES: u64 = 3;

fn count(requests: &Requests, what: impl Fn(&str) -> bool) -> u64 {
    requests.iter().filter(|(name, _)| what(name)).map(|(_, count)| count).sum()
}

fn is_status(name: &str) -> bool {
    name.starts_with("patch") && name.ends_with("/status")
}

/// What grows with time alone: the Lease, and what certificates need.
fn is_upkeep(name: &str) -> bool {
    ["leases", "secrets", "configmaps", "webhookconfigurations"].iter().any(|part| name.contains(part))
}

/// `make apiserver` builds it beside this program.
pub(crate) fn operator() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.parent().and_then(Path::parent).unwrap().join("tidegate-operator")
}

#[tokio::test]
async fn requests_to_the_api_server_do_not_grow_with_the_pods() {
    let mut scene = Scene::set(SIZE, &operator(), &Progress::start()).await.unwrap();
    let pods = SIZE.pods as u64;

    let before = scene.server.requests_of_the_operator().unwrap();
    let back = scene.restart().await.unwrap();
    assert_eq!(back.refused, 0, "{back:?}");
    assert_eq!(scene.documents(), 0, "every sidecar has the revision that it is to have");
    let started = scene.requests_since(&before).unwrap();
    let reviews = count(&started, |name| name == "create tokenreviews");
    assert!((pods..=pods + 5).contains(&reviews), "one for each token: {started:?}");
    let lists_and_watches = |name: &str| ["list", "watch"].iter().any(|verb| name.starts_with(verb));
    let others = |name: &str| name != "create tokenreviews" && !is_status(name) && !is_upkeep(name);
    let few = count(&started, |name| others(name) && !lists_and_watches(name));
    assert!(few < 20, "{started:?}");
    assert!(count(&started, lists_and_watches) < 50, "{started:?}");

    let before = scene.server.requests_of_the_operator().unwrap();
    for _ in 0..CHANGES {
        scene.change().await.unwrap();
    }
    let changed = scene.requests_since(&before).unwrap();
    assert_eq!(scene.documents(), CHANGES * pods, "each document once to each pod");
    assert_eq!(count(&changed, others), 0, "{changed:?}");
    // One at once because the condition changes, one when all have reported, and one between every 5 s.
    assert!(count(&changed, is_status) < CHANGES * 4 + 4 * SIZE.policies as u64, "{changed:?}");
}
