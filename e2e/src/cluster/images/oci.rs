//! An image as an archive of the OCI image layout, which `skopeo`, `crane`, `podman` and `ctr` push to a registry. The same
//! inputs give the same bytes.
//!
//! <https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md>

use std::fs::File;
use std::io::Read;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType};

use super::archive::{Image, header};
use crate::cluster::cache;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Writes the archive, and tells the digest that a registry will know the image by.
pub(super) fn write(image: &Image, out: &mut File) -> anyhow::Result<String> {
    let (layer, layer_digest) = image.layer()?;
    let layer_size = layer.metadata()?.len();
    let config = image.config(&layer_digest).to_string();
    let config_blob = blob("application/vnd.oci.image.config.v1+json", &config);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config_blob,
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": format!("sha256:{layer_digest}"),
            "size": layer_size,
        }],
    })
    .to_string();
    let mut manifest_blob = blob(MANIFEST, &manifest);
    let digest = text(&manifest_blob["digest"]);
    let tag = image.reference().rsplit(':').next().unwrap_or_default();
    manifest_blob["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [manifest_blob],
    });
    let mut archive = Builder::new(out);
    add(&mut archive, "oci-layout", &json!({"imageLayoutVersion": "1.0.0"}).to_string())?;
    add(&mut archive, "index.json", &index.to_string())?;
    add(&mut archive, &path(&text(&config_blob["digest"])), &config)?;
    add(&mut archive, &path(&digest), &manifest)?;
    let mut of_layer = header(EntryType::Regular, 0o644, layer_size);
    archive.append_data(&mut of_layer, path(&layer_digest), layer.take(layer_size))?;
    archive.finish()?;
    Ok(digest)
}

fn add(archive: &mut Builder<&mut File>, name: &str, content: &str) -> anyhow::Result<()> {
    let mut header = header(EntryType::Regular, 0o644, content.len() as u64);
    Ok(archive.append_data(&mut header, name, content.as_bytes())?)
}

/// What describes a blob.
fn blob(media_type: &str, content: &str) -> Value {
    let digest = cache::hex(&Sha256::digest(content));
    json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": content.len()})
}

fn path(digest: &str) -> String {
    format!("blobs/sha256/{}", digest.trim_start_matches("sha256:"))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::{Cursor, Seek as _};

    use super::*;

    /// A program that lies somewhere, written at some time.
    fn packed(content: &str) -> (String, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        std::fs::write(&program, content).unwrap();
        let image = Image::new("tidegate/x:1.2.3")
            .text("/etc/passwd", "root")
            .file("/usr/local/bin/x", 0o755, program)
            .entrypoint("/usr/local/bin/x")
            .user("65532:65532");
        let mut file = tempfile::tempfile().unwrap();
        let digest = write(&image, &mut file).unwrap();
        file.rewind().unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        (digest, bytes)
    }

    fn files(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(Cursor::new(archive));
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (entry.path().unwrap().display().to_string(), content)
        });
        entries.collect()
    }

    #[test]
    fn two_packings_of_the_same_programs_are_identical() {
        assert_eq!(packed("program"), packed("program"));
        assert_ne!(packed("program").0, packed("another").0);
    }

    #[test]
    fn every_blob_has_the_digest_and_size_that_it_is_named_by() {
        let (digest, archive) = packed("program");
        let files = files(&archive);
        let json = |name: &str| -> Value { serde_json::from_slice(&files[name]).unwrap() };
        assert_eq!(json("oci-layout"), json!({"imageLayoutVersion": "1.0.0"}));
        let index = json("index.json");
        assert_eq!(index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"], "1.2.3");
        assert_eq!(index["manifests"][0]["digest"], digest.as_str());
        let manifest = json(&path(&digest));
        let config = json(&path(&text(&manifest["config"]["digest"])));
        assert_eq!(
            config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"],
            "the layer is not compressed"
        );
        assert_eq!(
            (&config["config"]["User"], &config["created"]),
            (&json!("65532:65532"), &json!("1970-01-01T00:00:00Z"))
        );
        for described in [&index["manifests"][0], &manifest["config"], &manifest["layers"][0]] {
            let content = &files[&path(&text(&described["digest"]))];
            assert_eq!(
                text(&described["digest"]),
                format!("sha256:{}", cache::hex(&Sha256::digest(content)))
            );
            assert_eq!(described["size"], content.len());
        }
        assert_eq!(files.len(), 5);
    }
}
