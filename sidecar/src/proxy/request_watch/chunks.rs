//! Finds the end of a chunked request body. Accepts what hyper's decoder accepts, and never more.

/// Where in a chunked body the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunks {
    /// In the digits of a size.
    Size {
        size: u64,
        digits: bool,
    },
    /// In white space behind them.
    SizeSpace(u64),
    /// In an extension.
    Extension(u64),
    /// At the line feed behind a size.
    SizeEnd(u64),
    /// In data, with so many bytes to come.
    Data(u64),
    DataReturn,
    DataEnd,
    /// At the begin of a line of the trailer section, or at its end.
    Trailer,
    /// In a line of the trailer section.
    TrailerLine,
    TrailerEnd,
    LastEnd,
}

/// This is no chunked body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl Default for Chunks {
    fn default() -> Self {
        Self::Size { size: 0, digits: false }
    }
}

impl Chunks {
    /// Skips what belongs to the body. What is behind its end, once that was reached.
    pub(super) fn skip<'a>(&mut self, mut data: &'a [u8]) -> Result<Option<&'a [u8]>, Malformed> {
        while let Some((&byte, rest)) = data.split_first() {
            match self {
                Self::Data(left) => {
                    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(data.len());
                    data = &data[taken..];
                    *left -= taken as u64;
                    if *left == 0 {
                        *self = Self::DataReturn;
                    }
                }
                Self::LastEnd if byte == b'\n' => {
                    *self = Self::default();
                    return Ok(Some(rest));
                }
                _ => {
                    *self = self.after(byte).ok_or(Malformed)?;
                    data = rest;
                }
            }
        }
        Ok(None)
    }

    fn after(self, byte: u8) -> Option<Self> {
        match self {
            Self::Size { size, digits } => match char::from(byte).to_digit(16) {
                Some(digit) => {
                    let size = size.checked_mul(16)?.checked_add(u64::from(digit))?;
                    Some(Self::Size { size, digits: true })
                }
                None if digits => Self::behind_size(size, byte),
                None => None,
            },
            Self::SizeSpace(size) => Self::behind_size(size, byte),
            Self::Extension(size) => match byte {
                b'\r' => Some(Self::SizeEnd(size)),
                b'\n' => None,
                _ => Some(self),
            },
            Self::SizeEnd(size) => {
                (byte == b'\n').then_some(if size == 0 { Self::Trailer } else { Self::Data(size) })
            }
            Self::DataReturn => (byte == b'\r').then_some(Self::DataEnd),
            Self::DataEnd => (byte == b'\n').then(Self::default),
            Self::Trailer | Self::TrailerLine => match byte {
                b'\r' if self == Self::Trailer => Some(Self::LastEnd),
                b'\r' => Some(Self::TrailerEnd),
                b'\n' => None,
                _ => Some(Self::TrailerLine),
            },
            Self::TrailerEnd => (byte == b'\n').then_some(Self::Trailer),
            Self::Data(_) | Self::LastEnd => None,
        }
    }

    fn behind_size(size: u64, byte: u8) -> Option<Self> {
        match byte {
            b'\r' => Some(Self::SizeEnd(size)),
            b';' => Some(Self::Extension(size)),
            b' ' | b'\t' => Some(Self::SizeSpace(size)),
            _ => None,
        }
    }
}
