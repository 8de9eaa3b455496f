//! The binary as users start it.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

fn operator(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate-operator"))
        .args(arguments)
        .env_clear()
        .env("HOME", "/nonexistent")
        .output()
        .unwrap()
}

fn one_line(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(text.matches('\n').count(), 1, "{text}");
    text
}

#[test]
fn a_garbage_flag_ends_in_one_line_and_exit_code_64() {
    let output = operator(&["--namespace=tg", "--sidecar-image=s:1", "--garbage"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(one_line(&output).contains("--garbage"));
}

#[test]
fn a_missing_flag_is_named() {
    let output = operator(&["--namespace=tg"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(one_line(&output).contains("--sidecar-image"));
}

#[test]
fn without_an_api_server_to_ask_it_says_so() {
    let output = operator(&["--namespace=tg", "--sidecar-image=s:1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(one_line(&output).starts_with("tidegate-operator: no API server is configured: "));
}
