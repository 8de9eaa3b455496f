//! From the texts of a policy to the numbers of a document. Errors say what to write instead.

use tidegate_crds::{Bytes, Decimal, Duration, HeaderName, Mode, Percentage};
use tidegate_policy::{self as document, Factor, Millis, Rate, Ratio, Weight};

use crate::quantity::multiplier;

/// GEP-2257: one to four whole numbers with units.
pub(super) fn millis(duration: &Duration) -> Result<Millis, String> {
    let text = duration.as_str();
    let total = milliseconds(text).ok_or_else(|| format!("{text:?} is {}", Duration::FORM))?;
    Millis::new(total)
        .map_err(|_| format!("{text:?} is out of range: write a duration of 1ms to 744h (31 days)"))
}

/// The same, with 0s as nothing.
pub(super) fn millis_or_none(duration: &Duration) -> Result<Option<Millis>, String> {
    if milliseconds(duration.as_str()) == Some(0) { Ok(None) } else { millis(duration).map(Some) }
}

fn milliseconds(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total = 0_u64;
    let mut parts = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let (unit, tail) = take_unit(tail)?;
        total = total.checked_add(parse_up_to(number, 5)?.checked_mul(unit)?)?;
        parts += 1;
        rest = tail;
    }
    (1..=4).contains(&parts).then_some(total)
}

fn take_unit(text: &str) -> Option<(u64, &str)> {
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)]
        .into_iter()
        .find_map(|(unit, millis)| Some((millis, text.strip_prefix(unit)?)))
}

fn parse_up_to(digits: &str, length: usize) -> Option<u64> {
    (digits.len() <= length).then(|| digits.parse().ok())?
}

/// Over 0 % and up to 100 %.
pub(super) fn ratio(percentage: &Percentage) -> Result<Ratio, String> {
    let text = percentage.as_str();
    let percent = percent(percentage)?;
    Ratio::new(percent / 100.0).map_err(|_| format!("{text} is out of range: write over 0% and up to 100%"))
}

/// The same, with 0 % as nothing.
pub(super) fn ratio_or_none(percentage: &Percentage) -> Result<Option<Ratio>, String> {
    if percent(percentage)? == 0.0 { Ok(None) } else { ratio(percentage).map(Some) }
}

fn percent(percentage: &Percentage) -> Result<f64, String> {
    let text = percentage.as_str();
    let number = text.strip_suffix('%').and_then(|number| plain_number(number, 3, 3));
    number.filter(|percent| *percent <= 100.0).ok_or_else(|| format!("{text:?} is {}", Percentage::FORM))
}

/// Digits with an optional fraction; neither sign nor exponent.
fn plain_number(text: &str, whole_digits: usize, fraction_digits: usize) -> Option<f64> {
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(w, f)| (w, Some(f)));
    let digits = |part: &str, most: usize| {
        (1..=most).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    let valid = digits(whole, whole_digits) && fraction.is_none_or(|f| digits(f, fraction_digits));
    if valid { text.parse().ok() } else { None }
}

fn number(decimal: &Decimal) -> Result<f64, String> {
    let text = decimal.to_string();
    plain_number(&text, 10, 6).ok_or_else(|| format!("{text:?} is {}", Decimal::FORM))
}

pub(super) fn factor(decimal: &Decimal) -> Result<Factor, String> {
    Factor::new(number(decimal)?)
        .map_err(|_| format!("{decimal} is out of range: write a number over 0 and up to 1000"))
}

pub(super) fn weight(decimal: &Decimal) -> Result<Weight, String> {
    Weight::new(number(decimal)?)
        .map_err(|_| format!("{decimal} is out of range: write a number from 0 to 1000"))
}

pub(super) fn rate(decimal: &Decimal) -> Result<Rate, String> {
    Rate::new(number(decimal)?).map_err(|_| {
        format!("{decimal} is out of range: write requests per second, over 0 and up to 1000000000")
    })
}

pub(super) fn percentile(decimal: &Decimal) -> Result<Ratio, String> {
    Ratio::new(number(decimal)? / 100.0)
        .map_err(|_| format!("{decimal} is out of range: write a percentile over 0 and up to 100"))
}

/// A percentile that something can exceed.
pub(super) fn percentile_below_all(decimal: &Decimal) -> Result<Ratio, String> {
    let below = percentile(decimal)?;
    let below = (below.get() < 1.0).then_some(below);
    below.ok_or_else(|| format!("{decimal} is never exceeded: write one below 100, such as 95"))
}

/// `resource.Quantity`; a fraction of a byte is rounded up.
pub(super) fn bytes(quantity: &Bytes) -> Result<u64, String> {
    let text = quantity.to_string();
    match byte_count(&text) {
        None => Err(format!("{text:?} is {}", Bytes::FORM)),
        Some(bytes) => u64::try_from(bytes)
            .ok()
            .filter(|bytes| (1..=i64::MAX.unsigned_abs()).contains(bytes))
            .ok_or_else(|| format!("{text} is out of range: write 1 byte to 8191Pi")),
    }
}

