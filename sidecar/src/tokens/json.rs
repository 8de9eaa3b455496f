//! Reads JSON as it passes, cut anywhere, without building anything of it: values are shown to a visitor together with
//! where they stand, and forgotten.
//!
//! It is a reader of what others will parse, not a judge of it: what it cannot follow ends the reading, and never the
//! request. Strings are decoded as RFC 8259 says, since a name can be written with escapes too.

mod text;

pub use text::Chars;
use text::{Text, plain};

/// Deeper values are not followed: no interface of an inference engine nests nearly as deep.
const MAX_DEPTH: usize = 96;

/// Longest bare value, a number or a word, that is understood.
const MAX_BARE: usize = 32;

/// A key that a visitor knows, by a number that it gives; 0 is any other.
pub type Name = u8;

/// Where a value stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// In an object, behind this key.
    Key(Name),
    /// In an array.
    Item,
}

/// A value that is neither object nor array.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// A string.
    Text {
        /// How many characters of which kind it has.
        chars: Chars,
        /// All of it, when it is short; UTF-8, if who wrote it made no mistake.
        short: Option<&'a [u8]>,
        /// Where it begins and ends, quotes included, counted from the first byte that was read.
        at: (u64, u64),
    },
    /// A number, or what is none in JSON but is for some.
    Number(f64),
    /// `true` or `false`.
    Bool(bool),
    /// `null`, or a word that means nothing.
    Null,
}

/// Is shown what is read.
pub trait Visitor {
    /// The number of a key, 0 when it does not matter.
    fn name(&self, key: &[u8]) -> Name;

    /// A key of an object that stands at `path`.
    fn key(&mut self, _path: &[Level], _chars: Chars) {}

    /// An array begins that stands at `path`.
    fn list(&mut self, _path: &[Level]) {}

    /// A value that stands at `path`.
    fn value(&mut self, path: &[Level], value: Value<'_>);
}

/// The reader.
#[derive(Debug, Default)]
pub struct Reader {
    path: Vec<Level>,
    state: State,
    text: Text,
    bare: Vec<u8>,
    /// Bytes read.
    at: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A value has to come, or, of an array, its end.
    #[default]
    Value,
    /// A key has to come, or the end of its object.
    Key,
    Colon,
    /// A comma has to come, or an end.
    Behind,
    InText {
        since: u64,
        is_key: bool,
    },
    InBare,
    Over,
    Lost,
}

impl Reader {
    /// The value was read to its end.
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// This is no JSON, or too deep.
    pub fn is_lost(&self) -> bool {
        self.state == State::Lost
    }

    /// Begins anew, and keeps its memory.
    pub fn reset(&mut self) {
        self.path.clear();
        self.state = State::Value;
        self.at = 0;
    }

    /// Reads the next bytes.
    pub fn feed(&mut self, data: &[u8], visitor: &mut impl Visitor) {
        let mut rest = data;
        while let Some(byte) = rest.first() {
            let taken = match self.state {
                State::Over | State::Lost => return,
                State::InText { since, is_key } => self.feed_text(rest, since, is_key, visitor),
                State::InBare => self.feed_bare(rest, visitor),
                State::Value if !ends_bare(*byte) => {
                    self.bare.clear();
                    self.state = State::InBare;
                    0
                }
                _ => {
                    if !is_space(*byte) {
                        self.step(*byte, visitor);
                    }
                    self.at += 1;
                    1
                }
            };
            rest = &rest[taken..];
        }
    }

    /// No more comes: shows the string that was cut off.
    pub fn finish(&mut self, visitor: &mut impl Visitor) {
        if let State::InText { since, is_key: false } = self.state {
            // Nothing of it was taken yet where it has only begun.
            let chars = if self.at == since + 1 { Chars::default() } else { self.text.chars() };
            visitor.value(&self.path, Value::Text { chars, short: None, at: (since, self.at) });
            self.state = State::Lost;
        }
    }

