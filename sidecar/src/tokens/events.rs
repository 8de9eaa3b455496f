//! The data of a `text/event-stream`, as it passes.

use memchr::memchr2;

use super::usage::UsageReader;

/// Takes a stream apart, as the HTML standard says (9.2.6), and hands its data on.
#[derive(Debug)]
pub struct EventReader {
    line: Line,
    /// The event has data so far.
    has_data: bool,
    /// A carriage return was the last byte: a line feed behind it ends no line of its own.
    returned: bool,
}

/// Where in a line the next byte stands.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Line {
    #[default]
    Begin,
    /// At the begin of the stream, behind so many bytes of a mark of byte order, which is no part of it.
    Mark(u8),
    /// So many bytes of the field's name were those of `data`.
    Name(u8),
    /// Behind the colon, where one space is no data.
    Colon,
    Data,
    Other,
}

const DATA: &[u8] = b"data";

/// In UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

impl Default for EventReader {
    fn default() -> Self {
        Self { line: Line::Mark(0), has_data: false, returned: false }
    }
}

impl Line {
    const WHOLE_NAME: Self = Self::Name(4);
}

impl EventReader {
    /// Takes the next bytes. The last place in them where an event ended, if one did.
    pub fn feed(&mut self, data: &[u8], usage: &mut UsageReader) -> Option<usize> {
        let mut ended = None;
        let mut at = 0;
        while at < data.len() {
            if self.line == Line::Data {
                let length = memchr2(b'\n', b'\r', &data[at..]);
                let end = length.map_or(data.len(), |length| at + length);
                usage.feed(&data[at..end]);
                at = end;
                if length.is_none() {
                    break;
                }
            }
            let byte = data[at];
            at += 1;
            match byte {
                b'\n' if std::mem::take(&mut self.returned) => {
                    // It belongs to the carriage return before it.
                    ended = ended.map(|place| if place + 1 == at { at } else { place });
                }
                b'\n' | b'\r' => {
                    self.returned = byte == b'\r';
                    if self.end_line(usage) {
                        ended = Some(at);
                    }
                }
                byte => {
                    self.returned = false;
                    self.step(byte, usage);
                }
            }
        }
        ended
    }

    fn step(&mut self, byte: u8, usage: &mut UsageReader) {
        self.line = match (self.line, byte) {
            (Line::Begin | Line::Mark(0), b'd') => Line::Name(1),
            (Line::Mark(n), byte) if MARK[usize::from(n)] == byte => {
                if n == 2 {
                    Line::Begin
                } else {
                    Line::Mark(n + 1)
                }
            }
            (Line::WHOLE_NAME, b':') => {
                self.begin_data(usage);
                Line::Colon
            }
            (Line::Name(n), byte) if DATA.get(usize::from(n)) == Some(&byte) => Line::Name(n + 1),
            (Line::Colon, b' ') => Line::Data,
            (Line::Colon, byte) => {
                usage.feed(&[byte]);
                Line::Data
            }
            _ => Line::Other,
        };
    }

    /// Lines of data are joined by line feeds.
    fn begin_data(&mut self, usage: &mut UsageReader) {
        if std::mem::replace(&mut self.has_data, true) {
            usage.feed(b"\n");
        }
    }

    /// Whether that ended an event.
    fn end_line(&mut self, usage: &mut UsageReader) -> bool {
        match std::mem::take(&mut self.line) {
            Line::Begin if std::mem::take(&mut self.has_data) => {
                usage.next();
                true
            }
            // A name without a colon is a field without a value.
            Line::WHOLE_NAME => {
                self.begin_data(usage);
                false
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
