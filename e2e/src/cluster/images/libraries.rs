//! The shared libraries that a program needs, as the dynamic linker itself names them.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::bail;

use crate::cluster::process;

/// Paths of the libraries and of the loader; none for a static program.
pub(in crate::cluster) async fn of(program: &Path) -> anyhow::Result<BTreeSet<String>> {
    let output = process::command("ldd").arg(program).output().await?;
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if text.contains("not a dynamic executable") || text.contains("statically linked") {
        return Ok(BTreeSet::new());
    }
    if !output.status.success() {
        bail!("`ldd {}` failed: {}", program.display(), text.trim());
    }
    parse(&text)
}

/// All libraries that lie beside a program in its image.
pub(super) async fn beside(program: &Path) -> anyhow::Result<BTreeSet<String>> {
    let mut needed = of(program).await?;
    needed.extend(of_old_glibc(&needed));
    Ok(needed)
}

/// Libraries that a driver's own library names, which `ldd` of our programs does not: since glibc 2.34 they are empty, but
/// a library linked against an older one still asks for them.
fn of_old_glibc(libraries: &BTreeSet<String>) -> Vec<String> {
    let directory = libraries.iter().find_map(|path| path.strip_suffix("/libc.so.6")).unwrap_or_default();
    let names = ["libdl.so.2", "libm.so.6", "libpthread.so.0", "librt.so.1"];
    names.iter().map(|name| format!("{directory}/{name}")).filter(|path| Path::new(path).exists()).collect()
}

/// Lines are `name => /path (address)`, `/loader (address)` or `linux-vdso.so.1 (address)`.
fn parse(text: &str) -> anyhow::Result<BTreeSet<String>> {
    let mut paths = BTreeSet::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let place = line.split_once(" => ").map_or(line, |(_name, place)| place);
        if place.starts_with("not found") {
            bail!("a shared library is missing on this machine: {line}");
        }
        let path = place.split(" (").next().unwrap_or(place);
        if path.starts_with('/') {
            paths.insert(path.to_owned());
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_loader_are_taken_and_the_kernels_own_is_not() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let paths: Vec<String> = parse(text).unwrap().into_iter().collect();
        assert_eq!(paths, ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
    }

    #[test]
    fn a_missing_library_is_an_error_that_names_it() {
        let error = parse("\tlibnope.so.1 => not found\n").unwrap_err().to_string();
        assert!(error.contains("libnope.so.1"), "{error}");
    }
}
