//! An engine's answer that says that it ran out of memory.
//!
//! vLLM passes the text of `torch.OutOfMemoryError` on (`CUDA out of memory. Tried to allocate …`) in an error of status
//! 500 or in an error event of a stream that had begun, TGI in one of status 424, Triton in one of 500 or in the status
//! of a gRPC call; the words are those of CUDA, HIP and TensorFlow. An engine that dies of it says nothing: that is for
//! the other conditions of the breaker.

use http::{HeaderMap, StatusCode};

/// So much of an error is read.
const LONGEST: usize = 4096;
/// So far into an event its kind is told.
const KIND: usize = 48;

/// As errors say it, in lower case.
const WORDS: [&[u8]; 4] = [b"out of memory", b"outofmemory", b"out_of_memory", b"oom when allocating"];

/// What is read of an answer to find that out.
#[derive(Debug)]
pub enum Complaint {
    /// The begin of an error.
    Error(Vec<u8>),
    /// A stream of events or of messages, until one of them, or its end, says so.
    Stream,
    /// It has said so.
    Found,
}

impl Complaint {
    /// Of an answer with this status; none when it is no complaint whatever it says. Another error may quote the
    /// prompt of its client.
    pub fn of(status: u16, is_stream: bool) -> Option<Self> {
        match status {
            500.. => Some(Self::Error(Vec::new())),
            _ if status == StatusCode::FAILED_DEPENDENCY.as_u16() => Some(Self::Error(Vec::new())),
            200..300 if is_stream => Some(Self::Stream),
            _ => None,
        }
    }

    /// Takes more of the answer. True: it says so, once.
    pub fn feed(&mut self, data: &[u8]) -> bool {
        let found = match self {
            Self::Found => false,
            Self::Error(text) => {
                let room = LONGEST.saturating_sub(text.len()).min(data.len());
                text.extend_from_slice(&data[..room]);
                // What is read anew is bounded by what is kept.
                room > 0 && says_so(text)
            }
            Self::Stream => data.split(|byte| *byte == b'\n').any(|line| is_error(line) && says_so(line)),
        };
        if found {
            *self = Self::Found;
        }
        found
    }

    /// Takes the header or trailer of a call of gRPC. True: it says so, once.
    pub fn message(&mut self, fields: &HeaderMap) -> bool {
        let says = fields.get("grpc-message").is_some_and(|message| says_so(message.as_bytes()));
        let found = says && !matches!(self, Self::Found);
        if found {
            *self = Self::Found;
        }
        found
    }
}

/// Whether a line of a stream is an event about an error. What a model writes stands behind other members, and its
/// quotes are escaped.
fn is_error(line: &[u8]) -> bool {
    let Some(data) = line.strip_prefix(b"data:") else { return false };
    let kind = &data[..data.len().min(KIND)];
    kind.windows(7).any(|text| text == b"\"error\"")
}

fn says_so(text: &[u8]) -> bool {
    let text = text[..text.len().min(LONGEST)].to_ascii_lowercase();
    WORDS.iter().any(|words| text.windows(words.len()).any(|part| part == *words))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VLLM: &[u8] = br#"{"object":"error","message":"CUDA out of memory. Tried to allocate 350.00 MiB. GPU 0 has a total capacity of 23.68 GiB","type":"InternalServerError","param":null,"code":500}"#;

    fn error(status: u16, pieces: &[&[u8]]) -> usize {
        let Some(mut complaint) = Complaint::of(status, false) else { return 0 };
        pieces.iter().filter(|piece| complaint.feed(piece)).count()
    }

    #[test]
    fn an_error_that_says_so_is_found_once_however_it_is_cut() {
        for at in 0..VLLM.len() {
            assert_eq!(error(500, &[&VLLM[..at], &VLLM[at..], VLLM]), 1, "{at}");
        }
        assert_eq!(error(424, &[br#"{"error":"Request failed during generation: Server error: CUDA out of memory","error_type":"generation"}"#]), 1);
        assert_eq!(error(500, &[b"torch.OutOfMemoryError"]), 1);
        assert_eq!(error(503, &[b"HIP error: hipErrorOutOfMemory"]), 1);
    }

    #[test]
    fn what_a_client_has_written_is_no_complaint() {
        assert_eq!(error(400, &[br#"{"error":"invalid prompt: out of memory"}"#]), 0);
        assert_eq!(error(429, &[VLLM]), 0);
        assert_eq!(error(200, &[VLLM]), 0);
        let mut events = Complaint::of(200, true).unwrap();
        for text in [
            r#"data: {"id":"1","choices":[{"delta":{"content":"out of memory"}}]}"#,
            r#"data: {"index":1,"token":{"text":"\"error\": out of memory"}}"#,
            r#"data: {"error":{"message":"the engine is tired"}}"#,
        ] {
            assert!(!events.feed(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn an_event_about_an_error_that_says_so_is_found_once() {
        for text in [
            r#"data: {"error": {"object": "error", "message": "CUDA out of memory. Tried", "code": 500}}"#,
            r#"data:{"error":"Server error: CUDA out of memory","error_type":"generation"}"#,
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"message\":\"CUDA out of memory\"}}\n\n",
        ] {
            let mut events = Complaint::of(200, true).unwrap();
            assert!(!events.feed(b"data: {\"id\":\"1\"}\n\n"));
            assert!(events.feed(text.as_bytes()), "{text}");
            assert!(!events.feed(text.as_bytes()));
        }
    }

    #[test]
    fn of_a_long_error_only_the_begin_is_read() {
        let mut complaint = Complaint::of(500, false).unwrap();
        complaint.feed(&[b'x'; LONGEST]);
        assert!(!complaint.feed(VLLM));
        assert!(matches!(complaint, Complaint::Error(text) if text.len() == LONGEST));
    }

    #[test]
    fn the_status_of_a_call_says_so() {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-message", "CUDA out of memory".parse().unwrap());
        let mut complaint = Complaint::of(500, false).unwrap();
        assert!(complaint.message(&trailers) && !complaint.message(&trailers));
    }
}
