//! How a stream of events ends when its answer does not: with an event that clients take for an error, never as a broken
//! connection.

use bytes::Bytes;
use serde_json::json;

/// Whose events they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Events {
    /// `data` alone, and `[DONE]` at the end.
    OpenAi,
    /// Named ones.
    Anthropic,
}

impl Events {
    /// Those of the endpoint at `path`.
    pub fn of(path: &str) -> Self {
        if path.ends_with("/v1/messages") { Self::Anthropic } else { Self::OpenAi }
    }

    /// The end of a stream for this reason. Whatever event has begun is over with its first bytes; a blank line between
    /// two events is none.
    pub fn end(self, code: &str, message: &str) -> Bytes {
        let text = match self {
            Self::OpenAi => {
                let error = json!({"error":
                    {"message": message, "type": "server_error", "param": null, "code": code}});
                format!("\n\ndata: {error}\n\ndata: [DONE]\n\n")
            }
            Self::Anthropic => {
                let error = json!({"type": "error", "error": {"type": "api_error", "message": message}});
                format!("\n\nevent: error\ndata: {error}\n\n")
            }
        };
        Bytes::from(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_ends_as_the_client_of_its_endpoint_expects() {
        let openai = Events::of("/v1/chat/completions").end("engine-timeout", "too \"late\"");
        let openai = std::str::from_utf8(&openai).unwrap();
        let data: serde_json::Value =
            serde_json::from_str(openai.trim_start().strip_prefix("data: ").unwrap().lines().next().unwrap())
                .unwrap();
        assert_eq!(data["error"]["message"], "too \"late\"");
        assert!(openai.ends_with("\n\ndata: [DONE]\n\n"));
        let anthropic = Events::of("/proxy/v1/messages").end("engine-timeout", "late");
        let anthropic = std::str::from_utf8(&anthropic).unwrap();
        assert!(anthropic.starts_with("\n\nevent: error\ndata: {"), "{anthropic}");
        assert!(anthropic.contains(r#""type":"error""#) && !anthropic.contains("[DONE]"));
    }
}
