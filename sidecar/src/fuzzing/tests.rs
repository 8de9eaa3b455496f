use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::*;

type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 7] = [
    ("answers", answers),
    ("requests", requests),
    ("stream", stream),
    ("usage", usage),
    ("prompts", prompts),
    ("headers", headers),
    ("metrics", metrics),
];

/// What the fuzzer begins with, and what it has found wrong before.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut seeds: Vec<_> = files
        .map(|file| file.unwrap().path())
        .map(|file| (file.display().to_string(), fs::read(&file).unwrap()))
        .collect();
    seeds.sort();
    assert!(seeds.len() >= 3, "{target} has {} seeds", seeds.len());
    seeds
}

#[test]
fn every_seed_of_the_fuzzer_is_read_as_promised() {
    for (name, target) in TARGETS {
        for (file, seed) in seeds(name) {
            println!("{file}");
            // The first byte says how the rest is cut.
            target(&seed);
            for step in [0, 1, 2, 6, 0x80] {
                target(&[&[step], &seed[..]].concat());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn no_damaged_seed_of_the_fuzzer_breaks_a_promise_of_a_parser(
        target in 0..TARGETS.len(),
        seed in any::<prop::sample::Index>(),
        other in any::<prop::sample::Index>(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..6), 0..6),
    ) {
        let (name, target) = TARGETS[target];
        let seeds = seeds(name);
        let mut bytes = seed.get(&seeds).1.clone();
        let other = &other.get(&seeds).1;
        for (at, byte, kind) in damage {
            let at = at.index(bytes.len() + 1);
            match kind {
                0 if at < bytes.len() => bytes[at] = byte,
                1 => bytes.insert(at, b"\r\n:;,0-\"\\{}[] \x00"[usize::from(byte) % 15]),
                2 if at < bytes.len() => drop(bytes.remove(at)),
                3 => bytes.truncate(at),
                4 => drop(bytes.splice(at..at, other[..usize::from(byte).min(other.len())].to_vec())),
                _ => bytes.splice(at..at, bytes[..at.min(usize::from(byte))].to_vec()).for_each(drop),
            }
        }
        target(&bytes);
    }
}
