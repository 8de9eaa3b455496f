use std::process::{Command, Output};

use crate::sidecar::BINARY;

fn run(line: &str) -> Output {
    Command::new(BINARY).args(line.split_whitespace()).output().unwrap()
}

#[test]
fn a_garbage_flag_or_value_is_one_line_and_exit_code_64() {
    for line in [
        "run --guard 8000 --garbage",
        "run --guard x",
        "redirect",
        "garbage",
        "",
        "run --guard 8000 --admin 1",
    ] {
        let output = run(line);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{line}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{line}: {stderr}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_garbage_variable_is_told_apart_by_its_flag() {
    let output =
        Command::new(BINARY).args(["run", "--guard", "8000"]).env("TIDEGATE_WORKERS", "many").output();
    let output = output.unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64), "{stderr}");
    assert!(stderr.contains("--workers") && stderr.contains("many"), "{stderr}");
}

#[test]
fn version_is_told_on_standard_output() {
    let output = run("--version");
    assert!(output.status.success());
    assert_eq!(
        String::from_utf8(output.stdout).unwrap().trim(),
        format!("tidegate-sidecar {}", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn an_address_that_is_taken_is_named_in_one_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let output = run(&format!("run --guard 8000 --listen 127.0.0.1:0 --admin {address}"));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains(&address.to_string()), "{stderr}");
}
