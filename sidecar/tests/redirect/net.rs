//! A pod's network namespace and a client's, joined by a veth pair.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::SockRef;

pub(crate) const SIDECAR: u16 = 15120;
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Both, until it is dropped.
pub(crate) struct Net {
    pub(crate) pod: String,
    pub(crate) client: String,
}

impl Net {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        assert!(
            rustix::process::geteuid().is_root(),
            "this test makes network namespaces: run it as root, as `make test` does"
        );
        let id = format!("tg{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let net = Self { pod: format!("{id}-pod"), client: format!("{id}-client") };
        ip(&["netns", "add", &net.pod]);
        ip(&["netns", "add", &net.client]);
        ip(&[
            "-n",
            &net.pod,
            "link",
            "add",
            "eth0",
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            &net.client,
        ]);
        for (name, v4, v6) in
            [(&net.pod, "10.77.0.2/24", "fd77::2/64"), (&net.client, "10.77.0.1/24", "fd77::1/64")]
        {
            ip(&["-n", name, "addr", "add", v4, "dev", "eth0"]);
            ip(&["-n", name, "addr", "add", v6, "dev", "eth0", "nodad"]);
            ip(&["-n", name, "link", "set", "eth0", "up"]);
            ip(&["-n", name, "link", "set", "lo", "up"]);
        }
        net
    }

    pub(crate) fn sidecar(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.pod, env!("CARGO_BIN_EXE_tidegate-sidecar")]).args(arguments);
        command.output().unwrap()
    }

    pub(crate) fn redirect(&self, ports: &[u16]) {
        let to = SIDECAR.to_string();
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        let mut arguments = vec!["redirect", "--to", &to];
        for port in &ports {
            arguments.extend(["--guard", port]);
        }
        let output = self.sidecar(&arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Answers every connection with its original destination, on a port of the pod.
    pub(crate) fn serve(&self, port: u16, connections: usize) -> thread::JoinHandle<()> {
        let pod = self.pod.clone();
        let (ready, wait) = std::sync::mpsc::channel();
        let server = thread::spawn(move || {
            enter(&pod);
            let listener = TcpListener::bind(("::", port)).unwrap();
            ready.send(()).unwrap();
            for _ in 0..connections {
                let (mut stream, _) = listener.accept().unwrap();
                let answer = format!("{port} {}", original_destination(&stream));
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        wait.recv_timeout(PATIENCE).unwrap();
        server
    }

    /// What the pod answers to a connection from the client, or from within.
    pub(crate) fn ask(&self, from_pod: bool, address: IpAddr, port: u16) -> Option<String> {
        let name = if from_pod { self.pod.clone() } else { self.client.clone() };
        let asking = thread::spawn(move || {
            enter(&name);
            let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address, port), PATIENCE).ok()?;
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            Some(answer)
        });
        asking.join().unwrap()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in [&self.pod, &self.client] {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("this test needs iproute2");
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Moves this thread, and no other, into a namespace.
pub(crate) fn enter(name: &str) {
    let namespace = File::open(format!("/run/netns/{name}")).unwrap();
    move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), Some(LinkNameSpaceType::Network))
        .unwrap();
}

fn original_destination(stream: &TcpStream) -> String {
    let socket = SockRef::from(stream);
    let original = match stream.local_addr().unwrap().ip() {
        IpAddr::V6(address) if address.to_ipv4_mapped().is_none() => socket.original_dst_v6(),
        _ => socket.original_dst_v4(),
    };
    original.map_or_else(|error| error.to_string(), |address| address.as_socket().unwrap().to_string())
}

pub(crate) fn pod_v4() -> IpAddr {
    "10.77.0.2".parse().unwrap()
}

pub(crate) fn pod_v6() -> IpAddr {
    "fd77::2".parse().unwrap()
}
