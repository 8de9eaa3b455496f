//! A string of JSON, decoded as it passes.

use memchr::memchr2;

/// What is kept of a string. A longer one has no name that anybody gave to a model or a field.
const SHORT: usize = 256;

/// Stands for half a character.
const LOST: &str = "\u{fffd}";

/// How many characters there are, by the bytes that each takes in UTF-8.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Chars {
    /// ASCII.
    pub one: u64,
    /// Latin with marks, Greek, Cyrillic, Hebrew, Arabic.
    pub two: u64,
    /// Scripts of India and East Asia, and symbols.
    pub three: u64,
    /// Emoji, and what is rare.
    pub four: u64,
}

impl Chars {
    /// Of a text.
    pub fn of(text: &[u8]) -> Self {
        let mut chars = Self::default();
        chars.see(text);
        chars
    }

    /// Adds those of another.
    pub fn add(&mut self, other: Self) {
        self.one += other.one;
        self.two += other.two;
        self.three += other.three;
        self.four += other.four;
    }

    /// Bytes that they take.
    pub const fn bytes(self) -> u64 {
        self.one + 2 * self.two + 3 * self.three + 4 * self.four
    }

    fn see(&mut self, text: &[u8]) {
        if text.is_ascii() {
            self.one += text.len() as u64;
            return;
        }
        for byte in text {
            match byte {
                0x00..=0x7f => self.one += 1,
                // Goes on with a character that was counted.
                0x80..=0xbf => {}
                0xc0..=0xdf => self.two += 1,
                0xe0..=0xef => self.three += 1,
                0xf0..=0xff => self.four += 1,
            }
        }
    }
}

/// A short string with its end in these bytes, of which nothing has to be decoded. Without its closing quote.
pub(super) fn plain(data: &[u8]) -> Option<&[u8]> {
    // No further: what is longer is looked through where it is decoded.
    let end = memchr2(b'"', b'\\', &data[..data.len().min(SHORT + 1)])?;
    (data[end] == b'"').then(|| &data[..end])
}

/// The string that is being read.
#[derive(Debug, Default)]
pub(super) struct Text {
    chars: Chars,
    /// Its begin.
    short: Vec<u8>,
    long: bool,
    over: bool,
    escape: Escape,
    /// The first half of a character that two escapes make.
    high: Option<u16>,
}

#[derive(Debug, Default, Clone, Copy)]
enum Escape {
    #[default]
    None,
    Begun,
    Unicode {
        digits: u8,
        code: u16,
    },
}

impl Text {
    pub(super) fn clear(&mut self) {
        let mut short = std::mem::take(&mut self.short);
        short.clear();
        *self = Self { short, ..Self::default() };
    }

    pub(super) fn chars(&self) -> Chars {
        self.chars
    }

    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// All of it, when it is short.
    pub(super) fn short(&self) -> Option<&[u8]> {
        if self.long { None } else { Some(&self.short) }
    }

    /// Takes what belongs to the string, with its closing quote. How much that was.
    pub(super) fn feed(&mut self, data: &[u8]) -> usize {
        let mut at = 0;
        while at < data.len() && !self.over {
            at += match self.escape {
                Escape::None => self.feed_plain(&data[at..]),
                Escape::Begun => self.feed_escape(data[at]),
                Escape::Unicode { digits, code } => self.feed_unicode(data[at], digits, code),
            };
        }
        at
    }

    fn feed_plain(&mut self, data: &[u8]) -> usize {
        let end = memchr2(b'"', b'\\', data);
        let plain = &data[..end.unwrap_or(data.len())];
        if !plain.is_empty() {
            self.push(plain);
        }
        match end {
            Some(end) if data[end] == b'"' => {
                self.lose_half();
                self.over = true;
            }
            Some(_) => self.escape = Escape::Begun,
            None => return data.len(),
        }
        plain.len() + 1
    }

    fn feed_escape(&mut self, byte: u8) -> usize {
        self.escape = Escape::None;
        let meant = match byte {
            b'u' => {
                self.escape = Escape::Unicode { digits: 0, code: 0 };
                return 1;
            }
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'b' => 0x08,
            b'f' => 0x0c,
            byte => byte,
        };
        self.push(&[meant]);
        1
    }

    fn feed_unicode(&mut self, byte: u8, digits: u8, code: u16) -> usize {
        let Some(digit) = char::from(byte).to_digit(16) else {
            // No escape at all: whoever parses this refuses it.
            self.escape = Escape::None;
            return 0;
        };
        let code = (code << 4) | u16::try_from(digit).unwrap_or_default();
        self.escape = Escape::Unicode { digits: digits + 1, code };
        if digits == 3 {
            self.escape = Escape::None;
            self.push_unit(code);
        }
        1
    }

    fn push_unit(&mut self, unit: u16) {
        let units = match (self.high.take(), unit) {
            (None, 0xd800..=0xdbff) => {
                self.high = Some(unit);
                return;
            }
            (Some(high), 0xdc00..=0xdfff) => [high, unit],
            (Some(_), _) => {
                self.push(LOST.as_bytes());
                self.push_unit(unit);
                return;
            }
            (None, _) => [unit, 0],
        };
        let first = char::decode_utf16(units).next();
        let character = first.and_then(Result::ok).unwrap_or(char::REPLACEMENT_CHARACTER);
        self.push(character.encode_utf8(&mut [0; 4]).as_bytes());
    }

    /// A first half that no second half followed.
    fn lose_half(&mut self) {
        if self.high.take().is_some() {
            self.push(LOST.as_bytes());
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.lose_half();
        self.chars.see(bytes);
        self.long |= self.short.len() + bytes.len() > SHORT;
        if !self.long {
            self.short.extend_from_slice(bytes);
        }
    }
}
