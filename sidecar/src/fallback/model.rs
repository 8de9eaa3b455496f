//! Another model's name in a request's body, with every other byte as it was.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use serde::de::IgnoredAny;

/// The same JSON object with `model` in place of the names that stand under its own key `model`. None of what is no
/// object of JSON or has no such key.
pub fn rename(body: &[u8], model: &str) -> Option<Bytes> {
    // From here on every string has its end and every bracket its partner.
    let _: IgnoredAny = serde_json::from_slice(body).ok()?;
    let name = serde_json::to_vec(model).ok()?;
    let mut renamed = Vec::with_capacity(body.len() + name.len());
    let mut copied = 0;
    for value in values(body) {
        renamed.extend_from_slice(&body[copied..value.start]);
        renamed.extend_from_slice(&name);
        copied = value.end;
    }
    if copied == 0 {
        return None;
    }
    renamed.extend_from_slice(&body[copied..]);
    Some(renamed.into())
}

/// Where the strings under the key `model` of the outermost object stand. A parser that meets a key twice may take
/// either, so all of them count.
fn values(body: &[u8]) -> Vec<Range<usize>> {
    let (mut found, mut depth, mut at) = (Vec::new(), 0_usize, 0);
    let mut key = false;
    while at < body.len() {
        match body[at] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                let end = string_end(body, at);
                let text = body.get(at..end).unwrap_or_default();
                if key {
                    found.push(at..end);
                }
                key = depth == 1 && is_key(body, end) && is_model(text);
                at = end;
                continue;
            }
            b':' | b' ' | b'\t' | b'\r' | b'\n' => {}
            _ => key = false,
        }
        if matches!(body[at], b'{' | b'[') {
            key = false;
        }
        at += 1;
    }
    found
}

/// Behind the closing quote of the string that begins at `start`.
fn string_end(body: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = body.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    body.len()
}

fn is_key(body: &[u8], end: usize) -> bool {
    body.get(end..).unwrap_or_default().trim_ascii_start().first() == Some(&b':')
}

/// Keys may be written with escapes.
fn is_model(text: &[u8]) -> bool {
    serde_json::from_slice::<Cow<'_, str>>(text).is_ok_and(|key| key == "model")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn only_the_name_changes() {
        for (body, expected) in [
            (r#"{"model":"a","n":1.0}"#, r#"{"model":"b\"","n":1.0}"#),
            (
                r#" { "x" : {"model":"a"}, "model" : "a\"\\" } "#,
                r#" { "x" : {"model":"a"}, "model" : "b\"" } "#,
            ),
            (r#"{"mod\u0065l":"a","model":"c"}"#, r#"{"mod\u0065l":"b\"","model":"b\""}"#),
            (r#"{"prompt":"\"model\":\"x\"","model":"a"}"#, r#"{"prompt":"\"model\":\"x\"","model":"b\""}"#),
            (r#"{"a":["model"],"b":"model","model":"a"}"#, r#"{"a":["model"],"b":"model","model":"b\""}"#),
        ] {
            let renamed = rename(body.as_bytes(), "b\"").unwrap();
            assert_eq!(std::str::from_utf8(&renamed).unwrap(), expected);
        }
    }

    #[test]
    fn what_names_no_model_is_left_alone() {
        for body in [
            "",
            "{}",
            "[]",
            "{\"model\":1}",
            "{\"model\":{\"model\":\"a\"}}",
            "{\"model\":\"a\"",
            "model",
            "[\"model\"]",
        ] {
            assert_eq!(rename(body.as_bytes(), "b"), None, "{body}");
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::from),
            "(model|[a-z\"\\\\:{}\\[\\]é]{0,6})".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("(model|x|\"y)", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_does_what_a_parser_would(mut value in values()) {
            let body = serde_json::to_vec(&value).unwrap();
            let renamed = rename(&body, "other");
            match value.get_mut("model") {
                Some(name) if name.is_string() => {
                    *name = json!("other");
                    let read: Value = serde_json::from_slice(&renamed.unwrap()).unwrap();
                    prop_assert_eq!(read, value);
                }
                _ => prop_assert_eq!(renamed, None),
            }
        }
    }
}
