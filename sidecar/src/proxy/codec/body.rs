//! Bodies of requests and responses, cut out of the bytes that came.

use bytes::{Buf, Bytes};
use http::HeaderMap;

use super::MAX_HEAD;
use super::response::fields;

/// What all heads of the chunks of one body may hold beside sizes: else a sender could have 64 KiB read for each byte of a
/// body (CVE-2023-39326). As much as hyper takes.
const MAX_EXTENSIONS: usize = 16 * 1024;

/// The longest head of a chunk without an extension: 16 digits and the end of the line.
const SIZE_LINE: usize = 18;

/// What came in place of HTTP/1.1.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub(in crate::proxy) struct Broken(pub(in crate::proxy) &'static str);

/// Finds the end of a body.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::proxy) enum BodyDecoder {
    /// Nothing more comes.
    Done,
    /// So many bytes are still to come.
    Length(u64),
    /// Chunks.
    Chunked {
        /// What comes next.
        next: Chunk,
        /// Bytes in the heads of chunks so far that were no sizes.
        extensions: usize,
    },
    /// Everything until the sender closes.
    UntilClose,
}

/// What comes next in a chunked body.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Chunk {
    /// The size of a chunk.
    Size,
    /// So many bytes of one.
    Data(u64),
    /// The end of line after one.
    DataEnd,
    /// The trailer section.
    Trailers,
}

/// What was cut out.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Decoded {
    /// Bytes of the body.
    Data(Bytes),
    /// The trailer section; the body is over.
    Trailers(HeaderMap),
    /// The body is over.
    End,
    /// Not enough has arrived.
    NeedMore,
}

impl BodyDecoder {
    pub(in crate::proxy) fn chunked() -> Self {
        Self::Chunked { next: Chunk::Size, extensions: 0 }
    }

    pub(in crate::proxy) fn length(length: u64) -> Self {
        if length == 0 { Self::Done } else { Self::Length(length) }
    }

    pub(in crate::proxy) fn is_done(&self) -> bool {
        *self == Self::Done
    }

    /// Cuts the next piece from the front of `received`.
    pub(in crate::proxy) fn decode(&mut self, received: &mut Bytes) -> Result<Decoded, Broken> {
        match self {
            Self::Done => Ok(Decoded::End),
            Self::UntilClose | Self::Length(_) if received.is_empty() => Ok(Decoded::NeedMore),
            Self::UntilClose => Ok(Decoded::Data(std::mem::take(received))),
            Self::Length(left) => {
                let data = take(received, *left);
                *self = Self::length(*left - data.len() as u64);
                Ok(Decoded::Data(data))
            }
            Self::Chunked { next, extensions } => {
                let decoded = next.decode(received, extensions)?;
                if matches!(decoded, Decoded::End | Decoded::Trailers(_)) {
                    *self = Self::Done;
                }
                Ok(decoded)
            }
        }
    }

    /// The sender closed its side. Whether the body ended with that.
    pub(in crate::proxy) fn closed(&mut self) -> Result<(), Broken> {
        match self {
            Self::Done | Self::UntilClose => {
                *self = Self::Done;
                Ok(())
            }
            Self::Length(_) | Self::Chunked { .. } => Err(Broken("an end in the middle of a body")),
        }
    }
}

