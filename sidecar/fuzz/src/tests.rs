use proptest::prelude::*;

use super::*;

/// Pieces of documents, so that random text is often nearly one.
const SEEDS: &[&str] = &[
    r#"{"apiVersion":"policy.tidegate.dev/v1","revision":"r"}"#,
    r#"{"apiVersion":"policy.tidegate.dev/v1","revision":"r","limits":[{"policy":"a/a","name":"n","mode":"Enforce",
       "key":["path"],"limit":1,"windowMillis":1,"algorithm":{"slidingWindow":{"subWindows":60}}}]}"#,
    r#"{"apiVersion":"policy.tidegate.dev/v1","revision":"r","breaker":{"policy":"a/b","mode":"Shadow",
       "openMillis":2678400000,"halfOpen":{"probes":1000,"rampMillis":2678400000},
       "trip":{"errorRatio":{"threshold":1e-300,"windowCalls":1024,"minimumRequests":1},"inFlight":{"max":1000}}}}"#,
    r#"{"apiVersion":"policy.tidegate.dev/v1","revision":"r","tiers":{"policy":"a/b","mode":"Enforce",
       "recovery":{"belowRatio":1e-300,"holdMillis":1},"qps":{"sampleIntervalMillis":1,"windowMillis":2,"max":1e9},
       "gpuMemory":{"maxBytes":18446744073709551615,"staleAfterMillis":2000,"onStale":"HoldLast"}}}"#,
    r#"{"apiVersion":"policy.tidegate.dev/v1","revision":"r","concurrency":{"policy":"a/b","mode":"Enforce",
       "algorithm":{"adaptive":{"targetMillis":1,"tolerance":1e-300,"kvCache":1e-300}},"initial":2,"min":2,"max":100000},
       "queue":{"policy":"a/b","mode":"Enforce","maxLength":1,"timeoutMillis":2678400000,"tenant":["path"]}}"#,
    r#"{"apiVersion":"policy.tidegate.dev/v1","revision":"r","concurrency":{"policy":"a/b","mode":"Enforce",
       "algorithm":{"gradient2":{"tolerance":1000,"smoothing":1e-300,"headroom":10000}},
       "initial":100000,"min":100000,"max":100000,"latency":"TimePerOutputToken"},
       "queue":{"policy":"a/b","mode":"Enforce","maxLength":100000,"timeoutMillis":1}}"#,
    r#"{"apiVersion":"policy.tidegate.dev/v1","revision":"r","concurrency":{"policy":"a/b","mode":"Shadow",
       "algorithm":{"aimd":{"backoff":1e-300,"timeoutMillis":1}},"initial":2,"min":2,"max":2,"latency":"TotalLatency"},
       "limits":[{"policy":"a/b","name":"n","mode":"Enforce","key":[],"limit":1000000000,"windowMillis":2678400000,
       "algorithm":{"leakyBucket":{"burst":1000000000,"maxWaitMillis":2678400000}},"cost":"totalTokens"}]}"#,
];

/// A part of what the fuzzer has grown: one input a line, in hexadecimal.
fn grown(target: &str) -> Vec<Vec<u8>> {
    let file = format!("{}/../../fuzz/grown/{target}.hex", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    text.lines().map(|line| line.as_bytes().chunks(2).map(byte).collect()).collect()
}

#[test]
fn every_seed_is_a_document_that_is_obeyed() {
    for seed in SEEDS {
        assert_eq!(PolicyDocument::from_json(seed.as_bytes()).err(), None, "{seed}");
        policy(seed.as_bytes());
    }
}

#[test]
fn what_the_fuzzer_has_grown_is_read_as_promised() {
    let documents = grown("policy");
    assert!(documents.len() > 100, "{} documents", documents.len());
    for document in documents {
        policy(&document);
    }
    for sequence in grown("events") {
        events(&sequence);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_bytes_break_the_reader_of_policies(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        policy(&bytes);
    }

    #[test]
    fn no_damaged_document_breaks_the_reader_of_policies(
        seed in 0..SEEDS.len(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 0..6),
    ) {
        let mut bytes = SEEDS[seed].as_bytes().to_vec();
        for (at, byte, kind) in damage {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, b"019-.{}[]\",:"[usize::from(byte) % 12]),
                2 if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => bytes[at] = b'0' + byte % 10,
            }
        }
        policy(&bytes);
    }

    #[test]
    fn no_sequence_of_events_breaks_a_promise_of_the_engine(
        bytes in proptest::collection::vec(any::<u8>(), 0..1500),
    ) {
        events(&bytes);
    }
}
