use super::*;

fn bytes(image: &Image) -> Vec<u8> {
    let mut file = tempfile::tempfile().unwrap();
    image.write(&mut file).unwrap();
    io::Seek::rewind(&mut file).unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

fn image() -> Image {
    Image::new("tidegate.local/x:1")
        .text("/etc/passwd", "a")
        .link("/bin/sh", "busybox")
        .directory("/tmp", 0o1777)
}

#[test]
fn the_same_inputs_give_the_same_bytes_in_any_order() {
    let other = Image::new("tidegate.local/x:1")
        .directory("/tmp", 0o1777)
        .link("/bin/sh", "busybox")
        .text("/etc/passwd", "a");
    assert_eq!(bytes(&image()), bytes(&other));
    assert_eq!(image().fingerprint().unwrap(), other.fingerprint().unwrap());
}

#[test]
fn another_content_gives_another_fingerprint() {
    assert_ne!(image().fingerprint().unwrap(), image().text("/etc/passwd", "b").fingerprint().unwrap());
    assert_ne!(image().fingerprint().unwrap(), image().user("65532").fingerprint().unwrap());
}

#[test]
fn what_an_image_begins_with_stays_what_it_is_and_no_path_is_there_twice() {
    let long = format!("{}/file", "folder".repeat(30));
    let mut base = Builder::new(tempfile::NamedTempFile::new().unwrap());
    let mut owned = header(EntryType::Regular, 0o600, 3);
    owned.set_uid(7);
    base.append_data(&mut owned, "etc/shadow", &b"old"[..]).unwrap();
    base.append_data(&mut header(EntryType::Regular, 0o644, 3), &long, &b"new"[..]).unwrap();
    base.append_data(&mut header(EntryType::Regular, 0o600, 3), "./etc/hosts", &b"old"[..]).unwrap();
    base.append_link(&mut header(EntryType::Link, 0o600, 0), "hard", "etc/shadow").unwrap();
    let base = base.into_inner().unwrap();
    let image = Image::new("tidegate.local/x:1").on(base.path()).text("/etc/hosts", "new");
    let (layer, _digest) = image.layer().unwrap();
    let mut layer = tar::Archive::new(layer);
    let entries = layer.entries().unwrap().map(|entry| {
        let entry = entry.unwrap();
        let header = entry.header();
        let path = entry.path().unwrap().display().to_string();
        (path, header.mode().unwrap(), header.uid().unwrap(), header.entry_type())
    });
    let expected = [
        ("etc/shadow".to_owned(), 0o600, 7, EntryType::Regular),
        (long, 0o644, 0, EntryType::Regular),
        ("hard".to_owned(), 0o600, 0, EntryType::Link),
        ("etc/".to_owned(), 0o755, 0, EntryType::Directory),
        ("etc/hosts".to_owned(), 0o644, 0, EntryType::Regular),
    ];
    assert_eq!(entries.collect::<Vec<_>>(), expected);
}

#[test]
fn an_image_has_all_its_names() {
    let image = image().known_as("tidegate.local/y:1");
    let mut archive = tar::Archive::new(io::Cursor::new(bytes(&image)));
    let manifest = archive.entries().unwrap().map(Result::unwrap).find_map(|mut entry| {
        let is_it = entry.path().unwrap().ends_with("manifest.json");
        is_it.then(|| serde_json::from_reader::<_, serde_json::Value>(&mut entry).unwrap())
    });
    assert_eq!(manifest.unwrap()[0]["RepoTags"], json!(["tidegate.local/x:1", "tidegate.local/y:1"]));
}

#[test]
fn the_layer_digest_in_the_configuration_is_the_layers_own() {
    let mut archive = tar::Archive::new(io::Cursor::new(bytes(&image())));
    let mut files = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        files.insert(name, content);
    }
    let manifest: serde_json::Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
    let layer = &files[manifest[0]["Layers"][0].as_str().unwrap()];
    let config: serde_json::Value =
        serde_json::from_slice(&files[manifest[0]["Config"].as_str().unwrap()]).unwrap();
    assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", cache::hex(&Sha256::digest(layer))));
    let mut layer = tar::Archive::new(layer.as_slice());
    let paths: Vec<String> =
        layer.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
    assert_eq!(paths, ["bin/", "bin/sh", "etc/", "etc/passwd", "tmp/"]);
}
