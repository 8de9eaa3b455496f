//! What a client speaks, by its first bytes. They are looked at and left where they are.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::metrics::ProtocolRefusal;

/// How long a new connection may take to its first bytes. A client that waits for the server to speak first waits for
/// ever: such a protocol has to be declared opaque.
const FIRST_BYTES: Duration = Duration::from_secs(10);

/// How often is looked for the rest of what begins as HTTP/2's preface does, and `POST` too.
const LOOK: Duration = Duration::from_millis(5);

/// The begin of HTTP/2's connection preface. No request of HTTP/1 begins with it.
const PREFACE: &[u8; 4] = b"PRI ";

/// What is served on a guarded port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spoken {
    Http1,
    Http2,
}

/// What a connection is, or what it is refused for.
///
/// # Errors
/// When it ends before it says anything.
pub(super) async fn detect(stream: &TcpStream) -> io::Result<Result<Spoken, ProtocolRefusal>> {
    let mut first = [0; PREFACE.len()];
    let looked = timeout(FIRST_BYTES, async {
        loop {
            let count = stream.peek(&mut first).await?;
            if let Some(spoken) = spoken(&first[..count]) {
                return Ok(spoken);
            }
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            sleep(LOOK).await;
        }
    });
    looked.await.unwrap_or(Ok(Err(ProtocolRefusal::Silent)))
}

/// None while it can still become several things.
fn spoken(first: &[u8]) -> Option<Result<Spoken, ProtocolRefusal>> {
    Some(match first {
        // A TLS record of type handshake.
        [0x16, ..] => Err(ProtocolRefusal::Tls),
        first if first == PREFACE => Ok(Spoken::Http2),
        first if PREFACE.starts_with(first) => return None,
        // Methods are tokens, and so are the empty lines that some clients send before a request.
        [b'\r' | b'\n', ..] => Ok(Spoken::Http1),
        [byte, ..] if byte.is_ascii_alphanumeric() => Ok(Spoken::Http1),
        _ => Err(ProtocolRefusal::Malformed),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_bytes_tell_http_2_from_every_method() {
        for first in [&b"GET "[..], b"POST", b"PUT ", b"PROP", b"PR \x00", b"PRIX", b"\r\nGE", b"x"] {
            assert_eq!(spoken(first), Some(Ok(Spoken::Http1)), "{first:?}");
        }
        assert_eq!(spoken(b"PRI "), Some(Ok(Spoken::Http2)));
        for undecided in [&b""[..], b"P", b"PR", b"PRI"] {
            assert_eq!(spoken(undecided), None, "{undecided:?}");
        }
        assert_eq!(spoken(b"\x16\x03\x01\x02"), Some(Err(ProtocolRefusal::Tls)));
        assert_eq!(spoken(b"\0"), Some(Err(ProtocolRefusal::Malformed)));
    }
}
