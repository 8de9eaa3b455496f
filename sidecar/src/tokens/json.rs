//! Reads JSON as it passes, cut anywhere, without building anything of it: values are shown to a visitor together with
//! where they stand, and forgotten.
//!
//! It is a reader of what others will parse, not a judge of it: what it cannot follow ends the reading, and never the
//! request. Strings are decoded as RFC 8259 says, since a name can be written with escapes too.

mod text;

pub use text::Chars;
use text::Text;

/// Deeper values are not followed: no interface of an inference engine nests nearly as deep.
const MAX_DEPTH: usize = 96;

/// Longest bare value, a number or a word, that is understood.
const MAX_BARE: usize = 32;

/// A key that a visitor knows, by a number that it gives; 0 is any other.
pub type Name = u8;

/// The number of a key in a table of those that matter, else 0.
pub fn name_in(table: &[(&[u8], Name)], key: &[u8]) -> Name {
    table.iter().find(|(name, _)| *name == key).map_or(0, |(_, number)| *number)
}

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
        /// All of it, when it is short and sound.
        short: Option<&'a str>,
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
    InKey,
    InText {
        since: u64,
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
        self.text.clear();
        self.bare.clear();
        self.state = State::Value;
        self.at = 0;
    }

    /// Reads the next bytes.
    pub fn feed(&mut self, data: &[u8], visitor: &mut impl Visitor) {
        let mut rest = data;
        while let Some((byte, behind)) = rest.split_first() {
            match self.state {
                State::Over | State::Lost => return,
                State::InKey | State::InText { .. } => {
                    let taken = self.text.feed(rest);
                    self.at += taken as u64;
                    rest = &rest[taken..];
                    if self.text.is_over() {
                        self.end_text(visitor);
                    }
                    continue;
                }
                State::InBare if !ends_bare(*byte) => self.bare.push(*byte),
                State::InBare => {
                    // The byte behind it is looked at again.
                    self.end_bare(visitor);
                    continue;
                }
                _ if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') => {}
                _ => self.step(*byte, visitor),
            }
            if self.bare.len() > MAX_BARE {
                self.state = State::Lost;
            }
            self.at += 1;
            rest = behind;
        }
    }

    /// No more comes: shows the string that was cut off.
    pub fn finish(&mut self, visitor: &mut impl Visitor) {
        if let State::InText { since } = self.state {
            visitor.value(
                &self.path,
                Value::Text { chars: self.text.chars(), short: None, at: (since, self.at) },
            );
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
            (State::Value, b'"') => {
                self.text.clear();
                State::InText { since: self.at }
            }
            (State::Value | State::Behind, b']') => self.close(Level::Item),
            (State::Value, byte) if !matches!(byte, b'}' | b':' | b',') => {
                self.bare.push(byte);
                State::InBare
            }
            (State::Key, b'"') => {
                self.text.clear();
                State::InKey
            }
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

    fn end_text(&mut self, visitor: &mut impl Visitor) {
        match self.state {
            State::InKey => {
                let outside = self.path.len().saturating_sub(1);
                visitor.key(&self.path[..outside], self.text.chars());
                let name = self.text.short().map_or(0, |key| visitor.name(key.as_bytes()));
                if let Some(level) = self.path.last_mut() {
                    *level = Level::Key(name);
                }
                self.state = State::Colon;
            }
            State::InText { since } => {
                let (chars, short) = (self.text.chars(), self.text.short());
                visitor.value(&self.path, Value::Text { chars, short, at: (since, self.at) });
                self.state = self.behind();
            }
            _ => self.state = State::Lost,
        }
    }

    fn end_bare(&mut self, visitor: &mut impl Visitor) {
        let word = std::str::from_utf8(&self.bare).unwrap_or_default();
        let value = match word {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            word => word.parse().map_or(Value::Null, Value::Number),
        };
        visitor.value(&self.path, value);
        self.bare.clear();
        self.state = self.behind();
    }
}

const fn ends_bare(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b',' | b']' | b'}' | b':' | b'"' | b'{' | b'[')
}

#[cfg(test)]
mod tests;
