//! The sidecar as it is released: compiled by a profile of what runs in it, and how often.
//!
//! The profile lies beside the sidecar's sources. A function that it does not know, or that has changed since, is compiled
//! as it would be without: an old profile costs time and memory, and nothing else.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::product::release_build;
use crate::cluster::{binaries::workspace, cache, process, progress::Progress};

/// The sidecar's package and program.
pub const SIDECAR: &str = "tidegate-sidecar";

/// The linker keeps apart what runs often, at times and never: the kernel maps 64 KiB around each page that is used.
const SIDE_BY_SIDE: &str = "-Clink-arg=-Wl,-z,keep-text-section-prefix";

/// Compiles the sidecar by its profile. Returns the folder with it.
pub async fn compile(progress: &Progress) -> anyhow::Result<PathBuf> {
    let profile = profile()?;
    let text = fs::read(&profile).with_context(|| {
        format!(
            "cannot read {}, by which the sidecar is compiled: `make profile` writes it",
            profile.display()
        )
    })?;
    let made_with = fs::read_to_string(crates_of(&profile)).unwrap_or_default();
    let others = difference(&made_with, &crates().await?);
    if !others.is_empty() {
        progress.say(format_args!(
            "the sidecar's profile was made with other crates, whose users it does not fit; `make profile` makes it anew: {}",
            others.join(", ")
        ));
    }
    // Cargo knows a profile by its path alone.
    let folder = workspace().join("target/reproducible");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let copy = folder.join(format!("{}.profdata", cache::fingerprint([text.as_slice()])));
    fs::write(&copy, text).with_context(|| format!("cannot write {}", copy.display()))?;
    build(&format!("-Cprofile-use={}", copy.display()), progress).await
}

/// Compiles a sidecar that writes what ran in it to the folder `raw` when it ends. Returns the folder with it.
pub async fn compile_counting(raw: &Path, progress: &Progress) -> anyhow::Result<PathBuf> {
    build(&format!("-Cprofile-generate={}", raw.display()), progress).await
}

/// Alone: with other programs its crates would have their features too, and their functions other names than in the profile.
async fn build(flag: &str, progress: &Progress) -> anyhow::Result<PathBuf> {
    let what = format!("compile {SIDECAR} with {flag} (cargo, profile `release`)");
    release_build(&what, &[SIDECAR], &[flag.to_owned(), SIDE_BY_SIDE.to_owned()], progress).await
}

/// Where the profile lies that the compiler reads which `rust-toolchain.toml` names.
pub fn profile() -> anyhow::Result<PathBuf> {
    let file = workspace().join("rust-toolchain.toml");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let channel = text.lines().find_map(|line| line.strip_prefix("channel = \"")?.strip_suffix('"'));
    let channel = channel.with_context(|| format!("{} names no channel", file.display()))?;
    Ok(workspace().join(format!("sidecar/profile/rustc-{channel}.profdata")))
}

/// Notes that this profile was made with the crates of now.
pub async fn note_crates(profile: &Path) -> anyhow::Result<()> {
    let file = crates_of(profile);
    fs::write(&file, crates().await?).with_context(|| format!("cannot write {}", file.display()))
}

fn crates_of(profile: &Path) -> PathBuf {
    profile.with_extension("crates")
}

/// What the sidecar is made of, a crate with its version and features in each line. Names of functions follow from it.
async fn crates() -> anyhow::Result<String> {
    let mut tree = process::cargo();
    tree.args(["tree", "--locked", "-p", SIDECAR, "-e", "normal", "--prefix", "none", "--no-dedupe"]);
    let text = process::output(tree.args(["-f", "{p} [{f}]"]).current_dir(workspace())).await?;
    Ok(lines(&text))
}

/// Each crate once, without the folder that it lies in.
fn lines(tree: &str) -> String {
    let mut lines: Vec<String> = tree
        .lines()
        .filter_map(|line| {
            let (package, features) = line.rsplit_once(" [")?;
            let words: Vec<_> = package.split(' ').take(2).collect();
            Some(format!("{} [{features}\n", words.join(" ")))
        })
        .collect();
    lines.sort();
    lines.dedup();
    lines.concat()
}

/// Names and versions of the crates that only one of the two has like this.
fn difference(before: &str, now: &str) -> Vec<String> {
    let only_in = |one: &str, other: &str| -> Vec<String> {
        let alone = one.lines().filter(|line| !other.lines().any(|known| known == *line));
        alone.map(|line| line.split(" [").next().unwrap_or(line).to_owned()).collect()
    };
    let mut names = [only_in(before, now), only_in(now, before)].concat();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiler_of_the_toolchain_has_its_profile_of_the_sidecar() {
        let file = profile().unwrap();
        let text =
            fs::read(&file).unwrap_or_else(|error| panic!("`make profile`: {}: {error}", file.display()));
        assert!(text.starts_with(b"\xfflprofi\x81"), "not one of LLVM's indexed profiles");
        assert!(text.len() < 2 << 20, "{} bytes are many for a repository", text.len());
        assert!(fs::read_to_string(crates_of(&file)).unwrap().contains("\ntokio v"));
    }

    #[test]
    fn crates_that_have_changed_since_the_profile_was_made_are_named() {
        let tree = "tidegate-sidecar v0.1.0 (/here) []\nbytes v1.0.0 [default,std]\nserde_derive v1.2.3 (proc-macro) []\n\
            bytes v1.0.0 [default,std]\n";
        let before = lines(tree);
        assert_eq!(
            before,
            "bytes v1.0.0 [default,std]\nserde_derive v1.2.3 []\ntidegate-sidecar v0.1.0 []\n"
        );
        assert_eq!(difference(&before, &lines(&tree.replace("/here", "/there"))), [""; 0]);
        assert_eq!(
            difference(&before, &before.replace("1.2.3", "1.2.4")),
            ["serde_derive v1.2.3", "serde_derive v1.2.4"]
        );
        assert_eq!(difference(&before, &before.replace(",std", "")), ["bytes v1.0.0"]);
        assert_eq!(difference("", &before).len(), 3);
    }
}
