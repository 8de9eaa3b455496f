//! Times as logs write them: dates with and without a zone, numbers of any common unit, and time that has passed.

use k8s_openapi::jiff::civil::DateTime;
use k8s_openapi::jiff::fmt::{rfc2822, strtime};
use k8s_openapi::jiff::tz::{Offset, TimeZone};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// What a time can look like, for errors.
const FORM: &str = "write seconds such as 1.5 or 1700158546.68, or a date such as 2023-11-16T18:15:46.68Z";
/// Later dates do not fit a difference of two in nanoseconds.
const MAX_NANOS: i128 = 300 * 365 * 24 * 3600 * 1_000_000_000;

/// How a log writes its times. One log writes all in one way: times of two ways cannot be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// A date with a time of day.
    Date,
    /// Time since some start, with units or as `hours:minutes:seconds`.
    Elapsed,
    /// A number, in this unit.
    Number(Unit),
}

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Seconds,
    Millis,
    Micros,
    Nanos,
}

impl Unit {
    const fn nanos(self) -> i128 {
        match self {
            Self::Seconds => 1_000_000_000,
            Self::Millis => 1_000_000,
            Self::Micros => 1_000,
            Self::Nanos => 1,
        }
    }

    /// The unit of a time since 1970 that is a number of this size: seconds until the year 5138, then
    /// milliseconds and so on. Small numbers are seconds since some start.
    const fn of_size(whole: i128) -> Self {
        match whole {
            ..100_000_000_000 => Self::Seconds,
            100_000_000_000..100_000_000_000_000 => Self::Millis,
            100_000_000_000_000..100_000_000_000_000_000 => Self::Micros,
            _ => Self::Nanos,
        }
    }

    /// A column's name without the unit that it ends with.
    pub(crate) fn of_name(name: &str) -> (&str, Option<Self>) {
        let suffixes = [
            ("_seconds", Self::Seconds),
            ("_s", Self::Seconds),
            ("_millis", Self::Millis),
            ("_ms", Self::Millis),
            ("_micros", Self::Micros),
            ("_us", Self::Micros),
            ("_nanos", Self::Nanos),
            ("_ns", Self::Nanos),
        ];
        let found = suffixes.iter().find_map(|(suffix, unit)| Some((name.strip_suffix(suffix)?, *unit)));
        found.map_or((name, None), |(stem, unit)| (stem, Some(unit)))
    }
}

impl Way {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Date => "a date",
            Self::Elapsed => "time since a start",
            Self::Number(Unit::Seconds) => "a number of seconds",
            Self::Number(Unit::Millis) => "a number of milliseconds",
            Self::Number(Unit::Micros) => "a number of microseconds",
            Self::Number(Unit::Nanos) => "a number of nanoseconds",
        }
    }
}

/// The zone that an offset from UTC such as `+02:00` means.
pub(crate) fn zone(offset: &str) -> Result<TimeZone, String> {
    let there = format!("1970-01-01T00:00:00{offset}").parse::<Timestamp>().ok();
    let seconds = there.and_then(|midnight| i32::try_from(-midnight.as_second()).ok());
    let offset = seconds.and_then(|seconds| Offset::from_seconds(seconds).ok());
    offset.map(TimeZone::fixed).ok_or_else(|| "write an offset such as +02:00".to_owned())
}

/// Nanoseconds since 1970, or since the start of the log. `unit` is what the column's name says of numbers; dates
/// without a zone are of `zone`.
pub(crate) fn parse(text: &str, unit: Option<Unit>, zone: &TimeZone) -> Result<(Way, i128), String> {
    let text = text.trim_matches(['[', ']']);
    let number = || {
        let unit = unit.unwrap_or_else(|| Unit::of_size(scaled(text, 1).unwrap_or_default()));
        Some((Way::Number(unit), scaled(text, unit.nanos())?))
    };
    let parsed = number()
        .or_else(|| Some((Way::Elapsed, elapsed(text)?)))
        .or_else(|| Some((Way::Date, date(text, zone)?)));
    match parsed {
        Some((way, nanos)) if (0..=MAX_NANOS).contains(&nanos) => Ok((way, nanos)),
        _ => Err(FORM.to_owned()),
    }
}

/// A length of time: a number of `unit`, or one with its own unit such as `350ms`. None unless it is one.
pub(crate) fn duration(text: &str, unit: Unit) -> Option<std::time::Duration> {
    let nanos = scaled(text, unit.nanos()).or_else(|| elapsed(text))?;
    u64::try_from(nanos).ok().map(std::time::Duration::from_nanos)
}

