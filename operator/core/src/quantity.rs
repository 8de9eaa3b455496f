//! Kubernetes' quantities, as far as they have to be counted or compared.

/// What one is.
pub(crate) const UNIT: u128 = 1_000_000_000;

/// A quantity in billionths, exactly; `None` for what is no positive quantity or too fine or too large for that.
pub(crate) fn billionths(text: &str) -> Option<u128> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.len() > 9 || whole.len() > 15 || whole.len() + fraction.len() == 0 || fraction.contains('.') {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction: u128 = format!("{fraction:0<9}").parse().ok()?;
    let (times, by) = factor(suffix)?;
    let value = whole.checked_mul(UNIT)?.checked_add(fraction)?.checked_mul(times)?.div_ceil(by);
    (value > 0).then_some(value)
}

/// A quantity of so many billionths: whole where it is large, as bytes are, else in thousandths; rounded up.
pub(crate) fn written(billionths: u128) -> String {
    if billionths >= 1000 * UNIT {
        billionths.div_ceil(UNIT).to_string()
    } else {
        format!("{}m", billionths.div_ceil(UNIT / 1000))
    }
}

/// What a suffix of bytes multiplies by: none, decimal from `k`, binary from `Ki`, both up to `P`.
pub(crate) fn multiplier(suffix: &str) -> Option<u128> {
    let (base, letter) = match suffix.strip_suffix('i') {
        Some(letter) => (1024_u128, letter),
        None => (1000, suffix),
    };
    let power = match (base, letter) {
        (1000, "") => 0,
        (1000, "k") | (1024, "K") => 1,
        (_, "M") => 2,
        (_, "G") => 3,
        (_, "T") => 4,
        (_, "P") => 5,
        _ => return None,
    };
    Some(base.pow(power))
}

/// Any suffix as a product and a quotient.
fn factor(suffix: &str) -> Option<(u128, u128)> {
    if let Some(exponent) = suffix.strip_prefix(['e', 'E']).filter(|exponent| !exponent.is_empty()) {
        let exponent: i32 = exponent.parse().ok().filter(|exponent| (-9..=18).contains(exponent))?;
        let power = 10_u128.pow(exponent.unsigned_abs());
        return Some(if exponent < 0 { (1, power) } else { (power, 1) });
    }
    match suffix {
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1000)),
        "E" => Some((1000_u128.pow(6), 1)),
        _ => Some((multiplier(suffix)?, 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_compare_whatever_their_suffix() {
        for (text, expected) in [
            ("1", UNIT),
            ("1000m", UNIT),
            ("0.5", UNIT / 2),
            (".5", UNIT / 2),
            ("500m", UNIT / 2),
            ("1k", 1000 * UNIT),
            ("1e3", 1000 * UNIT),
            ("1E3", 1000 * UNIT),
            ("1000e-3", UNIT),
            ("1Ki", 1024 * UNIT),
            ("1.5Gi", (3 << 29) * UNIT),
            ("1E", 1_000_000_000_000_000_000 * UNIT),
            ("1u", 1000),
            ("0.1n", 1),
        ] {
            assert_eq!(billionths(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_positive_quantity_is_none() {
        for text in [
            "",
            ".",
            "0",
            "0.0",
            "-1",
            "+1",
            "1.2.3",
            "1i",
            "1ki",
            "1 Gi",
            "m",
            "1e",
            "1e99",
            "lots",
            "1.0000000001",
        ] {
            assert_eq!(billionths(text), None, "{text}");
        }
    }
}
