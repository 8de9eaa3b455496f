//! `kubectl tidegate simulate` as people run it.
#![allow(clippy::unwrap_used)] // only tests are here

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

const LIMIT: &str = "
apiVersion: tidegate.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: limits}
spec: {limits: [{name: all, key: [], limit: 5, window: 1m}]}
";

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn run(folder: &Path, arguments: &[&str], input: Stdio) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-tidegate"));
    command.arg("simulate").args(arguments).current_dir(folder).stdin(input).output().unwrap()
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn refused(output: &Output) -> Vec<String> {
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{output:?}");
    String::from_utf8_lossy(&output.stderr).lines().map(str::to_owned).collect()
}

/// 200 requests in four seconds, and a policy that lets five pass.
fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    let rows: Vec<_> = (0..200).map(|i| format!("{},100,20", f64::from(i) / 50.0)).collect();
    fs::write(folder.path().join("limits.yaml"), LIMIT).unwrap();
    fs::write(folder.path().join("log.csv"), rows.join("\n")).unwrap();
    folder
}

#[test]
fn a_log_is_replayed_into_a_table_from_a_file_and_from_standard_input() {
    let folder = folder();
    let table = printed(&run(folder.path(), &["-f", "limits.yaml", "--log", "log.csv"], Stdio::null()));
    let limit = table.lines().find(|line| line.starts_with("refused: limit (default/limits all)"));
    assert_eq!(limit.and_then(|line| line.split_whitespace().last()), Some("195"), "{table}");
    let log = fs::File::open(folder.path().join("log.csv")).unwrap();
    let piped = printed(&run(folder.path(), &["-f", "limits.yaml", "--trace", "-"], log.into()));
    assert_eq!(table, piped);
}

#[test]
fn json_and_yaml_say_the_same_and_the_plot_is_an_svg() {
    let folder = folder();
    let output = |form: &str| {
        let arguments = ["-f", "limits.yaml", "--log", "log.csv", "-o", form, "--plot", "plot.svg"];
        printed(&run(folder.path(), &arguments, Stdio::null()))
    };
    let json: Value = serde_json::from_str(&output("json")).unwrap();
    let yaml: Value = serde_saphyr::from_str(&output("yaml")).unwrap();
    for member in ["requests", "decisions", "notes", "tiers"] {
        assert_eq!(json[member], yaml[member]);
    }
    assert_eq!(json["series"]["points"].as_array().map(Vec::len), Some(40));
    assert_eq!(yaml["series"]["points"].as_array().map(Vec::len), Some(40));
    let low = &json["decisions"][1];
    assert_eq!((&low["cause"], &low["rule"]), (&"limit".into(), &"all".into()));
    let plot = fs::read_to_string(folder.path().join("plot.svg")).unwrap();
    assert!(plot.starts_with("<svg") && plot.contains("refused: limit (default/limits all)"));
}

#[test]
fn mistakes_are_told_and_nothing_is_printed() {
    let folder = folder();
    fs::write(folder.path().join("bad.csv"), "0,1\n0,1,x\n").unwrap();
    let errors = |arguments: &[&str]| refused(&run(folder.path(), arguments, Stdio::null()));
    let bad = errors(&["-f", "limits.yaml", "--log", "bad.csv"]);
    assert!(bad[0].starts_with("error: bad.csv: line 2: \"0,1,x\": write time,prompt_tokens"), "{bad:?}");
    assert_eq!(
        errors(&["-f", "-", "--log", "-", "--speed", "0", "--batch", "0"]),
        [
            "error: --speed: out of range: write a number over 0",
            "error: --batch: out of range: write a number over 0",
            "error: --log and --filename are both standard input: write one of them to a file",
        ]
    );
    assert_eq!(
        errors(&["-f", "limits.yaml", "--log", "log.csv", "--utc-offset", "Berlin"]),
        ["error: --utc-offset: \"Berlin\": write an offset such as +02:00"]
    );
}

/// The output on the page is what its first command prints; numbers of later lines follow the algorithms.
#[test]
fn the_commands_of_the_page_on_simulation_run() {
    let page = fs::read_to_string(workspace().join("docs/simulate.md")).unwrap();
    let commands: Vec<_> =
        page.lines().filter_map(|line| line.strip_prefix("kubectl tidegate simulate ")).collect();
    assert!(commands.len() >= 4, "{commands:?}");
    let shown = page.split("```\n").find(|block| block.contains(" requests in ")).unwrap();
    let shown = shown.trim_end_matches("…\n");
    let folder = TempDir::new().unwrap();
    std::os::unix::fs::symlink(workspace().join("docs").canonicalize().unwrap(), folder.path().join("docs"))
        .unwrap();
    for (i, command) in commands.into_iter().enumerate() {
        let (words, input) = command.split_once(" < ").unwrap_or((command, "/dev/null"));
        let input = fs::File::open(folder.path().join(input)).unwrap();
        let words: Vec<_> = words.split_whitespace().collect();
        let output = printed(&run(folder.path(), &words, input.into()));
        assert!(i > 0 || output.starts_with(shown), "the page shows\n{shown}\nand not\n{output}");
    }
    assert!(folder.path().join("plot.svg").exists());
}
