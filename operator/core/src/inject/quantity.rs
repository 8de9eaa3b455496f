//! Kubernetes' quantities, as far as they have to be compared.

/// What one is.
pub(super) const UNIT: u128 = 1_000_000_000;

/// A quantity in billionths, exactly; `None` for what is no positive quantity or too fine or too large for that.
pub(super) fn billionths(text: &str) -> Option<u128> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.len() > 9 || whole.len() > 15 || whole.len() + fraction.len() == 0 || fraction.contains('.') {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction: u128 = format!("{fraction:0<9}").parse().ok()?;
    let (times, by) = multiplier(suffix)?;
    let value = whole.checked_mul(UNIT)?.checked_add(fraction)?.checked_mul(times)?.div_ceil(by);
    (value > 0).then_some(value)
}

/// A quantity of so many billionths: whole where it is large, as bytes are, else in thousandths; rounded up.
pub(super) fn written(billionths: u128) -> String {
    if billionths >= 1000 * UNIT {
        billionths.div_ceil(UNIT).to_string()
    } else {
        format!("{}m", billionths.div_ceil(UNIT / 1000))
    }
}

/// A suffix as a product and a quotient.
fn multiplier(suffix: &str) -> Option<(u128, u128)> {
    if let Some(exponent) = suffix.strip_prefix(['e', 'E']).filter(|exponent| !exponent.is_empty()) {
        let exponent: i32 = exponent.parse().ok().filter(|exponent| (-9..=18).contains(exponent))?;
        let power = 10_u128.pow(exponent.unsigned_abs());
        return Some(if exponent < 0 { (1, power) } else { (power, 1) });
    }
    let power = |letter: &str| ["", "k", "M", "G", "T", "P", "E"].iter().position(|known| *known == letter);
    match suffix {
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1000)),
        _ => match suffix.strip_suffix('i') {
            Some(letter) => {
                // Kibi is written with a large letter, kilo with a small one.
                let power = if letter == "K" { 1 } else { power(letter).filter(|power| *power > 1)? };
                Some((1024_u128.pow(u32::try_from(power).ok()?), 1))
            }
            None => Some((1000_u128.pow(u32::try_from(power(suffix)?).ok()?), 1)),
        },
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
