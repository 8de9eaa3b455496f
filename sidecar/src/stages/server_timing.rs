//! `Server-Timing`: what a server says of how long the parts of its work took.
//! <https://www.w3.org/TR/server-timing/#the-server-timing-header-field>
//!
//! ```text
//!   Server-Timing: tokenizer;dur=1.5, attention;dur=812;desc="all layers"
//! ```

use std::time::Duration;

use crate::quoted::split;

/// So many are looked at of one answer.
pub(super) const MOST: usize = 32;
/// What takes longer is no time.
const LONGEST_MILLIS: f64 = 86_400_000.0;

/// One part of the work.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Metric<'a> {
    pub(super) name: &'a str,
    /// None where it has no `dur`, or one that is no time.
    pub(super) took: Option<Duration>,
}

/// What one field value lists. An entry without a name is passed over.
pub(super) fn metrics(value: &str) -> impl Iterator<Item = Metric<'_>> {
    pieces(value, b',').filter_map(metric)
}

fn metric(text: &str) -> Option<Metric<'_>> {
    let mut parts = pieces(text, b';');
    let name = parts.next().map(str::trim).filter(|name| !name.is_empty())?;
    // Of several of the same name the first counts, as the specification says.
    let duration = parts.filter_map(|part| part.split_once('=')).find_map(|(name, value)| {
        name.trim().eq_ignore_ascii_case("dur").then(|| value.trim().trim_matches('"'))
    });
    let millis = duration.and_then(|text| text.parse::<f64>().ok());
    let took = millis.filter(|millis| (0.0..=LONGEST_MILLIS).contains(millis));
    Some(Metric { name, took: took.map(|millis| Duration::from_secs_f64(millis / 1000.0)) })
}

/// The pieces between separators that stand outside of quotes.
fn pieces(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    // What is cut at ASCII alone stays text.
    split(text.as_bytes(), separator).filter_map(|piece| str::from_utf8(piece).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Names and microseconds.
    fn read(value: &str) -> Vec<(&str, Option<u128>)> {
        metrics(value).map(|metric| (metric.name, metric.took.map(|took| took.as_micros()))).collect()
    }

    #[test]
    fn the_examples_of_the_specification_are_read() {
        assert_eq!(
            read("miss, db;dur=53, app;dur=47.2"),
            [("miss", None), ("db", Some(53_000)), ("app", Some(47_200))]
        );
        assert_eq!(read("customView, dc;desc=atl"), [("customView", None), ("dc", None)]);
        assert_eq!(read("cache;desc=\"Cache Read\";dur=23.2"), [("cache", Some(23_200))]);
    }

    #[test]
    fn a_separator_in_quotes_separates_nothing() {
        assert_eq!(
            read(r#"a;desc="x, \"b;dur=1\"; ,";dur=2 ,c ; DUR = "3" ;dur=4"#),
            [("a", Some(2000)), ("c", Some(3000))]
        );
        assert_eq!(read(r#"a;desc="never ends, b;dur=1"#), [("a", None)]);
    }

    #[test]
    fn what_is_no_time_is_none() {
        for duration in ["", "-1", "NaN", "inf", "1e99", "1s", "0x1"] {
            assert_eq!(read(&format!("a;dur={duration}")), [("a", None)], "{duration}");
        }
        assert_eq!(read(" ,;dur=1,, "), []);
        assert_eq!(read("a;dur=0"), [("a", Some(0))]);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_fail(value in "[a-zé;,=\"\\\\ .0-9]{0,200}") {
            for metric in metrics(&value) {
                prop_assert!(!metric.name.is_empty());
            }
        }

        #[test]
        fn what_is_written_is_read(times in proptest::collection::vec(0u32..1_000_000, 0..10)) {
            let text: Vec<String> = times.iter().enumerate().map(|(i, t)| format!("s{i};dur={t}")).collect();
            let read: Vec<_> = metrics(&text.join(", ")).filter_map(|metric| metric.took).collect();
            let expected: Vec<_> = times.iter().map(|t| Duration::from_millis(u64::from(*t))).collect();
            prop_assert_eq!(read, expected);
        }
    }
}
