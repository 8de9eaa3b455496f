use serde_json::{Value, json};

use crate::{DocumentErrors, PolicyDocument};

/// Tiers in which every field is written.
fn tiers() -> Value {
    json!({
        "policy": "a/b", "mode": "Enforce",
        "qps": {"sampleIntervalMillis": 1000, "windowMillis": 60_000, "max": 400.0,
            "learned": {"sigma": 1.5, "factor": 1.2, "floor": 10.0, "minimumSamples": 10,
                "minimumRequests": 5, "growthPerHour": 0.5, "seed": 12.5}},
        "gpuMemory": {"source": "Auto", "maxUtilization": 0.75, "maxBytes": 1, "staleAfterMillis": 10_000,
            "onStale": "Ignore", "plateau": {"stableMillis": 60_000, "growth": 0.5},
            "kvCache": {"maxUsage": 0.9, "staleAfterMillis": 5000, "onStale": "HoldLast"}},
        "latency": {"signal": "TimeToFirstToken", "percentile": 0.99, "periodMillis": 10_000, "periods": 3,
            "minimumSamples": 100, "learned": {"factor": 1.8, "minimumPeriods": 6}, "maxMillis": 800},
        "recovery": {"belowRatio": 0.8, "holdMillis": 30_000, "rampMillis": 5000},
        "selfCalibration": true,
    })
}

/// A document in which every field is written.
#[allow(clippy::too_many_lines)] // one document
fn full() -> Value {
    let limit = |algorithm: Value, cost: Value| {
        let mut limit = json!({"policy": "a/b", "name": algorithm.to_string(), "mode": "Enforce", "key": [], "limit": 100,
            "algorithm": algorithm, "cost": cost, "maxKeys": 1000,
            "onExhausted": "Finish"});
        if algorithm != "concurrency" {
            limit["windowMillis"] = json!(1000);
        }
        limit
    };
    let mut document = json!({
        "apiVersion": "policy.tidegate.dev/v1", "revision": "r1",
        "tiers": tiers(),
        "identity": {"policy": "a/b", "clientIp": {"trustedProxies": ["10.0.0.0/8"], "from": "XForwardedFor"},
            "apiKeys": {"headers": ["authorization", "x-api-key"], "required": true, "stripHeaders": true}, "jwt": [
            {"issuer": "https://a", "audiences": ["b"], "algorithms": ["RS256"], "leewayMillis": 1000,
                "keys": {"remote": {"uri": "https://a/keys", "caBundle": "PEM"}}},
            {"issuer": "https://b", "algorithms": ["RS256"], "keys": {"inline": "{\"keys\": [{}]}"}},
            {"issuer": "https://c", "algorithms": ["RS256"], "keys": {"file": "c.json"}},
        ]},
        "priority": {
            "from": [{"header": "x-priority", "map": {"gold": "High"}}, {"jwtClaim": "tier"}, {"serviceTier": true},
                {"header": "x-request-priority", "number": {"better": "Lower", "high": -1, "medium": 5}}],
            "stripHeaders": true,
            "default": "Medium", "reservedHigh": 0.2,
            "highAllowedFrom": [{"cidr": "10.0.0.0/8", "header": "x-team", "value": "ops"}],
        },
        "concurrency": {"policy": "a/b", "mode": "Enforce", "initial": 20, "min": 4, "max": 1000,
            "latency": "TimeToFirstToken",
            "algorithm": {"adaptive": {"targetMillis": 500, "tolerance": 3.0, "kvCache": 0.9}}},
        "queue": {"policy": "a/b", "mode": "Enforce", "maxLength": 100, "timeoutMillis": 1000,
            "tenant": [{"header": "x-team"}, {"jwtClaim": "team"}, "path", "method", "clientIp", "model"]},
        "limits": [
            limit(json!({"tokenBucket": {"burst": 10, "initial": 1}}),
                json!({"tokens": {"input": 1.0, "cached": 0.5, "output": 4.0}})),
            limit(json!({"leakyBucket": {"burst": 10, "maxWaitMillis": 1000}}), json!("requests")),
            limit(json!({"slidingWindow": {"subWindows": 10}}), json!("promptTokens")),
            limit(json!("slidingLog"), json!("requests")),
            limit(json!("fixedWindow"), json!("totalTokens")),
            limit(json!("concurrency"), json!("requests")),
        ],
        "limitMemoryBytes": 67_108_864,
        "rateLimitHeaders": "Always",
        "breaker": {
            "policy": "a/b", "mode": "Enforce",
            "trip": {
                "consecutiveFailures": {"count": 5},
                "errorRatio": {"threshold": 0.5, "windowMillis": 30_000, "minimumRequests": 20},
                "slowCallRatio": {"threshold": 0.3, "slowerThanMillis": 1000, "windowMillis": 10_000,
                    "minimumRequests": 20},
                "latency": {"percentile": 0.95, "overMillis": 800, "windowMillis": 30_000, "minimumRequests": 20},
                "inFlight": {"max": 200},
            },
            "failureStatuses": ["5xx"], "backpressureStatuses": ["429"],
            "per": {"key": [{"header": "x-canary"}, {"jwtClaim": "group"}, "path", "method", "clientIp", "model"], "max": 8},
            "stages": [{"stage": "attention", "overMillis": 800, "percentile": 0.99, "windowMillis": 30_000,
                "minimumRequests": 20, "staleAfterMillis": 10_000,
                "outOfMemory": {"count": 3, "windowMillis": 60_000}}],
            "openMillis": 60_000, "halfOpen": {"probes": 1, "rampMillis": 6000}, "timeoutMillis": 3000,
            "timeouts": {"connectMillis": 1000, "firstByteMillis": 5000, "betweenChunksMillis": 10_000,
                "totalMillis": 600_000},
            "fallback": {"path": "/fallback"},
        },
    });
    document["limits"][0]["when"] = json!([
        {"of": {"header": "x-route"}, "is": "exists"}, {"of": {"header": "x-tier"}, "is": {"in": ["gold"]}},
        {"of": {"jwtClaim": "banned"}, "is": "doesNotExist"}, {"of": {"jwtClaim": "tier"}, "is": {"notIn": ["b"]}},
        {"of": "path", "is": {"in": ["/v1/*"]}}, {"of": "method", "is": {"notIn": ["GET"]}},
    ]);
    document["limits"][0]["key"] =
        json!([{"header": "x-api-key"}, {"jwtClaim": "sub"}, "path", "method", "clientIp", "model"]);
    document
}

