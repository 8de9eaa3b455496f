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

/// Words in backticks of a line that are long enough, and of the form, to be names of tests.
fn names_of_tests(line: &str) -> impl Iterator<Item = &str> {
    let quoted = line.split('`').skip(1).step_by(2);
    quoted.filter(|word| {
        word.matches('_').count() >= 3
            && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    })
}

#[test]
fn every_threat_has_an_answer_and_names_tests_that_exist() {
    let tests = tests();
    let page =
        std::fs::read_to_string(workspace().join("docs/threat-model.md")).expect("the page is readable");
    let (_, threats) = page.split_once("\n## Threats\n").expect("a section");
    let rows: Vec<_> =
        threats.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| threat |")).collect();
    assert!(rows.len() > 15, "{} rows were read", rows.len());
    let mut named = 0;
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").collect();
        assert!(cells.len() == 3 && cells.iter().all(|cell| cell.trim().len() > 3), "{row}");
        for name in names_of_tests(cells[2]) {
            assert!(tests.contains(name), "no test is named {name}");
            named += 1;
        }
    }
    assert!(named > 15, "{named}");
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
