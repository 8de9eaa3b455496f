//! An inference engine that answers everything, at once or when it is let.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

pub(crate) struct Engine {
    pub(crate) address: SocketAddr,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Engine {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let gate = Arc::new(Gate::default());
        let shared = Arc::clone(&gate);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let gate = Arc::clone(&shared);
                thread::spawn(move || serve(&stream, &gate));
            }
        });
        Self { address, gate }
    }

    /// Requests wait from now on.
    pub(crate) fn close_gate(&self) {
        self.gate.state.lock().unwrap().0 = true;
    }

    pub(crate) fn open_gate(&self) {
        self.gate.state.lock().unwrap().0 = false;
        self.gate.changed.notify_all();
    }

    pub(crate) fn waiting(&self) -> usize {
        self.gate.state.lock().unwrap().1
    }
}

fn serve(stream: &TcpStream, gate: &Gate) {
    let mut lines = BufReader::new(stream).lines();
    let mut scrape = false;
    while let Some(Ok(line)) = lines.next() {
        if !line.is_empty() {
            scrape |= line.starts_with("GET /metrics ");
            continue;
        }
        if std::mem::take(&mut scrape) {
            // An engine tells its metrics beside its work; this one has none.
            let mut stream = stream;
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
            continue;
        }
        let mut state = gate.state.lock().unwrap();
        state.1 += 1;
        state = gate.changed.wait_while(state, |(closed, _)| *closed).unwrap();
        state.1 -= 1;
        drop(state);
        let mut stream = stream;
        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nengine").is_err() {
            return;
        }
    }
}