/// The same with windows of calls, which exclude windows of time.
fn full_by_calls() -> Value {
    let mut document = full();
    for condition in ["errorRatio", "slowCallRatio", "latency"] {
        let trip = &mut document["breaker"]["trip"][condition];
        trip.as_object_mut().unwrap().remove("windowMillis");
        trip["windowCalls"] = json!(20);
    }
    document
}

/// Documents that have every field and every variant between them.
fn documents() -> Vec<Value> {
    let by = |algorithm: Value| {
        let mut document = full();
        document["concurrency"]["algorithm"] = algorithm;
        document
    };
    let mut with_fallbacks = full();
    with_fallbacks["breaker"].as_object_mut().unwrap().remove("fallback");
    with_fallbacks["breaker"]["hooks"] = json!([
        {"name": "audit", "url": "http://audit.ops.svc:80/events", "mode": "Sync", "on": ["Opened"]},
        {"name": "chat", "url": "https://chat.example/hook", "mode": "Async", "on": ["HalfOpened", "Closed"]},
    ]);
    with_fallbacks["breaker"]["fallbacks"] = json!({"on": ["Open", "ConnectFailure", "Timeout", "Failure"], "to": [
        {"path": "/fallback"},
        {"send": {"url": "http://llama-small.inference.svc:8000", "inCluster": true, "path": "/v1",
            "model": "small"}},
        {"static": {"status": 200, "contentType": "application/json", "body": "{}"}},
        {"cache": {"ttlMillis": 60_000, "maxEntries": 100, "maxBytes": 1_048_576}},
    ]});
    vec![
        full(),
        full_by_calls(),
        with_fallbacks,
        by(json!({"gradient2": {"tolerance": 1.5, "smoothing": 0.2, "headroom": 4}})),
        by(json!({"aimd": {"backoff": 0.9, "timeoutMillis": 5000}})),
        by(json!("static")),
    ]
}

const TEXT: &[&str] = &["5", "null"];
const MODE: &[&str] = &["\"Off\"", "\"\"", "1"];
const MILLIS: &[&str] = &["0", "-1", "0.5", "2678400001", "18446744073709551615", "\"1s\""];
const SHARE: &[&str] = &["0", "-0.1", "1.001", "1e999", "\"50%\""];
const FACTOR: &[&str] = &["0", "-1", "1000.1", "\"2\""];
const RATE: &[&str] = &["0", "-1", "1000000001", "\"2\""];
const COUNT: &[&str] = &["0", "-1", "4294967295", "1.5", "\"5\""];
const REQUESTS: &[&str] = &["0", "-1", "1000000001", "18446744073709551615", "18446744073709551616"];
const HEADER: &[&str] = &["\"\"", "\"x y\"", "\"x\\n\"", "5"];
const STATUS: &[&str] = &["\"3xx\"", "\"600\"", "\"0500\"", "\"-50\"", "\"\"", "500"];
const WEIGHT: &[&str] = &["-1", "1e999", "\"1\""];

