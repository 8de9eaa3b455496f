//! The sidecar where it belongs: behind its own rules, before an engine that listens on the loopback interface.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::net::{Net, PATIENCE, SIDECAR, enter, pod_v4, pod_v6};

const ADMIN: u16 = 15121;
const HTTP: u16 = 8000;
const OPAQUE: u16 = 9000;

struct Pod {
    sidecar: Child,
    net: Net,
}

impl Pod {
    fn start() -> Self {
        let net = Net::new();
        net.redirect(&[HTTP, OPAQUE]);
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &net.pod, env!("CARGO_BIN_EXE_tidegate-sidecar"), "run"]);
        command.args(["--guard", "8000", "--guard", "9000", "--opaque", "9000", "--log-level", "error"]);
        let pod = Self { sidecar: command.stdin(Stdio::null()).spawn().unwrap(), net };
        let start = Instant::now();
        while pod.get(pod_v4(), ADMIN, "/ready").is_none() {
            assert!(start.elapsed() < PATIENCE, "the sidecar is not ready");
            thread::sleep(Duration::from_millis(20));
        }
        pod
    }

    /// Lets the engine listen, on the loopback interface alone, and answer each connection with `answer`.
    fn engine(&self, port: u16, answer: &'static str) {
        self.listening(port, move |mut stream| {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer.as_bytes());
        });
    }

    /// The same, but it greets each connection before anything has come.
    fn greeting_engine(&self, port: u16, greeting: &'static str) {
        self.listening(port, move |mut stream| drop(stream.write_all(greeting.as_bytes())));
    }

    fn listening(&self, port: u16, serve: impl Fn(TcpStream) + Send + 'static) {
        let pod = self.net.pod.clone();
        let (ready, wait) = mpsc::channel();
        thread::spawn(move || {
            enter(&pod);
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
            ready.send(()).unwrap();
            for stream in listener.incoming() {
                serve(stream.unwrap());
            }
        });
        wait.recv_timeout(PATIENCE).unwrap();
    }

    /// What the client gets for `said`. `None`: no connection, or it was reset.
    fn say(&self, address: IpAddr, port: u16, said: String) -> Option<String> {
        let client = self.net.client.clone();
        let saying = thread::spawn(move || {
            enter(&client);
            let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address, port), PATIENCE).ok()?;
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(said.as_bytes()).ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok()?;
            Some(answer)
        });
        saying.join().unwrap()
    }

    fn get(&self, address: IpAddr, port: u16, path: &str) -> Option<String> {
        self.say(address, port, format!("GET {path} HTTP/1.1\r\nhost: pod\r\nconnection: close\r\n\r\n"))
    }

    fn metric(&self, series: &str) -> Option<u64> {
        let text = self.get(pod_v4(), ADMIN, "/metrics").unwrap();
        text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.sidecar.kill();
        let _ = self.sidecar.wait();
    }
}

const ENGINE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nengine";

#[test]
fn requests_to_the_pods_addresses_reach_its_engine_through_the_sidecar() {
    let pod = Pod::start();
    pod.engine(HTTP, ENGINE);
    for address in [pod_v4(), pod_v6()] {
        let answer = pod.get(address, HTTP, "/").unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("engine"), "{address}: {answer}");
    }
    let admitted = r#"tidegate_requests_total{decision="admitted",cause="",priority="medium"}"#;
    assert_eq!(pod.metric(admitted), Some(2));
}

#[test]
fn the_sidecars_own_port_is_no_way_in() {
    let pod = Pod::start();
    pod.engine(HTTP, ENGINE);
    let answer = pod.get(pod_v4(), SIDECAR, "/");
    assert!(answer.as_deref().unwrap_or_default().is_empty(), "{answer:?}");
    assert_eq!(pod.metric(r#"tidegate_protocol_refused_total{reason="not_redirected"}"#), Some(1));
}

#[test]
fn an_opaque_port_passes_bytes_as_they_are() {
    let pod = Pod::start();
    // Nothing of it is HTTP, and some of it would be, on a guarded port.
    let said = "\u{2}\r\n\r\nGET / HTTP/1.1\r\nConnection: X-A\r\nX-A: 1\r\n\r\n\u{0}\u{7f}\n\r".repeat(100);
    let length = said.len();
    pod.listening(OPAQUE, move |mut stream| {
        let mut heard = vec![0; length];
        stream.read_exact(&mut heard).unwrap();
        stream.write_all(b"\x01not HTTP").unwrap();
        stream.write_all(&heard).unwrap();
    });
    assert_eq!(pod.say(pod_v4(), OPAQUE, said.clone()).unwrap(), format!("\u{1}not HTTP{said}"));
}

#[test]
fn a_server_on_an_opaque_port_may_speak_first() {
    let pod = Pod::start();
    pod.greeting_engine(OPAQUE, "220 ready");
    assert_eq!(pod.say(pod_v4(), OPAQUE, String::new()).unwrap(), "220 ready");
}

#[test]
fn a_probe_through_the_admin_port_tells_a_dead_engine_from_a_live_one() {
    let pod = Pod::start();
    let probe = || pod.get(pod_v4(), ADMIN, "/probe/tcp/8000").unwrap();
    assert!(probe().starts_with("HTTP/1.1 503 "), "{}", probe());
    pod.engine(HTTP, ENGINE);
    assert!(probe().starts_with("HTTP/1.1 200 "), "{}", probe());
}
