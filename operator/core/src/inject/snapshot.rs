//! The policy of admission time, small enough for an annotation.

use std::io::{Read, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use tidegate_policy::PolicyDocument;

/// Largest snapshot. Annotations of a pod share 256 KiB with everybody else's.
pub const MAX_SNAPSHOT_BYTES: usize = 32 * 1024;

/// Base64 of gzip of the document's JSON; none when that is larger than [`MAX_SNAPSHOT_BYTES`]: the sidecar then
/// starts under the default document until the stream brings the real one.
pub fn encode_snapshot(document: &PolicyDocument) -> Option<String> {
    let json = serde_json::to_vec(document).ok()?;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(&json).ok()?;
    let text = STANDARD.encode(gzip.finish().ok()?);
    (text.len() <= MAX_SNAPSHOT_BYTES).then_some(text)
}

/// The document's JSON again; none when the text is no snapshot.
pub fn decode_snapshot(text: &str) -> Option<Vec<u8>> {
    let gzip = STANDARD.decode(text.trim()).ok()?;
    let mut json = Vec::new();
    let limit = PolicyDocument::MAX_BYTES as u64 + 1;
    GzDecoder::new(gzip.as_slice()).take(limit).read_to_end(&mut json).ok()?;
    Some(json)
}
