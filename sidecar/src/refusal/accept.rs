//! Which of the bodies of a refusal a client asks for, by its `Accept` (RFC 9110, 12.5.1).

use http::HeaderMap;
use http::header::ACCEPT;

use crate::quoted::split;

/// Quality values have three decimals, so a whole is a thousand.
const WHOLE: u16 = 1000;

/// Whether to answer with `application/problem+json` (RFC 9457): it is named, and liked no less than
/// `application/json`. A client that takes anything gets what clients of inference engines understand.
pub(super) fn wants_problem(headers: &HeaderMap) -> bool {
    let (mut problem, mut json) = (None, None);
    for value in headers.get_all(ACCEPT) {
        for member in split(value.as_bytes(), b',') {
            match range(member) {
                Some((kind, quality)) if kind.eq_ignore_ascii_case(b"application/problem+json") => {
                    problem = problem.max(Some(quality));
                }
                Some((kind, quality)) if kind.eq_ignore_ascii_case(b"application/json") => {
                    json = json.max(Some(quality));
                }
                _ => {}
            }
        }
    }
    problem.is_some_and(|problem| problem > 0 && problem >= json.unwrap_or(0))
}

/// The media range of a member and its quality. None of one that is not understood: as if it were not there.
fn range(member: &[u8]) -> Option<(&[u8], u16)> {
    let mut parts = split(member, b';').map(<[u8]>::trim_ascii);
    let kind = parts.next()?;
    for parameter in parts {
        if let [b'q' | b'Q', b'=', quality @ ..] = parameter {
            return Some((kind, self::quality(quality)?));
        }
    }
    Some((kind, WHOLE))
}

/// `0`, `0.5`, `1.000` and the like, in thousandths.
fn quality(text: &[u8]) -> Option<u16> {
    let (whole, decimals) = match text {
        [whole] | [whole, b'.'] => (whole, &[][..]),
        [whole, b'.', decimals @ ..] if decimals.len() <= 3 => (whole, decimals),
        _ => return None,
    };
    let digits = [whole].into_iter().chain(decimals).chain(b"000").take(4);
    let number = digits
        .into_iter()
        .try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u16::from(digit - b'0')))?;
    (number <= WHOLE).then_some(number)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn wants(accept: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in accept {
            headers.append(ACCEPT, HeaderValue::from_str(value).unwrap());
        }
        wants_problem(&headers)
    }

    #[test]
    fn a_problem_is_for_those_who_name_it_and_like_it_no_less_than_json() {
        for accept in [
            &["application/problem+json"][..],
            &["application/json, application/problem+json"],
            &["application/json;q=0.5, Application/Problem+JSON ; q=0.8"],
            &["text/event-stream", "application/problem+json;q=0.001"],
            &["application/json;q=0.90,application/problem+json;q=0.9"],
            &["application/json;p=\",application/json;q=1\";q=0.1, application/problem+json;q=0.2"],
            &["application/json;p=\"\\\",\";q=0.1, application/problem+json;q=0.2"],
            &["application/json;q=2, application/problem+json;q=1."],
        ] {
            assert!(wants(accept), "{accept:?}");
        }
    }

    #[test]
    fn everybody_else_gets_the_error_that_clients_of_inference_engines_understand() {
        for accept in [
            &[][..],
            &[""],
            &["*/*"],
            &["application/*"],
            &["application/json"],
            &["application/problem+json;q=0"],
            &["application/problem+json;q=0.000"],
            &["application/problem+json;q=0.8, application/json"],
            &["application/problem+json;q=x"],
            &["application/problem+json;q=0.0001"],
            &["application/problem+json;q="],
            &["application/problem+xml, text/html"],
            &["text/plain;p=\"application/problem+json, application/problem+json\""],
        ] {
            assert!(!wants(accept), "{accept:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_value_of_the_header_breaks_it(value in proptest::collection::vec(32..=255u8, 0..64)) {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                headers.insert(ACCEPT, value);
            }
            wants_problem(&headers);
        }
    }
}
