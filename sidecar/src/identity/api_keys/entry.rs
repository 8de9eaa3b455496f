//! One entry of the Secret: a key, and whose it is.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Map, Value};

use super::super::Claimed;
use super::super::issuers::values_of;
use super::hashed;

/// SHA-256 of a key.
pub(super) type Digest = [u8; 32];

/// A shorter key could be guessed.
const SHORTEST_KEY: usize = 16;
pub(super) const LONGEST_KEY: usize = 512;
/// What is said of one client, and how long each of it may be.
const MOST_CLAIMS: usize = 16;
const LONGEST_VALUE: usize = 256;

/// What an entry calls its client by when it does not say.
const CLIENT: &str = "client";

/// Reads an entry. An error never has the key in it.
pub(super) fn parse(name: &str, content: &str) -> Result<(Digest, Claimed)> {
    let content = content.trim();
    if !content.starts_with('{') {
        return Ok((key(content)?, claimed(name, Map::new())?));
    }
    // What a parser says of JSON can have a part of it in it.
    let object: Option<Map<String, Value>> = serde_json::from_str(content).ok();
    let mut object =
        object.context("not JSON: write the key alone, or an object such as {\"key\": \"...\"}")?;
    let digest = match (object.remove("key"), object.remove("sha256")) {
        (Some(Value::String(text)), None) => key(&text)?,
        (None, Some(Value::String(text))) => sha256(&text)?,
        _ => bail!("it has no key, or two: write either key or sha256, a text"),
    };
    Ok((digest, claimed(name, object)?))
}

fn key(text: &str) -> Result<Digest> {
    let length = text.len();
    ensure!(
        (SHORTEST_KEY..=LONGEST_KEY).contains(&length),
        "a key of {length} bytes: write one of {SHORTEST_KEY} to {LONGEST_KEY}"
    );
    ensure!(text.bytes().all(|b| b.is_ascii_graphic()), "the key has more than printable ASCII in it");
    Ok(hashed(text.as_bytes()))
}

fn sha256(text: &str) -> Result<Digest> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let bytes: Option<Vec<u8>> =
        text.as_bytes().chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect();
    let digest = bytes.and_then(|bytes| bytes.try_into().ok());
    digest.context("sha256 is not a hash: write 64 hexadecimal digits, as sha256sum does")
}

fn claimed(name: &str, mut said: Map<String, Value>) -> Result<Claimed> {
    said.entry(CLIENT).or_insert_with(|| name.into());
    ensure!(said.len() <= MOST_CLAIMS, "it says {} things: write at most {MOST_CLAIMS}", said.len());
    let mut claims = Vec::new();
    for (name, value) in &said {
        let values = values_of(value);
        let long = name.len() > LONGEST_VALUE || values.iter().any(|value| value.len() > LONGEST_VALUE);
        ensure!(!long, "what it says is too long: write at most {LONGEST_VALUE} bytes");
        claims.push((name.as_str().into(), values));
    }
    Ok(Claimed(claims))
}

#[cfg(test)]
mod tests {
    use tidegate_core::Claims as _;

    use super::*;

    const KEY: &str = "sk-0123456789abcdef";
    /// `printf sk-0123456789abcdef | sha256sum`
    const HASH: &str = "221df437bc4f8c4d9718bd7a9ec4c1021c72fd69dfb2a5f568ecf4607c824bee";

    #[test]
    fn an_entry_is_a_key_or_says_whose_it_is() {
        let (plain, client) = parse("acme", &format!("{KEY}\n")).unwrap();
        assert_eq!((plain, client.values("client")), (hashed(KEY.as_bytes()), &["acme".into()][..]));
        let text =
            format!(r#"{{"key": "{KEY}", "client": "a", "tier": "gold", "teams": ["x", 7], "deep": {{}}}}"#);
        let (same, client) = parse("acme", &text).unwrap();
        assert_eq!(same, plain);
        assert_eq!(client.values("client"), &["a".into()][..]);
        assert_eq!(client.values("tier"), &["gold".into()][..]);
        assert_eq!(client.values("teams"), &["x".into(), "7".into()][..]);
        assert!(client.values("deep").is_empty() && client.values("key").is_empty());
        assert_eq!(parse("acme", &format!(r#"{{"sha256": "{HASH}"}}"#)).unwrap().0, plain);
    }

    #[test]
    fn what_is_wrong_with_an_entry_is_told_without_it() {
        for (content, told) in [
            ("", "a key of 0 bytes"),
            ("secret", "a key of 6 bytes"),
            ("secret secret secret", "printable"),
            ("{\"key\": \"secret-secret", "not JSON"),
            ("{}", "no key, or two"),
            ("{\"key\": \"secret-secret-secret\", \"sha256\": \"\"}", "no key, or two"),
            ("{\"key\": 5}", "no key, or two"),
            ("{\"sha256\": \"secret\"}", "64 hexadecimal digits"),
            ("{\"sha256\": \"\u{e4}\"}", "64 hexadecimal digits"),
        ] {
            let error = format!("{:#}", parse("acme", content).unwrap_err());
            assert!(error.contains(told) && !error.contains("secret"), "{error}");
        }
        let long = format!(r#"{{"key": "{KEY}", "tier": "{}"}}"#, "x".repeat(257));
        assert!(parse("acme", &long).unwrap_err().to_string().contains("too long"));
        let many: Map<String, Value> = (0..17).map(|i| (i.to_string(), Value::Bool(true))).collect();
        assert!(claimed("acme", many).unwrap_err().to_string().contains("18 things"));
    }
}
