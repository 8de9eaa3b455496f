//! Lines out of a stream of chunks.

use anyhow::{Result, bail};

/// Gathers chunks and gives back whole lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Longest line: the largest document, escaped and wrapped.
    pub(super) const MAX: usize = 4 << 20;

    /// The lines that end in `chunk`, without empty ones. A line that does not end is an error before it fills
    /// the memory.
    pub(super) fn push(&mut self, chunk: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut lines = Vec::new();
        let mut pieces = chunk.split(|byte| *byte == b'\n');
        self.partial.extend_from_slice(pieces.next().unwrap_or_default());
        for piece in pieces {
            lines.push(std::mem::replace(&mut self.partial, piece.to_vec()));
        }
        if self.partial.len() > Self::MAX {
            bail!("a line is longer than {} bytes", Self::MAX);
        }
        lines.retain(|line| !line.trim_ascii().is_empty());
        Ok(lines)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_they_are_cut(
            text in "[a-c\n]{0,60}",
            cuts in prop::collection::vec(0usize..60, 0..6),
        ) {
            let whole = Lines::default().push(text.as_bytes()).unwrap();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let mut lines = Lines::default();
            let pieces: Vec<Vec<u8>> =
                cuts.windows(2).flat_map(|w| lines.push(&text.as_bytes()[w[0]..w[1]]).unwrap()).collect();
            prop_assert_eq!(pieces, whole);
        }
    }

    #[test]
    fn a_line_without_end_is_an_error() {
        let mut lines = Lines::default();
        let chunk = vec![b'x'; Lines::MAX / 2];
        assert!(lines.push(&chunk).is_ok() && lines.push(&chunk).is_ok());
        assert!(lines.push(&chunk).unwrap_err().to_string().contains("longer"));
    }
}
