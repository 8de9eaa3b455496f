//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tracing::level_filters::LevelFilter;

/// Tells each sidecar of its node about the GPUs of its own pod.
#[derive(Debug, Parser)]
#[command(name = "tidegate-agent", version)]
pub(crate) struct Config {
    /// The NVML library: a path, or a name for the loader's search.
    #[arg(long, env = "TIDEGATE_NVML_LIBRARY", default_value = "libnvidia-ml.so.1")]
    pub(crate) nvml_library: PathBuf,
    /// The kubelet's pod-resources socket.
    #[arg(
        long,
        env = "TIDEGATE_POD_RESOURCES",
        default_value = "/var/lib/kubelet/pod-resources/kubelet.sock"
    )]
    pub(crate) pod_resources: PathBuf,
    /// Where sidecars are answered, over TLS.
    #[arg(long, env = "TIDEGATE_LISTEN", default_value = "[::]:8445")]
    pub(crate) listen: SocketAddr,
    /// Where /healthz, /readyz and /metrics are answered, in plain HTTP.
    #[arg(long, env = "TIDEGATE_HEALTH", default_value = "[::]:8081")]
    pub(crate) health: SocketAddr,
    /// Directory of tls.crt and tls.key; they may come later and change.
    #[arg(long, env = "TIDEGATE_TLS_DIR", default_value = "/var/run/tidegate-tls")]
    pub(crate) tls_dir: PathBuf,
    /// The node of this agent: only its pods are answered.
    #[arg(long, env = "NODE_NAME")]
    pub(crate) node_name: String,
    /// Audience of the tokens that sidecars show.
    #[arg(long, env = "TIDEGATE_AUDIENCE", default_value = "tidegate-agent")]
    pub(crate) audience: String,
    /// How often NVML is read, such as 2s or 500ms.
    #[arg(long, env = "TIDEGATE_INTERVAL", default_value = "2s", value_parser = interval)]
    pub(crate) interval: Duration,
    /// off, error, warn, info, debug or trace.
    #[arg(long, env = "TIDEGATE_LOG_LEVEL", default_value = "info")]
    pub(crate) log_level: LevelFilter,
}

/// `EX_USAGE` of sysexits.h.
const EXIT_USAGE: u8 = 64;

/// Reads the command line and the environment; a mistake is told in one line.
pub(crate) fn parse() -> Result<Config, ExitCode> {
    Config::try_parse().map_err(|error| {
        if !error.use_stderr() {
            print!("{error}");
            return ExitCode::SUCCESS;
        }
        eprintln!("tidegate-agent: {}", one_line(&error.to_string()));
        ExitCode::from(EXIT_USAGE)
    })
}

/// The first paragraph of clap's message as one line.
fn one_line(message: &str) -> String {
    let paragraph = message.lines().take_while(|line| !line.is_empty()).map(str::trim);
    let line = paragraph.collect::<Vec<_>>().join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}

/// A time between 100 ms and a minute: faster only costs, slower is staler than any tier would take.
fn interval(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time such as 2s or 500ms, between 100ms and 60s");
    let (digits, millis) = match text.strip_suffix("ms") {
        Some(digits) => (digits, 1),
        None => (text.strip_suffix('s').ok_or_else(wrong)?, 1000),
    };
    let count: u64 = digits.parse().map_err(|_| wrong())?;
    let interval = Duration::from_millis(count.saturating_mul(millis));
    if (Duration::from_millis(100)..=Duration::from_mins(1)).contains(&interval) {
        Ok(interval)
    } else {
        Err(wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_garbage_flag_is_explained_in_one_line() {
        let cases = [
            (vec!["--node-name=n", "--interval=often"], "\"often\" is not a time such as 2s or 500ms"),
            (vec!["--node-name=n", "--interval=5ms"], "between 100ms and 60s"),
            (vec!["--node-name=n", "--listen=here"], "invalid socket address"),
            (vec!["--node-name=n", "--garbage"], "unexpected argument '--garbage' found"),
        ];
        for (flags, expected) in cases {
            let arguments = std::iter::once("tidegate-agent").chain(flags.iter().copied());
            let error = Config::try_parse_from(arguments).expect_err("a mistake");
            let line = one_line(&error.to_string());
            assert!(line.contains(expected) && !line.contains('\n'), "{flags:?}: {line}");
        }
    }

    #[test]
    fn intervals_are_read_in_seconds_and_milliseconds() {
        assert_eq!(interval("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(interval("250ms"), Ok(Duration::from_millis(250)));
        for wrong in ["", "s", "2", "2m", "-1s", "99999999999999999999s"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }
}
