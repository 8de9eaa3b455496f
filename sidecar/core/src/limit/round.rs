//! A word that holds a count and the round it belongs to, so that counts of past rounds need no clearing.

/// Bits that count; the others are the round's number, which wraps around.
pub(super) const COUNT_BITS: u32 = 30;
/// The largest count.
pub(super) const COUNT: u64 = (1 << COUNT_BITS) - 1;
/// The largest number of a round.
pub(super) const ROUND: u64 = u64::MAX >> COUNT_BITS;

/// Whether a round comes after another. Only a thread whose clock lies behind another's meets one that does; a key
/// that was not asked for since the numbers wrapped around may seem to have one, if what lies between is not far less
/// than a whole turn.
pub(super) fn is_later(round: u64, than: u64) -> bool {
    (1..=ROUND / 16).contains(&(round.wrapping_sub(than) & ROUND))
}