    fn step(&mut self, byte: u8, visitor: &mut impl Visitor) {
        self.state = match (self.state, byte) {
            (State::Value, b'{') => self.open(Level::Key(0), State::Key),
            (State::Value, b'[') => {
                visitor.list(&self.path);
                self.open(Level::Item, State::Value)
            }
            (State::Value, b'"') => State::InText { since: self.at, is_key: false },
            (State::Value | State::Behind, b']') => self.close(Level::Item),
            (State::Key, b'"') => State::InText { since: self.at, is_key: true },
            (State::Key | State::Behind, b'}') => self.close(Level::Key(0)),
            (State::Colon, b':') => State::Value,
            (State::Behind, b',') => match self.path.last() {
                Some(Level::Key(_)) => State::Key,
                Some(Level::Item) => State::Value,
                None => State::Lost,
            },
            _ => State::Lost,
        };
    }

    fn open(&mut self, level: Level, next: State) -> State {
        if self.path.len() == MAX_DEPTH {
            return State::Lost;
        }
        self.path.push(level);
        next
    }

    fn close(&mut self, kind: Level) -> State {
        match (self.path.pop(), kind) {
            (Some(Level::Key(_)), Level::Key(_)) | (Some(Level::Item), Level::Item) => self.behind(),
            _ => State::Lost,
        }
    }

    fn behind(&self) -> State {
        if self.path.is_empty() { State::Over } else { State::Behind }
    }

    /// Takes what belongs to the string that has begun at `since`. How much that was.
    fn feed_text(&mut self, data: &[u8], since: u64, is_key: bool, visitor: &mut impl Visitor) -> usize {
        let is_new = self.at == since + 1;
        // Most strings come whole, and stand there as they are meant.
        if is_new && let Some(text) = plain(data) {
            let taken = text.len() + 1;
            self.at += taken as u64;
            self.end_text(since, is_key, Chars::of(text), Some(text), visitor);
            return taken;
        }
        let mut text = std::mem::take(&mut self.text);
        if is_new {
            text.clear();
        }
        let taken = text.feed(data);
        self.at += taken as u64;
        if text.is_over() {
            self.end_text(since, is_key, text.chars(), text.short(), visitor);
        }
        self.text = text;
        taken
    }

    fn end_text(
        &mut self,
        since: u64,
        is_key: bool,
        chars: Chars,
        short: Option<&[u8]>,
        visitor: &mut impl Visitor,
    ) {
        if is_key {
            let outside = self.path.len().saturating_sub(1);
            visitor.key(&self.path[..outside], chars);
            let name = short.map_or(0, |key| visitor.name(key));
            if let Some(level) = self.path.last_mut() {
                *level = Level::Key(name);
            }
            self.state = State::Colon;
        } else {
            visitor.value(&self.path, Value::Text { chars, short, at: (since, self.at) });
            self.state = self.behind();
        }
    }

    /// Takes what belongs to a bare value. How much that was: what ends it is looked at again.
    fn feed_bare(&mut self, data: &[u8], visitor: &mut impl Visitor) -> usize {
        let end = data.iter().position(|byte| ends_bare(*byte));
        let part = &data[..end.unwrap_or(data.len())];
        self.at += part.len() as u64;
        if self.bare.len() + part.len() > MAX_BARE {
            self.state = State::Lost;
        } else if end.is_none() || !self.bare.is_empty() {
            self.bare.extend_from_slice(part);
        }
        if self.state == State::InBare && end.is_some() {
            let word = if self.bare.is_empty() { part } else { &self.bare };
            visitor.value(&self.path, bare(word));
            self.state = self.behind();
        }
        part.len()
    }
}

/// What a bare value means.
fn bare(word: &[u8]) -> Value<'static> {
    match word {
        b"true" => Value::Bool(true),
        b"false" => Value::Bool(false),
        b"null" => Value::Null,
        word => std::str::from_utf8(word)
            .ok()
            .and_then(|word| word.parse().ok())
            .map_or(Value::Null, Value::Number),
    }
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

const fn ends_bare(byte: u8) -> bool {
    is_space(byte) || matches!(byte, b',' | b']' | b'}' | b':' | b'"' | b'{' | b'[')
}

#[cfg(test)]
mod tests;
