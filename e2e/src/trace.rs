//! Arrival traces: read from a file in the Azure LLM inference format, or made with the same marginals.

pub mod synthetic;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};

/// The environment variable that names a trace.
pub const TRACE_ENV: &str = "TIDEGATE_TRACE";
/// The header of the Azure format.
const HEADER: &str = "TIMESTAMP,ContextTokens,GeneratedTokens";

/// One request of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Time since the first request.
    pub at: Duration,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens of the answer.
    pub output_tokens: u32,
}

/// A trace with where it comes from, for reports.
#[derive(Debug, Clone)]
pub struct Trace {
    /// In one line.
    pub source: String,
    /// In order of time.
    pub entries: Vec<Entry>,
}

/// The trace in the file, or a synthetic hour when no file is given (an empty path counts as none).
pub fn load(path: Option<&Path>) -> anyhow::Result<Trace> {
    match path.filter(|path| !path.as_os_str().is_empty()) {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
            let entries = parse(&text).with_context(|| format!("{}", path.display()))?;
            let name = path.file_name().map_or_else(PathBuf::new, PathBuf::from);
            Ok(Trace { source: format!("recorded: {}", name.display()), entries })
        }
        None => Ok(Trace {
            source: "synthetic, with the marginals of a recorded hour".to_owned(),
            entries: synthetic::generate(1, Duration::from_hours(1)),
        }),
    }
}

/// Parses the Azure format. Times need not be in order; errors name the line.
pub fn parse(csv: &str) -> anyhow::Result<Vec<Entry>> {
    let mut lines = csv.lines().map(|line| line.trim_end_matches('\r'));
    if lines.next() != Some(HEADER) {
        bail!("line 1: not an Azure LLM inference trace: write {HEADER:?}");
    }
    let mut rows = Vec::new();
    for (number, line) in lines.enumerate().filter(|(_, line)| !line.is_empty()) {
        let row = parse_row(line).with_context(|| {
            format!("line {}: write \"2023-11-16 18:15:46.6805900,374,44\", not {line:?}", number + 2)
        })?;
        rows.push(row);
    }
    rows.sort_by_key(|(at, ..)| *at);
    let start = rows.first().map_or(Duration::ZERO, |(at, ..)| *at);
    Ok(rows
        .into_iter()
        .map(|(at, prompt_tokens, output_tokens)| Entry {
            at: at.saturating_sub(start),
            prompt_tokens,
            output_tokens,
        })
        .collect())
}

fn parse_row(line: &str) -> Option<(Duration, u32, u32)> {
    let mut fields = line.split(',');
    let time = parse_time(fields.next()?)?;
    let prompt = fields.next()?.trim().parse().ok()?;
    let output = fields.next()?.trim().parse().ok()?;
    Some((time, prompt, output))
}

/// Time since the epoch of `2023-11-16 18:15:46.6805900`, in UTC.
fn parse_time(text: &str) -> Option<Duration> {
    let (date, time) = text.split_once([' ', 'T'])?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let mut time = time.trim_end_matches('Z').splitn(3, ':');
    let days = days_since_epoch(date.next()??, date.next()??, date.next()??)?;
    let hours: u64 = time.next()?.parse().ok()?;
    let minutes: u64 = time.next()?.parse().ok()?;
    let seconds: f64 = time.next()?.parse().ok()?;
    let whole = Duration::from_secs(days * 86_400 + hours * 3600 + minutes * 60);
    Some(whole + Duration::try_from_secs_f64(seconds).ok()?)
}

/// Days of the proleptic Gregorian calendar since 1970-01-01; after Howard Hinnant's `days_from_civil`.
fn days_since_epoch(year: i64, month: i64, day: i64) -> Option<u64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    u64::try_from(era * 146_097 + day_of_era - 719_468).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_relative_to_the_first_request_across_midnight() {
        let csv = "TIMESTAMP,ContextTokens,GeneratedTokens\n\
            2024-02-28 23:59:59.5000000,374,44\n2024-02-29 00:00:01.2500000,7,1\r\n";
        let entries = parse(csv).unwrap();
        assert_eq!(entries[0], Entry { at: Duration::ZERO, prompt_tokens: 374, output_tokens: 44 });
        assert!(entries[1].at.abs_diff(Duration::from_millis(1750)) < Duration::from_micros(1));
    }

    #[test]
    fn a_bad_line_is_named_with_what_to_write() {
        let error =
            parse("TIMESTAMP,ContextTokens,GeneratedTokens\n2024-02-28 1,2\n").unwrap_err().to_string();
        assert!(error.starts_with("line 2: write"), "{error}");
        assert!(parse("a,b\n").unwrap_err().to_string().contains("line 1"));
    }

    #[test]
    fn the_epoch_and_a_leap_day_are_counted_right() {
        assert_eq!(days_since_epoch(1970, 1, 1), Some(0));
        assert_eq!(days_since_epoch(2024, 3, 1), Some(19_783));
    }
}