/// Values of each field that are refused. Fields of lists stand once.
const BAD: &[(&str, &[&str])] = &[
    ("apiVersion", &["\"\"", "\"policy.tidegate.dev/v2\"", "1"]),
    ("revision", TEXT),
    ("tiers.policy", TEXT),
    ("tiers.mode", MODE),
    ("tiers.qps.sampleIntervalMillis", MILLIS),
    ("tiers.qps.windowMillis", &["0", "1999", "3601000", "\"1m\""]),
    ("tiers.qps.max", RATE),
    ("tiers.qps.learned.sigma", FACTOR),
    ("tiers.qps.learned.factor", FACTOR),
    ("tiers.qps.learned.floor", &["0", "-1", "400", "1000000001", "\"2\""]),
    ("tiers.qps.learned.minimumSamples", &["0", "1", "61", "-1"]),
    ("tiers.qps.learned.minimumRequests", &["-1", "1.5", "400", "4294967296", "\"5\""]),
    ("tiers.qps.learned.growthPerHour", SHARE),
    ("tiers.qps.learned.seed", RATE),
    ("tiers.gpuMemory.source", MODE),
    ("tiers.gpuMemory.plateau.stableMillis", MILLIS),
    ("tiers.gpuMemory.plateau.growth", SHARE),
    ("tiers.gpuMemory.kvCache.maxUsage", SHARE),
    ("tiers.gpuMemory.kvCache.staleAfterMillis", &["0", "999", "0.5", "2678400001", "\"1s\""]),
    ("tiers.gpuMemory.kvCache.onStale", MODE),
    ("tiers.gpuMemory.maxUtilization", SHARE),
    ("tiers.gpuMemory.maxBytes", &["0", "-1", "18446744073709551616"]),
    ("tiers.gpuMemory.staleAfterMillis", &["0", "1999", "0.5", "2678400001", "\"1s\""]),
    ("tiers.gpuMemory.onStale", MODE),
    ("tiers.latency.signal", MODE),
    ("tiers.latency.percentile", SHARE),
    ("tiers.latency.periodMillis", MILLIS),
    ("tiers.latency.periods", COUNT),
    ("tiers.latency.minimumSamples", COUNT),
    ("tiers.latency.learned.factor", FACTOR),
    ("tiers.latency.learned.minimumPeriods", COUNT),
    ("tiers.latency.maxMillis", &["0", "-1", "0.5", "86400001", "\"1s\""]),
    ("tiers.recovery.belowRatio", SHARE),
    ("tiers.recovery.holdMillis", MILLIS),
    ("tiers.recovery.rampMillis", MILLIS),
    ("tiers.selfCalibration", &["1", "\"true\""]),
    ("identity.policy", TEXT),
    ("identity.clientIp.trustedProxies[]", &["\"\"", "\"10.0.0.1\"", "\"10.0.0.0/33\"", "5"]),
    ("identity.clientIp.from", MODE),
    ("identity.apiKeys.headers[]", HEADER),
    ("identity.apiKeys.required", &["1", "\"true\""]),
    ("identity.apiKeys.stripHeaders", &["1", "\"true\""]),
    ("identity.jwt[].issuer", &["\"\"", "5"]),
    ("identity.jwt[].audiences[]", TEXT),
    ("identity.jwt[].algorithms[]", &["\"HS256\"", "\"none\""]),
    ("identity.jwt[].leewayMillis", MILLIS),
    ("identity.jwt[].keys.remote.uri", &["\"\"", "\"http://a\"", "\"https://\"", "\"https://a b\""]),
    ("identity.jwt[].keys.remote.caBundle", &["5"]),
    ("identity.jwt[].keys.file", &["\"\"", "\".\"", "\"../token\"", "\"/etc/passwd\"", "\"a b\"", "5"]),
    ("identity.jwt[].keys.inline", &["\"\"", "\"{}\"", "\"{\\\"keys\\\": []}\""]),
    ("priority.from[].header", HEADER),
    ("priority.from[].map.gold", MODE),
    ("priority.from[].jwtClaim", &["5"]),
    ("priority.from[].serviceTier", &["5", "\"yes\""]),
    ("priority.from[].number.better", MODE),
    ("priority.from[].number.high", &["6", "2147483648", "1.5", "\"5\""]),
    ("priority.from[].number.medium", &["-2147483649", "1.5", "\"5\""]),
    ("priority.stripHeaders", &["1", "\"true\""]),
    ("priority.default", MODE),
    ("priority.reservedHigh", &["0", "-0.1", "1", "1.001", "1e999", "\"50%\""]),
    ("priority.highAllowedFrom[].cidr", &["\"\"", "\"10.0.0.0\"", "\"10.0.0.0/33\"", "\"::/129\""]),
    ("priority.highAllowedFrom[].header", HEADER),
    ("priority.highAllowedFrom[].value", &["5"]),
    ("concurrency.policy", TEXT),
    ("concurrency.mode", MODE),
    ("concurrency.initial", &["0", "3", "1001", "-1"]),
    ("concurrency.min", &["0", "1", "1001", "-1"]),
    ("concurrency.max", &["0", "1", "100001", "-1"]),
    ("concurrency.latency", MODE),
    ("concurrency.algorithm", MODE),
    ("concurrency.algorithm.adaptive.targetMillis", MILLIS),
    ("concurrency.algorithm.adaptive.tolerance", FACTOR),
    ("concurrency.algorithm.adaptive.kvCache", SHARE),
    ("concurrency.algorithm.gradient2.tolerance", FACTOR),
    ("concurrency.algorithm.gradient2.smoothing", SHARE),
    ("concurrency.algorithm.gradient2.headroom", &["0", "10001", "-1"]),
    ("concurrency.algorithm.aimd.backoff", SHARE),
    ("concurrency.algorithm.aimd.timeoutMillis", MILLIS),
    ("queue.policy", TEXT),
    ("queue.mode", MODE),
    ("queue.maxLength", &["0", "100001", "-1"]),
    ("queue.timeoutMillis", MILLIS),
    ("queue.tenant[].header", HEADER),
    ("queue.tenant[].jwtClaim", &["5"]),
    ("queue.tenant[]", MODE),
    ("limits[].policy", TEXT),
    ("limits[].name", TEXT),
    ("limits[].mode", MODE),
    ("limits[].key[].header", HEADER),
    ("limits[].key[].jwtClaim", &["5"]),
    ("limits[].key[]", MODE),
    ("limits[].algorithm", MODE),
    ("limits[].algorithm.tokenBucket.burst", REQUESTS),
    ("limits[].algorithm.tokenBucket.initial", &["-1", "11"]),
    ("limits[].algorithm.leakyBucket.burst", REQUESTS),
    ("limits[].algorithm.leakyBucket.maxWaitMillis", MILLIS),
    ("limits[].algorithm.slidingWindow.subWindows", &["0", "61", "-1"]),
    ("limits[].limit", REQUESTS),
    ("limits[].windowMillis", MILLIS),
    ("limits[].maxKeys", &["0", "4000001", "-1", "1.5"]),
    ("limits[].when[].of", MODE),
    ("limits[].when[].of.header", HEADER),
    ("limits[].when[].of.jwtClaim", &["5"]),
    ("limits[].when[].is", &["\"in\"", "5", "\"Exists\""]),
    ("limits[].when[].is.in[]", &["5", "null"]),
    ("limits[].when[].is.notIn[]", &["5", "null"]),
    ("rateLimitHeaders", MODE),
    ("limitMemoryBytes", &["-1", "1.5"]),
    ("limits[].cost", MODE),
    ("limits[].onExhausted", MODE),
    ("limits[].cost.tokens.input", WEIGHT),
    ("limits[].cost.tokens.cached", WEIGHT),
    ("limits[].cost.tokens.output", WEIGHT),
    ("breaker.policy", TEXT),
    ("breaker.mode", MODE),
    ("breaker.trip.consecutiveFailures.count", COUNT),
    ("breaker.trip.errorRatio.threshold", SHARE),
    ("breaker.trip.errorRatio.windowMillis", MILLIS),
    ("breaker.trip.errorRatio.windowCalls", &["0", "-1", "1025"]),
    ("breaker.trip.errorRatio.minimumRequests", COUNT),
    ("breaker.trip.slowCallRatio.threshold", SHARE),
    ("breaker.trip.slowCallRatio.slowerThanMillis", &["0", "-1", "0.5", "5001", "2678400001", "\"1s\""]),
    ("breaker.trip.slowCallRatio.windowMillis", MILLIS),
    ("breaker.trip.slowCallRatio.windowCalls", &["0", "-1", "1025"]),
    ("breaker.trip.slowCallRatio.minimumRequests", COUNT),
    ("breaker.trip.latency.percentile", &["0", "-0.1", "1", "1.1"]),
    ("breaker.trip.latency.overMillis", &["0", "-1", "0.5", "5001", "2678400001", "\"1s\""]),
    ("breaker.trip.latency.windowMillis", MILLIS),
    ("breaker.trip.latency.windowCalls", &["0", "-1", "1025"]),
    ("breaker.trip.latency.minimumRequests", COUNT),
    ("breaker.trip.inFlight.max", COUNT),
    ("breaker.failureStatuses[]", STATUS),
    ("breaker.backpressureStatuses[]", STATUS),
    ("breaker.per.key[].header", HEADER),
    ("breaker.per.key[].jwtClaim", &["5"]),
    ("breaker.per.key[]", MODE),
    ("breaker.per.max", &["0", "257", "-1"]),
    ("breaker.stages[].stage", &["\"\"", "5", "\"-a\"", "\"a b\""]),
    ("breaker.stages[].overMillis", MILLIS),
    ("breaker.stages[].percentile", &["0", "-0.1", "1", "1.1"]),
    ("breaker.stages[].windowMillis", MILLIS),
    ("breaker.stages[].minimumRequests", COUNT),
    ("breaker.stages[].staleAfterMillis", MILLIS),
    ("breaker.stages[].outOfMemory.count", COUNT),
    ("breaker.stages[].outOfMemory.windowMillis", MILLIS),
    ("breaker.openMillis", MILLIS),
    ("breaker.halfOpen.probes", &["0", "201", "1001", "-1"]),
    ("breaker.halfOpen.rampMillis", MILLIS),
    ("breaker.timeoutMillis", MILLIS),
    ("breaker.timeouts.connectMillis", MILLIS),
    ("breaker.timeouts.firstByteMillis", &["0", "-1", "1.5", "2678400001", "600001"]),
    ("breaker.timeouts.betweenChunksMillis", &["0", "-1", "1.5", "2678400001", "600001"]),
    ("breaker.timeouts.totalMillis", MILLIS),
    ("breaker.hooks[].name", &["\"\"", "5"]),
    ("breaker.hooks[].url", &["\"\"", "\"/a\"", "5"]),
    ("breaker.hooks[].mode", MODE),
    ("breaker.hooks[].on[]", MODE),
    ("breaker.fallbacks.on[]", MODE),
    ("breaker.fallbacks.to[].path", &["\"\"", "\"a\"", "\"//a\"", "\"/a b\"", "\"/a#b\""]),
    (
        "breaker.fallbacks.to[].send.url",
        &[
            "\"\"",
            "\"a\"",
            "\"ftp://a\"",
            "\"http://\"",
            "\"http://a b\"",
            "\"http://u@a\"",
            "\"http://a:0\"",
            "\"http://a:65536\"",
            "\"http://a/#b\"",
            "\"http://a//b /\"",
            "5",
        ],
    ),
    ("breaker.fallbacks.to[].send.inCluster", &["5", "\"true\""]),
    ("breaker.fallbacks.to[].send.path", &["\"\"", "\"a\"", "\"//a\""]),
    ("breaker.fallbacks.to[].send.model", &["\"\"", "5", "\"a\\u0000\""]),
    ("breaker.fallbacks.to[].static.status", &["199", "600", "-1"]),
    ("breaker.fallbacks.to[].static.contentType", &["\"\"", "\"json\"", "\"a/\\n\""]),
    ("breaker.fallbacks.to[].static.body", &["5", "{}"]),
    ("breaker.fallbacks.to[].cache.ttlMillis", MILLIS),
    ("breaker.fallbacks.to[].cache.maxEntries", &["0", "-1", "100001"]),
    ("breaker.fallbacks.to[].cache.maxBytes", &["0", "65535", "1073741825"]),
    ("breaker.fallback.path", &["\"\"", "\"a\"", "\"//a\"", "\"/a b\"", "\"/a#b\""]),
];

