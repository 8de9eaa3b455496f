//! Fields of a head as they were parsed.

use super::Broken;

/// The values of the fields of this name.
pub(super) fn values<'a>(
    headers: &'a [httparse::Header<'_>],
    name: &'static str,
) -> impl Iterator<Item = &'a [u8]> {
    headers.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
}

/// What `Content-Length` says. It may be there several times with the same value.
///
/// # Errors
/// When it is no number, or several.
pub(super) fn length_of(headers: &[httparse::Header<'_>]) -> Result<Option<u64>, Broken> {
    let mut length = None;
    for value in values(headers, "content-length") {
        let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let parsed = std::str::from_utf8(value).ok().filter(|_| digits).and_then(|text| text.parse().ok());
        match (parsed, length) {
            (None, _) => return Err(Broken("a Content-Length that is not a number")),
            (Some(new), Some(old)) if new != old => {
                return Err(Broken("two different Content-Length fields"));
            }
            (Some(new), _) => length = Some(new),
        }
    }
    Ok(length)
}