impl Chunk {
    fn decode(&mut self, received: &mut Bytes, extensions: &mut usize) -> Result<Decoded, Broken> {
        loop {
            match self {
                // For the parser no digit at all is a size of nothing, and thus the end.
                Self::Size if received.first().is_some_and(|first| !first.is_ascii_hexdigit()) => {
                    return Err(Broken("a chunk without a size"));
                }
                Self::Size => match httparse::parse_chunk_size(received) {
                    Ok(httparse::Status::Complete((head, size))) => {
                        no_controls(&received[..head - 2])?;
                        *extensions = extended(*extensions, head)?;
                        received.advance(head);
                        *self = if size == 0 { Self::Trailers } else { Self::Data(size) };
                    }
                    Ok(httparse::Status::Partial) => {
                        // Its own end may have begun.
                        no_controls(received.strip_suffix(b"\r").unwrap_or(received))?;
                        extended(*extensions, received.len())?;
                        return Ok(Decoded::NeedMore);
                    }
                    Err(_) => return Err(Broken("a chunk without a size")),
                },
                Self::Data(_) if received.is_empty() => return Ok(Decoded::NeedMore),
                Self::Data(left) => {
                    let data = take(received, *left);
                    let left = *left - data.len() as u64;
                    *self = if left == 0 { Self::DataEnd } else { Self::Data(left) };
                    // The end of line mostly is there too; a chunk that is over is known to be over.
                    if *self == Self::DataEnd && received.starts_with(b"\r\n") {
                        received.advance(2);
                        *self = Self::Size;
                    }
                    return Ok(Decoded::Data(data));
                }
                Self::DataEnd if received.len() < 2 => return Ok(Decoded::NeedMore),
                Self::DataEnd if received.starts_with(b"\r\n") => {
                    received.advance(2);
                    *self = Self::Size;
                }
                Self::DataEnd => return Err(Broken("more than the size of a chunk")),
                Self::Trailers => return trailers(received),
            }
        }
    }
}

/// An extension may hold anything for the parser. Others take a line feed in it for the end of the line, and find a chunk
/// where this reader finds none (CVE-2025-22871 and its like).
fn no_controls(chunk_head: &[u8]) -> Result<(), Broken> {
    let is_control = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
    if chunk_head.iter().any(is_control) {
        Err(Broken("a control character in the head of a chunk"))
    } else {
        Ok(())
    }
}

/// What chunks have had of extensions with a head of so many bytes.
fn extended(before: usize, head: usize) -> Result<usize, Broken> {
    let extensions = before + head.saturating_sub(SIZE_LINE);
    if extensions > MAX_EXTENSIONS { Err(Broken("chunk extensions over 16 KiB")) } else { Ok(extensions) }
}

fn trailers(received: &mut Bytes) -> Result<Decoded, Broken> {
    let mut slots = [httparse::EMPTY_HEADER; 64];
    let (length, decoded) = match httparse::parse_headers(received, &mut slots) {
        Ok(httparse::Status::Complete((length, []))) => (length, Decoded::End),
        Ok(httparse::Status::Complete((length, parsed))) => {
            (length, Decoded::Trailers(fields(received, parsed)?))
        }
        Ok(httparse::Status::Partial) if received.len() > MAX_HEAD => {
            return Err(Broken("trailers over 64 KiB"));
        }
        Ok(httparse::Status::Partial) => return Ok(Decoded::NeedMore),
        Err(_) => return Err(Broken("malformed trailers")),
    };
    let section = received.split_to(length);
    let lines = section.split_inclusive(|byte| *byte == b'\n');
    if lines.into_iter().any(|line| !line.ends_with(b"\r\n")) {
        return Err(Broken("a bare line feed in trailers"));
    }
    Ok(decoded)
}

