//! How many tokens a text is, without the tokenizer of its model.

use super::json::Chars;

/// Thousandths of a token for one character, by the bytes it takes: between the old and the new tokenizers of OpenAI,
/// which for other scripts than Latin differ by half.
const ONE: u64 = 250;
const TWO: u64 = 350;
const THREE: u64 = 900;
const FOUR: u64 = 2000;

/// Tokens of an image or a file, whose size in the body says nothing.
const MEDIUM: u64 = 800;

/// Tokens of this text.
pub fn text(chars: Chars) -> u32 {
    let thousandths = ONE * chars.one + TWO * chars.two + THREE * chars.three + FOUR * chars.four;
    clamp(thousandths.div_ceil(1000))
}

/// Tokens of a prompt: its text, what it has as numbers of tokens, and its media.
pub fn prompt(chars: Chars, tokens: u64, media: u64) -> u32 {
    clamp(u64::from(text(chars)).saturating_add(tokens).saturating_add(media.saturating_mul(MEDIUM)))
}

/// Tokens of a body of which nothing was understood.
pub fn unread(length: u64) -> u32 {
    clamp(length.div_ceil(4))
}

/// Of the whole, when that many are in a part of it.
pub fn scaled(tokens: u32, whole: u64, part: u64) -> u32 {
    let scaled = u128::from(tokens) * u128::from(whole.max(part)) / u128::from(part.max(1));
    u32::try_from(scaled).unwrap_or(u32::MAX)
}

fn clamp(tokens: u64) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
