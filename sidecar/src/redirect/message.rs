//! Netlink messages: a header, the header of its subsystem, and attributes that nest.
//!
//! Layout as in `linux/netlink.h` and `linux/netfilter/nfnetlink.h`: netlink's own numbers in the byte order of the
//! host, nfnetlink's in that of the network, everything aligned to four bytes.

/// Length of a message's header.
pub(super) const HEADER: usize = 16;
const NESTED: u16 = 0x8000;

/// The messages of one datagram.
#[derive(Debug, Default)]
pub(super) struct Messages {
    bytes: Vec<u8>,
    sequence: u32,
}

/// Head of one message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    /// Subsystem and message number.
    pub(super) kind: u16,
    /// Beyond `NLM_F_REQUEST`.
    pub(super) flags: u16,
    /// Address family.
    pub(super) family: u8,
    /// Resource, which a batch's ends use to name the subsystem.
    pub(super) resource: u16,
}

impl Messages {
    /// Adds a message and returns its sequence number, which its acknowledgement will carry.
    pub(super) fn push(&mut self, head: Head, attributes: &Attributes) -> u32 {
        const REQUEST: u16 = 0x01;
        self.sequence += 1;
        let length = HEADER + 4 + attributes.0.len();
        self.bytes.extend((length as u32).to_ne_bytes());
        self.bytes.extend(head.kind.to_ne_bytes());
        self.bytes.extend((head.flags | REQUEST).to_ne_bytes());
        self.bytes.extend(self.sequence.to_ne_bytes());
        self.bytes.extend(0u32.to_ne_bytes());
        self.bytes.extend([head.family, 0]);
        self.bytes.extend(head.resource.to_be_bytes());
        self.bytes.extend(&attributes.0);
        self.sequence
    }

    /// As they go to the kernel.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Attributes of a message, or of another attribute.
#[derive(Debug, Clone, Default)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    /// With `value` as it is.
    pub(super) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.extend(((4 + value.len()) as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// With a string, which ends in a zero byte.
    pub(super) fn string(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    /// With a number in network byte order.
    pub(super) fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// With attributes inside.
    pub(super) fn nested(self, kind: u16, inner: &Self) -> Self {
        self.bytes(kind | NESTED, &inner.0)
    }
}

/// What the kernel says to one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reply {
    /// Of the message it is about.
    pub(super) sequence: u32,
    /// Zero: done. Else the number of an error.
    pub(super) errno: i32,
}

/// Reads the acknowledgements and errors of a datagram; other messages are passed over. `None`: it is torn.
pub(super) fn replies(mut datagram: &[u8]) -> Option<Vec<Reply>> {
    const ERROR: u16 = 2;
    let mut replies = Vec::new();
    while !datagram.is_empty() {
        let length = u32::from_ne_bytes(*datagram.first_chunk()?) as usize;
        let message = datagram.get(..length).filter(|_| length >= HEADER)?;
        if u16::from_ne_bytes(*message.get(4..)?.first_chunk()?) == ERROR {
            let sequence = u32::from_ne_bytes(*message.get(8..)?.first_chunk()?);
            let code = i32::from_ne_bytes(*message.get(HEADER..)?.first_chunk()?);
            replies.push(Reply { sequence, errno: code.saturating_neg() });
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(replies)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_to_four_bytes_and_their_length_is_not() {
        let attributes = Attributes::default().string(1, "abcd").number(2, 0x0102_0304);
        let mut expected = Vec::new();
        expected.extend(9u16.to_ne_bytes());
        expected.extend(1u16.to_ne_bytes());
        expected.extend(b"abcd\0\0\0\0");
        expected.extend(8u16.to_ne_bytes());
        expected.extend(2u16.to_ne_bytes());
        expected.extend([1, 2, 3, 4]);
        assert_eq!(attributes.0, expected);
    }

    #[test]
    fn messages_count_their_sequence_and_their_length() {
        let mut messages = Messages::default();
        let head = Head { kind: 7, flags: 0x400, family: 1, resource: 10 };
        assert_eq!(messages.push(head, &Attributes::default()), 1);
        assert_eq!(messages.push(head, &Attributes::default().number(1, 1)), 2);
        let bytes = messages.as_bytes();
        assert_eq!(bytes.len(), 20 + 28);
        assert_eq!(bytes[..4], 20u32.to_ne_bytes());
        assert_eq!(bytes[6..8], 0x401u16.to_ne_bytes());
        assert_eq!(bytes[16..20], [1, 0, 0, 10]);
        assert_eq!(bytes[28..32], 2u32.to_ne_bytes());
    }

    #[test]
    fn replies_give_errors_and_acknowledgements_by_sequence() {
        let mut datagram = Vec::new();
        for (sequence, code) in [(3u32, -1i32), (4, 0)] {
            datagram.extend(36u32.to_ne_bytes());
            datagram.extend(2u16.to_ne_bytes());
            datagram.extend([0; 2]);
            datagram.extend(sequence.to_ne_bytes());
            datagram.extend([0; 4]);
            datagram.extend(code.to_ne_bytes());
            datagram.extend([0; 16]);
        }
        let expected = [Reply { sequence: 3, errno: 1 }, Reply { sequence: 4, errno: 0 }];
        assert_eq!(replies(&datagram).unwrap(), expected);
        assert_eq!(replies(&datagram[..30]), None);
        assert_eq!(replies(&[0; 16]), None, "a length of zero must not loop");
    }
}
