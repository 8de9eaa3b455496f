//! Second readers, plain and slow.

use serde_json::Value;
use tidegate_core::Tokens;

use crate::tokens::prompt::Prompt;
use crate::tokens::usage::UsageReader;

/// The settings of a body, as a parser finds them that keeps the last of several fields of one name.
pub(super) fn prompt(value: &Value, body: &[u8], read: &Prompt) {
    let levels = body.iter().filter(|byte| matches!(byte, b'{' | b'[')).count();
    let numbers = body.split(|b| !b.is_ascii_digit()).any(|digits| digits.len() > 20);
    if levels > 96 || numbers || !value.is_object() {
        return;
    }
    // A field that is there several times is read by kind: only one that is there once has one meaning.
    let once = |name: &str| {
        body.windows(name.len()).filter(|window| *window == name.as_bytes()).count() <= 1
            && !body.contains(&b'\\')
    };
    if once("\"model\"") {
        let model = value.get("model").and_then(Value::as_str).filter(|model| model.len() <= 256);
        assert_eq!(read.model.as_deref(), model);
    }
    if once("\"stream\"") && !value.as_object().is_some_and(|o| o.contains_key("parameters")) {
        assert_eq!(read.stream, value.get("stream") == Some(&Value::Bool(true)) || in_parameters(value));
    }
}

fn in_parameters(value: &Value) -> bool {
    ["parameters", "sampling_params"].iter().any(|name| value[name]["stream"] == Value::Bool(true))
}

/// The HTML standard, 9.2.6: lines first, then fields, then events.
pub(super) fn stream(body: &[u8]) -> (Tokens, bool, Option<usize>) {
    let mut usage = UsageReader::of_events();
    let mut event: Option<Vec<u8>> = None;
    let mark = if body.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    let (mut start, mut ended) = (mark, None);
    while start < body.len() {
        let length = body[start..].iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let line = &body[start..length.map_or(body.len(), |length| start + length)];
        let terminated = length.is_some();
        start += line.len();
        start += match body[start..] {
            [b'\r', b'\n', ..] => 2,
            [b'\r' | b'\n', ..] => 1,
            _ => 0,
        };
        if line.is_empty() && terminated {
            if let Some(data) = event.take() {
                usage.feed(&data);
                usage.next();
                ended = Some(start);
            }
        } else if let Some(value) = data(line).filter(|_| terminated || line.contains(&b':')) {
            match &mut event {
                Some(event) => *event = [&event[..], b"\n", value].concat(),
                None => event = Some(value.to_vec()),
            }
        }
    }
    // What has come of an event that has not ended counts already.
    if let Some(data) = event {
        usage.feed(&data);
    }
    (usage.tokens(7), usage.is_exact(), ended)
}

fn data(line: &[u8]) -> Option<&[u8]> {
    let colon = line.iter().position(|byte| *byte == b':');
    let (name, value) = colon.map_or((line, &b""[..]), |colon| (&line[..colon], &line[colon + 1..]));
    (name == b"data").then(|| value.strip_prefix(b" ").unwrap_or(value))
}
