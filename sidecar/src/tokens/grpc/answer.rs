//! What the answers of a call say about tokens: how many the engine says, else those that came, as text or as numbers.

use std::io::{self, Write};

use flate2::write::GzDecoder;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use tidegate_core::Tokens;

use super::Method;
use super::frames::{FrameReader, Messages};
use super::tensor::{Found, Holds, Tensors};
use super::wire::{Content, Reader, Visitor};
use crate::tokens::estimate;
use crate::tokens::json::Chars;

/// How the messages that are packed are packed.
const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// The field of the tensors' bytes.
const RAW: u32 = 6;

/// No more is unpacked of a call than this.
const MOST_UNPACKED: u64 = 16 * 1024 * 1024;

/// Reads the answers of a call, cut anywhere.
#[derive(Debug)]
pub struct AnswerReader {
    method: Method,
    frames: FrameReader,
    inbox: Inbox,
}

#[derive(Debug)]
struct Inbox {
    is_gzip: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    Plain(Box<Opened>),
    Gzip(Box<GzDecoder<Box<Opened>>>),
    /// A message could not be read: nobody knows what there was.
    Lost,
}

/// Messages as they were before they were packed.
#[derive(Debug)]
struct Opened {
    wire: Reader,
    answers: Answers,
    unpacked: u64,
}

#[derive(Debug)]
struct Answers {
    method: Method,
    tensors: Tensors,
    counted: Counted,
}

/// What was found so far.
#[derive(Debug, Default)]
struct Counted {
    /// As the engine says of the whole answer, and of its prompt.
    output: Option<u32>,
    input: Option<u32>,
    cached: Option<u32>,
    /// As it says of each piece.
    generated: Option<u64>,
    /// Tokens as numbers.
    tokens: u64,
    chars: Chars,
}

impl AnswerReader {
    /// Of a call of this method, answered with this head.
    pub fn new(method: Method, headers: &HeaderMap) -> Self {
        let opened = Opened {
            wire: Reader::default(),
            answers: Answers { method, tensors: Tensors::new(RAW), counted: Counted::default() },
            unpacked: 0,
        };
        let is_gzip = headers.get(ENCODING).map(HeaderValue::as_bytes) == Some(b"gzip");
        Self {
            method,
            frames: FrameReader::default(),
            inbox: Inbox { is_gzip, state: State::Plain(Box::new(opened)) },
        }
    }

    /// Whether it can end before it is whole.
    pub fn is_stream(&self) -> bool {
        self.method.streams()
    }

    /// Takes the next bytes. The last place in them where a message ended, if one did.
    pub fn feed(&mut self, data: &[u8]) -> Option<usize> {
        self.frames.feed(data, &mut self.inbox)
    }

    /// What was used so far, of a prompt of `input` tokens where the engine does not say. None: nobody knows.
    pub fn tokens(&self, input: u32) -> Option<Tokens> {
        if self.frames.is_lost() {
            return None;
        }
        let counted = match &self.inbox.state {
            State::Plain(opened) => &opened.answers.counted,
            State::Gzip(decoder) => &decoder.get_ref().answers.counted,
            State::Lost => return None,
        };
        let cached = counted.cached.unwrap_or_default();
        let computed = counted.input.map(|all| all.saturating_sub(cached));
        Some(Tokens { input: computed.unwrap_or(input), cached, output: counted.output() })
    }
}

impl Counted {
    /// Where an answer has its tokens as numbers and as text, the text is what was generated: the numbers begin with
    /// those of the prompt in some engines.
    fn output(&self) -> u32 {
        let text = estimate::text(self.chars);
        let came = if text > 0 { text } else { clamp(self.tokens) };
        self.output.max(self.generated.map(clamp)).unwrap_or(came)
    }

    fn generates(&mut self, tokens: u64) {
        self.generated = Some(self.generated.unwrap_or_default().saturating_add(tokens));
    }
}

impl Messages for Inbox {
    fn begin(&mut self, is_packed: bool, length: u32) {
        self.state = match std::mem::replace(&mut self.state, State::Lost) {
            State::Plain(mut opened) if !is_packed => {
                opened.begin(Some(u64::from(length)));
                State::Plain(opened)
            }
            State::Plain(mut opened) if self.is_gzip => {
                opened.begin(None);
                State::Gzip(Box::new(GzDecoder::new(opened)))
            }
            State::Plain(_) | State::Gzip(_) | State::Lost => State::Lost,
        };
    }

