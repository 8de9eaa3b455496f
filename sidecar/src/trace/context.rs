//! W3C Trace Context, level 1: <https://www.w3.org/TR/trace-context/>.

use std::fmt::{self, Write as _};

use http::{HeaderMap, HeaderName, HeaderValue};

/// The caller's place in its trace.
pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What tracing systems add to it.
pub(super) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Longest `tracestate` that is passed on in a span, as the specification asks for at least.
const LONGEST_STATE: usize = 512;

/// 16 bytes, not all zero.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceId(pub(super) [u8; 16]);

/// 8 bytes, not all zero.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SpanId(pub(super) [u8; 8]);

/// Who called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// The trace.
    pub trace: TraceId,
    /// The caller's span.
    pub span: SpanId,
    /// The caller records its span.
    pub sampled: bool,
}

impl Context {
    /// What `traceparent` says. None when it is absent, there are several, or it breaks the grammar: then the
    /// specification has a new trace begin.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let value = values.next().filter(|_| values.next().is_none())?;
        Self::parse(value.as_bytes())
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let (head, rest) = text.split_at_checked(55)?;
        let [version] = hex(&head[..2])?;
        // A later version may have more behind these fields.
        let ends = if version == 0 { rest.is_empty() } else { rest.first().is_none_or(|byte| *byte == b'-') };
        let dashes = [2, 35, 52].iter().all(|place| head[*place] == b'-');
        let (trace, span, [flags]) = (hex(&head[3..35])?, hex(&head[36..52])?, hex(&head[53..])?);
        let valid = version != 0xff && ends && dashes && trace != [0; 16] && span != [0; 8];
        valid.then_some(Self { trace: TraceId(trace), span: SpanId(span), sampled: flags & 1 == 1 })
    }

    /// The `traceparent` of a call by the span of this context.
    pub fn header(&self) -> Option<HeaderValue> {
        let flags = u8::from(self.sampled);
        HeaderValue::try_from(format!("00-{}-{}-{flags:02x}", self.trace, self.span)).ok()
    }
}

/// `tracestate` as one text, for the span. It is passed on unchanged in any case.
pub(super) fn state(headers: &HeaderMap) -> String {
    let mut state = String::new();
    for value in headers.get_all(TRACESTATE).iter().filter_map(|value| value.to_str().ok()) {
        if state.len() + value.len() < LONGEST_STATE {
            state.push_str(if state.is_empty() { "" } else { "," });
            state.push_str(value);
        }
    }
    state
}

/// Lower-case hexadecimal, as the specification has it.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl TraceId {
    /// Its random half, by which everybody samples the same traces.
    pub fn number(self) -> u64 {
        u128::from_be_bytes(self.0) as u64
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('t').and_then(|()| write_hex(&self.0, f))
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('s').and_then(|()| write_hex(&self.0, f))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_was_parsed_is_written_back() {
        let context = Context::parse(GOOD.as_bytes()).unwrap();
        assert!(context.sampled);
        assert_eq!(context.trace.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.header().unwrap(), GOOD);
        let unsampled = GOOD.replace("-01", "-00");
        assert!(!Context::parse(unsampled.as_bytes()).unwrap().sampled);
        assert_eq!(Context::parse(GOOD.replace("-01", "-03").as_bytes()), Some(context), "other flags");
    }

    #[test]
    fn whatever_breaks_the_grammar_is_no_context() {
        let upper = GOOD.to_uppercase();
        let dashless = GOOD.replace('-', "_");
        let more = format!("{GOOD}-00");
        let version = GOOD.replacen("00-", "ff-", 1);
        for text in [
            "",
            "00",
            &GOOD[..54],
            &more,
            &upper,
            &dashless,
            &version,
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
        ] {
            assert_eq!(Context::parse(text.as_bytes()), None, "{text}");
        }
        let mut headers = HeaderMap::new();
        headers.append(TRACEPARENT, GOOD.parse().unwrap());
        assert!(Context::of(&headers).is_some());
        headers.append(TRACEPARENT, GOOD.parse().unwrap());
        assert_eq!(Context::of(&headers), None, "two are none");
    }

    #[test]
    fn a_later_version_may_have_more() {
        let later = GOOD.replacen("00-", "01-", 1);
        assert!(Context::parse(later.as_bytes()).is_some());
        assert!(Context::parse(format!("{later}-what-ever").as_bytes()).is_some());
        assert_eq!(Context::parse(format!("{later}.what").as_bytes()), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_without_a_panic_and_what_is_accepted_is_canonical(
            text in prop_oneof![any::<Vec<u8>>(), "0[01]-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}".prop_map(String::into_bytes)],
        ) {
            if let Some(context) = Context::parse(&text) {
                let written = context.header().unwrap();
                prop_assert_eq!(&written.as_bytes()[2..53], &text[2..53]);
            }
        }
    }
}
