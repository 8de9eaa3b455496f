//! Instructions of a decision, counted by callgrind: a measure that no neighbour on the machine disturbs. Those of the
//! commit before are recorded in a file beside this one, so that a regression shows; `cargo bench … -- record` writes
//! it anew.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, Stdio};

use tidegate_core::{Decision, Tick};

use crate::figure::Figure;
use crate::traffic::{Clock, FULL, Request, SINGLE, admitted, engine, finish, introduce};

/// Says that this process is to be counted.
pub(crate) const FLAG: &str = "--count";
const SCENARIOS: [&str; 4] = ["full, admit", "full, admit to complete", "single, admit", "single, refuse"];
const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/decide/instructions.json");
/// More than this share above the record is a regression.
const SLACK: f64 = 1.03;
/// Two runs of different length: what they do not share is the requests.
const RUNS: [u32; 2] = [500, 2500];
const KEYS: u32 = 100;

pub(crate) fn run() -> Vec<Figure> {
    let recorded = recorded();
    let figures = SCENARIOS.map(|scenario| {
        let figure = |value| Figure::new(format!("instructions: {scenario}"), value, "instructions");
        match (counted(scenario), recorded.get(scenario)) {
            (Ok(count), Some(before)) => {
                figure(count).at_most((before * SLACK).round()).note(format!("recorded: {before}"))
            }
            (Ok(count), None) => figure(count).note("not recorded"),
            (Err(why), _) => figure(f64::NAN).note(why),
        }
    });
    figures.into()
}

/// Writes the record anew.
pub(crate) fn record() {
    let counts: Result<BTreeMap<_, _>, String> =
        SCENARIOS.into_iter().map(|scenario| Ok((scenario, counted(scenario)?))).collect();
    let written = counts.and_then(|counts| {
        let json = serde_json::to_string_pretty(&counts).map_err(|error| error.to_string())?;
        std::fs::write(RECORD, json + "\n").map_err(|error| format!("{RECORD}: {error}"))
    });
    if let Err(error) = written {
        panic!("{error}");
    }
}

fn recorded() -> BTreeMap<String, f64> {
    let json = std::fs::read_to_string(RECORD).unwrap_or_default();
    serde_json::from_str(&json).unwrap_or_default()
}

/// Instructions of one request.
fn counted(scenario: &str) -> Result<f64, String> {
    let [short, long] = RUNS;
    let difference = total(scenario, long)? - total(scenario, short)?;
    Ok((difference / f64::from(long - short)).round())
}

/// Instructions of a process that serves so many requests.
fn total(scenario: &str, requests: u32) -> Result<f64, String> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let counts = std::env::temp_dir().join(format!("tidegate-callgrind-{}", std::process::id()));
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--quiet"]).arg(format!("--callgrind-out-file={}", counts.display()));
    valgrind
        .arg(this)
        .args([FLAG, scenario, &requests.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let status =
        valgrind.status().map_err(|_| "valgrind is missing: install the package valgrind".to_owned())?;
    let total = read_total(&counts)
        .filter(|_| status.success())
        .ok_or_else(|| format!("the counted process failed ({status})"));
    // A file that is left behind in the temporary folder harms nobody.
    _ = std::fs::remove_file(&counts);
    total
}

fn read_total(counts: &Path) -> Option<f64> {
    let text = std::fs::read_to_string(counts).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: ")))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Serves requests for callgrind to count.
pub(crate) fn count(scenario: &str, requests: &str) {
    let count: u32 = requests.parse().unwrap_or_default();
    let refuses = scenario == "single, refuse";
    let policy = if scenario.starts_with("full") { FULL } else { SINGLE };
    let tight = policy.replace("1000000000}},\"limit\":1000000000", "1}},\"limit\":1");
    let engine = engine(if refuses { &tight } else { policy });
    let mut clock = Clock::new();
    introduce(&engine, &mut clock, KEYS);
    let callers: Vec<Request> = (0..KEYS).map(Request::of).collect();
    for n in 0..count {
        let request = &callers[(n % KEYS) as usize];
        if refuses {
            let decision = engine.admit(Tick::from_nanos(1_000_000_000), &request.facts());
            assert!(matches!(black_box(decision), Decision::Refuse(_)));
            continue;
        }
        let now = clock.next();
        let decision = engine.admit(now, &request.facts());
        black_box(&decision);
        if scenario.ends_with("complete") {
            finish(&engine, now, admitted(decision));
        } else {
            assert!(matches!(decision, Decision::Admit(_)));
        }
    }
}
