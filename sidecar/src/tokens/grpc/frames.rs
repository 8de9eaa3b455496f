//! The messages of a call, each behind a byte that says whether it is packed and four that say how long it is.

const HEAD: usize = 5;

/// Is handed the messages.
pub(super) trait Messages {
    /// A message of so many bytes begins.
    fn begin(&mut self, is_packed: bool, length: u32);

    /// Its next bytes.
    fn data(&mut self, piece: &[u8]);

    /// It ends.
    fn end(&mut self);
}

/// Takes a call apart, cut anywhere.
#[derive(Debug, Default)]
pub(super) struct FrameReader {
    head: [u8; HEAD],
    have: usize,
    /// Of the message, once its head is whole.
    left: u32,
    lost: bool,
}

impl FrameReader {
    /// These are no messages of gRPC.
    pub(super) fn is_lost(&self) -> bool {
        self.lost
    }

    /// Whether what comes next is a message, and not the rest of one.
    pub(super) fn is_between(&self) -> bool {
        self.have == 0 && !self.lost
    }

    /// Takes the next bytes. The last place in them where a message ended, if one did.
    pub(super) fn feed(&mut self, data: &[u8], messages: &mut impl Messages) -> Option<usize> {
        let mut ended = None;
        let mut at = 0;
        while at < data.len() && !self.lost {
            if self.have < HEAD {
                self.head[self.have] = data[at];
                self.have += 1;
                at += 1;
                if self.have < HEAD {
                    continue;
                }
                let [flag, length @ ..] = self.head;
                if flag > 1 {
                    self.lost = true;
                    return ended;
                }
                self.left = u32::from_be_bytes(length);
                messages.begin(flag == 1, self.left);
            } else {
                let length = (data.len() - at).min(self.left as usize);
                messages.data(&data[at..at + length]);
                self.left -= length as u32;
                at += length;
            }
            if self.left == 0 {
                messages.end();
                self.have = 0;
                ended = Some(at);
            }
        }
        ended
    }
}