/// A decimal number times `unit`, exactly down to the nanosecond: at the size of today's dates a floating-point
/// number is not.
fn scaled(text: &str, unit: i128) -> Option<i128> {
    if text.contains(['e', 'E']) {
        let number: f64 = text.parse().ok()?;
        return (number.is_finite() && number.abs() < 1e20)
            .then(|| scaled(&number.to_string(), unit))
            .flatten();
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || whole.len() > 20 {
        return None;
    }
    let fraction = &fraction[..fraction.len().min(18)];
    let parts = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
    Some(whole.parse::<i128>().ok()? * unit + fraction.parse::<i128>().ok()? * unit / parts)
}

/// `1h30m`, `1.5s`, `350ms`, or `01:30:00.5`.
fn elapsed(text: &str) -> Option<i128> {
    if !text.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let clock: Vec<&str> = text.split(':').collect();
    if let [hours, minutes, seconds] = clock[..] {
        let second = Unit::Seconds.nanos();
        return Some(
            scaled(hours, 3600 * second)? + scaled(minutes, 60 * second)? + scaled(seconds, second)?,
        );
    }
    text.parse::<SignedDuration>().ok().map(|duration| duration.as_nanos())
}

/// RFC 3339 and its relatives, with a zone or without; RFC 2822; the date of web servers' access logs.
fn date(text: &str, zone: &TimeZone) -> Option<i128> {
    let of_any_zone = || text.parse::<Timestamp>().ok();
    let of_no_zone =
        || Some(zone.to_ambiguous_zoned(text.parse::<DateTime>().ok()?).compatible().ok()?.timestamp());
    let of_mail = || rfc2822::parse(text).ok().map(|zoned| zoned.timestamp());
    let of_web = || strtime::parse("%d/%b/%Y:%H:%M:%S %z", text).ok()?.to_timestamp().ok();
    let found = of_any_zone().or_else(of_no_zone).or_else(of_mail).or_else(of_web)?;
    Some(found.as_nanosecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nanos(text: &str) -> i128 {
        parse(text, None, &TimeZone::UTC).unwrap().1
    }

    #[test]
    fn one_instant_in_every_spelling() {
        let expected = 1_700_158_546_680_000_000;
        for text in [
            "2023-11-16 18:15:46.6800000",
            "2023-11-16T18:15:46.68Z",
            "2023-11-16T19:15:46.68+01:00",
            "2023-11-16T10:15:46.68-0800",
            "1700158546.68",
            "1.70015854668e9",
            "1700158546680",
            "1700158546680000",
            "1700158546680000000",
        ] {
            assert_eq!(nanos(text), expected, "{text}");
        }
        for text in ["[16/Nov/2023:19:15:46 +0100]", "Thu, 16 Nov 2023 18:15:46 GMT"] {
            assert_eq!(nanos(text), expected - 680_000_000, "{text}");
        }
    }

    #[test]
    fn digits_beyond_a_floating_point_number_are_kept() {
        assert_eq!(nanos("1700158546.123456789"), 1_700_158_546_123_456_789);
    }

    #[test]
    fn a_date_without_a_zone_is_of_the_zone_that_was_named() {
        let summer = "2023-07-01 12:00:00";
        let at = |name: &str| parse(summer, None, &zone(name).unwrap()).unwrap().1;
        assert_eq!(at("Z") - at("+02:00"), 7_200_000_000_000);
        assert_eq!(at("-05:00") - at("+00:00"), 18_000_000_000_000);
        assert!(zone("Europe/Berlin").unwrap_err().contains("write"));
    }

    #[test]
    fn time_since_a_start_has_units_or_colons() {
        for text in ["90.5s", "1m30s500ms", "00:01:30.5", "90.5"] {
            assert_eq!(nanos(text), 90_500_000_000, "{text}");
        }
    }

    #[test]
    fn a_column_may_say_its_unit() {
        assert_eq!(Unit::of_name("time_ms"), ("time", Some(Unit::Millis)));
        let (way, nanos) = parse("1500", Some(Unit::Millis), &TimeZone::UTC).unwrap();
        assert_eq!((way, nanos), (Way::Number(Unit::Millis), 1_500_000_000));
    }

    #[test]
    fn what_is_no_time_says_what_to_write() {
        for text in ["", "now", "-1", "NaN", "inf", "1e300", "2023-13-01", "1:2", "99999999999999999999"] {
            assert!(parse(text, None, &TimeZone::UTC).unwrap_err().contains("write"), "{text}");
        }
    }
}
