//! Counts the tokens of an answer while it passes.

use std::io::{self, Write};

use flate2::write::GzDecoder;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};
use tidegate_core::Tokens;

use super::events::EventReader;
use super::grpc::{AnswerReader, Method};
use super::usage::UsageReader;

/// No more is unpacked of an answer than this: nobody generates as much, and what does is not an answer.
const MOST_UNPACKED: usize = 16 * 1024 * 1024;

/// An answer under way.
#[derive(Debug)]
pub struct Meter {
    coding: Coding,
}

/// How its bytes are packed.
#[derive(Debug)]
enum Coding {
    Identity(Box<Reader>),
    Gzip(Box<GzDecoder<Unpacked>>),
    /// Messages of gRPC, of which each may be packed.
    Messages(Box<AnswerReader>),
    /// In a way that is not understood, or no longer.
    Other,
}

#[derive(Debug)]
enum Reader {
    Whole(UsageReader),
    Events(EventReader, UsageReader),
}

/// What comes out of a packed answer.
#[derive(Debug)]
struct Unpacked {
    reader: Reader,
    bytes: usize,
}

impl Meter {
    /// For an answer with this head.
    pub fn new(headers: &HeaderMap) -> Self {
        let value = |name: HeaderName| headers.get(name).map_or(&b""[..], HeaderValue::as_bytes);
        let kind = value(CONTENT_TYPE);
        let streams = kind.get(..17).is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/event-stream"));
        let reader = if streams {
            Reader::Events(EventReader::default(), UsageReader::of_events())
        } else {
            Reader::Whole(UsageReader::default())
        };
        let coding = match value(CONTENT_ENCODING) {
            b"" | b"identity" => Coding::Identity(Box::new(reader)),
            b"gzip" | b"x-gzip" => Coding::Gzip(Box::new(GzDecoder::new(Unpacked { reader, bytes: 0 }))),
            _ => Coding::Other,
        };
        Self { coding }
    }

    /// For an answer with this head to a call of gRPC.
    pub fn of_call(method: Method, headers: &HeaderMap) -> Self {
        Self { coding: Coding::Messages(Box::new(AnswerReader::new(method, headers))) }
    }

    /// Takes the next bytes. The last place in them where an event or a message ended, if one did and could be seen.
    pub fn feed(&mut self, data: &[u8]) -> Option<usize> {
        match &mut self.coding {
            Coding::Identity(reader) => reader.feed(data),
            Coding::Gzip(decoder) => {
                if decoder.write_all(data).is_err() {
                    self.coding = Coding::Other;
                }
                None
            }
            Coding::Messages(messages) => messages.feed(data),
            Coding::Other => None,
        }
    }

    /// What was used so far, of a prompt of `input` tokens where the engine does not say. None: nobody knows.
    pub fn tokens(&mut self, input: u32) -> Option<Tokens> {
        if let Coding::Messages(messages) = &self.coding {
            return messages.tokens(input);
        }
        self.reader().map(|reader| reader.usage().tokens(input))
    }

    /// Whether it is packed: nothing can be put into it. Behind messages a status can stand, packed or not.
    pub fn is_packed(&self) -> bool {
        !matches!(self.coding, Coding::Identity(_) | Coding::Messages(_))
    }

    /// Whether it comes in events or messages.
    pub fn is_stream(&self) -> bool {
        match &self.coding {
            Coding::Messages(messages) => messages.is_stream(),
            _ => matches!(self.seen(), Some(Reader::Events(..))),
        }
    }

    fn seen(&self) -> Option<&Reader> {
        match &self.coding {
            Coding::Identity(reader) => Some(reader),
            Coding::Gzip(decoder) => Some(&decoder.get_ref().reader),
            Coding::Messages(_) | Coding::Other => None,
        }
    }

    fn reader(&mut self) -> Option<&Reader> {
        // What it has unpacked so far is handed on.
        if let Coding::Gzip(decoder) = &mut self.coding
            && decoder.flush().is_err()
        {
            self.coding = Coding::Other;
        }
        self.seen()
    }
}

impl Reader {
    fn feed(&mut self, data: &[u8]) -> Option<usize> {
        match self {
            Self::Whole(usage) => {
                usage.feed(data);
                None
            }
            Self::Events(events, usage) => events.feed(data, usage),
        }
    }

    fn usage(&self) -> &UsageReader {
        match self {
            Self::Whole(usage) | Self::Events(_, usage) => usage,
        }
    }
}

impl Write for Unpacked {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.bytes += data.len();
        if self.bytes > MOST_UNPACKED {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.reader.feed(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
