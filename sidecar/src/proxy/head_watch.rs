//! Looks at request heads as they are read, for what hyper does not tell: whether a head has `Content-Length` together
//! with `Transfer-Encoding`. hyper then drops the former and goes by the latter, as RFC 9112 (6.1) allows; but such a
//! request is either an attack or a mistake, and this proxy refuses it.
//!
//! Only a head that begins where a read begins can be looked at. One that was pipelined behind an earlier request may
//! be missed: then the request is [`Framed::Unknown`], and if it is chunked its connection is closed after the
//! answer, as the RFC demands for the ambiguous case. In no case does an engine get to see both fields.

/// Reads on while the head is not whole, up to this size; hyper refuses larger ones.
const MAX_HEAD: usize = 64 * 1024;

/// How a head frames its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framed {
    /// At most one of the two fields.
    Clearly,
    /// Both.
    Ambiguously,
    /// It was not seen.
    Unknown,
}

/// The looking glass.
#[derive(Debug)]
pub(super) struct HeadWatch {
    state: State,
    /// Bytes since the end of the head: its body, or what was pipelined behind it.
    behind: u64,
    /// The last bytes read were the end of a chunked body without trailers.
    ends_chunks: bool,
}

#[derive(Debug)]
enum State {
    /// The next byte read begins a head.
    Armed,
    /// So much of a head was read.
    Within(Vec<u8>),
    Seen(Framed),
    Missed,
}

impl Default for HeadWatch {
    fn default() -> Self {
        Self { state: State::Armed, behind: 0, ends_chunks: false }
    }
}

impl HeadWatch {
    /// Takes what was read.
    pub(super) fn feed(&mut self, data: &[u8]) {
        match &mut self.state {
            State::Armed => {
                if let Some(end) = end_of_head(data) {
                    self.saw(&data[..end], data.len() - end);
                } else {
                    self.state = State::Within(data.to_vec());
                }
            }
            State::Within(head) if head.len() + data.len() > MAX_HEAD => self.state = State::Missed,
            State::Within(head) => {
                head.extend_from_slice(data);
                if let Some(end) = end_of_head(head) {
                    let head = std::mem::take(head);
                    self.saw(&head[..end], head.len() - end);
                }
            }
            State::Seen(_) | State::Missed => self.behind += data.len() as u64,
        }
        self.ends_chunks = data.ends_with(b"\r\n0\r\n\r\n");
    }

    fn saw(&mut self, head: &[u8], behind: usize) {
        self.state = State::Seen(framed(head));
        self.behind = behind as u64;
    }

    /// How the head of the request that now begins frames its body.
    pub(super) fn take(&mut self) -> Framed {
        match std::mem::replace(&mut self.state, State::Missed) {
            State::Seen(framed) => framed,
            State::Armed | State::Within(_) | State::Missed => Framed::Unknown,
        }
    }

    /// The request is over. Its body had `length` bytes, or was chunked.
    pub(super) fn request_over(&mut self, length: Option<u64>) {
        let nothing_behind = length.map_or(self.ends_chunks, |length| self.behind == length);
        self.state = if nothing_behind { State::Armed } else { State::Missed };
        self.behind = 0;
    }
}

/// Where the empty line ends. Lines end as they do for hyper's parser: with a line feed, a carriage return before it
/// being optional.
fn end_of_head(data: &[u8]) -> Option<usize> {
    // Empty lines before the request line are not its end.
    let start = data.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?;
    let mut line = start;
    loop {
        let length = data[line..].iter().position(|byte| *byte == b'\n')?;
        let content = data[line..line + length].strip_suffix(b"\r").unwrap_or(&data[line..line + length]);
        line += length + 1;
        if content.is_empty() {
            return Some(line);
        }
    }
}

fn framed(head: &[u8]) -> Framed {
    let has = |name: &[u8]| {
        head.split(|byte| *byte == b'\n').any(|line| {
            line.len() > name.len()
                && line[name.len()] == b':'
                && line[..name.len()].eq_ignore_ascii_case(name)
        })
    };
    if has(b"transfer-encoding") && has(b"content-length") { Framed::Ambiguously } else { Framed::Clearly }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &[u8] = b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTRANSFER-ENCODING: chunked\r\n\r\n";
    const PLAIN: &[u8] = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n";

    #[test]
    fn both_fields_are_seen_however_the_head_is_cut() {
        for step in 1..=BOTH.len() {
            let mut watch = HeadWatch::default();
            BOTH.chunks(step).for_each(|piece| watch.feed(piece));
            assert_eq!(watch.take(), Framed::Ambiguously, "in pieces of {step}");
        }
    }

    #[test]
    fn the_body_is_not_taken_for_a_head() {
        let mut watch = HeadWatch::default();
        watch.feed(PLAIN);
        watch.feed(b"Transfer-Encoding: chunked\r\n\r\n");
        assert_eq!(watch.take(), Framed::Clearly);
    }

    #[test]
    fn the_next_head_is_seen_when_nothing_was_pipelined() {
        let mut watch = HeadWatch::default();
        watch.feed(PLAIN);
        watch.feed(b"abc");
        assert_eq!(watch.take(), Framed::Clearly);
        watch.request_over(Some(3));
        watch.feed(BOTH);
        assert_eq!(watch.take(), Framed::Ambiguously);
        watch.feed(b"5\r\nhello\r\n0\r\n\r\n");
        watch.request_over(None);
        watch.feed(PLAIN);
        assert_eq!(watch.take(), Framed::Clearly);
    }

    #[test]
    fn a_pipelined_head_is_unknown_and_never_clear() {
        let mut watch = HeadWatch::default();
        watch.feed(&[PLAIN, b"abc", &BOTH[..30]].concat());
        assert_eq!(watch.take(), Framed::Clearly);
        watch.request_over(Some(3));
        watch.feed(&BOTH[30..]);
        assert_eq!(watch.take(), Framed::Unknown);
    }
}