/// Every place of a document: a JSON pointer, and its path with `[]` for every index.
fn places(value: &Value, pointer: &str, path: &str, found: &mut Vec<(String, String)>) {
    found.push((pointer.to_owned(), path.to_owned()));
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                places(field, &format!("{pointer}/{name}"), &path, found);
            }
        }
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                places(item, &format!("{pointer}/{i}"), &format!("{path}[]"), found);
            }
        }
        _ => {}
    }
}

fn all_places(document: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    places(document, "", "", &mut found);
    found
}

/// A pointer such as `/limits/0/limit` as the path that errors have, `limits[0].limit`.
fn path_of(pointer: &str) -> String {
    pointer.split('/').skip(1).fold(String::new(), |path, part| match part.parse::<usize>() {
        Ok(index) => format!("{path}[{index}]"),
        Err(_) if path.is_empty() => part.to_owned(),
        Err(_) => format!("{path}.{part}"),
    })
}

fn read(document: &Value) -> Result<PolicyDocument, DocumentErrors> {
    PolicyDocument::from_json(document.to_string().as_bytes())
}

/// The document as text, with this text at a place: some bad values are no JSON that a `Value` can hold.
fn with_text(document: &Value, pointer: &str, text: &str) -> String {
    let mut document = document.clone();
    *document.pointer_mut(pointer).unwrap() = json!("\u{1}");
    document.to_string().replace("\"\\u0001\"", text)
}