fn byte_count(text: &str) -> Option<u128> {
    const MICRO: u128 = 1_000_000;
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let micros =
        u128::from(parse_up_to(whole, 19)?) * MICRO + u128::from(parse_up_to(&format!("{fraction:0<6}"), 6)?);
    Some(micros.saturating_mul(multiplier(suffix)?).div_ceil(MICRO))
}

pub(super) fn header(name: &HeaderName) -> Result<document::HeaderName, String> {
    document::HeaderName::new(name.as_str()).map_err(|error| error.to_string())
}

pub(super) const fn mode(mode: Mode) -> document::Mode {
    match mode {
        Mode::Enforce => document::Mode::Enforce,
        Mode::Shadow => document::Mode::Shadow,
    }
}

/// A count within bounds that the schema gives too; a file that no API server has seen may break them.
pub(super) fn count(number: i64, least: i64, most: i64) -> Result<u64, String> {
    if (least..=most).contains(&number) {
        Ok(number.unsigned_abs())
    } else {
        Err(format!("{number} is out of range: write {least} to {most}"))
    }
}

pub(super) fn count32(number: i32, least: i32, most: i32) -> Result<u32, String> {
    count(number.into(), least.into(), most.into()).map(|_| number.unsigned_abs())
}

/// RFC 1123 (or, by its first character, RFC 1035): what may stand in a header, a metric and a URL as it is.
pub(super) fn is_label(name: &str, first: impl Fn(char) -> bool) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    name.len() <= 63 && name.starts_with(first) && name.chars().all(inner) && !name.ends_with('-')
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // these numbers are read, not computed
mod tests {
    use super::*;

    #[test]
    fn durations_follow_gep_2257() {
        for (text, expected) in
            [("1ms", 1), ("10s", 10_000), ("1m30s", 90_000), ("1h1m1s1ms", 3_661_001), ("744h", Millis::MAX)]
        {
            assert_eq!(millis(&text.into()).unwrap().get(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_what_to_write() {
        for text in ["", "10", "s", "1d", "1.5s", "-1s", "1 s", "123456s", "1s1s1s1s1s", "1µs"] {
            let error = millis(&text.into()).unwrap_err();
            assert!(error.ends_with("such as 500ms, 10s or 1m30s"), "{text}: {error}");
        }
        assert_eq!(
            millis(&"0s".into()).unwrap_err(),
            "\"0s\" is out of range: write a duration of 1ms to 744h (31 days)"
        );
        assert!(millis(&"745h".into()).is_err());
    }

    #[test]
    fn percentages_have_a_sign_and_bounds() {
        assert_eq!(ratio(&"75%".into()).unwrap().get(), 0.75);
        assert_eq!(ratio(&"100%".into()).unwrap().get(), 1.0);
        assert_eq!(ratio(&"99.5%".into()).unwrap().get(), 0.995);
        assert_eq!(ratio_or_none(&"0%".into()), Ok(None));
        assert_eq!(ratio(&"0%".into()).unwrap_err(), "0% is out of range: write over 0% and up to 100%");
        for text in ["75", "101%", "-1%", "1e1%", ".5%", "5.%", "75 %", "%"] {
            assert!(ratio(&text.into()).unwrap_err().contains("such as 75% or 99.5%"), "{text}");
        }
    }

    #[test]
    fn decimals_are_plain_numbers() {
        assert_eq!(factor(&"1.5".into()).unwrap().get(), 1.5);
        assert_eq!(factor(&Decimal::Whole(2)).unwrap().get(), 2.0);
        assert_eq!(rate(&Decimal::Whole(400)).unwrap().get(), 400.0);
        for text in ["", "1e3", "inf", "NaN", "+1", "-1", "1.", ".5", "1,5", "1.1234567"] {
            assert!(factor(&text.into()).unwrap_err().contains("write one such as \"1.5\""), "{text}");
        }
        assert!(factor(&"0".into()).unwrap_err().ends_with("write a number over 0 and up to 1000"));
        assert!(rate(&"0.0".into()).is_err());
        assert!(percentile(&Decimal::Whole(101)).is_err());
    }

    #[test]
    fn bytes_are_quantities() {
        for (text, expected) in [
            ("32Gi", 32 << 30),
            ("1.5Gi", 3 << 29),
            ("500M", 500_000_000),
            ("1k", 1000),
            ("1Ki", 1024),
            ("8191Pi", 8191 << 50),
            ("0.000001k", 1),
        ] {
            assert_eq!(bytes(&text.into()), Ok(expected), "{text}");
        }
        assert_eq!(bytes(&Bytes::Whole(34_359_738_368)), Ok(32 << 30));
        for text in ["", "Gi", "32GB", "32gi", "1K", "1ki", "-1Gi", "1e9", "1.2.3", "1.1234567"] {
            assert!(bytes(&text.into()).unwrap_err().contains("such as 32Gi, 500M"), "{text}");
        }
        assert!(bytes(&Bytes::Whole(0)).is_err());
        assert!(bytes(&"9999999999999999999P".into()).unwrap_err().contains("out of range"));
    }
}
