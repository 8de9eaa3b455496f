//! Counts the events of a `text/event-stream` while it passes.

/// An event is what a blank line ends, if it had a `data` field: comments that only keep a connection alive are
/// none.
#[derive(Debug, Default)]
pub(super) struct EventCounter {
    count: u64,
    line: Line,
    has_data: bool,
}

/// How the current line begins.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// Nothing, or only a carriage return so far.
    #[default]
    Blank,
    /// With the first letter of `data`; no other field begins with it.
    Data,
    Other,
}

impl EventCounter {
    /// Takes the next bytes of the stream, cut anywhere.
    pub(super) fn feed(&mut self, data: &[u8]) {
        let mut lines = data.split(|byte| *byte == b'\n').peekable();
        while let Some(part) = lines.next() {
            if self.line == Line::Blank {
                self.line = match part.iter().find(|byte| **byte != b'\r') {
                    None => Line::Blank,
                    Some(b'd') => Line::Data,
                    Some(_) => Line::Other,
                };
            }
            if lines.peek().is_some() {
                self.end_line();
            }
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
        for step in 1..=stream.len() {
            let mut counter = EventCounter::default();
            stream.chunks(step).for_each(|piece| counter.feed(piece));
            assert_eq!(counter.count(), 3, "in pieces of {step}");
        }
    }
}