#[test]
fn every_field_refuses_its_bad_values_where_they_stand_and_says_what_to_write() {
    let mut done = std::collections::BTreeSet::new();
    for document in documents() {
        for (pointer, path) in all_places(&document) {
            let Some((_, values)) = BAD.iter().find(|(field, _)| *field == path) else { continue };
            if document.pointer(&pointer).is_some_and(Value::is_object) || !done.insert(path.clone()) {
                continue;
            }
            for value in *values {
                // Absent is not bad where a field may be absent.
                let text = with_text(&document, &pointer, value);
                let Err(errors) = PolicyDocument::from_json(text.as_bytes()) else {
                    panic!("{path}: {value} is accepted");
                };
                let here = path_of(&pointer);
                let error = errors.as_slice().iter().find(|error| error.path().starts_with(&here));
                let not_json = errors.as_slice()[0].message().contains("number out of range");
                let Some(error) = error.or(not_json.then(|| &errors.as_slice()[0])) else {
                    panic!("{here}: {value} is refused elsewhere: {errors}");
                };
                let says =
                    ["write", "expected", "out of range"].iter().any(|word| error.message().contains(word));
                assert!(says, "{error}");
            }
        }
    }
}

#[test]
fn every_field_has_a_row_of_bad_values() {
    let mut rows: Vec<&str> = BAD.iter().map(|(path, _)| *path).collect();
    for document in documents() {
        for (pointer, path) in all_places(&document) {
            let value = document.pointer(&pointer).unwrap();
            if !value.is_object() && !value.is_array() {
                assert!(BAD.iter().any(|(row, _)| *row == path), "{path} has no row");
                rows.retain(|row| *row != path);
            }
        }
    }
    assert_eq!(rows, Vec::<&str>::new(), "rows of fields that are not there");
}

/// What the parser says could stand in the place of something unknown.
fn expected(document: &Value, path: &str) -> Option<(bool, Vec<String>)> {
    let errors = read(document).unwrap_err();
    let error = errors.as_slice().iter().find(|error| error.path().starts_with(path))?;
    let (unknown, names) = error.message().split_once("expected")?;
    let names = names.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    Some((unknown.starts_with("unknown field"), names))
}

