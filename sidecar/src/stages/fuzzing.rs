//! What is fuzzed of the reader of `Server-Timing`.

use std::time::Duration;

use super::server_timing::metrics;

const DAY: Duration = Duration::from_hours(24);

/// Reads each line as a value of `Server-Timing`: no name is empty and no time is longer than a day, a second reader finds
/// the same, and what is behind a comma changes nothing before it.
pub fn timings(data: &[u8]) {
    for value in data.split(|byte| *byte == b'\n').filter_map(|line| str::from_utf8(line).ok()) {
        let read: Vec<_> = metrics(value).map(|metric| (metric.name.to_owned(), metric.took)).collect();
        for (name, took) in &read {
            assert!(!name.is_empty() && took.is_none_or(|took| took <= DAY), "{name}: {took:?}");
        }
        assert_eq!(read, reference(value), "{value:?}");
    }
}

/// Where a character stands.
#[derive(Clone, Copy)]
enum At {
    Outside,
    Quoted,
    Escaped,
}

/// Character by character.
fn reference(value: &str) -> Vec<(String, Option<Duration>)> {
    let mut entries = vec![vec![String::new()]];
    let mut at = At::Outside;
    for character in value.chars() {
        let parts = entries.last_mut().unwrap();
        match (at, character) {
            (At::Outside, ',') => entries.push(vec![String::new()]),
            (At::Outside, ';') => parts.push(String::new()),
            _ => parts.last_mut().unwrap().push(character),
        }
        at = match (at, character) {
            (At::Outside, '"') | (At::Escaped, _) => At::Quoted,
            (At::Quoted, '"') | (At::Outside, _) => At::Outside,
            (At::Quoted, '\\') => At::Escaped,
            (At::Quoted, _) => At::Quoted,
        };
    }
    entries.iter().filter_map(|parts| entry(parts)).collect()
}

fn entry(parts: &[String]) -> Option<(String, Option<Duration>)> {
    let name = parts[0].trim();
    let mut took = None;
    for part in parts[1..].iter().rev() {
        let Some((key, value)) = part.split_once('=') else { continue };
        if key.trim().eq_ignore_ascii_case("dur") {
            took = value.trim().trim_matches('"').parse().ok();
        }
    }
    let took = took.filter(|millis: &f64| *millis >= 0.0 && *millis <= DAY.as_secs_f64() * 1000.0);
    (!name.is_empty()).then(|| (name.to_owned(), took.map(|millis| Duration::from_secs_f64(millis / 1000.0))))
}
