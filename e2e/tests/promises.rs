//! Keeps `docs/promises.md` honest: every test and page it names exists.

// Helpers of tests fail as tests do.
#![allow(clippy::expect_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("e2e lies in the workspace")
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries =
        std::fs::read_dir(folder).expect("folder is readable").map(|entry| entry.expect("entry").path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let sources = files.into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs"));
    sources.chain(folders.iter().flat_map(|folder| rust_files(folder))).collect()
}

/// Names of all functions that a test attribute or a `proptest!` block makes a test.
fn tests() -> BTreeSet<String> {
    let members = ["agent", "cli", "crds", "e2e", "operator", "sidecar"];
    let sources = members.iter().flat_map(|member| rust_files(&workspace().join(member)));
    let mut names = BTreeSet::new();
    for source in sources {
        let text = std::fs::read_to_string(source).expect("source is readable");
        let mut marked = false;
        for line in text.lines().map(str::trim_start) {
            marked |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            let name = line
                .strip_prefix("async ")
                .unwrap_or(line)
                .strip_prefix("fn ")
                .and_then(|l| l.split('(').next());
            if let (true, Some(name)) = (marked, name) {
                names.insert(name.to_owned());
                marked = false;
            }
        }
    }
    names
}

fn rows() -> Vec<(String, String)> {
    let list = std::fs::read_to_string(workspace().join("docs/promises.md")).expect("the list is readable");
    let cells = list.lines().filter(|line| line.starts_with("| ") && line.contains('`')).map(|line| {
        let test = line.rsplit('|').nth(2).expect("a test").trim().trim_matches('`').to_owned();
        let page =
            line.rsplit_once("](").and_then(|(_, rest)| rest.split(')').next()).expect("a page").to_owned();
        (test, page)
    });
    cells.collect()
}

#[test]
fn every_promise_names_a_test_and_a_page_that_exist() {
    let tests = tests();
    let rows = rows();
    assert!(rows.len() > 40, "{} rows were read", rows.len());
    for (test, page) in rows {
        assert!(tests.contains(&test), "no test is named {test}");
        assert!(workspace().join("docs").join(&page).is_file(), "no page {page}");
    }
}