#[test]
fn a_full_document_has_every_field_and_every_variant() {
    let documents = documents();
    let mut seen = std::collections::BTreeSet::new();
    for document in &documents {
        for (pointer, path) in all_places(document) {
            match document.pointer(&pointer).unwrap() {
                Value::Object(fields) => {
                    seen.extend(fields.keys().map(|name| format!("{path}.{name}")));
                }
                Value::String(variant) => drop(seen.insert(format!("{path}.{variant}"))),
                _ => {}
            }
        }
    }
    let mut done = std::collections::BTreeSet::new();
    for document in &documents {
        for (pointer, path) in all_places(document) {
            if !document.pointer(&pointer).unwrap().is_object()
                || path == "priority.from[].map"
                || !done.insert(pointer.clone())
            {
                continue;
            }
            let mut with_unknown = document.clone();
            with_unknown.pointer_mut(&pointer).unwrap()["unknown"] = json!(0);
            let mut unknown_alone = document.clone();
            *unknown_alone.pointer_mut(&pointer).unwrap() = json!({"unknown": 0});
            let here = path_of(&pointer);
            let names = expected(&with_unknown, &here)
                .filter(|(field, _)| *field)
                .or_else(|| expected(&unknown_alone, &here));
            let (_, names) = names.unwrap_or_else(|| panic!("nothing is expected at {here}"));
            assert!(!names.is_empty(), "{here}");
            for name in names {
                assert!(
                    seen.contains(&format!("{path}.{name}")),
                    "{path}.{name} is not in the full document"
                );
            }
        }
    }
}

#[test]
fn mistakes_of_every_kind_are_told_together() {
    let mut document = full();
    document["limit"] = json!([]);
    document["tiers"]["qps"]["windowMillis"] = json!(0);
    document["tiers"]["latency"]["learned"]["minimumPeriods"] = json!(0);
    document["limits"][0].as_object_mut().unwrap().remove("name");
    document["limits"][2]["limit"] = json!(0);
    document["limits"][2]["algorithm"]["slidingWindow"]["subWindow"] = json!(1);
    document["breaker"]["mode"] = json!("Off");
    document["breaker"]["openMillis"] = json!("60s");
    let errors = read(&document).unwrap_err();
    let mut told: Vec<_> = errors.as_slice().iter().map(crate::DocumentError::path).collect();
    told.sort_unstable();
    assert_eq!(
        told,
        [
            "breaker.mode",
            "breaker.openMillis",
            "limit",
            "limits[0].name",
            "limits[2].algorithm.slidingWindow.subWindow",
            "limits[2].limit",
            "tiers.latency.learned.minimumPeriods",
            "tiers.qps.windowMillis",
        ],
        "{errors}"
    );
}

#[test]
fn what_is_no_document_at_all_is_refused_once() {
    for text in ["", "null", "[]", "{}", "{", "1e999", "\"a\"", "{\"revision\": \"a\", \"revision\": \"b\"}"]
    {
        let errors = PolicyDocument::from_json(text.as_bytes()).unwrap_err();
        assert!(!errors.as_slice().is_empty(), "{text}");
    }
}

#[test]
fn a_document_with_every_field_is_valid() {
    assert_eq!(read(&full()).map(drop), Ok(()));
    assert_eq!(read(&full_by_calls()).map(drop), Ok(()));
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_the_document() {
    let mut document = full();
    document["tiers"]["latency"]["periods"] = json!(0);
    document["priority"]["highAllowedFrom"][0]["cidr"] = json!("10.0.0.0/33");
    document["limits"][0]["limit"] = json!(0);
    document["limits"][0]["algorithm"]["tokenBucket"] = json!({"burst": 0});
    document["breaker"]["halfOpen"]["probes"] = json!(1001);
    let errors = read(&document).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "tiers.latency.periods: 0 is out of range: write 1 to 100\n\
         priority.highAllowedFrom[0].cidr: \"10.0.0.0/33\" is not an address block: write one such as \"10.0.0.0/8\"\n\
         limits[0].limit: 0 is out of range: write 1 to 1000000000\n\
         limits[0].algorithm.tokenBucket.burst: 0 is out of range: write 1 to 1000000000\n\
         breaker.halfOpen.probes: 1001 is out of range: write 1 to 1000"
    );
    assert_eq!(errors.in_one_line().lines().count(), 1);
}

