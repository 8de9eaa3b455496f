//! A running sidecar.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Far beyond what anything here takes on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_tidegate-sidecar");

/// Asks until there is an answer.
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) struct Sidecar {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    pub(crate) data: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Sidecar {
    /// Starts `run` before an engine at `upstream`, with two threads if the arguments do not say otherwise.
    pub(crate) fn start(upstream: SocketAddr, arguments: &[&str]) -> Self {
        let upstream = upstream.to_string();
        Self::run(&[&["--upstream", &upstream], arguments].concat())
    }

    /// Starts `run` with these arguments.
    pub(crate) fn run(arguments: &[&str]) -> Self {
        Self::run_with(&[], arguments)
    }

    /// Starts `run` with these variables and arguments.
    pub(crate) fn run_with(variables: &[(&str, &str)], arguments: &[&str]) -> Self {
        let mut command = Command::new(BINARY);
        command.envs(variables.iter().copied());
        command.args(["run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        if !arguments.iter().any(|argument| argument.starts_with("--workers")) {
            command.args(["--workers", "2"]);
        }
        let mut child = command.args(arguments).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (stderr, lines) = (child.stderr.take().unwrap(), Arc::clone(&log));
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut sidecar = Self { child, log, data: nowhere, admin: nowhere };
        let line = sidecar.line("the addresses", |line| line["message"] == "listening");
        sidecar.data = line["listen"].as_str().unwrap().parse().unwrap();
        sidecar.admin = line["admin"].as_str().unwrap().parse().unwrap();
        sidecar.await_live();
        sidecar
    }

    pub(crate) fn await_live(&self) {
        eventually("live", || self.admin("/live").filter(|answer| answer.status == 200));
    }

    pub(crate) fn lines(&self) -> Vec<Value> {
        let log = self.log.lock().unwrap();
        log.iter().map(|line| serde_json::from_str(line).expect("a line of the log is JSON")).collect()
    }

    /// The first line of the log that `is` the one.
    pub(crate) fn line(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        eventually(what, || self.lines().into_iter().find(&is))
    }

    pub(crate) fn admin(&self, path: &str) -> Option<Answer> {
        get(self.admin, path, &[])
    }

    pub(crate) fn request(&self, path: &str, headers: &[(&str, &str)]) -> Option<Answer> {
        get(self.data, path, headers)
    }

    pub(crate) fn status(&self) -> Value {
        serde_json::from_str(&self.admin("/throttle/status").unwrap().body).unwrap()
    }

    pub(crate) fn await_status(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        eventually(what, || Some(self.status()).filter(&is))
    }

    /// The value of a series, written as in the text format without its value.
    pub(crate) fn metric(&self, series: &str) -> Option<f64> {
        let text = self.admin("/metrics").unwrap().body;
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map(|value| value.parse().unwrap())
    }

    /// Process ids of the children of the first process.
    pub(crate) fn workers(&self) -> Vec<i32> {
        let id = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        children.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn await_exit(&mut self) -> ExitStatus {
        eventually("exit", || self.child.try_wait().unwrap())
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        // The worker dies with its supervisor.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            for line in self.log.lock().unwrap().iter() {
                eprintln!("{line}");
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// One request on a connection of its own. `None`: there was no whole answer.
pub(crate) fn get(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Option<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n").ok()?;
    for (name, value) in headers {
        write!(stream, "{name}: {value}\r\n").ok()?;
    }
    stream.write_all(b"\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, head: head.to_owned(), body: body.to_owned() })
}
