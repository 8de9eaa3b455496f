//! HTTP/1 as bytes, without any I/O: heads and bodies of requests and responses.

mod answer_head;
mod body;
mod date;
mod headers;
mod parse_request;
mod raw_fields;
mod request;
mod response;

pub(super) use answer_head::{AnswerHead, Delimited};
pub(super) use body::{BodyDecoder, Broken, Decoded};
pub(super) use headers::strip;
pub(super) use parse_request::{BadHead, ReceivedHead, parse_request};
pub(super) use request::{Framing, RequestHead, encode_chunk_size, encode_trailers};
pub(super) use response::{ResponseHead, parse_response};

use raw_fields::{length_of, values};

/// Largest response head, and largest chunk head or trailer section.
pub(super) const MAX_HEAD: usize = 64 * 1024;
