//! What the requests of a call ask for.

use super::Method;
use super::frames::{FrameReader, Messages};
use super::tensor::{Found, Holds, Tensors};
use super::wire::{Content, Reader, Visitor};
use crate::tokens::estimate;
use crate::tokens::json::Chars;
use crate::tokens::prompt::{Prompt, PromptReader};

/// The field of the tensors' bytes.
const RAW: u32 = 7;

/// What is kept of a model's name.
const LONGEST_MODEL: usize = 256;

/// Reads the requests of a call, cut anywhere.
#[derive(Debug)]
pub struct RequestReader {
    frames: FrameReader,
    inbox: Inbox,
}

#[derive(Debug)]
struct Inbox {
    wire: Reader,
    asked: Asked,
    /// Bytes of the message, and how many of them were read.
    length: u64,
    read: u64,
    is_packed: bool,
    /// Messages that ended.
    messages: u32,
    /// Tokens of their prompts.
    before: u32,
}

/// What one message asks for.
#[derive(Debug)]
struct Asked {
    method: Method,
    tensors: Tensors,
    said: Said,
}

#[derive(Debug, Default)]
struct Said {
    model: Vec<u8>,
    chars: Chars,
    tokens: u64,
    media: u64,
    max_output: Option<u32>,
    copies: u32,
    stream: bool,
    settings: Option<Box<PromptReader>>,
}

impl RequestReader {
    /// Of a call of this method.
    pub fn new(method: Method) -> Self {
        Self {
            frames: FrameReader::default(),
            inbox: Inbox {
                wire: Reader::default(),
                asked: Asked { method, tensors: Tensors::new(RAW), said: Said::default() },
                length: 0,
                read: 0,
                is_packed: false,
                messages: 0,
                before: 0,
            },
        }
    }

    /// Reads the next bytes of the call.
    pub fn feed(&mut self, data: &[u8]) {
        self.frames.feed(data, &mut self.inbox);
    }

    /// More of this message would tell no more.
    pub fn has_enough(&self) -> bool {
        self.inbox.messages > 0 || self.inbox.is_packed || self.frames.is_lost()
    }

    /// Tokens of the prompts of all messages so far.
    pub fn input(&self) -> u32 {
        self.inbox.before.saturating_add(if self.frames.is_between() { 0 } else { self.inbox.input() })
    }

    /// What there is to know of the first message. What was not read of it is taken to be like what was.
    pub fn finish(self) -> Prompt {
        let input = self.input();
        let said = self.inbox.asked.said;
        let settings = said.settings.map(|settings| settings.finish(None)).unwrap_or_default();
        Prompt {
            model: str::from_utf8(&said.model)
                .ok()
                .filter(|model| !model.is_empty() && model.len() <= LONGEST_MODEL)
                .map(Box::from),
            max_output: said.max_output.or(settings.max_output),
            answers: said.copies.max(settings.answers).max(1),
            stream: said.stream,
            input,
            whole: self.inbox.messages > 0 && !self.inbox.is_packed,
            ..Prompt::default()
        }
    }
}

impl Inbox {
    /// Tokens of the prompt of the message that is being read.
    fn input(&self) -> u32 {
        let said = &self.asked.said;
        let read = estimate::prompt(said.chars, said.tokens, said.media);
        if self.is_packed || (read == 0 && self.read < self.length) {
            estimate::unread(self.length)
        } else {
            estimate::scaled(read, self.length, self.read)
        }
    }
}

impl Messages for Inbox {
    fn begin(&mut self, is_packed: bool, length: u32) {
        (self.is_packed, self.length, self.read) = (is_packed, u64::from(length), 0);
        self.wire.begin(Some(u64::from(length)));
        self.asked.tensors.reset();
        self.asked.said = Said::default();
    }

    fn data(&mut self, piece: &[u8]) {
        self.read += piece.len() as u64;
        if !self.is_packed {
            self.wire.feed(piece, &mut self.asked);
        }
    }

    fn end(&mut self) {
        self.before = self.before.saturating_add(self.input());
        self.messages = self.messages.saturating_add(1);
    }
}

impl Visitor for Asked {
    fn content(&self, path: &[u32]) -> Content {
        match (self.method, path) {
            (Method::Infer | Method::StreamInfer, [1]) | (Method::Generate, [3]) => Content::Bytes,
            (Method::Infer | Method::StreamInfer, path) => self.tensors.content(path),
            (Method::Generate | Method::Embed, [2 | 4]) => Content::Message,
            (Method::Generate | Method::Embed, [2, 2]) => Content::Numbers,
            (Method::Generate | Method::Embed, _) => Content::Skip,
        }
    }

    fn begin(&mut self, path: &[u32]) {
        if matches!(self.method, Method::Infer | Method::StreamInfer) {
            self.tensors.begin(path, &mut self.said);
        }
    }

    fn number(&mut self, path: &[u32], number: u64) {
        let said = &mut self.said;
        match (self.method, path) {
            (Method::Infer | Method::StreamInfer, path) => self.tensors.number(path, number, said),
            (_, [2, 2]) => said.tokens += 1,
            (Method::Generate, [4, 8]) => said.max_output = Some(clamp(number)),
            (Method::Generate, [4, 15]) => said.copies = clamp(number),
            (Method::Generate, [5]) => said.stream = number != 0,
            (Method::Generate | Method::Embed, _) => {}
        }
    }

    fn bytes(&mut self, path: &[u32], piece: &[u8]) {
        let said = &mut self.said;
        match (self.method, path) {
            (Method::Infer | Method::StreamInfer, [1]) => {
                let room = (LONGEST_MODEL + 1).saturating_sub(said.model.len());
                said.model.extend_from_slice(&piece[..piece.len().min(room)]);
            }
            (Method::Infer | Method::StreamInfer, path) => self.tensors.bytes(path, piece, said),
            (Method::Generate, [3]) => said.chars.add(Chars::of(piece)),
            (Method::Generate | Method::Embed, _) => {}
        }
    }

    fn end(&mut self, path: &[u32]) {
        if matches!(self.method, Method::Infer | Method::StreamInfer) {
            self.tensors.end(path, &self.said);
        }
    }
}

impl Found for Said {
    /// By the names that vLLM's and TensorRT-LLM's backends of Triton give to theirs.
    fn holds(&self, name: &str, is_text: bool) -> Holds {
        match name {
            "sampling_parameters" | "sampling_params" if is_text => Holds::Settings,
            "image" | "multi_modal_data" if is_text => Holds::Media,
            _ if is_text => Holds::Text,
            name if is_longest(name) => Holds::Most,
            name if name.ends_with("ids") => Holds::Tokens,
            _ => Holds::Other,
        }
    }

    fn parameter(&mut self, name: &str, number: u64) {
        if is_longest(name) {
            self.max_output = Some(clamp(number));
        }
    }

    fn element(&mut self, holds: Holds) {
        if holds == Holds::Media {
            self.media += 1;
        }
    }

    fn text(&mut self, holds: Holds, piece: &[u8]) {
        match holds {
            Holds::Text => self.chars.add(Chars::of(piece)),
            Holds::Settings => self.settings.get_or_insert_default().feed(piece),
            _ => {}
        }
    }

    fn number(&mut self, holds: Holds, number: u64) {
        match holds {
            Holds::Tokens => self.tokens += 1,
            Holds::Most => self.max_output = Some(clamp(number)),
            _ => {}
        }
    }
}

fn is_longest(name: &str) -> bool {
    matches!(name, "max_tokens" | "max_new_tokens" | "max_completion_tokens" | "request_output_len")
}

fn clamp(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
