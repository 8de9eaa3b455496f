//! The reader of JSON beside `serde_json`: what both read they see alike, value by value.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor as SerdeVisitor};

use crate::tokens::json::{Chars, Level, Name, Reader, Value, Visitor};

/// Deeper is not followed, and a longer number not understood.
const MOST_LEVELS: usize = 96;
const LONGEST_NUMBER: usize = 32;

/// What was seen, in its order.
#[derive(Debug, Clone)]
enum Seen {
    Key(usize, Chars),
    List(usize),
    Text(Vec<Level>, Chars, Option<Vec<u8>>),
    Number(Vec<Level>, f64),
    Bool(Vec<Level>, bool),
    Null(Vec<Level>),
}

impl PartialEq for Seen {
    /// `serde_json` reads numbers of many digits only nearly.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Key(depth, chars), Self::Key(other, others)) => depth == other && chars == others,
            (Self::List(depth), Self::List(other)) => depth == other,
            (Self::Text(path, chars, short), Self::Text(other, others, shorts)) => {
                path == other && chars == others && short == shorts
            }
            (Self::Number(path, number), Self::Number(other, near)) => {
                // Two infinities have no distance, and what is no number is like nothing, itself included.
                let alike = number == near || (number.is_nan() && near.is_nan());
                path == other && (alike || (number - near).abs() <= number.abs() * 1e-12)
            }
            (Self::Bool(path, value), Self::Bool(other, values)) => path == other && value == values,
            (Self::Null(path), Self::Null(other)) => path == other,
            _ => false,
        }
    }
}

/// Keys are told apart by what a small table says of them.
fn name(key: &[u8]) -> Name {
    let sum = key.iter().fold(0_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(*byte));
    sum % 5
}

#[derive(Debug, Default)]
struct Recorder(Vec<Seen>);

impl Visitor for Recorder {
    fn name(&self, key: &[u8]) -> Name {
        name(key)
    }

    fn key(&mut self, path: &[Level], chars: Chars) {
        self.0.push(Seen::Key(path.len(), chars));
    }

    fn list(&mut self, path: &[Level]) {
        self.0.push(Seen::List(path.len()));
    }

    fn value(&mut self, path: &[Level], value: Value<'_>) {
        let path = path.to_vec();
        self.0.push(match value {
            Value::Text { chars, short, .. } => Seen::Text(path, chars, short.map(<[u8]>::to_vec)),
            Value::Number(number) => Seen::Number(path, number),
            Value::Bool(value) => Seen::Bool(path, value),
            Value::Null => Seen::Null(path),
        });
    }
}

/// What `serde_json` accepts is read by both alike, however it is cut.
pub(super) fn agrees(body: &[u8], step: usize) {
    let read = |step: usize| {
        let (mut reader, mut recorder) = (Reader::default(), Recorder::default());
        body.chunks(step).for_each(|piece| reader.feed(piece, &mut recorder));
        // What ends a bare value at the end of a text is its end.
        reader.feed(b" ", &mut recorder);
        (recorder.0, reader.is_over(), reader.is_lost())
    };
    let ours = read(step);
    assert_eq!(ours, read(body.len().max(1)), "in pieces of {step}");
    let walk = Walk::default();
    let mut parser = serde_json::Deserializer::from_slice(body);
    let accepted = Seed(&walk).deserialize(&mut parser).is_ok() && parser.end().is_ok();
    let deep = walk.deepest.get() > MOST_LEVELS;
    let is_of_number = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
    let long = body.split(|byte| !is_of_number(byte)).any(|number| number.len() > LONGEST_NUMBER);
    if accepted && !deep && !long {
        assert!(ours.1, "it is over");
        assert_eq!(ours.0, walk.seen.into_inner());
    }
}

/// A walk through a value as it is parsed, which keeps every key, also one that is there twice.
#[derive(Default)]
struct Walk {
    seen: RefCell<Vec<Seen>>,
    path: RefCell<Vec<Level>>,
    deepest: std::cell::Cell<usize>,
}

impl Walk {
    fn push(&self, level: Level) {
        let mut path = self.path.borrow_mut();
        path.push(level);
        self.deepest.set(self.deepest.get().max(path.len()));
    }

    fn see(&self, seen: impl FnOnce(Vec<Level>) -> Seen) {
        let seen = seen(self.path.borrow().clone());
        self.seen.borrow_mut().push(seen);
    }
}

#[derive(Clone, Copy)]
struct Seed<'w>(&'w Walk);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// A key, before its value.
struct KeySeed<'w>(&'w Walk);

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl SerdeVisitor<'_> for KeySeed<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<String, E> {
        let depth = self.0.path.borrow().len();
        self.0.seen.borrow_mut().push(Seen::Key(depth, Chars::of(key.as_bytes())));
        Ok(key.to_owned())
    }
}

impl<'de> SerdeVisitor<'de> for Seed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.0.see(|path| Seen::Bool(path, value));
        Ok(())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.visit_f64(value as f64)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.visit_f64(value as f64)
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.0.see(|path| Seen::Number(path, value));
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        let short = (text.len() <= 256).then(|| text.as_bytes().to_vec());
        self.0.see(|path| Seen::Text(path, Chars::of(text.as_bytes()), short));
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.see(Seen::Null);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let depth = self.0.path.borrow().len();
        self.0.seen.borrow_mut().push(Seen::List(depth));
        self.0.push(Level::Item);
        while items.next_element_seed(self)?.is_some() {}
        self.0.path.borrow_mut().pop();
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        while let Some(key) = fields.next_key_seed(KeySeed(self.0))? {
            // A key that is too long to keep is nobody's.
            let number = if key.len() <= 256 { name(key.as_bytes()) } else { 0 };
            self.0.push(Level::Key(number));
            fields.next_value_seed(self)?;
            self.0.path.borrow_mut().pop();
        }
        Ok(())
    }
}
