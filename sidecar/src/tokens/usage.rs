//! What an engine's answer says about tokens: its `usage`, and the text that it generated.

use tidegate_core::Tokens;

use super::estimate;
use super::json::{Chars, Level, Name, Reader, Value, Visitor};

/// The dialects have one table: their names do not contradict each other.
fn name_of(key: &[u8]) -> Name {
    match key {
        b"usage" | b"meta_info" => USAGE,
        b"message" => INNER,
        b"response" => RESPONSE,
        b"delta" => INNER_TEXT,
        b"prompt_tokens" | b"input_tokens" => INPUT,
        b"completion_tokens" | b"output_tokens" | b"generated_tokens" => OUTPUT,
        b"prompt_tokens_details" | b"input_tokens_details" => DETAILS,
        b"details" => GENERATED,
        b"cached_tokens" => CACHED,
        b"cache_read_input_tokens" => CACHE_READ,
        b"cache_creation_input_tokens" => CACHE_WRITE,
        b"choices" => CHOICES,
        b"content" | b"text" | b"reasoning_content" | b"reasoning" | b"refusal" | b"thinking"
        | b"partial_json" | b"text_output" => TEXT,
        b"tool_calls" | b"function" | b"name" | b"arguments" => CALLS,
        b"token" => TOKEN,
        b"generated_text" => WHOLE,
        b"outputs" | b"output" => OUTPUTS,
        b"data" => DATA,
        b"num_input_tokens" => PROMPT_COUNT,
        b"num_output_tokens" => PIECE_COUNT,
        _ => 0,
    }
}

const USAGE: Name = 1;
/// An object that has the rest in it: of an event of Anthropic's, or of a choice.
const INNER: Name = 2;
/// The same, or the text itself.
const INNER_TEXT: Name = 3;
const INPUT: Name = 4;
const OUTPUT: Name = 5;
const DETAILS: Name = 6;
const GENERATED: Name = 7;
const CACHED: Name = 8;
const CACHE_READ: Name = 9;
const CACHE_WRITE: Name = 10;
const CHOICES: Name = 11;
const TEXT: Name = 12;
const CALLS: Name = 13;
const TOKEN: Name = 14;
/// The whole text, which in a stream was there in pieces before.
const WHOLE: Name = 15;
const OUTPUTS: Name = 16;
const DATA: Name = 17;
const RESPONSE: Name = 18;
/// What Triton's backends of vLLM and TensorRT-LLM call theirs: of the prompt, and of each piece of an answer.
const PROMPT_COUNT: Name = 19;
const PIECE_COUNT: Name = 20;

/// A tensor of `KServe`, whose name stands before its data or behind.
#[derive(Debug, Default)]
struct Tensor {
    /// Which of these counts it has, once its name is there.
    name: Option<Name>,
    /// The sum of its data, which came before its name.
    held: Option<u32>,
}

/// Reads an answer, or the events of one, each a JSON value.
#[derive(Debug, Default)]
pub struct UsageReader {
    json: Reader,
    found: Found,
}

/// What was found so far.
#[derive(Debug, Default)]
struct Found {
    input: Option<u32>,
    output: Option<u32>,
    cached: Option<u32>,
    cache_read: Option<u32>,
    cache_write: Option<u32>,
    /// As the engine says of each piece.
    generated: Option<u32>,
    tensor: Tensor,
    chars: Chars,
    /// It comes in events.
    streams: bool,
    /// Events of OpenAI's responses, which say in the end once more what came in pieces.
    in_deltas: bool,
}

impl UsageReader {
    /// For an answer that comes in events.
    pub fn of_events() -> Self {
        Self { json: Reader::default(), found: Found { streams: true, ..Found::default() } }
    }

    /// Reads more of the value.
    pub fn feed(&mut self, data: &[u8]) {
        self.json.feed(data, &mut self.found);
    }

    /// The next value begins.
    pub fn next(&mut self) {
        self.json.reset();
    }

    /// Tokens of the answer so far: what the engine says, else an estimate of its text.
    pub fn output(&self) -> u32 {
        self.found.output.or(self.found.generated).unwrap_or_else(|| estimate::text(self.found.chars))
    }

    /// Whether the engine said how many tokens its answer has.
    pub fn is_exact(&self) -> bool {
        self.found.output.or(self.found.generated).or(self.found.input).is_some()
    }

    /// What was used so far, of a prompt of `input` tokens where the engine does not say.
    pub fn tokens(&self, input: u32) -> Tokens {
        let found = &self.found;
        // OpenAI counts what was cached among the prompt, Anthropic beside it.
        let cached = found.cached.unwrap_or_default();
        let computed = found.input.map(|all| all.saturating_sub(cached));
        let beside = found.cache_write.unwrap_or_default();
        Tokens {
            input: computed.unwrap_or(input).saturating_add(beside),
            cached: cached.saturating_add(found.cache_read.unwrap_or_default()),
            output: self.output(),
        }
    }
}