    fn data(&mut self, piece: &[u8]) {
        match &mut self.state {
            State::Plain(opened) => opened.feed(piece),
            State::Gzip(decoder) => {
                if decoder.write_all(piece).is_err() {
                    self.state = State::Lost;
                }
            }
            State::Lost => {}
        }
    }

    fn end(&mut self) {
        self.state = match std::mem::replace(&mut self.state, State::Lost) {
            State::Gzip(decoder) => decoder.finish().map_or(State::Lost, State::Plain),
            other => other,
        };
    }
}

impl Opened {
    fn begin(&mut self, length: Option<u64>) {
        self.wire.begin(length);
        self.answers.tensors.reset();
    }

    fn feed(&mut self, data: &[u8]) {
        self.wire.feed(data, &mut self.answers);
    }
}

impl Write for Box<Opened> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.unpacked += data.len() as u64;
        if self.unpacked > MOST_UNPACKED {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.feed(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An answer of `ModelStreamInfer` stands in field 2, beside an error.
fn inner(method: Method, path: &[u32]) -> Option<&[u32]> {
    match (method, path) {
        (Method::Infer, path) | (Method::StreamInfer, [2, path @ ..]) => Some(path),
        _ => None,
    }
}

impl Visitor for Answers {
    fn content(&self, path: &[u32]) -> Content {
        match inner(self.method, path) {
            Some([]) => Content::Message,
            Some(path) => self.tensors.content(path),
            None if self.method != Method::Generate => Content::Skip,
            None => match path {
                // A piece, or the end.
                [1 | 2] => Content::Message,
                // All tokens again, at the end of a stream, say nothing new.
                [1, 1] => Content::Numbers,
                _ => Content::Skip,
            },
        }
    }

    fn begin(&mut self, path: &[u32]) {
        if let Some(path) = inner(self.method, path) {
            self.tensors.begin(path, &mut self.counted);
        }
    }

    fn number(&mut self, path: &[u32], number: u64) {
        let counted = &mut self.counted;
        if let Some(path) = inner(self.method, path) {
            self.tensors.number(path, number, counted);
        } else if self.method == Method::Generate {
            match path {
                [1, 1] => counted.generates(1),
                [1, 3] | [2, 4] => counted.output = counted.output.max(Some(clamp(number))),
                [1, 2] | [2, 3] => counted.input = Some(clamp(number)),
                [1, 4] | [2, 5] => counted.cached = Some(clamp(number)),
                _ => {}
            }
        }
    }

    fn bytes(&mut self, path: &[u32], piece: &[u8]) {
        if let Some(path) = inner(self.method, path) {
            self.tensors.bytes(path, piece, &mut self.counted);
        }
    }

    fn end(&mut self, path: &[u32]) {
        if let Some(path) = inner(self.method, path) {
            self.tensors.end(path, &self.counted);
        }
    }
}

impl Found for Counted {
    /// By the names that vLLM's and TensorRT-LLM's backends of Triton give to theirs.
    fn holds(&self, name: &str, is_text: bool) -> Holds {
        match name {
            "finish_reason" => Holds::Other,
            _ if is_text => Holds::Text,
            "num_output_tokens" => Holds::Generated,
            "num_input_tokens" => Holds::Prompt,
            name if name.ends_with("ids") => Holds::Tokens,
            _ => Holds::Other,
        }
    }

    fn parameter(&mut self, name: &str, number: u64) {
        let number = clamp(number);
        match name {
            "completion_tokens" | "output_tokens" | "generated_tokens" => self.output = Some(number),
            "prompt_tokens" | "input_tokens" => self.input = Some(number),
            "cached_tokens" => self.cached = Some(number),
            _ => {}
        }
    }

    fn element(&mut self, _holds: Holds) {}

    fn text(&mut self, holds: Holds, piece: &[u8]) {
        if holds == Holds::Text {
            self.chars.add(Chars::of(piece));
        }
    }

    fn number(&mut self, holds: Holds, number: u64) {
        match holds {
            Holds::Generated => self.generates(number),
            Holds::Prompt => self.input = Some(clamp(number)),
            Holds::Tokens => self.tokens += 1,
            _ => {}
        }
    }
}

fn clamp(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
