//! Second readers: of frames by slices, of fields by prost.

use prost::encoding::{WireType, decode_key, decode_varint};

/// A field of a message.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Field {
    Number(u64),
    /// Not empty.
    Bytes(Vec<u8>),
}

/// The messages that are whole, up to the first that is none, and where the last of them ends.
pub(super) fn frames(body: &[u8]) -> (Vec<(bool, u32, Vec<u8>)>, usize) {
    let (mut messages, mut at) = (Vec::new(), 0);
    while let Some(([flag @ 0..=1, length @ ..], rest)) = body[at..].split_first_chunk::<5>() {
        let length = u32::from_be_bytes(*length);
        let Some(message) = rest.get(..length as usize) else { break };
        messages.push((*flag == 1, length, message.to_vec()));
        at += 5 + message.len();
    }
    (messages, at)
}

/// The numbers and bytes of a message, as far as it can be followed.
pub(super) fn fields(mut body: &[u8]) -> Vec<(u32, Field)> {
    let mut found = Vec::new();
    while !body.is_empty() {
        let Ok((number, kind)) = decode_key(&mut body) else { break };
        let length = match kind {
            WireType::Varint => {
                let Ok(value) = decode_varint(&mut body) else { break };
                found.push((number, Field::Number(value)));
                continue;
            }
            WireType::SixtyFourBit => 8,
            WireType::ThirtyTwoBit => 4,
            WireType::LengthDelimited => match decode_varint(&mut body) {
                Ok(length) => length,
                Err(_) => break,
            },
            WireType::StartGroup | WireType::EndGroup => break,
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some((bytes, rest)) = body.split_at_checked(length) else { break };
        body = rest;
        if kind == WireType::LengthDelimited && !bytes.is_empty() {
            found.push((number, Field::Bytes(bytes.to_vec())));
        }
    }
    found
}
