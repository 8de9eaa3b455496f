//! Follows the framing of a client's requests in the bytes as they are read, beside hyper, which does not tell whether
//! a head has `Content-Length` together with `Transfer-Encoding`: it drops the former and goes by the latter, as
//! RFC 9112 (6.1) allows. Such a request is either an attack or a mistake, and this proxy refuses it.
//!
//! Two readers have to agree, then: what this one cannot follow, it gives no verdict on, and a request without a verdict
//! is refused. It is stricter than hyper nowhere that a correct client could notice.

mod chunks;

use std::collections::VecDeque;
use std::io::BufRead as _;

use chunks::Chunks;

/// Longest line of a head that is kept while it is not whole; hyper refuses larger heads.
const MAX_LINE: usize = 64 * 1024;

/// How a head frames its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framed {
    /// In one way.
    Clearly,
    /// In several, or in one that is not understood.
    Ambiguously,
}

/// The second reader.
#[derive(Debug, Default)]
pub(super) struct RequestWatch {
    next: Next,
    /// Of the heads that were read, for requests that were not taken yet; oldest first.
    heads: VecDeque<Framed>,
}

/// What the next byte belongs to.
#[derive(Debug)]
enum Next {
    Head(Head),
    /// A body, with so many bytes to come.
    Length(u64),
    Chunks(Chunks),
    /// Nothing that is known.
    Lost,
    /// A body that is none.
    Broken,
}

/// A head, as far as it was read.
#[derive(Debug, Default)]
struct Head {
    /// The request line was read.
    begun: bool,
    /// The begin of a line that is not whole.
    line: Vec<u8>,
    lengths: Field<u64>,
    chunked: Field<()>,
}

/// What is known of a field.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Field<T> {
    #[default]
    Absent,
    Is(T),
    /// It is there, and cannot be understood.
    Unclear,
}

impl Default for Next {
    fn default() -> Self {
        Self::Head(Head::default())
    }
}

impl RequestWatch {
    /// Takes what was read.
    pub(super) fn feed(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            match &mut self.next {
                Next::Head(head) => {
                    let (line, behind) = data.split_at(through_line_feed(data));
                    let Some(line) = line.strip_suffix(b"\n") else {
                        if head.line.len() + data.len() > MAX_LINE {
                            self.next = Next::Lost;
                        } else {
                            head.line.extend_from_slice(data);
                        }
                        return;
                    };
                    let is_last = head.take_line(line);
                    data = behind;
                    if is_last {
                        self.head_is_whole();
                    }
                }
                Next::Length(left) => {
                    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(data.len());
                    data = &data[taken..];
                    *left -= taken as u64;
                    if *left == 0 {
                        self.next = Next::default();
                    }
                }
                Next::Chunks(chunks) => match chunks.skip(data) {
                    Ok(None) => return,
                    Ok(Some(behind)) => {
                        data = behind;
                        self.next = Next::default();
                    }
                    Err(_) => self.next = Next::Broken,
                },
                Next::Lost | Next::Broken => return,
            }
        }
    }

    fn head_is_whole(&mut self) {
        let Next::Head(head) = &self.next else { return };
        let (framed, next) = match (head.chunked, head.lengths) {
            (Field::Absent, Field::Absent | Field::Is(0)) => (Framed::Clearly, Next::default()),
            (Field::Absent, Field::Is(length)) => (Framed::Clearly, Next::Length(length)),
            (Field::Is(()), Field::Absent) => (Framed::Clearly, Next::Chunks(Chunks::default())),
            _ => (Framed::Ambiguously, Next::Lost),
        };
        self.next = next;
        self.heads.push_back(framed);
    }

    /// Whether a body has turned out to be none: whatever another reader makes of the rest is not to be believed.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self.next, Next::Broken)
    }

    /// How the head of the oldest request that was not taken yet frames its body. None is known of one that this
    /// reader could not follow to.
    pub(super) fn take(&mut self) -> Option<Framed> {
        self.heads.pop_front()
    }
}

impl Head {
    /// Takes the rest of a line, without its line feed. Whether it ends the head. Lines end as they do for hyper's
    /// parser: with a line feed, a carriage return before it being optional.
    fn take_line(&mut self, rest: &[u8]) -> bool {
        let begin = std::mem::take(&mut self.line);
        if begin.is_empty() { self.see(rest) } else { self.see(&[&begin, rest].concat()) }
    }

    fn see(&mut self, line: &[u8]) -> bool {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            // Empty lines before the request line are not its end.
            return self.begun;
        }
        if !std::mem::replace(&mut self.begun, true) {
            return false;
        }
        if let Some(value) = value(line, b"content-length") {
            self.lengths = self.lengths.and(number(value));
        } else if let Some(value) = value(line, b"transfer-encoding") {
            let understood = self.chunked == Field::Absent && value.eq_ignore_ascii_case(b"chunked");
            self.chunked = if understood { Field::Is(()) } else { Field::Unclear };
        }
        false
    }
}

impl Field<u64> {
    /// A field may be there several times with the same value.
    fn and(self, other: Option<u64>) -> Self {
        match (self, other) {
            (Self::Absent, Some(length)) => Self::Is(length),
            (Self::Is(known), Some(length)) if known == length => self,
            _ => Self::Unclear,
        }
    }
}

/// How many bytes there are up to the first line feed and with it; all, where there is none. The standard library looks
/// at many of them at once when it reads lines.
fn through_line_feed(data: &[u8]) -> usize {
    // Nothing that lies in memory fails to be read.
    { data }.skip_until(b'\n').unwrap_or(data.len())
}

/// The value of a line, if it is a field of this name.
fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (found, rest) = line.split_at_checked(name.len())?;
    let rest = rest.strip_prefix(b":").filter(|_| found.eq_ignore_ascii_case(name))?;
    Some(rest.trim_ascii())
}

fn number(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| digits)?.parse().ok()
}

#[cfg(test)]
mod tests;
