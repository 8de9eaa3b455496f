//! Holds the borders between the crates: which crate may import what.
//!
//! A crate earns its border by what it may not see. The lists name every direct dependency outside of tests, so that
//! a new arrow has to be written down here, where a reviewer sees it. What must not come in through a side door is
//! forbidden for the whole tree below a crate.

// Helpers of tests fail as tests do.
#![allow(clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// Direct dependencies, by crate; those of the workspace without their prefix `tidegate-`.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("crds", &["k8s-openapi", "kube", "schemars", "serde", "serde-saphyr", "serde_json"]),
    ("policy", &["serde", "serde_json", "serde_path_to_error", "thiserror"]),
    ("core", &["policy", "arrayvec", "crossbeam-utils", "libm", "loom", "zerocopy"]),
    ("gpu", &["nvml-wrapper", "serde", "thiserror"]),
    // What is fuzzed, and nothing of the product: it sees what it judges.
    ("fuzz", &["core", "policy"]),
    (
        "sidecar",
        &[
            "core",
            "gpu",
            "policy",
            "anyhow",
            "arc-swap",
            "base64",
            "bytes",
            "clap",
            "crossbeam-utils",
            "flate2",
            "http",
            "http-body",
            "http-body-util",
            "httparse",
            "httpdate",
            "hyper",
            "hyper-util",
            // Address blocks of proxies.
            "ipnet",
            "jsonwebtoken",
            "libc",
            "memchr",
            "prometheus-client",
            // The few messages of OTLP that spans need.
            "prost",
            "quick_cache",
            "ring",
            "rustix",
            "rustls",
            "rustls-pki-types",
            "serde",
            "serde_json",
            "sha2",
            "signal-hook",
            "socket2",
            "thiserror",
            "tikv-jemalloc-sys",
            "tikv-jemallocator",
            "tokio",
            "tokio-rustls",
            "tracing",
            "tracing-subscriber",
            "webpki-roots",
        ],
    ),
    (
        "agent",
        &[
            "gpu",
            "anyhow",
            "axum",
            "clap",
            "http",
            "hyper-util",
            "k8s-openapi",
            "kube",
            "prometheus-client",
            "prost",
            "rustls",
            "rustls-pki-types",
            "thiserror",
            "tokio",
            "tokio-rustls",
            "tonic",
            "tonic-prost",
            "tower",
            "tracing",
            "tracing-subscriber",
        ],
    ),
    (
        "operator-core",
        &[
            "crds",
            "policy",
            "base64",
            "flate2",
            "json-patch",
            "k8s-openapi",
            "kube",
            "serde",
            "serde_json",
            "sha2",
            "thiserror",
        ],
    ),
    (
        "operator",
        &[
            "crds",
            "operator-core",
            "policy",
            "anyhow",
            "axum",
            "clap",
            "futures",
            "hyper-util",
            "k8s-openapi",
            "kube",
            "prometheus-client",
            "rcgen",
            "rustls",
            "rustls-pki-types",
            "serde",
            "serde_json",
            "sha2",
            "thiserror",
            "tikv-jemallocator",
            "tokio",
            "tokio-rustls",
            "tracing",
            "tracing-subscriber",
            "x509-parser",
        ],
    ),
    (
        "cli",
        &[
            "core",
            "crds",
            "operator-core",
            "policy",
            "clap",
            // Many sidecars are asked at a time.
            "futures",
            // Quantiles of millions of answers in a few kilobytes.
            "hdrhistogram",
            // A path that the API server passes on to a pod.
            "http",
            // Address blocks of NetworkPolicies.
            "ipnet",
            "json-patch",
            "k8s-openapi",
            // The cluster that `check`, `status`, `explain`, `top` and `rotate` look into.
            "kube",
            // Its SVG backend alone: neither fonts nor bitmaps.
            "plotters",
            "serde",
            "serde-saphyr",
            "serde_json",
            "serde_path_to_error",
            // A log on standard input is read twice.
            "tempfile",
            "tokio",
            // When the authorities end that the API server trusts.
            "x509-parser",
        ],
    ),
];

/// Crates that must not appear anywhere below a crate.
const MAY_NOT_REACH: &[(&str, &[&str])] = &[
    ("policy", &["tokio", "hyper", "kube-core", "k8s-openapi", "tracing", "prometheus-client"]),
    (
        "core",
        &["tokio", "hyper", "kube-core", "k8s-openapi", "tracing", "prometheus-client", "rand", "getrandom"],
    ),
    ("gpu", &["tokio", "hyper", "kube-core", "k8s-openapi"]),
    ("sidecar", &["kube-core", "kube-client", "k8s-openapi", "tonic"]),
    ("crds", &["tokio", "hyper", "kube-client"]),
    ("operator-core", &["tokio", "hyper", "kube-client", "kube-runtime", "prometheus-client"]),
    ("agent", &["tidegate-operator-core", "tidegate-crds"]),
];

/// What the pure crates may not say: they get time, randomness and the outside world as arguments.
const PURE_CRATES: &[&str] = &["sidecar/policy/src", "sidecar/core/src", "operator/core/src"];
const IMPURE_WORDS: &[&str] = &[
    "Instant::now",
    "SystemTime",
    "std::env",
    "std::fs",
    "std::net::Tcp",
    "std::thread::",
    "async fn",
    ".await",
    "tracing::",
];