impl Found {
    /// A field of the usage. Anthropic's streams begin with a count of the answer that is none yet.
    fn usage(&mut self, path: &[Level], name: Name, value: Value<'_>) {
        let Value::Number(number) = value else { return };
        // Casts saturate.
        let number = Some(number as u32);
        match name {
            INPUT => self.input = number,
            OUTPUT if self.streams && is_begin(path) => {}
            OUTPUT => self.output = number,
            CACHED => self.cached = number,
            CACHE_READ => self.cache_read = number,
            CACHE_WRITE => self.cache_write = number,
            _ => {}
        }
    }

    /// A count of Triton's.
    fn count(&mut self, name: Name, number: u32) {
        match name {
            PROMPT_COUNT => self.input = Some(number),
            PIECE_COUNT => self.generated = Some(self.generated.unwrap_or_default().saturating_add(number)),
            _ => {}
        }
    }
}

/// Whether it stands in Anthropic's `message_start`.
fn is_begin(path: &[Level]) -> bool {
    path.first() == Some(&Level::Key(INNER))
}

/// Whether a string that stands there was generated.
fn is_generated(path: &[Level], streams: bool) -> bool {
    use Level::{Item, Key};
    let anywhere = matches!(
        path,
        // Chat and completions.
        [Key(CHOICES), Item, Key(TEXT)]
            | [Key(CHOICES), Item, Key(INNER | INNER_TEXT), Key(TEXT)]
            | [Key(CHOICES), Item, Key(INNER | INNER_TEXT), Key(CALLS), .., Key(CALLS)]
            // Events of Anthropic, responses, Triton and TGI.
            | [Key(INNER_TEXT | TEXT)]
            | [Key(INNER_TEXT | TOKEN), Key(TEXT)]
            // `KServe`.
            | [Key(OUTPUTS), Item, Key(DATA), ..]
    );
    // Of Anthropic, responses and TGI; in their streams it was there before.
    let whole = matches!(
        path,
        [Key(TEXT), Item, Key(TEXT)]
            | [Key(OUTPUTS), Item, Key(TEXT), Item, Key(TEXT)]
            | [Item, Key(TEXT | WHOLE)]
            | [Key(WHOLE)]
    );
    anywhere || (whole && !streams)
}

impl Visitor for Found {
    fn name(&self, key: &[u8]) -> Name {
        name_of(key)
    }

    fn list(&mut self, path: &[Level]) {
        use Level::{Item, Key};
        if matches!(path, [Key(OUTPUTS), Item, Key(DATA)]) && self.tensor.name.is_none() {
            self.tensor.held = Some(0);
        }
    }

    fn value(&mut self, path: &[Level], value: Value<'_>) {
        use Level::{Item, Key};
        match (path, value) {
            ([Key(USAGE), Key(name)] | [Key(INNER | RESPONSE), Key(USAGE), Key(name)], value) => {
                self.usage(path, *name, value);
            }
            (
                [Key(USAGE), Key(DETAILS), Key(CACHED)]
                | [Key(INNER | RESPONSE), Key(USAGE), Key(DETAILS), Key(CACHED)],
                value,
            ) => self.usage(&[], CACHED, value),
            ([Key(GENERATED), Key(OUTPUT)], value) => self.usage(&[], OUTPUT, value),
            // Casts saturate.
            (
                [Key(name @ (PROMPT_COUNT | PIECE_COUNT))] | [Key(name @ (PROMPT_COUNT | PIECE_COUNT)), Item],
                Value::Number(number),
            ) => self.count(*name, number as u32),
            ([Key(OUTPUTS), Item, Key(CALLS)], Value::Text { short, .. }) => {
                let name = name_of(short.unwrap_or_default());
                match self.tensor.held.take() {
                    Some(sum) => self.count(name, sum),
                    None => self.tensor.name = Some(name),
                }
            }
            ([Key(OUTPUTS), Item, Key(DATA), ..], Value::Number(number)) => {
                match (self.tensor.name, &mut self.tensor.held) {
                    (Some(name), _) => self.count(name, number as u32),
                    (None, Some(sum)) => *sum = sum.saturating_add(number as u32),
                    (None, None) => {}
                }
            }
            ([Key(TEXT)], Value::Text { .. }) if self.in_deltas => {}
            (path, Value::Text { chars, .. }) if is_generated(path, self.streams) => {
                self.in_deltas |= path == [Key(INNER_TEXT)];
                self.chars.add(chars);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
