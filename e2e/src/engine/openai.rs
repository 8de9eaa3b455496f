//! The part of OpenAI's API that the simulator speaks.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::{Value, json};

/// Characters of one token of prompt, the usual rule of thumb.
const CHARACTERS_PER_TOKEN: usize = 4;
/// Tokens of an answer whose length the client leaves open.
const DEFAULT_OUTPUT: u32 = 16;
/// The text of one token: four characters.
const TOKEN: &str = "tide";

/// The two endpoints that generate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Text,
}

/// The body of a request; fields that change nothing here are ignored, as vLLM does.
#[derive(Debug, Deserialize)]
pub struct Request {
    #[serde(default)]
    messages: Vec<Value>,
    #[serde(default)]
    prompt: Value,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    /// Whether the answer comes as server-sent events.
    #[serde(default)]
    pub stream: bool,
    #[serde(default)]
    stream_options: StreamOptions,
    /// Size of the prompt in tokens, for callers that do not want to send so much text.
    prompt_tokens: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

impl Request {
    /// Tokens of the prompt: as told, else a quarter of its characters.
    pub fn prompt_tokens(&self) -> u32 {
        self.prompt_tokens.unwrap_or_else(|| {
            let text: usize = self.messages.iter().map(|message| characters(&message["content"])).sum();
            let tokens = (text + characters(&self.prompt)).div_ceil(CHARACTERS_PER_TOKEN);
            u32::try_from(tokens).unwrap_or(u32::MAX).max(1)
        })
    }

    /// Tokens of the answer.
    pub fn output_tokens(&self) -> u32 {
        self.max_completion_tokens.or(self.max_tokens).unwrap_or(DEFAULT_OUTPUT).max(1)
    }

    /// Whether a stream ends with a chunk that tells its usage.
    pub fn include_usage(&self) -> bool {
        self.stream_options.include_usage
    }
}

/// Characters of a text, of a list of content parts, or of a list of prompts.
fn characters(content: &Value) -> usize {
    match content {
        Value::String(text) => text.chars().count(),
        Value::Array(parts) => parts.iter().map(characters).sum(),
        Value::Object(part) => part.get("text").map_or(0, characters),
        _ => 0,
    }
}

/// Names and sizes of one answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The endpoint it answers.
    pub endpoint: Endpoint,
    /// The engine's number of the request.
    pub id: u64,
    /// The model's name.
    pub model: String,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Seconds since the epoch.
    pub created: u64,
}

impl Answer {
    /// An answer of this instant.
    pub fn new(endpoint: Endpoint, id: u64, model: String, prompt_tokens: u32) -> Self {
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self { endpoint, id, model, prompt_tokens, created }
    }

    /// The whole answer of a request that does not stream.
    pub fn complete(&self, generated: u32) -> Value {
        let text = TOKEN.repeat(generated as usize);
        let choice = match self.endpoint {
            Endpoint::Chat => json!({"index": 0, "finish_reason": "length",
                "message": {"role": "assistant", "content": text}}),
            Endpoint::Text => json!({"index": 0, "finish_reason": "length", "text": text}),
        };
        self.envelope(false, &json!([choice]), Some(self.usage(generated)))
    }

    /// One token of a stream.
    pub fn token(&self, first: bool, last: bool) -> Value {
        let finish = last.then_some("length");
        let choice = match self.endpoint {
            Endpoint::Chat if first => json!({"index": 0, "finish_reason": finish,
                "delta": {"role": "assistant", "content": TOKEN}}),
            Endpoint::Chat => json!({"index": 0, "finish_reason": finish, "delta": {"content": TOKEN}}),
            Endpoint::Text => json!({"index": 0, "finish_reason": finish, "text": TOKEN}),
        };
        self.envelope(true, &json!([choice]), None)
    }

    /// The last chunk of a stream whose client asked for the usage.
    pub fn usage_chunk(&self, generated: u32) -> Value {
        self.envelope(true, &json!([]), Some(self.usage(generated)))
    }

    fn usage(&self, generated: u32) -> Value {
        json!({"prompt_tokens": self.prompt_tokens, "completion_tokens": generated,
            "total_tokens": self.prompt_tokens + generated})
    }

    fn envelope(&self, chunk: bool, choices: &Value, usage: Option<Value>) -> Value {
        let (prefix, object) = match (self.endpoint, chunk) {
            (Endpoint::Chat, true) => ("chatcmpl", "chat.completion.chunk"),
            (Endpoint::Chat, false) => ("chatcmpl", "chat.completion"),
            (Endpoint::Text, _) => ("cmpl", "text_completion"),
        };
        let mut body = json!({"id": format!("{prefix}-{}", self.id), "object": object, "created": self.created,
            "model": self.model, "choices": choices});
        if let Some(usage) = usage {
            body["usage"] = usage;
        }
        body
    }
}

/// vLLM's form of an error.
pub fn error(message: &str, kind: &str, status: u16) -> Value {
    json!({"error": {"message": message, "type": kind, "param": null, "code": status}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_is_measured_in_quarters_of_its_characters_wherever_its_text_stands() {
        let tokens = |body: Value| serde_json::from_value::<Request>(body).unwrap().prompt_tokens();
        assert_eq!(tokens(json!({"prompt": "12345678"})), 2);
        assert_eq!(tokens(json!({"prompt": ["1234", "12345"]})), 3);
        assert_eq!(tokens(json!({"messages": [{"role": "user", "content": "1234"}]})), 1);
        let parts = json!([{"type": "text", "text": "12345678"}, {"type": "image_url"}]);
        assert_eq!(tokens(json!({"messages": [{"content": parts}]})), 2);
        assert_eq!(tokens(json!({"prompt": "x", "prompt_tokens": 900})), 900);
    }
}
