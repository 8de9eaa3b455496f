//! HTTP/1.1 as it is spoken to the engine: heads and bodies as bytes, without any I/O.

mod body;
mod headers;
mod request;
mod response;

pub(super) use body::{BodyDecoder, Broken, Decoded};
pub(super) use headers::strip;
pub(super) use request::{Framing, RequestHead, encode_chunk_size, encode_trailers};
pub(super) use response::{ResponseHead, parse_response};

/// Largest response head, and largest chunk head or trailer section.
pub(super) const MAX_HEAD: usize = 64 * 1024;