type Dependencies = BTreeMap<String, BTreeSet<String>>;

fn short(name: &str) -> String {
    name.strip_prefix("tidegate-").unwrap_or(name).to_owned()
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("e2e lies in the workspace")
}

fn cargo(arguments: &[&str]) -> String {
    let output =
        Command::new(env!("CARGO")).args(arguments).current_dir(workspace()).output().expect("cargo runs");
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo prints UTF-8")
}

/// Direct dependencies of every member, without those of tests.
fn direct_dependencies() -> Dependencies {
    let metadata: serde_json::Value =
        serde_json::from_str(&cargo(&["metadata", "--format-version", "1", "--no-deps"]))
            .expect("metadata is JSON");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let packages = metadata["packages"].as_array().expect("packages").iter();
    packages
        .map(|package| {
            let dependencies = package["dependencies"].as_array().expect("dependencies").iter();
            let normal =
                dependencies.filter(|d| d["kind"].is_null()).map(|d| short(&text(&d["name"]))).collect();
            (short(&text(&package["name"])), normal)
        })
        .collect()
}

/// Every crate below a member, with the features that this member alone asks for.
fn reachable(member: &str) -> BTreeSet<String> {
    let package = format!("tidegate-{member}");
    let tree = cargo(&["tree", "-p", &package, "-e", "normal", "--prefix", "none", "--format", "{p}"]);
    tree.lines().skip(1).filter_map(|line| line.split(' ').next().map(str::to_owned)).collect()
}

fn new_arrows(dependencies: &Dependencies) -> Vec<String> {
    let allowed: BTreeMap<_, _> = MAY_IMPORT.iter().copied().collect();
    let of = |member: &str| allowed.get(member).copied().unwrap_or_default();
    let members = dependencies.iter().filter(|(member, _)| allowed.contains_key(member.as_str()));
    members
        .flat_map(|(member, imports)| {
            let new = imports.iter().filter(|import| !of(member).contains(&import.as_str()));
            new.map(move |import| format!("{member} may not import {import}")).collect::<Vec<_>>()
        })
        .collect()
}

fn forbidden_below(member: &str, below: &BTreeSet<String>, forbidden: &[&str]) -> Vec<String> {
    let found = forbidden.iter().filter(|name| below.contains(**name));
    found.map(|name| format!("{member} reaches {name}")).collect()
}

fn impure_lines(source: &str) -> Vec<String> {
    let product = source.split("#[cfg(test)]").next().unwrap_or_default();
    let code = product.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.filter(|line| IMPURE_WORDS.iter().any(|word| line.contains(word))).map(str::to_owned).collect()
}

fn rust_files(folder: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("folder is readable") {
        let path = entry.expect("entry is readable").path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs")
            && path.file_name().is_some_and(|n| n != "tests.rs")
        {
            files.push(path);
        }
    }
}

#[test]
fn every_crate_imports_only_what_its_border_allows() {
    let arrows = new_arrows(&direct_dependencies());
    assert!(arrows.is_empty(), "{arrows:#?}");
}

#[test]
fn every_product_crate_has_a_border() {
    let outside = ["e2e", "e2e-nvml"];
    let members: BTreeSet<_> =
        direct_dependencies().into_keys().filter(|m| !outside.contains(&m.as_str())).collect();
    let bordered: BTreeSet<_> = MAY_IMPORT.iter().map(|(member, _)| (*member).to_owned()).collect();
    assert_eq!(members, bordered);
}

#[test]
fn nothing_comes_in_through_a_side_door() {
    for (member, forbidden) in MAY_NOT_REACH {
        let found = forbidden_below(member, &reachable(member), forbidden);
        assert!(found.is_empty(), "{found:#?}");
    }
}

#[test]
fn the_pure_crates_read_no_clock_and_do_no_io() {
    let mut files = Vec::new();
    for folder in PURE_CRATES {
        rust_files(&workspace().join(folder), &mut files);
    }
    assert!(!files.is_empty());
    for file in files {
        let impure = impure_lines(&std::fs::read_to_string(&file).expect("source is readable"));
        assert!(impure.is_empty(), "{}: {impure:#?}", file.display());
    }
}

#[test]
fn an_added_arrow_is_found() {
    for (member, _) in MAY_IMPORT {
        let mut dependencies = direct_dependencies();
        dependencies.entry((*member).to_owned()).or_default().insert("reqwest".to_owned());
        assert_eq!(new_arrows(&dependencies), [format!("{member} may not import reqwest")]);
    }
    let below = BTreeSet::from(["tokio".to_owned()]);
    assert_eq!(forbidden_below("core", &below, &["tokio"]), ["core reaches tokio"]);
    assert_eq!(impure_lines("let now = Instant::now();\n// Instant::now is said here\n").len(), 1);
}

#[test]
fn every_profile_unwinds_so_that_a_panic_ends_one_request_and_not_all() {
    let manifest = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"))
        .expect("the workspace has a manifest");
    let profiles: Vec<&str> = manifest.split("\n[").filter(|table| table.starts_with("profile.")).collect();
    assert!(profiles.iter().any(|table| table.starts_with("profile.release]")), "{profiles:?}");
    for profile in profiles {
        assert!(!profile.lines().any(|line| line.trim_start().starts_with("panic")), "{profile}");
    }
}
