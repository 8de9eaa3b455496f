//! The tensors of `KServe` v2, whose requests and answers have the same shape: parameters in field 4, tensors in field 5,
//! and what is in them either there or, in the order of the tensors, in one field of bytes for each.

use super::wire::Content;

const PARAMETERS: u32 = 4;
const TENSORS: u32 = 5;
const NAME: u32 = 1;
const DATATYPE: u32 = 2;
const CONTENTS: u32 = 5;
/// Of `InferTensorContents`: `int_contents` to `uint64_contents`, and `bytes_contents`.
const FIRST_NUMBERS: u32 = 2;
const LAST_NUMBERS: u32 = 5;
const TEXTS: u32 = 8;

/// Longer names are nobody's.
const LONGEST_NAME: usize = 64;

/// More tensors are not told apart: no interface of an inference engine has nearly as many.
const MOST_TENSORS: usize = 64;

/// What the elements of a tensor are.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    /// What is not counted.
    #[default]
    Other,
    /// Text.
    Text,
    /// An image or a file.
    Media,
    /// How to sample, in JSON.
    Settings,
    /// Numbers of tokens.
    Tokens,
    /// The longest answer.
    Most,
    /// How many tokens were generated since the last answer.
    Generated,
    /// How many tokens the prompt has.
    Prompt,
}

/// Is told what is found.
pub(super) trait Found {
    /// What a tensor of this name has in it.
    fn holds(&self, name: &str, is_text: bool) -> Holds;

    /// A parameter that is a whole number.
    fn parameter(&mut self, name: &str, number: u64);

    /// An element of a tensor begins.
    fn element(&mut self, holds: Holds);

    /// The next bytes of an element that is text.
    fn text(&mut self, holds: Holds, piece: &[u8]);

    /// An element that is a whole number.
    fn number(&mut self, holds: Holds, number: u64);
}

/// The part of a message that is tensors and parameters.
#[derive(Debug)]
pub(super) struct Tensors {
    /// The field of the tensors' bytes: 7 of requests, 6 of answers.
    raw_field: u32,
    kinds: Vec<Kind>,
    name: Vec<u8>,
    datatype: Vec<u8>,
    parameter: Vec<u8>,
    /// How many fields of bytes have begun.
    raws: usize,
    raw: Raw,
}

#[derive(Debug, Default, Clone, Copy)]
struct Kind {
    holds: Holds,
    /// Bytes of an element that is a number; 0: it has its length before it.
    width: usize,
}

/// Elements as bytes, cut anywhere.
#[derive(Debug, Default)]
struct Raw {
    kind: Kind,
    head: [u8; 8],
    have: usize,
    left: u32,
}

impl Tensors {
    pub(super) fn new(raw_field: u32) -> Self {
        Self {
            raw_field,
            kinds: Vec::new(),
            name: Vec::new(),
            datatype: Vec::new(),
            parameter: Vec::new(),
            raws: 0,
            raw: Raw::default(),
        }
    }

    /// The next message begins.
    pub(super) fn reset(&mut self) {
        self.kinds.clear();
        self.raws = 0;
    }

    pub(super) fn content(&self, path: &[u32]) -> Content {
        match path {
            [PARAMETERS | TENSORS] | [PARAMETERS, 2] | [TENSORS, CONTENTS] => Content::Message,
            [PARAMETERS, 1] | [TENSORS, NAME | DATATYPE] | [TENSORS, CONTENTS, TEXTS] => Content::Bytes,
            [TENSORS, CONTENTS, FIRST_NUMBERS..=LAST_NUMBERS] => Content::Numbers,
            [field] if *field == self.raw_field => Content::Bytes,
            _ => Content::Skip,
        }
    }

