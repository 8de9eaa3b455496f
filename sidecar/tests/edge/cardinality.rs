//! What clients and policies invent without end, and what becomes of it in metrics and in memory.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::policy_file::{File, in_force};
use crate::sidecar::Sidecar;
use crate::support::Peer;

/// The series of a scrape that begin so, each with its value.
fn series(sidecar: &Sidecar, begin: &str) -> BTreeMap<String, u64> {
    let scrape = sidecar.admin("/metrics").unwrap().body;
    let lines = scrape.lines().filter(|line| line.starts_with(begin) && !line.starts_with('#'));
    let split = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse::<f64>().unwrap() as u64)
    };
    lines.map(split).collect()
}

fn connect(sidecar: &Sidecar) -> Peer {
    Peer::new(std::net::TcpStream::connect(sidecar.data).unwrap())
}

fn ask(client: &mut Peer, method: &str, path: &str, fields: &str) -> u16 {
    client.send(&format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    client.response().status
}

/// As many limits as a document may have, each for the requests that name it, of which it lets one pass.
fn rules(revision: usize) -> String {
    let limits: Vec<_> = (0..64)
        .map(|number| {
            json!({
                "policy": "a/b", "name": format!("rule-{revision}-{number}"), "mode": "Enforce", "key": [],
                "when": [{"of": {"header": "x-rule"}, "is": {"in": [number.to_string()]}}],
                "algorithm": {"tokenBucket": {"burst": 1}}, "limit": 1, "windowMillis": 3_600_000,
            })
        })
        .collect();
    json!({
        "apiVersion": "policy.tidegate.dev/v1", "revision": revision.to_string(), "limits": limits,
        "identity": {"policy": "a/b",
            "clientIp": {"trustedProxies": ["127.0.0.0/8"], "from": "XForwardedFor"}},
    })
    .to_string()
}

#[test]
fn floods_of_rules_and_of_addresses_end_in_other_in_a_scrape() {
    let file = File::new(&rules(0));
    let sidecar = file.sidecar_with(&["--max-client-labels", "8"]);
    let mut client = connect(&sidecar);
    // Nine documents, one after another, have more rules than are told apart.
    for revision in 0..9 {
        file.write(&rules(revision));
        in_force(&sidecar, &revision.to_string());
        for rule in 0..64 {
            let fields = format!("x-rule: {rule}\r\nx-forwarded-for: 10.0.{revision}.{rule}\r\n");
            assert_eq!([(); 2].map(|()| ask(&mut client, "GET", "/v1/models", &fields)), [200, 429]);
        }
    }
    let rules = series(&sidecar, "tidegate_decisions_total{");
    assert!((400..=513).contains(&rules.len()), "{} series of 576 rules", rules.len());
    assert_eq!(rules.values().sum::<u64>(), 576, "and every refusal counts");
    let other = r#"tidegate_decisions_total{decision="refused",policy="other",rule="other",priority="medium",reason="other"}"#;
    assert!(rules[other] >= 64, "{rules:?}");
    let callers = series(&sidecar, "rate_limited_total{");
    assert!(callers.len() <= 9, "{callers:?}");
    assert_eq!(callers.values().sum::<u64>(), 576);
    assert!(callers[r#"rate_limited_total{route="/v1/models",client_ip="other"}"#] >= 500, "{callers:?}");
}

/// Three requests an hour for each user, of whom so many are told apart; and a breaker for each of eight users.
fn users(most: u64) -> String {
    json!({
        "apiVersion": "policy.tidegate.dev/v1", "revision": "r1",
        "limits": [{"policy": "a/b", "name": "per-user", "mode": "Enforce", "key": [{"header": "x-user"}],
            "algorithm": {"tokenBucket": {"burst": 3}}, "limit": 3, "windowMillis": 3_600_000,
            "maxKeys": most}],
        "breaker": {"policy": "a/b", "mode": "Enforce", "trip": {"consecutiveFailures": {"count": 2}},
            "per": {"key": [{"header": "x-user"}], "max": 8}, "openMillis": 60_000, "halfOpen": {"probes": 1}},
    })
    .to_string()
}

#[test]
fn a_flood_of_invented_keys_shares_one_count_and_a_scrape_has_no_series_more() {
    let file = File::new(&users(128));
    let sidecar = file.sidecar_with(&[]);
    let mut client = connect(&sidecar);
    let ann = "x-user: ann\r\n";
    assert_eq!([(); 2].map(|()| ask(&mut client, "GET", "/invented", ann)), [200; 2]);
    let bob = "x-user: bob\r\n";
    assert_eq!([(); 4].map(|()| ask(&mut client, "GET", "/invented", bob)), [200, 200, 200, 429]);
    let names = || series(&sidecar, "").into_keys().collect::<BTreeSet<_>>();
    let before = names();
    let strangers = 2000;
    let passed = (0..strangers)
        .filter(|number| {
            let (method, path) = (format!("INVENT-{number}"), format!("/invented/{number}"));
            let fields = format!("x-user: {number}\r\nuser-agent: {number}\r\nx-invented-{number}: 1\r\n");
            ask(&mut client, &method, &path, &fields) == 200
        })
        .count();
    // Each that found room has its own count, of which it used one; all others have the three of one count together.
    assert!((100..=129).contains(&passed), "{passed} of {strangers} strangers passed");
    let page: Value = sidecar.status();
    assert!(page["limits"][0]["keys"].as_u64().unwrap() <= 129, "{}", page["limits"]);
    assert!(page["breaker"]["groups"]["tracked"].as_u64().unwrap() <= 8, "{}", page["breaker"]);
    assert_eq!(
        [(); 2].map(|()| ask(&mut client, "GET", "/invented", ann)),
        [200, 429],
        "ann has her third still"
    );
    // What the sidecar only knows after some time may be new; nothing of it is a stranger's.
    let now = names();
    let new: Vec<_> = now.difference(&before).collect();
    assert!(new.len() < 20 && !new.iter().any(|name| name.to_lowercase().contains("invent")), "{new:?}");
}
