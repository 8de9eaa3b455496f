//! Values of header fields with quoted strings in them (RFC 9110, 5.6.4).

/// Splits at a separator that is not quoted.
pub(crate) fn split(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |byte| {
        let splits = !quoted && *byte == separator;
        if !escaped && *byte == b'"' {
            quoted = !quoted;
        }
        escaped = quoted && !escaped && *byte == b'\\';
        splits
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_separates_nothing() {
        let parts = |text: &'static str| split(text.as_bytes(), b',').collect::<Vec<_>>();
        assert_eq!(parts("a,b"), [b"a", b"b"]);
        assert_eq!(parts(r#"a="1,2",b"#), [&br#"a="1,2""#[..], b"b"]);
        assert_eq!(parts(r#"a="\",",b"#), [&br#"a="\",""#[..], b"b"]);
        assert_eq!(parts(r#"a,b="never closed,c"#), [&b"a"[..], br#"b="never closed,c"#]);
    }
}