#[test]
fn every_mistake_of_an_issuer_is_told() {
    for (change, message) in [
        (json!({"jwt": []}), "identity.jwt: 0 issuers: write 1 to 8"),
        (json!({"jwt": [{"issuer": ""}]}), "identity.jwt[0].issuer: \"\" is no issuer"),
        (json!({"jwt": [{}, {}]}), "identity.jwt[1].issuer: \"https://a\" is there twice"),
        (json!({"jwt": [{"algorithms": []}]}), "identity.jwt[0].algorithms: [] allows no token"),
        (json!({"jwt": [{"audiences": vec!["x"; 17]}]}), "identity.jwt[0].audiences: 17 audiences"),
        (json!({"jwt": [{"keys": {"inline": "{}"}}]}), "identity.jwt[0].keys.inline: not a JSON Web Key Set"),
        (
            json!({"jwt": [{"keys": {"inline": " ".repeat(65_537)}}]}),
            "identity.jwt[0].keys.inline: 65537 bytes",
        ),
        (
            json!({"jwt": [{"keys": {"remote": {"uri": "http://a"}}}]}),
            "identity.jwt[0].keys.remote.uri: \"http://a\" is not an address",
        ),
        (
            json!({"jwt": [{"keys": {"file": "../token"}}]}),
            "identity.jwt[0].keys.file: \"../token\" is not the name of a file: write one such as \"issuer.json\"",
        ),
        (json!({"jwt": [{"keys": {"file": "a".repeat(254)}}]}), "identity.jwt[0].keys.file: "),
        (json!({"jwt": [{"algorithms": ["HS256"]}]}), "HS256"),
    ] {
        let mut document = full();
        document["identity"].as_object_mut().unwrap().remove("clientIp");
        document["identity"].as_object_mut().unwrap().remove("apiKeys");
        let issuer = document["identity"]["jwt"][0].clone();
        let issuers = change["jwt"].as_array().unwrap().iter().map(|change| {
            let mut issuer = issuer.clone();
            issuer.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            issuer
        });
        document["identity"]["jwt"] = issuers.collect();
        let text = read(&document).unwrap_err().to_string();
        assert!(text.contains(message), "{change}: {text}");
    }
    let mut no_proxies = full();
    no_proxies["identity"]["clientIp"]["trustedProxies"] = json!([]);
    let text = read(&no_proxies).unwrap_err().to_string();
    assert!(text.contains("identity.clientIp.trustedProxies: 0 address blocks: write 1 to 64"), "{text}");
    for (headers, message) in [
        (json!([]), "identity.apiKeys.headers: 0 headers: write 1 to 8"),
        (json!(["a", "b", "a"]), "identity.apiKeys.headers[2]: \"a\" is there twice"),
    ] {
        let mut document = full();
        document["identity"]["apiKeys"]["headers"] = headers;
        let text = read(&document).unwrap_err().to_string();
        assert!(text.contains(message), "{text}");
    }
    let mut both = full();
    both["priority"]["from"][0]["jwtClaim"] = json!("tier");
    assert!(read(&both).unwrap_err().to_string().contains("priority.from[0]: a class comes from one thing"));
}

#[test]
fn a_tier_of_gpu_memory_needs_a_ceiling_for_each_of_its_sources() {
    let told = |gpu: Value| {
        let mut document = full();
        document["tiers"]["gpuMemory"] = gpu;
        read(&document).map_or_else(|errors| errors.to_string(), |_| String::new())
    };
    let base = json!({"staleAfterMillis": 2000, "onStale": "Ignore"});
    let with = |fields: Value| {
        let mut gpu = base.clone();
        gpu.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        gpu
    };
    let kv_cache = json!({"maxUsage": 0.9, "staleAfterMillis": 5000, "onStale": "Ignore"});
    assert!(told(base.clone()).starts_with("tiers.gpuMemory: nothing to trip at: write maxUtilization"));
    assert_eq!(told(with(json!({"plateau": {"stableMillis": 1, "growth": 0.5}}))), "");
    assert_eq!(told(with(json!({"source": "KvCache", "kvCache": kv_cache}))), "");
    assert!(told(with(json!({"source": "KvCache"}))).starts_with("tiers.gpuMemory.kvCache: absent"));
    assert!(
        told(with(json!({"source": "Auto", "kvCache": kv_cache}))).starts_with("tiers.gpuMemory: nothing")
    );
}

#[test]
fn a_limit_that_is_for_no_request_is_a_contradiction() {
    let refused = |when: Value| {
        let mut document = full();
        document["limits"][0]["when"] = when;
        read(&document).map_or_else(|errors| errors.to_string(), |_| String::new())
    };
    let (tier, claim) = (json!({"header": "x-tier"}), json!({"jwtClaim": "tier"}));
    for (one, other) in [
        (json!({"of": tier, "is": {"in": ["a"]}}), json!({"of": tier, "is": {"in": ["b", "c"]}})),
        (json!({"of": tier, "is": {"in": ["a"]}}), json!({"of": tier, "is": {"notIn": ["b", "a"]}})),
        (json!({"of": claim, "is": {"in": ["a"]}}), json!({"of": claim, "is": {"notIn": ["a"]}})),
        (json!({"of": claim, "is": "exists"}), json!({"of": claim, "is": "doesNotExist"})),
        (json!({"of": tier, "is": "doesNotExist"}), json!({"of": tier, "is": {"in": ["a"]}})),
    ] {
        let told = refused(json!([one, other]));
        assert!(told.starts_with("limits[0].when[1]: it never holds together"), "{told}");
        assert_eq!(refused(json!([other, one])), told, "in either order");
    }
    for when in [
        json!([{"of": claim, "is": {"in": ["a"]}}, {"of": claim, "is": {"in": ["b"]}}]),
        json!([{"of": tier, "is": {"in": ["a", "b"]}}, {"of": tier, "is": {"notIn": ["a"]}}]),
        json!([{"of": "path", "is": {"in": ["/v1/*"]}}, {"of": "path", "is": {"notIn": ["/v1/models"]}}]),
    ] {
        assert_eq!(refused(when.clone()), "", "{when}");
    }
    for (when, message) in [
        (json!([{"of": tier, "is": {"in": []}}]), "limits[0].when[0].is: 0 values: write 1 to 64"),
        (json!([{"of": "path", "is": "exists"}]), "limits[0].when[0].is: every request has a path"),
        (json!(vec![json!({"of": tier, "is": "exists"}); 9]), "limits[0].when: 9 conditions are too many"),
    ] {
        assert!(refused(when).contains(message), "{message}");
    }
}

