//! The binaries of agent and sidecar and the simulated library, as cargo builds them.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// What the tests run.
pub(crate) struct Built {
    /// `tidegate-agent`.
    pub(crate) agent: PathBuf,
    /// `tidegate-sidecar`.
    pub(crate) sidecar: PathBuf,
    /// The library to be installed as `libnvidia-ml.so.1`.
    pub(crate) library: PathBuf,
}

/// Builds them once.
pub(crate) fn built() -> &'static Built {
    static BUILT: OnceLock<Built> = OnceLock::new();
    BUILT.get_or_init(|| {
        let mut cargo = Command::new(env!("CARGO"));
        // What cargo tells this test about its own package would make build scripts below run again, ring's among them.
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CARGO_PKG_")) {
            cargo.env_remove(name);
        }
        let output = cargo
            .env_remove("CARGO_MANIFEST_DIR")
            .args(["build", "--quiet", "--message-format=json-render-diagnostics"])
            .args(["-p", "tidegate-agent", "-p", "tidegate-sidecar", "-p", "tidegate-e2e-nvml"])
            .stderr(Stdio::inherit())
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "cargo build failed");
        let messages: Vec<serde_json::Value> = String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        let file = |target: &str, field: &str| {
            let message = messages.iter().find(|message| message["target"]["name"] == target);
            let path = message.and_then(|message| message.pointer(field)).and_then(serde_json::Value::as_str);
            PathBuf::from(path.unwrap_or_else(|| panic!("cargo names no file of {target}")))
        };
        Built {
            agent: file("tidegate-agent", "/executable"),
            sidecar: file("tidegate-sidecar", "/executable"),
            library: file("nvidia_ml", "/filenames/0"),
        }
    })
}

/// Runs the agent to its end.
pub(crate) fn run(arguments: &[&str]) -> Output {
    Command::new(&built().agent).args(arguments).output().expect("the agent runs")
}
