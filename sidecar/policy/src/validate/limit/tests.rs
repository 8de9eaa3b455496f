use serde_json::{Value, json};

use crate::{DocumentErrors, PolicyDocument};

fn document(limits: &[Value], memory: Option<u64>) -> Value {
    json!({"apiVersion": "policy.tidegate.dev/v1", "revision": "r1", "limits": limits, "limitMemoryBytes": memory})
}

fn read(document: &Value) -> Result<PolicyDocument, DocumentErrors> {
    PolicyDocument::from_json(document.to_string().as_bytes())
}

#[allow(clippy::needless_pass_by_value)] // what json! makes
fn limit(name: &str, key: Value, algorithm: Value, limit: u64, window_millis: u64) -> Value {
    json!({"policy": "a/b", "name": name, "mode": "Enforce", "key": key, "algorithm": algorithm, "limit": limit,
        "windowMillis": window_millis})
}

/// The mistakes of a document with these limits.
fn mistakes(limits: &[Value]) -> String {
    let document = document(limits, Some(128 << 20));
    read(&document).map_or_else(|errors| errors.to_string(), |_| String::new())
}

#[test]
fn every_mistake_of_a_limit_says_where_it_is_and_what_to_write() {
    let mut rules: Vec<_> =
        (0..10).map(|n| limit(&format!("r{n}"), json!([]), json!("fixedWindow"), 9, 9)).collect();
    rules[0]["algorithm"] = json!({"tokenBucket": {"burst": 5, "initial": 6}});
    rules[1]["algorithm"] = json!({"leakyBucket": {"burst": 0}});
    rules[2]["algorithm"] = json!({"slidingWindow": {"subWindows": 61}});
    rules[3]["algorithm"] = json!("slidingLog");
    rules[3]["limit"] = json!(10_001);
    rules[4]["algorithm"] = json!("slidingLog");
    rules[4]["cost"] = json!("totalTokens");
    rules[5]["algorithm"] = json!("concurrency");
    rules[6].as_object_mut().unwrap().remove("windowMillis");
    rules[7]["maxKeys"] = json!(0);
    rules[8]["maxKeys"] = json!(4_000_001);
    rules[9]["name"] = json!("r8");
    for rule in &mut rules {
        rule["mode"] = json!("Shadow");
    }
    assert_eq!(
        mistakes(&rules),
        "limits[0].algorithm.tokenBucket.initial: 6 does not fit the bucket: write 0 to 5, its burst\n\
         limits[1].algorithm.leakyBucket.burst: 0 is out of range: write 1 to 1000000000\n\
         limits[2].algorithm.slidingWindow.subWindows: 61 is out of range: write 1 to 60\n\
         limits[3].limit: 10001 is too much for an exact log: write at most 10000, or slidingWindow\n\
         limits[4].cost: an exact log counts requests: leave it out, or write slidingWindow\n\
         limits[5].windowMillis: 9 has no meaning for concurrency: leave it out\n\
         limits[6].windowMillis: missing: write the length of the window\n\
         limits[7].maxKeys: 0 is out of range: write 1 to 4000000\n\
         limits[8].maxKeys: 4000001 is out of range: write 1 to 4000000\n\
         limits[9].name: \"r8\" is there twice: give every limit a name of its own\n\
         limits[8]: 156399744 bytes for the keys of this limit and those before it are too many: write a lower \
         limit or maxKeys, or a limitMemoryBytes over 134217728"
    );
}

#[test]
fn exact_logs_are_held_under_the_memory_of_the_document() {
    let log = |name, most| limit(name, json!([]), json!("slidingLog"), most, 1000);
    assert_eq!(mistakes(&[log("a", 10_000)]), "", "1152 keys of 10000 places take 92 MB");
    let both = mistakes(&[log("a", 9_000), log("b", 9_001)]);
    assert!(both.starts_with("limits[1]: 166"), "{both}");
    assert!(
        read(&document(&[log("a", 10_000)], None))
            .unwrap_err()
            .to_string()
            .contains("limitMemoryBytes over 67108864")
    );
}

#[test]
fn a_limit_that_another_of_its_policy_hides_is_a_contradiction() {
    let user = || json!([{"header": "x-api-key"}]);
    let bucket = |burst: u64| json!({"tokenBucket": {"burst": burst}});
    let ring = json!({"slidingWindow": {"subWindows": 10}});
    let pod = limit("pod", json!([]), bucket(10), 50, 1000);
    for (hidden, by) in [
        // More for one user than for all of them.
        (limit("user", user(), bucket(10), 50, 1000), &pod),
        (limit("user", user(), bucket(20), 6000, 60_000), &pod),
        (limit("user", user(), ring.clone(), 3311, 60_000), &pod),
        (limit("user", user(), json!("fixedWindow"), 3011, 60_000), &pod),
        (limit("user", user(), json!({"leakyBucket": {"burst": 99}}), 99, 1000), &pod),
        // Ten a second are never more than 600 a minute.
        (
            limit("minute", user(), ring.clone(), 670, 60_000),
            &limit("second", user(), ring.clone(), 10, 1000),
        ),
    ] {
        let told = mistakes(&[hidden.clone(), by.clone()]);
        assert!(told.starts_with("limits[0].limit: ") && told.lines().count() == 1, "{hidden} {told:?}");
        let mut other_policy = by.clone();
        other_policy["policy"] = json!("a/c");
        assert_eq!(mistakes(&[hidden, other_policy]), "", "policies add up");
    }
    for (one, other) in [
        (limit("user", user(), bucket(10), 49, 1000), pod.clone()),
        (limit("user", user(), bucket(9), 60, 1000), pod.clone()),
        (limit("user", user(), ring.clone(), 3000, 60_000), pod.clone()),
        (limit("global", json!([]), json!({"leakyBucket": {"burst": 50_000}}), 50_000, 1000), pod.clone()),
        (limit("minute", user(), ring.clone(), 600, 60_000), limit("second", user(), ring.clone(), 10, 1000)),
        (
            limit("paced", user(), json!({"leakyBucket": {"burst": 9, "maxWaitMillis": 9}}), 99, 1000),
            pod.clone(),
        ),
        (limit("path", json!(["path"]), bucket(99), 99, 1000), limit("user", user(), bucket(9), 9, 1000)),
    ] {
        assert_eq!(mistakes(&[one, other]), "");
    }
    let twice = [limit("a", user(), bucket(9), 9, 1000), limit("b", user(), bucket(9), 9, 1000)];
    assert!(mistakes(&twice).starts_with("limits[1].limit"), "of two equals the first may stay");
}

#[test]
fn a_limit_in_flight_that_the_pod_as_a_whole_never_reaches_is_a_contradiction() {
    let told = |most: u64, policy: &str, mode: &str| {
        let mut user = limit("user", json!([{"header": "x-api-key"}]), json!("concurrency"), most, 1);
        user.as_object_mut().unwrap().remove("windowMillis");
        let mut document = document(&[user], None);
        document["concurrency"] = json!({
            "policy": policy, "mode": mode, "algorithm": "static", "initial": 20, "min": 4, "max": 40,
        });
        read(&document).map_or_else(|errors| errors.to_string(), |_| String::new())
    };
    assert_eq!(
        told(40, "a/b", "Enforce"),
        "limits[0].limit: 40 is never reached, since concurrency lets at most 40 be in flight together: write less, \
         raise concurrency.max, or leave this limit out"
    );
    assert_eq!(told(39, "a/b", "Enforce"), "");
    assert_eq!((told(40, "a/c", "Enforce"), told(40, "a/b", "Shadow")), (String::new(), String::new()));
}
