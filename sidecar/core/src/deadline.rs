//! How long a client waits for its answer, as it says itself in a header field.

use std::time::Duration;

use crate::Headers;

/// A field, and how it is written.
type Field = (&'static str, fn(&str) -> Option<Duration>);

/// Those that clients send: gRPC's own; what Envoy tells whoever is behind it; of the official clients of OpenAI and
/// Anthropic the time of a call, and of a read, with which a call ends too that gets no byte.
const FIELDS: [Field; 4] = [
    ("grpc-timeout", of_grpc),
    ("x-envoy-expected-rq-timeout-ms", millis),
    ("x-stainless-timeout", seconds),
    ("x-stainless-read-timeout", seconds),
];

/// The shortest time that the fields of a request tell; none where they tell none that can be read.
pub(crate) fn client_timeout(headers: &dyn Headers) -> Option<Duration> {
    let told = FIELDS.iter().filter_map(|(name, read)| {
        let value = headers.get(name)?;
        read(std::str::from_utf8(value).ok()?.trim())
    });
    told.min()
}

/// As in the specification of gRPC over HTTP/2: up to eight digits and a unit.
fn of_grpc(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number = integer(digits).filter(|_| digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(3600 * number),
        "M" => Duration::from_secs(60 * number),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

fn millis(text: &str) -> Option<Duration> {
    integer(text).map(Duration::from_millis)
}

/// Whole seconds, or with a fraction.
fn seconds(text: &str) -> Option<Duration> {
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    Duration::try_from_secs_f64(text.parse().ok().filter(|_| is_decimal)?).ok()
}

fn integer(text: &str) -> Option<u64> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    struct One(&'static str, &'static str);

    impl Headers for One {
        fn get(&self, name: &str) -> Option<&[u8]> {
            (name == self.0).then_some(self.1.as_bytes())
        }
    }

    struct Both(One, One);

    impl Headers for Both {
        fn get(&self, name: &str) -> Option<&[u8]> {
            self.0.get(name).or_else(|| self.1.get(name))
        }
    }

    #[test]
    fn each_field_is_read_in_its_own_unit() {
        for (name, value, millis) in [
            ("grpc-timeout", "1H", 3_600_000),
            ("grpc-timeout", "2M", 120_000),
            ("grpc-timeout", "3S", 3000),
            ("grpc-timeout", "250m", 250),
            ("grpc-timeout", "4000u", 4),
            ("grpc-timeout", "99999999n", 99),
            ("grpc-timeout", "0S", 0),
            ("x-envoy-expected-rq-timeout-ms", "15000", 15_000),
            ("x-stainless-timeout", "600", 600_000),
            ("x-stainless-read-timeout", "0.5", 500),
            ("x-stainless-read-timeout", " 600.0 ", 600_000),
        ] {
            let told = client_timeout(&One(name, value)).map(|told| told.as_millis());
            assert_eq!(told, Some(millis), "{name}: {value}");
        }
    }

    #[test]
    fn what_is_no_time_tells_nothing() {
        for (name, value) in [
            ("grpc-timeout", ""),
            ("grpc-timeout", "S"),
            ("grpc-timeout", "5"),
            ("grpc-timeout", "5s"),
            ("grpc-timeout", "+5S"),
            ("grpc-timeout", "-5S"),
            ("grpc-timeout", "123456789S"),
            ("grpc-timeout", "5µ"),
            ("x-envoy-expected-rq-timeout-ms", "1.5"),
            ("x-envoy-expected-rq-timeout-ms", "18446744073709551616"),
            ("x-stainless-timeout", "NOT_GIVEN"),
            ("x-stainless-timeout", "inf"),
            ("x-stainless-timeout", "-1"),
            ("x-stainless-timeout", "1e3"),
            ("x-stainless-timeout", "99999999999999999999999"),
            ("x-request-id", "5"),
        ] {
            assert_eq!(client_timeout(&One(name, value)), None, "{name}: {value}");
        }
    }

    #[test]
    fn the_shortest_of_several_counts() {
        let both = Both(One("x-stainless-timeout", "600"), One("grpc-timeout", "2S"));
        assert_eq!(client_timeout(&both), Some(Duration::from_secs(2)));
    }
}