fn take(received: &mut Bytes, at_most: u64) -> Bytes {
    let length = usize::try_from(at_most).unwrap_or(usize::MAX).min(received.len());
    received.split_to(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `wire`, given in pieces of `step` bytes. Returns the body, the trailers and what was left over.
    fn decode(
        mut decoder: BodyDecoder,
        wire: &[u8],
        step: usize,
    ) -> Result<(Vec<u8>, HeaderMap, Bytes), Broken> {
        let (mut body, mut trailers, mut received) = (Vec::new(), HeaderMap::new(), Bytes::new());
        let mut pieces = wire.chunks(step);
        loop {
            match decoder.decode(&mut received)? {
                Decoded::Data(data) => body.extend_from_slice(&data),
                Decoded::Trailers(fields) => trailers = fields,
                Decoded::End => return Ok((body, trailers, received)),
                Decoded::NeedMore => {
                    let Some(piece) = pieces.next() else {
                        return decoder.closed().map(|()| (body, trailers, received));
                    };
                    received = [&received[..], piece].concat().into();
                }
            }
            if decoder.is_done() {
                return Ok((body, trailers, received));
            }
        }
    }

    #[test]
    fn chunks_give_the_same_body_however_they_are_cut() {
        let wire = b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nx-sum: 11\r\n\r\nHTTP";
        for step in 1..wire.len() {
            let (body, trailers, _) = decode(BodyDecoder::chunked(), wire, step).unwrap();
            assert_eq!(body, b"hello world", "in pieces of {step}");
            assert_eq!(trailers["x-sum"], "11", "in pieces of {step}");
        }
        let (_, _, left) = decode(BodyDecoder::chunked(), wire, wire.len()).unwrap();
        assert_eq!(left, "HTTP", "what follows the body belongs to the next message");
    }

    #[test]
    fn malformed_chunks_are_errors() {
        for wire in [
            &b"+5\r\nhello\r\n0\r\n\r\n"[..],
            b"5\r\nhelloX\r\n0\r\n\r\n",
            b"fffffffffffffffff\r\n",
            b"5\r\nhel",
            b"\r\n",
            b"\r\n\r\n",
            b";a\r\n\r\n",
            b" 0\r\n\r\n",
            b"5\r\nhello\r\n\r\n\r\n",
            b"5 5\r\nhello\r\n0\r\n\r\n",
            b"5\nhello\r\n0\r\n\r\n",
            b"5;a\nb\r\nhello\r\n0\r\n\r\n",
            b"0;a\n\r\n\r\n",
            b"5;a\0b\r\nhello\r\n0\r\n\r\n",
            b"0\r\na: b\n\r\n",
            b"0\r\n\n",
        ] {
            assert!(decode(BodyDecoder::chunked(), wire, 3).is_err(), "{}", wire.escape_ascii());
        }
    }

    #[test]
    fn a_length_ends_the_body_exactly_and_a_close_before_it_is_an_error() {
        let (body, _, left) = decode(BodyDecoder::length(3), b"abcd", 4).unwrap();
        assert_eq!((&body[..], &left[..]), (&b"abc"[..], &b"d"[..]));
        assert!(decode(BodyDecoder::length(5), b"abcd", 4).is_err());
    }

    #[test]
    fn a_body_without_length_ends_with_the_connection() {
        let (body, ..) = decode(BodyDecoder::UntilClose, b"all of it", 2).unwrap();
        assert_eq!(body, b"all of it");
    }

    #[test]
    fn extensions_are_refused_before_they_are_more_than_the_body() {
        let endless = [b"1;".to_vec(), vec![b'x'; 2 * MAX_EXTENSIONS]].concat();
        let error = decode(BodyDecoder::chunked(), &endless, 512).unwrap_err();
        assert_eq!(error, Broken("chunk extensions over 16 KiB"));
        let chunk = |extension: usize| format!("1;{}\r\nx\r\n", "e".repeat(extension));
        let body = |chunk: String, number: usize| chunk.repeat(number) + "0\r\n\r\n";
        assert!(decode(BodyDecoder::chunked(), body(chunk(1000), 16).as_bytes(), 512).is_ok());
        assert!(decode(BodyDecoder::chunked(), body(chunk(1000), 17).as_bytes(), 512).is_err());
        assert!(decode(BodyDecoder::chunked(), body(chunk(14), 5000).as_bytes(), 512).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_of_the_engine_panic_or_give_more_than_they_hold(wire: Vec<u8>, step in 1_usize..9) {
            for decoder in [BodyDecoder::chunked(), BodyDecoder::length(7), BodyDecoder::UntilClose] {
                if let Ok((body, ..)) = decode(decoder, &wire, step) {
                    proptest::prop_assert!(body.len() <= wire.len());
                }
            }
        }
    }
}
