//! How a stream ends whose tokens have run out: as its client expects of an error, and never as a broken connection.

use bytes::Bytes;
use serde_json::json;
use tidegate_core::Rule;

/// Whose events a stream has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Those of OpenAI's chat and completions, which most engines speak.
    OpenAi,
    /// Those of OpenAI's responses.
    Responses,
    /// Those of Anthropic's messages.
    Anthropic,
    /// None: calls of gRPC end with trailers.
    Grpc,
}

impl Style {
    /// By the last part of the path.
    pub(super) fn of(last: &str) -> Self {
        match last {
            "messages" => Self::Anthropic,
            "responses" => Self::Responses,
            _ => Self::OpenAi,
        }
    }
}

/// What a client is told whose answer this limit ends.
pub fn message(rule: &Rule) -> String {
    format!("limit {:?} is exceeded: its tokens ran out before the answer was whole", rule.name)
}

/// The last events of a stream that this limit ends.
pub fn event(style: Style, rule: &Rule) -> Bytes {
    let message = message(rule);
    let kind = "rate_limit_exceeded";
    let text = match style {
        Style::Grpc => String::new(),
        Style::OpenAi => {
            let error = json!({"error": {"message": message, "type": kind, "param": null, "code": "limit"}});
            format!("data: {error}\n\ndata: [DONE]\n\n")
        }
        Style::Responses => {
            let error = json!({"type": "error", "code": kind, "message": message, "param": null});
            format!("event: error\ndata: {error}\n\n")
        }
        Style::Anthropic => {
            let error = json!({"type": "error", "error": {"type": "rate_limit_error", "message": message}});
            format!("event: error\ndata: {error}\n\n")
        }
    };
    Bytes::from(text)
}
