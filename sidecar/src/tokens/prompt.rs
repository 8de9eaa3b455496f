//! What a request asks of its engine, as far as the begin of its body tells.

use super::estimate;
use super::json::{Chars, Level, Name, Reader, Value, Visitor};

/// The dialects of OpenAI (chat, completions, responses, embeddings), Anthropic (messages), Triton (generate), `KServe`
/// v2 (infer), TGI and `SGLang` differ in their names and not in their shape; one table serves them all.
fn name_of(key: &[u8]) -> Name {
    match key {
        b"model" => MODEL,
        b"service_tier" => SERVICE_TIER,
        b"max_tokens" | b"max_completion_tokens" | b"max_output_tokens" | b"max_new_tokens" => MOST,
        b"n" | b"best_of" => COPIES,
        b"stream" => STREAM,
        b"stream_options" => STREAM_OPTIONS,
        b"include_usage" => INCLUDE_USAGE,
        b"parameters" | b"sampling_params" => PARAMETERS,
        b"messages" | b"system" | b"instructions" | b"text_input" | b"text" | b"suffix" | b"query"
        | b"documents" | b"content" => TEXT,
        b"prompt" | b"input" | b"input_ids" => PROMPTS,
        b"inputs" => INPUTS,
        b"tools" | b"functions" => TOOLS,
        b"name" => NAME,
        b"data" => DATA,
        b"url" | b"image_url" | b"file_data" => URL,
        _ => 0,
    }
}

const MODEL: Name = 1;
const MOST: Name = 2;
const COPIES: Name = 3;
const STREAM: Name = 4;
const STREAM_OPTIONS: Name = 5;
const INCLUDE_USAGE: Name = 6;
const PARAMETERS: Name = 7;
/// A field whose strings are prompt.
const TEXT: Name = 8;
/// A prompt, several, or the numbers of their tokens.
const PROMPTS: Name = 9;
/// The same, or the tensors of `KServe` v2.
const INPUTS: Name = 10;
/// What the model may call: its names are prompt too.
const TOOLS: Name = 11;
const NAME: Name = 12;
const DATA: Name = 13;
const URL: Name = 14;
const SERVICE_TIER: Name = 15;

/// What a request asks for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Prompt {
    /// The model. When it is there several times, the last one, as parsers do.
    pub model: Option<Box<str>>,
    /// What is asked of OpenAI as `service_tier`.
    pub service_tier: Option<Box<str>>,
    /// Where the model's name stands in the body, quotes included: from and to.
    pub model_at: Option<(u64, u64)>,
    /// Longest answer, in tokens.
    pub max_output: Option<u32>,
    /// Answers that it asks for: alternatives of each prompt, and prompts.
    pub answers: u32,
    /// It wants the answer as it is generated.
    pub stream: bool,
    /// It wants the usage at the end of a stream.
    pub include_usage: bool,
    /// Tokens of the prompt, estimated.
    pub input: u32,
    /// It was understood to its end.
    pub whole: bool,
}

/// Reads the begin of a body.
#[derive(Debug, Default)]
pub struct PromptReader {
    json: Reader,
    found: Found,
    read: u64,
}

#[derive(Debug, Default)]
struct Found {
    model: Option<Box<str>>,
    model_at: Option<(u64, u64)>,
    service_tier: Option<Box<str>>,
    max_output: Option<u32>,
    copies: u32,
    prompts: u32,
    stream: bool,
    include_usage: bool,
    chars: Chars,
    /// Tokens that are written as numbers.
    tokens: u64,
    /// Images and the like.
    media: u64,
    /// The tensor of `KServe` v2 that is being read.
    tensor: Tensor,
}

/// What the numbers of a tensor are.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Tensor {
    /// Neither.
    #[default]
    Other,
    /// Tokens.
    Tokens,
    /// The length of the answer.
    Most,
}

impl PromptReader {
    /// Reads the next bytes of the body.
    pub fn feed(&mut self, data: &[u8]) {
        self.read += data.len() as u64;
        self.json.feed(data, &mut self.found);
    }

    /// More would tell no more.
    pub fn has_enough(&self) -> bool {
        self.json.is_over() || self.json.is_lost()
    }

