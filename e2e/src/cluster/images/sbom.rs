//! What is in an image: a list in the form of `CycloneDX` 1.5, without times or random numbers, so that it is the same
//! whenever it is made.
//!
//! <https://cyclonedx.org/docs/1.5/json/>

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::VERSION;
use crate::cluster::binaries::workspace;
use crate::cluster::{cache, process};

/// Crates that a program is made of, by the features that it is built with, and the libraries of this machine beside it.
pub(super) async fn of(program: &str, libraries: &BTreeSet<String>) -> anyhow::Result<Value> {
    let mut cargo = process::cargo();
    cargo
        .args(["tree", "--locked", "-p", program, "-e", "normal", "--prefix", "none", "--format", "{p}|{l}"]);
    let tree = process::output(cargo.current_dir(workspace())).await?;
    let lock = fs::read_to_string(workspace().join("Cargo.lock")).context("Cargo.lock")?;
    let mut components = crates(&tree, &checksums(&lock), program);
    for library in libraries {
        components.push(library_of(Path::new(library))?);
    }
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {
            "type": "application", "bom-ref": program, "name": program, "version": VERSION,
            "licenses": [{"expression": "Apache-2.0"}],
        }},
        "components": components,
    }))
}

/// Lines are `name v1.2.3 (what it is)|licence`, some of them more than once.
fn crates(tree: &str, checksums: &BTreeMap<(String, String), String>, program: &str) -> Vec<Value> {
    let lines: BTreeSet<&str> = tree.lines().map(|line| line.trim_end_matches(" (*)")).collect();
    let crates = lines.iter().filter_map(|line| {
        let (package, licence) = line.split_once('|')?;
        let mut words = package.split(' ');
        let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
        (name != program).then_some((name, version, licence.trim_end_matches(" (*)")))
    });
    let crates: BTreeSet<_> = crates.collect();
    let component = |(name, version, licence): &(&str, &str, &str)| {
        let purl = format!("pkg:cargo/{name}@{version}");
        let mut component = json!({
            "type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl,
        });
        if !licence.is_empty() {
            // Cargo's older form of OR.
            component["licenses"] = json!([{"expression": licence.replace('/', " OR ")}]);
        }
        if let Some(checksum) = checksums.get(&((*name).to_owned(), (*version).to_owned())) {
            component["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
        }
        component
    };
    crates.iter().map(component).collect()
}

/// What the registry's packages hash to, by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let packages = lock.split("[[package]]").skip(1);
    let field = |package: &str, name: &str| {
        let line = package.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "))?;
        Some(line.trim_matches('"').to_owned())
    };
    packages
        .filter_map(|package| {
            Some(((field(package, "name")?, field(package, "version")?), field(package, "checksum")?))
        })
        .collect()
}

fn library_of(path: &Path) -> anyhow::Result<Value> {
    let content = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let digest = cache::hex(&Sha256::digest(content));
    Ok(json!({
        "type": "file", "bom-ref": path, "name": path, "hashes": [{"alg": "SHA-256", "content": digest}],
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_are_listed_once_with_licence_and_checksum() {
        let tree = "tidegate-agent v0.1.0 (/src/agent)|Apache-2.0\n\
                    serde v1.0.1|MIT OR Apache-2.0\n\
                    old v0.1.0 (proc-macro)|MIT/Apache-2.0\n\
                    serde v1.0.1|MIT OR Apache-2.0 (*)\n";
        let lock = "[[package]]\nname = \"serde\"\nversion = \"1.0.1\"\nchecksum = \"abc\"\n";
        let components = crates(tree, &checksums(lock), "tidegate-agent");
        let names: Vec<_> = components.iter().map(|one| one["purl"].as_str().unwrap()).collect();
        assert_eq!(names, ["pkg:cargo/old@0.1.0", "pkg:cargo/serde@1.0.1"]);
        assert_eq!(components[0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(components[1]["hashes"][0]["content"], "abc");
    }

    #[tokio::test]
    async fn a_program_s_list_names_its_crates_and_libraries_and_is_the_same_every_time() {
        let own = std::env::current_exe().unwrap().display().to_string();
        let libraries = BTreeSet::from([own.clone()]);
        let list = of("tidegate-agent", &libraries).await.unwrap();
        assert_eq!(list, of("tidegate-agent", &libraries).await.unwrap());
        let components = list["components"].as_array().unwrap();
        let named = |name: &str| components.iter().find(|one| one["name"] == name);
        let rustls = named("rustls").unwrap();
        assert_eq!(rustls["hashes"][0]["content"].as_str().unwrap().len(), 64);
        assert!(named("tidegate-gpu").is_some() && named("tidegate-operator-core").is_none());
        assert!(named(&own).unwrap()["hashes"][0]["content"].is_string());
        for component in components.iter().filter(|one| one["type"] == "library") {
            assert!(component["licenses"][0]["expression"].is_string(), "{component}");
        }
    }
}
