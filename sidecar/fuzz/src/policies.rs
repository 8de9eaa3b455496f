//! Documents that sequences of events run under.

use tidegate_policy::PolicyDocument;

/// Limits of every kind, and nothing that looks at requests that it refuses.
const LIMITS: &str = r#"{"apiVersion":"policy.tidegate.dev/v1","revision":"limits","limits":[
    {"policy":"a/a","name":"bucket","mode":"Enforce","key":[{"header":"x-api-key"}],"limit":3,"windowMillis":1000,
     "algorithm":{"tokenBucket":{"burst":3}}},
    {"policy":"a/a","name":"ring","mode":"Enforce","key":["clientIp"],"limit":7,"windowMillis":5000,
     "algorithm":{"slidingWindow":{"subWindows":10}}},
    {"policy":"a/a","name":"log","mode":"Enforce","key":[],"limit":20,"windowMillis":60000,"algorithm":"slidingLog"},
    {"policy":"a/a","name":"fixed","mode":"Enforce","key":["path"],"limit":9,"windowMillis":10000,
     "algorithm":"fixedWindow"},
    {"policy":"a/a","name":"leaky","mode":"Enforce","key":[],"limit":5,"windowMillis":1000,
     "algorithm":{"leakyBucket":{"burst":4}}},
    {"policy":"a/a","name":"together","mode":"Enforce","key":[],"limit":4,"algorithm":"concurrency"}]}"#;

/// A breaker with every condition but that of requests in flight, which a refused request trips.
const BREAKER: &str = r#"{"apiVersion":"policy.tidegate.dev/v1","revision":"breaker","limits":[
    {"policy":"a/a","name":"bucket","mode":"Enforce","key":[{"header":"x-api-key"}],"limit":3,"windowMillis":1000,
     "algorithm":{"tokenBucket":{"burst":3}}}],
    "breaker":{"policy":"a/b","mode":"Enforce","openMillis":2000,"halfOpen":{"probes":2,"rampMillis":900},
     "timeoutMillis":500,"per":{"key":[{"header":"x-api-key"}],"max":2},
     "trip":{"consecutiveFailures":{"count":3},
      "errorRatio":{"threshold":0.5,"windowCalls":10,"minimumRequests":4},
      "slowCallRatio":{"threshold":0.5,"slowerThanMillis":100,"windowMillis":1000,"minimumRequests":4},
      "latency":{"percentile":0.9,"overMillis":200,"windowMillis":3000,"minimumRequests":5}}}}"#;

/// A breaker that is mostly in its ramp.
const RAMP: &str = r#"{"apiVersion":"policy.tidegate.dev/v1","revision":"ramp",
    "breaker":{"policy":"a/b","mode":"Enforce","openMillis":100,"halfOpen":{"probes":1,"rampMillis":90000},
     "trip":{"consecutiveFailures":{"count":2}}}}"#;

/// Everything at once, with tiers.
const EVERYTHING: &str = r#"{"apiVersion":"policy.tidegate.dev/v1","revision":"everything",
    "tiers":{"policy":"a/a","mode":"Enforce","recovery":{"belowRatio":0.9,"holdMillis":1000},
     "qps":{"sampleIntervalMillis":100,"windowMillis":1000,"max":20.0,
      "learned":{"sigma":2.0,"factor":1.5,"floor":1.0,"minimumSamples":2}},
     "gpuMemory":{"maxUtilization":0.75,"staleAfterMillis":2000,"onStale":"Trip"},
     "latency":{"signal":"TimeToFirstToken","percentile":0.99,"periodMillis":1000,"periods":1,"minimumSamples":1,
      "maxMillis":500,"learned":{"factor":1.8,"minimumPeriods":1}}},
    "limits":[{"policy":"a/a","name":"together","mode":"Enforce","key":[],"limit":3,"algorithm":"concurrency"},
     {"policy":"a/a","name":"tokens","mode":"Enforce","key":[{"header":"x-api-key"}],"limit":1000,"windowMillis":1000,
      "algorithm":{"tokenBucket":{"burst":1000}},"cost":"totalTokens"}],
    "breaker":{"policy":"a/b","mode":"Enforce","openMillis":1000,"halfOpen":{"probes":1},
     "trip":{"inFlight":{"max":5},"consecutiveFailures":{"count":2}},
     "stages":[{"stage":"attention","overMillis":800,"minimumRequests":2,
      "outOfMemory":{"count":2,"windowMillis":5000}}]}}"#;

/// Places in flight with a queue before them, and tiers: who may have them goes by class.
const PLACES: &str = r#"{"apiVersion":"policy.tidegate.dev/v1","revision":"places",
    "priority":{"from":[{"header":"x-priority"}],"default":"Medium","reservedHigh":0.2,
     "highAllowedFrom":[{"cidr":"10.0.0.0/8"}]},
    "tiers":{"policy":"a/a","mode":"Enforce","recovery":{"belowRatio":0.9,"holdMillis":1000,"rampMillis":3000},
     "qps":{"sampleIntervalMillis":100,"windowMillis":1000,"max":20.0},
     "gpuMemory":{"maxUtilization":0.75,"staleAfterMillis":2000,"onStale":"Ignore"},
     "latency":{"signal":"TimeToFirstToken","percentile":0.99,"periodMillis":1000,"periods":1,"minimumSamples":1,
      "maxMillis":500}},
    "limits":[{"policy":"a/a","name":"bucket","mode":"Enforce","key":[{"header":"x-api-key"}],"limit":9,
     "windowMillis":1000,"algorithm":{"tokenBucket":{"burst":9}}}],
    "concurrency":{"policy":"a/a","mode":"Enforce","algorithm":{"adaptive":{}},"initial":3,"min":2,"max":6},
    "queue":{"policy":"a/a","mode":"Enforce","maxLength":3,"timeoutMillis":500,"tenant":[{"header":"x-api-key"}]}}"#;

/// Nothing.
const NOTHING: &str = r#"{"apiVersion":"policy.tidegate.dev/v1","revision":"nothing"}"#;

/// How many documents there are.
pub(crate) const DOCUMENTS: usize = 6;

/// One of the documents, and whether a refused request leaves everything under it as it was.
pub(crate) fn choose(n: usize) -> (PolicyDocument, bool) {
    let (json, untouched) = match n % DOCUMENTS {
        0 => (LIMITS, true),
        1 => (BREAKER, true),
        2 => (EVERYTHING, false),
        3 => (RAMP, true),
        4 => (PLACES, false),
        _ => (NOTHING, true),
    };
    match PolicyDocument::from_json(json.as_bytes()) {
        Ok(document) => (document, untouched),
        Err(errors) => panic!("a document of the fuzzer: {errors}"),
    }
}

/// A document as it is sent.
pub(crate) fn written(document: &PolicyDocument) -> Vec<u8> {
    match tidegate_policy::stream::PolicyEvent::modified(document) {
        Ok(tidegate_policy::stream::PolicyEvent::Modified { document }) => document.to_string().into_bytes(),
        other => panic!("a document that cannot be written: {other:?}"),
    }
}
