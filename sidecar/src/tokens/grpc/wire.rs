//! Reads the wire format of Protocol Buffers as it passes, cut anywhere, without building anything of it: fields are
//! shown to a visitor together with where they stand, and forgotten. A decoder that builds messages would have to hold
//! each of them whole.
//!
//! It is a reader of what others will parse, not a judge of it: what it cannot follow ends the reading of a message,
//! and never the call.

/// What stands in a field that has a length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// Fields of its own.
    Message,
    /// A text or bytes.
    Bytes,
    /// Numbers one behind the other ("packed").
    Numbers,
    /// What does not matter.
    Skip,
}

/// Is shown what is read. A path is the numbers of the fields that lead to a place.
pub(super) trait Visitor {
    /// What a field with a length has in it. Messages within messages are followed as far as this says so.
    fn content(&self, path: &[u32]) -> Content;

    /// A field with a length begins.
    fn begin(&mut self, path: &[u32]);

    /// A number.
    fn number(&mut self, path: &[u32], number: u64);

    /// The next bytes of a text.
    fn bytes(&mut self, path: &[u32], piece: &[u8]);

    /// A field with a length ends.
    fn end(&mut self, path: &[u32]);
}

/// The reader of one message after the other.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// The message itself, and the fields with a length that lead to where it is read.
    levels: Vec<Level>,
    /// The fields of those levels, and the one that is being read.
    path: Vec<u32>,
    /// Bytes read of the message.
    at: u64,
    step: Step,
    value: u64,
    shift: u32,
}

#[derive(Debug, Clone, Copy)]
struct Level {
    end: u64,
    content: Content,
}

/// What comes next in a message.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Step {
    #[default]
    Key,
    Number,
    Length,
}

/// Of the tenth byte of a number, which has its last bit.
const LAST_SHIFT: u32 = 63;

impl Reader {
    /// A message begins, of `length` bytes where that is known.
    pub(super) fn begin(&mut self, length: Option<u64>) {
        self.levels.clear();
        self.path.clear();
        self.levels.push(Level { end: length.unwrap_or(u64::MAX), content: Content::Message });
        (self.at, self.step, self.value, self.shift) = (0, Step::Key, 0, 0);
    }

    /// Reads the next bytes of the message. What stands behind its end is passed over.
    pub(super) fn feed(&mut self, mut data: &[u8], visitor: &mut impl Visitor) {
        loop {
            self.close(visitor);
            let Some(level) = self.levels.last().copied() else { return };
            if data.is_empty() {
                return;
            }
            match level.content {
                Content::Bytes | Content::Skip => {
                    let left = usize::try_from(level.end - self.at).unwrap_or(usize::MAX);
                    let (piece, rest) = data.split_at(left.min(data.len()));
                    if level.content == Content::Bytes {
                        visitor.bytes(&self.path, piece);
                    }
                    self.at += piece.len() as u64;
                    data = rest;
                }
                Content::Message | Content::Numbers => {
                    let (byte, rest) = (data[0], &data[1..]);
                    self.at += 1;
                    data = rest;
                    if let Some(value) = self.number(byte) {
                        self.take(level, value, visitor);
                    }
                }
            }
        }
    }

    /// Leaves the levels that end here.
    fn close(&mut self, visitor: &mut impl Visitor) {
        while let Some(level) = self.levels.last() {
            if level.end != self.at {
                return;
            }
            // The middle of a field is no end of a message.
            if self.step != Step::Key || self.shift != 0 {
                self.lose();
                return;
            }
            self.levels.pop();
            if !self.levels.is_empty() {
                visitor.end(&self.path);
                self.path.pop();
            }
        }
    }

    fn lose(&mut self) {
        self.levels.clear();
        self.path.clear();
    }

    /// The number that ends with this byte.
    fn number(&mut self, byte: u8) -> Option<u64> {
        if self.shift == LAST_SHIFT && byte > 1 {
            self.lose();
            return None;
        }
        self.value |= u64::from(byte & 0x7f) << self.shift;
        if byte & 0x80 != 0 {
            self.shift += 7;
            return None;
        }
        self.shift = 0;
        Some(std::mem::take(&mut self.value))
    }

    fn take(&mut self, level: Level, value: u64, visitor: &mut impl Visitor) {
        if level.content == Content::Numbers {
            visitor.number(&self.path, value);
            return;
        }
        match std::mem::take(&mut self.step) {
            Step::Key => self.field(value),
            Step::Number => {
                visitor.number(&self.path, value);
                self.path.pop();
            }
            Step::Length => {
                let content = visitor.content(&self.path);
                self.enter(content, value);
                if !self.levels.is_empty() {
                    visitor.begin(&self.path);
                }
            }
        }
    }

    /// A field begins: its number, and how it is written in the lowest three bits.
    fn field(&mut self, key: u64) {
        let number = u32::try_from(key).map_or(0, |key| key >> 3);
        if number == 0 {
            self.lose();
            return;
        }
        self.path.push(number);
        match key & 7 {
            0 => self.step = Step::Number,
            1 => self.enter(Content::Skip, 8),
            2 => self.step = Step::Length,
            5 => self.enter(Content::Skip, 4),
            // Groups are history, and nothing else is defined.
            _ => self.lose(),
        }
    }

    /// What is longer than what it stands in is not followed.
    fn enter(&mut self, content: Content, length: u64) {
        let end = self.at.checked_add(length);
        match (end, self.levels.last()) {
            (Some(end), Some(outer)) if end <= outer.end => self.levels.push(Level { end, content }),
            _ => self.lose(),
        }
    }
}