    /// What there is to know of a body of `length` bytes, none when nobody says. What was not read is taken to be like
    /// what was.
    pub fn finish(mut self, length: Option<u64>) -> Prompt {
        let whole = self.json.is_over();
        self.json.finish(&mut self.found);
        let found = self.found;
        let length = length.unwrap_or(self.read).max(self.read);
        let input = if whole {
            estimate::prompt(found.chars, found.tokens, found.media)
        } else if found.chars == Chars::default() && found.tokens == 0 {
            estimate::unread(length)
        } else {
            let read = estimate::prompt(found.chars, found.tokens, found.media);
            estimate::scaled(read, length, self.read)
        };
        Prompt {
            model: found.model,
            model_at: found.model_at,
            service_tier: found.service_tier,
            max_output: found.max_output,
            answers: found.copies.max(1).saturating_mul(found.prompts.max(1)),
            stream: found.stream,
            include_usage: found.include_usage,
            input,
            whole,
        }
    }
}

impl Found {
    /// A field at the top, or among parameters.
    fn setting(&mut self, name: Name, value: Value<'_>) {
        match (name, value) {
            (MOST, Value::Number(number)) => self.max_output = Some(whole(number)),
            (COPIES, Value::Number(number)) => self.copies = self.copies.max(whole(number)),
            (STREAM, Value::Bool(stream)) => self.stream = stream,
            _ => {}
        }
    }

    fn model(&mut self, value: Value<'_>) {
        if let Value::Text { short, at, .. } = value {
            self.model = short.and_then(sound);
            self.model_at = self.model.as_ref().map(|_| at);
        }
    }

    fn prompt(&mut self, path: &[Level], value: Value<'_>) {
        let field = path.last();
        match value {
            Value::Text { .. } if matches!(field, Some(Level::Key(URL | DATA))) => self.media += 1,
            Value::Text { chars, short, .. } => {
                self.chars.add(chars);
                if field == Some(&Level::Key(NAME)) && path[0] == Level::Key(INPUTS) {
                    self.tensor = Tensor::named(short.unwrap_or_default());
                }
                if path.len() == 2 && field == Some(&Level::Item) && path[0] == Level::Key(PROMPTS) {
                    self.prompts = self.prompts.saturating_add(1);
                }
            }
            Value::Number(number) => self.number(path, number),
            Value::Bool(_) | Value::Null => {}
        }
    }

    fn number(&mut self, path: &[Level], number: f64) {
        let in_tensor = path.contains(&Level::Key(DATA));
        match (path[0], self.tensor) {
            (Level::Key(PROMPTS), _) => self.tokens += 1,
            (Level::Key(INPUTS), Tensor::Tokens) if in_tensor => self.tokens += 1,
            (Level::Key(INPUTS), Tensor::Most) if in_tensor => self.max_output = Some(whole(number)),
            _ => {}
        }
    }
}

impl Tensor {
    /// By the names that TensorRT-LLM and vLLM give to theirs.
    fn named(name: &[u8]) -> Self {
        match name {
            b"max_tokens" | b"max_new_tokens" | b"request_output_len" => Self::Most,
            name if name.ends_with(b"ids") => Self::Tokens,
            _ => Self::Other,
        }
    }
}

/// A string, unless who wrote it made a mistake.
fn sound(text: &[u8]) -> Option<Box<str>> {
    std::str::from_utf8(text).ok().map(Box::from)
}

impl Visitor for Found {
    fn name(&self, key: &[u8]) -> Name {
        name_of(key)
    }

    fn key(&mut self, path: &[Level], chars: Chars) {
        if path.first() == Some(&Level::Key(TOOLS)) {
            self.chars.add(chars);
        }
    }

    fn list(&mut self, path: &[Level]) {
        // A list of prompts, each the numbers of its tokens.
        if path == [Level::Key(PROMPTS), Level::Item] {
            self.prompts = self.prompts.saturating_add(1);
        }
    }

    fn value(&mut self, path: &[Level], value: Value<'_>) {
        match path {
            [Level::Key(MODEL)] => self.model(value),
            [Level::Key(SERVICE_TIER)] => {
                if let Value::Text { short, .. } = value {
                    self.service_tier = short.and_then(sound);
                }
            }
            [Level::Key(STREAM_OPTIONS), Level::Key(INCLUDE_USAGE)] => {
                self.include_usage = value == Value::Bool(true);
            }
            [Level::Key(name)] | [Level::Key(PARAMETERS), Level::Key(name)]
                if matches!(*name, MOST | COPIES | STREAM) =>
            {
                self.setting(*name, value);
            }
            [Level::Key(TEXT | PROMPTS | INPUTS | TOOLS), ..] => self.prompt(path, value),
            _ => {}
        }
    }
}

/// A count that a client wrote; nonsense is none.
fn whole(number: f64) -> u32 {
    // Casts saturate, and what is no number is 0.
    number as u32
}

#[cfg(test)]
mod tests;