#[test]
fn a_limit_hides_only_those_that_are_for_no_other_requests() {
    let told = |first: Value, second: Value| {
        let mut document = full();
        let limit = |name: &str, limit: u64, when: Value| {
            json!({"policy": "a/b", "name": name, "mode": "Enforce", "key": [], "when": when, "limit": limit,
                "algorithm": "fixedWindow", "windowMillis": 1000})
        };
        document["limits"] = json!([limit("few", 10, first), limit("many", 1000, second)]);
        read(&document).map_or_else(|errors| errors.to_string(), |_| String::new())
    };
    let tier = |name: &str| json!([{"of": {"jwtClaim": "tier"}, "is": {"in": [name]}}]);
    assert!(told(json!([]), tier("gold")).starts_with("limits[1].limit: 1000 is never reached"));
    assert!(told(tier("gold"), tier("gold")).starts_with("limits[1].limit: 1000 is never reached"));
    assert_eq!(told(tier("gold"), json!([])), "");
    assert_eq!(told(tier("silver"), tier("gold")), "");
}

/// What is said about a document with this at these places.
fn told(changes: &[(&str, Value)]) -> String {
    let mut document = full();
    for (pointer, value) in changes {
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        document.pointer_mut(parent).unwrap()[field] = value.clone();
    }
    read(&document).map_or_else(|errors| errors.to_string(), |_| String::new())
}

#[test]
fn a_learned_ceiling_that_never_holds_is_a_contradiction() {
    let max = "/tiers/qps/max";
    assert_eq!(
        told(&[(max, json!(5.0))]),
        "tiers.qps.learned.floor: 10 is not below max, 5, so that a learned ceiling never holds: write less than 5, \
         raise max, or leave learned out\n\
         tiers.qps.learned.minimumRequests: 5 in a sample of 1000 ms are not below max, 5 in a second, so that a \
         learned ceiling never holds: write less than 5, raise max, or leave learned out"
    );
    let (floor, sample) = ("/tiers/qps/learned/floor", "/tiers/qps/sampleIntervalMillis");
    assert_eq!(told(&[(max, json!(5.1)), (floor, json!(5.0))]), "");
    let short = told(&[(max, json!(40.0)), (sample, json!(100))]);
    assert!(short.starts_with("tiers.qps.learned.minimumRequests: 5 in a sample of 100 ms"), "{short}");
    assert_eq!(told(&[(max, json!(null)), (sample, json!(100))]), "");
}

#[test]
fn a_ceiling_of_a_source_that_is_not_asked_is_a_contradiction() {
    let errors = told(&[("/tiers/gpuMemory/source", json!("KvCache"))]);
    for field in ["maxUtilization", "maxBytes", "plateau"] {
        assert!(errors.contains(&format!("tiers.gpuMemory.{field}: is for NVML")), "{errors}");
    }
}

#[test]
fn a_reading_is_not_stale_before_the_next_one_can_come() {
    let (nvml, engine) = ("/tiers/gpuMemory/staleAfterMillis", "/tiers/gpuMemory/kvCache/staleAfterMillis");
    assert_eq!(
        told(&[(nvml, json!(1999)), (engine, json!(999))]),
        "tiers.gpuMemory.staleAfterMillis: 1999 ms are over before NVML is read again, every 2000 ms: write at least \
         2000 ms\n\
         tiers.gpuMemory.kvCache.staleAfterMillis: 999 ms are over before the engine is read again, every 1000 ms: \
         write at least 1000 ms"
    );
    assert_eq!(told(&[(nvml, json!(2000)), (engine, json!(1000))]), "");
    assert_eq!(told(&[("/tiers/gpuMemory/source", json!("Nvml")), (engine, json!(1))]), "", "it is not read");
}

#[test]
fn high_does_not_reserve_everything() {
    let share = "/priority/reservedHigh";
    let all = "priority.reservedHigh: 1 leaves medium nothing while a tier is tripped: write a share below 1";
    assert!(told(&[(share, json!(1.0))]).starts_with(all));
    assert_eq!(told(&[(share, json!(0.999))]), "");
}

#[test]
fn a_call_is_not_slower_than_it_may_take() {
    let (timeout, timeouts) = ("/breaker/timeoutMillis", "/breaker/timeouts");
    let slow = "breaker.trip.slowCallRatio.slowerThanMillis: 1000 ms are never reached, since an answer is not waited for";
    assert!(told(&[(timeouts, json!({})), (timeout, json!(999))]).starts_with(slow));
    assert!(told(&[(timeouts, json!({"totalMillis": 999}))]).starts_with(slow));
    assert!(
        told(&[(timeouts, json!({"firstByteMillis": 700}))])
            .contains("breaker.trip.latency.overMillis: 800 ms are")
    );
    assert_eq!(told(&[(timeouts, json!({"firstByteMillis": 1000})), (timeout, json!(1))]), "");
    assert_eq!(told(&[(timeouts, json!({})), (timeout, json!(1000))]), "");
    assert_eq!(told(&[(timeouts, json!({})), (timeout, json!(null))]), "");
}

#[test]
fn probes_do_not_trip_what_they_probe() {
    let errors = told(&[("/breaker/halfOpen/probes", json!(201))]);
    assert!(errors.starts_with("breaker.halfOpen.probes: 201 together would open it again"), "{errors}");
    assert_eq!(told(&[("/breaker/halfOpen/probes", json!(200))]), "");
}
