//! Where an answer ends, read by a second, strict reader of RFC 9112.

use super::Answer;

/// An answer after which the connection is used again has to end where everybody sees its end. What this reader does not
/// understand, it does not judge.
pub(super) fn check(wire: &[u8], answer: &Answer, to_head: bool) {
    let Some(body) = body_of_final(wire) else { return };
    let bodiless = to_head || matches!(answer.status.as_u16(), 204 | 304);
    let chunked = answer.headers.get("content-length").is_none();
    let (expected, behind) = match (bodiless, chunked) {
        (true, _) => (Vec::new(), body),
        (false, false) => {
            let length: usize = answer.headers["content-length"].to_str().unwrap().parse().unwrap();
            (body[..length].to_vec(), &body[length..])
        }
        (false, true) => match dechunk(body) {
            Some(read) => read,
            None => return,
        },
    };
    assert_eq!(answer.body, expected);
    assert_eq!(answer.left, behind.len());
}

/// What follows the first head that is no interim response, when heads end as they should.
fn body_of_final(mut wire: &[u8]) -> Option<&[u8]> {
    loop {
        let end = wire.windows(4).position(|window| window == b"\r\n\r\n")?;
        let (head, rest) = (&wire[..end], &wire[end + 4..]);
        // Empty lines before it are passed over, and a bare line feed can end it earlier.
        let bare = |pair: &[u8]| pair[1] == b'\n' && pair[0] != b'\r';
        if !head.starts_with(b"HTTP/1.") || head.windows(2).any(bare) {
            return None;
        }
        if head.get(9) != Some(&b'1') {
            return Some(rest);
        }
        wire = rest;
    }
}

fn dechunk(mut wire: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut body = Vec::new();
    loop {
        let (line, rest) = line(wire)?;
        let size = line.split(|byte| *byte == b';').next()?;
        let size = usize::from_str_radix(str::from_utf8(size).ok()?, 16).ok()?;
        if size == 0 {
            return trailers(rest).map(|rest| (body, rest));
        }
        body.extend_from_slice(rest.get(..size)?);
        wire = rest[size..].strip_prefix(b"\r\n")?;
    }
}

fn trailers(mut wire: &[u8]) -> Option<&[u8]> {
    loop {
        let (line, rest) = line(wire)?;
        if line.is_empty() {
            return Some(rest);
        }
        wire = rest;
    }
}

/// Up to a carriage return and a line feed, with neither in it.
fn line(wire: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = wire.windows(2).position(|pair| pair == b"\r\n")?;
    let line = &wire[..end];
    (!line.contains(&b'\n') && !line.contains(&b'\r')).then(|| (line, &wire[end + 2..]))
}
