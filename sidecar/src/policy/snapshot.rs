//! The document that the operator put into the pod at admission: JSON, gzip, base64.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::GzDecoder;
use tidegate_policy::PolicyDocument;

/// Reads it as JSON. `None`: there is none, which the kubelet shows as an empty file.
pub(super) fn read(file: &Path) -> Result<Option<Vec<u8>>> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("can't read {}", file.display())),
    };
    if text.trim().is_empty() {
        return Ok(None);
    }
    let json = decode(text.trim()).with_context(|| format!("{} is not a policy snapshot", file.display()))?;
    Ok(Some(json))
}

fn decode(text: &str) -> Result<Vec<u8>> {
    let packed = STANDARD.decode(text).context("not base64")?;
    let mut json = Vec::new();
    let most = PolicyDocument::MAX_BYTES as u64;
    GzDecoder::new(&packed[..]).take(most + 1).read_to_end(&mut json).context("not gzip")?;
    if json.len() > PolicyDocument::MAX_BYTES {
        bail!("more than {most} bytes when unpacked");
    }
    Ok(json)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn encode(json: &[u8]) -> String {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(json).unwrap();
        STANDARD.encode(encoder.finish().unwrap())
    }

    #[test]
    fn a_snapshot_comes_out_as_it_went_in() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), encode(b"{}") + "\n").unwrap();
        assert_eq!(read(file.path()).unwrap().unwrap(), b"{}");
    }

    #[test]
    fn absent_and_empty_are_no_snapshot_and_garbage_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(read(file.path()).unwrap(), None);
        assert_eq!(read(Path::new("/nowhere/snapshot")).unwrap(), None);
        for garbage in ["{}", "aGVsbG8="] {
            std::fs::write(file.path(), garbage).unwrap();
            assert!(format!("{:#}", read(file.path()).unwrap_err()).contains("not a policy snapshot"));
        }
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        let bomb = encode(&vec![b' '; 64 << 20]);
        assert!(bomb.len() < 100_000);
        assert!(decode(&bomb).unwrap_err().to_string().contains("when unpacked"));
    }
}
