use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;

type Target = (&'static str, fn(&[u8]));

/// Where it is from, and its bytes.
type Seed = (String, Vec<u8>);

const TARGETS: [Target; 9] = [
    ("answers", answers),
    ("requests", requests),
    ("stream", stream),
    ("usage", usage),
    ("prompts", prompts),
    ("headers", headers),
    ("metrics", metrics),
    ("calls", calls),
    ("timings", timings),
];

/// What the fuzzer begins with, what it has found wrong before, and a part of what it has grown from that.
static SEEDS: LazyLock<Vec<Vec<Seed>>> =
    LazyLock::new(|| TARGETS.iter().map(|(target, _)| [seeds(target), grown(target)].concat()).collect());

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

fn seeds(target: &str) -> Vec<Seed> {
    let folder = folder().join("seeds").join(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut seeds: Vec<_> = files
        .map(|file| file.unwrap().path())
        .map(|file| (file.display().to_string(), fs::read(&file).unwrap()))
        .collect();
    seeds.sort();
    assert!(seeds.len() >= 3, "{target} has {} seeds", seeds.len());
    seeds
}

/// One input a line, in hexadecimal.
fn grown(target: &str) -> Vec<Seed> {
    let file = folder().join("grown").join(format!("{target}.hex"));
    let text = fs::read_to_string(&file).unwrap_or_default();
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    let input = |line: &str| line.as_bytes().chunks(2).map(byte).collect();
    text.lines()
        .enumerate()
        .map(|(number, line)| (format!("{}:{}", file.display(), number + 1), input(line)))
        .collect()
}

#[test]
fn every_seed_of_the_fuzzer_is_read_as_promised() {
    for ((_, target), seeds) in TARGETS.iter().zip(&*SEEDS) {
        for (file, seed) in seeds {
            println!("{file}");
            // The first byte says how the rest is cut.
            target(seed);
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
        let seeds = &SEEDS[target];
        let (_, target) = TARGETS[target];
        let mut bytes = seed.get(seeds).1.clone();
        let other = &other.get(seeds).1;
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
