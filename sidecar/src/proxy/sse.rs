//! Counts the events of a `text/event-stream` while it passes.

use memchr::memchr2;

/// An event is what a blank line ends, if it had a `data` field: comments that only keep a connection alive are
/// none.
#[derive(Debug, Default)]
pub(super) struct EventCounter {
    count: u64,
    line: Line,
    has_data: bool,
    /// A carriage return was the last byte: a line feed behind it ends no line of its own.
    returned: bool,
}

/// How the current line begins.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// Nothing so far.
    #[default]
    Blank,
    /// With the first letter of `data`; no other field begins with it.
    Data,
    Other,
}

impl EventCounter {
    /// Takes the next bytes of the stream, cut anywhere.
    pub(super) fn feed(&mut self, data: &[u8]) {
        let mut rest = data;
        while let Some(first) = rest.first() {
            if std::mem::take(&mut self.returned) && *first == b'\n' {
                rest = &rest[1..];
                continue;
            }
            let end = memchr2(b'\n', b'\r', rest);
            if self.line == Line::Blank && end != Some(0) {
                self.line = if *first == b'd' { Line::Data } else { Line::Other };
            }
            let Some(end) = end else { return };
            self.returned = rest[end] == b'\r';
            self.end_line();
            rest = &rest[end + 1..];
        }
    }

    fn end_line(&mut self) {
        match std::mem::take(&mut self.line) {
            Line::Blank => self.count += u64::from(std::mem::take(&mut self.has_data)),
            Line::Data => self.has_data = true,
            Line::Other => {}
        }
    }

    /// Events so far.
    pub(super) fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_however_the_stream_is_cut() {
        let stream = b"data: {\"a\":1}\n\n: ping\n\nevent: x\r\ndata: 1\r\ndata: 2\r\n\r\n\ndata: [DONE]\n\n";
        let returns =
            stream.iter().map(|byte| if *byte == b'\n' { b'\r' } else { *byte }).collect::<Vec<_>>();
        for (stream, events) in
            [(&stream[..], 3), (b"data: 1\r\rdata: 2\r\r\r\ndata: 3\r\n\r\n", 3), (&returns, 4)]
        {
            for step in 1..=stream.len() {
                let mut counter = EventCounter::default();
                stream.chunks(step).for_each(|piece| counter.feed(piece));
                assert_eq!(
                    counter.count(),
                    events,
                    "in pieces of {step}: {:?}",
                    String::from_utf8_lossy(stream)
                );
            }
        }
    }
}