    pub(super) fn begin(&mut self, path: &[u32], found: &mut impl Found) {
        match path {
            [PARAMETERS] => self.parameter.clear(),
            [TENSORS] => {
                self.name.clear();
                self.datatype.clear();
            }
            [TENSORS, CONTENTS, TEXTS] => {
                // The contents say that they are text, whatever the datatype does.
                let holds = found.holds(str::from_utf8(&self.name).unwrap_or_default(), true);
                self.raw.kind = Kind { holds, width: 0 };
                found.element(holds);
            }
            [field] if *field == self.raw_field => {
                self.raw =
                    Raw { kind: self.kinds.get(self.raws).copied().unwrap_or_default(), ..Raw::default() };
                self.raws += 1;
            }
            _ => {}
        }
    }

    pub(super) fn number(&mut self, path: &[u32], number: u64, found: &mut impl Found) {
        match path {
            // `int64_param` and `uint64_param`.
            [PARAMETERS, 2, 2 | 5] => {
                found.parameter(str::from_utf8(&self.parameter).unwrap_or_default(), number);
            }
            [TENSORS, CONTENTS, FIRST_NUMBERS..=LAST_NUMBERS] => {
                let holds = self.kind(found).holds;
                found.number(holds, number);
            }
            _ => {}
        }
    }

    pub(super) fn bytes(&mut self, path: &[u32], piece: &[u8], found: &mut impl Found) {
        match path {
            [PARAMETERS, 1] => keep(&mut self.parameter, piece),
            [TENSORS, NAME] => keep(&mut self.name, piece),
            [TENSORS, DATATYPE] => keep(&mut self.datatype, piece),
            [TENSORS, CONTENTS, TEXTS] => found.text(self.raw.kind.holds, piece),
            [field] if *field == self.raw_field => self.raw.feed(piece, found),
            _ => {}
        }
    }

    pub(super) fn end(&mut self, path: &[u32], found: &impl Found) {
        if path == [TENSORS] && self.kinds.len() < MOST_TENSORS {
            self.kinds.push(self.kind(found));
        }
    }

    /// Of the tensor that is being read.
    fn kind(&self, found: &impl Found) -> Kind {
        let width = match &*self.datatype {
            b"INT8" | b"UINT8" | b"BOOL" => 1,
            b"INT16" | b"UINT16" | b"FP16" | b"BF16" => 2,
            b"INT32" | b"UINT32" | b"FP32" => 4,
            b"INT64" | b"UINT64" | b"FP64" => 8,
            b"BYTES" => 0,
            _ => return Kind { holds: Holds::Other, width: 1 },
        };
        let whole = self.datatype.starts_with(b"INT") || self.datatype.starts_with(b"UINT");
        let name = str::from_utf8(&self.name).unwrap_or_default();
        let holds = if whole || width == 0 { found.holds(name, width == 0) } else { Holds::Other };
        Kind { holds, width }
    }
}

impl Raw {
    fn feed(&mut self, mut data: &[u8], found: &mut impl Found) {
        let Kind { holds, width } = self.kind;
        if holds == Holds::Other {
            return;
        }
        while !data.is_empty() {
            if self.left > 0 {
                let (piece, rest) = data.split_at((self.left as usize).min(data.len()));
                found.text(holds, piece);
                self.left -= piece.len() as u32;
                data = rest;
                continue;
            }
            self.head[self.have] = data[0];
            self.have += 1;
            data = &data[1..];
            if width == 0 && self.have == 4 {
                let [a, b, c, d, ..] = self.head;
                self.left = u32::from_le_bytes([a, b, c, d]);
                self.have = 0;
                found.element(holds);
            } else if width > 0 && self.have == width {
                found.number(holds, u64::from_le_bytes(self.head));
                (self.have, self.head) = (0, [0; 8]);
            }
        }
    }
}

/// What is too long for a name is a name that nobody knows.
pub(super) fn keep(name: &mut Vec<u8>, piece: &[u8]) {
    let room = (LONGEST_NAME + 1).saturating_sub(name.len());
    name.extend_from_slice(&piece[..piece.len().min(room)]);
}
