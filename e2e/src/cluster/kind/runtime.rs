//! The container runtime of a Docker engine on a machine whose bounding set lacks `CAP_SYS_RESOURCE`.
//!
//! An engine gives a privileged container every capability that it knows, and runc refuses to give what the machine does
//! not have. This takes the one capability from the specification and becomes runc.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use serde_json::Value;

const LACKING: &str = "CAP_SYS_RESOURCE";
/// Its number: `linux/capability.h`.
const NUMBER: u32 = 24;

/// Whether this machine lacks the capability.
pub(super) fn is_needed() -> anyhow::Result<bool> {
    let status = fs::read_to_string("/proc/self/status")?;
    bounding_set(&status).map(|set| set & (1 << NUMBER) == 0)
}

/// Changes the specifications that runc's arguments name and becomes runc; returns only with an error.
pub(crate) fn run(arguments: &[OsString]) -> anyhow::Result<()> {
    for path in specifications(arguments) {
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut specification = serde_json::from_slice(&text)?;
        remove(&mut specification);
        fs::write(&path, serde_json::to_vec(&specification)?)?;
    }
    Err(Command::new("runc").args(arguments).exec()).context("cannot start runc")
}

/// The files that say what a container, or a further process in it, may do.
fn specifications(arguments: &[OsString]) -> Vec<PathBuf> {
    let words: Vec<_> = arguments.iter().map(|word| word.to_string_lossy()).collect();
    let value = |long: &str, short: &str| {
        let position = words.iter().position(|word| word == long || word == short);
        let joined = words.iter().find_map(|word| word.strip_prefix(long)?.strip_prefix('='));
        position.and_then(|position| words.get(position + 1).map(AsRef::as_ref)).or(joined).map(PathBuf::from)
    };
    let of_container = value("--bundle", "-b").map(|folder| folder.join("config.json"));
    let of_process = value("--process", "-p");
    [of_container, of_process].into_iter().flatten().filter(|path| Path::exists(path)).collect()
}

fn remove(value: &mut Value) {
    match value {
        Value::Array(values) => {
            values.retain(|value| value != LACKING);
            values.iter_mut().for_each(remove);
        }
        Value::Object(fields) => fields.values_mut().for_each(remove),
        _ => {}
    }
}

fn bounding_set(status: &str) -> anyhow::Result<u64> {
    let hex = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    u64::from_str_radix(hex.context("the kernel tells no bounding set")?.trim(), 16).context("CapBnd")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_lacking_capability_is_taken_from_a_specification() {
        let mut specification = json!({"process": {"capabilities": {
            "bounding": ["CAP_CHOWN", LACKING], "effective": [LACKING]}, "args": ["sh"]}});
        remove(&mut specification);
        let left = json!({"process": {"capabilities": {"bounding": ["CAP_CHOWN"], "effective": []}, "args": ["sh"]}});
        assert_eq!(specification, left);
    }

    #[test]
    fn the_specification_of_a_container_and_that_of_a_further_process_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let (config, process) = (folder.path().join("config.json"), folder.path().join("process"));
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        let bundle = folder.path().display().to_string();
        assert!(
            specifications(&words(&["create", "--bundle", &bundle, "x"])).is_empty(),
            "there is none yet"
        );
        fs::write(&config, "{}").unwrap();
        fs::write(&process, "{}").unwrap();
        assert_eq!(
            specifications(&words(&["create", "--bundle", &bundle, "x"])),
            std::slice::from_ref(&config)
        );
        assert_eq!(specifications(&words(&["create", &format!("--bundle={bundle}"), "x"])), [config]);
        let path = process.display().to_string();
        assert_eq!(specifications(&words(&["exec", "--process", &path, "x"])), [process]);
        assert!(specifications(&words(&["kill", "x", "9"])).is_empty());
    }

    #[test]
    fn the_bounding_set_is_read_as_the_kernel_writes_it() {
        assert_eq!(bounding_set("Name:\tx\nCapBnd:\t000001fffeffffff\n").unwrap() & (1 << NUMBER), 0);
        assert_ne!(bounding_set("CapBnd:\t000001ffffffffff\n").unwrap() & (1 << NUMBER), 0);
        assert!(bounding_set("Name:\tx\n").is_err());
    }
}
