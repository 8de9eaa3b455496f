//! Heads of answers to clients of HTTP/1.

use std::fmt::Write as _;

use bytes::{BufMut, BytesMut};
use http::header::{self, HeaderMap};
use http::{Method, StatusCode, Version};

use super::date::with_date;
use super::request::field;

/// What goes into the head of an answer.
#[derive(Debug)]
pub(in crate::proxy) struct AnswerHead<'a> {
    /// Its status.
    pub(in crate::proxy) status: StatusCode,
    /// Its fields. A `Connection` field ends the series of requests: the connection closes, or switches protocols.
    pub(in crate::proxy) headers: &'a HeaderMap,
    /// Bytes of its body, where that is known.
    pub(in crate::proxy) length: Option<u64>,
    /// The method that it answers.
    pub(in crate::proxy) method: &'a Method,
    /// The version of the request.
    pub(in crate::proxy) version: Version,
    /// The client may send another request.
    pub(in crate::proxy) keep_alive: bool,
}

/// How the body of an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum Delimited {
    /// There is none to be sent.
    Bodiless,
    /// By its length.
    Length,
    /// By the last chunk.
    Chunked,
    /// With the connection.
    Close,
}

impl AnswerHead<'_> {
    /// Appends it, with its empty line. How the body ends, and whether the connection goes on.
    pub(in crate::proxy) fn encode(&self, out: &mut BytesMut) -> (Delimited, bool) {
        let http_11 = self.version == Version::HTTP_11;
        let delimited = self.delimited(http_11);
        let switches = self.status == StatusCode::SWITCHING_PROTOCOLS;
        let ends = delimited == Delimited::Close || self.headers.contains_key(header::CONNECTION);
        let keep_alive = self.keep_alive && !ends;
        out.put_slice(if http_11 { b"HTTP/1.1 " } else { b"HTTP/1.0 " });
        out.put_slice(self.status.as_str().as_bytes());
        out.put_u8(b' ');
        out.put_slice(self.status.canonical_reason().unwrap_or_default().as_bytes());
        out.put_slice(b"\r\n");
        let mut has_date = false;
        for (name, value) in self.headers {
            has_date |= *name == header::DATE;
            let replaced = (*name == header::CONNECTION && !switches) || *name == header::CONTENT_LENGTH;
            if !replaced {
                field(out, name.as_str(), value.as_bytes());
            }
        }
        if !has_date {
            with_date(|date| field(out, "date", date));
        }
        self.encode_length(delimited, out);
        match keep_alive {
            _ if switches => {}
            false if http_11 => out.put_slice(b"connection: close\r\n"),
            true if !http_11 => out.put_slice(b"connection: keep-alive\r\n"),
            _ => {}
        }
        out.put_slice(b"\r\n");
        (delimited, keep_alive)
    }

    /// RFC 9112, 6.3.
    fn delimited(&self, http_11: bool) -> Delimited {
        let bodiless = *self.method == Method::HEAD
            || self.status.is_informational()
            || matches!(self.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        match self.length {
            _ if bodiless => Delimited::Bodiless,
            Some(_) => Delimited::Length,
            None if http_11 => Delimited::Chunked,
            None => Delimited::Close,
        }
    }

    fn encode_length(&self, delimited: Delimited, out: &mut BytesMut) {
        match (delimited, self.length) {
            (Delimited::Length, Some(length)) => {
                let _ = write!(out, "content-length: {length}\r\n");
            }
            (Delimited::Chunked, _) => out.put_slice(b"transfer-encoding: chunked\r\n"),
            (Delimited::Bodiless, length) => self.encode_length_of_other(length, out),
            (Delimited::Length | Delimited::Close, _) => {}
        }
    }

    /// An answer to HEAD, and one that says that nothing has changed, tell how long the body would be (RFC 9110, 8.6).
    fn encode_length_of_other(&self, length: Option<u64>, out: &mut BytesMut) {
        if self.status == StatusCode::NO_CONTENT || self.status.is_informational() {
            return;
        }
        if let Some(told) = self.headers.get(header::CONTENT_LENGTH) {
            field(out, "content-length", told.as_bytes());
        } else if let Some(length) = length.filter(|length| *length > 0) {
            let _ = write!(out, "content-length: {length}\r\n");
        }
    }
}

#[cfg(test)]
mod tests;
