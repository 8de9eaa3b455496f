//! Windows of HTTP/2: a client may send more when the engine has taken what there is, and not before.

use std::sync::mpsc;
use std::time::Duration;

use crate::raw_http2::{DATA, END_HEADERS, HEADERS, Raw, WINDOW_UPDATE, frame, head};
use crate::start;
use crate::support::{DEADLINE, Engine};

/// Far more than the windows, and than what kernels keep of connections that nobody reads.
const UPLOAD: usize = 48 << 20;

const PIECE: usize = 16 * 1024;

/// What a client may send on its only stream, and on the connection.
struct Windows {
    stream: usize,
    connection: usize,
    sent: usize,
}

impl Windows {
    /// Sends as long as there is window for it, up to `most` in all. Ends when no more window comes for so long.
    fn send(&mut self, raw: &mut Raw, most: usize, patience: Duration) {
        raw.0.set_read_timeout(Some(patience)).unwrap();
        while self.sent < most {
            if self.stream >= PIECE && self.connection >= PIECE {
                assert!(raw.send(&frame(DATA, 0, 1, &[b'x'; PIECE])));
                self.sent += PIECE;
                self.stream -= PIECE;
                self.connection -= PIECE;
                continue;
            }
            let Some(update) = raw.next() else { return };
            if update.kind == WINDOW_UPDATE {
                let more = u32::from_be_bytes(update.payload[..4].try_into().unwrap()) as usize;
                if update.stream == 0 {
                    self.connection += more;
                } else {
                    self.stream += more;
                }
            }
        }
    }
}

#[test]
fn windows_of_an_upload_open_as_the_engine_takes_it() {
    let (take, taking) = mpsc::channel::<()>();
    let taking = std::sync::Mutex::new(taking);
    let engine = Engine::new(move |_, mut peer| {
        peer.read_to("\r\n\r\n");
        taking.lock().unwrap().recv_timeout(DEADLINE).unwrap();
        peer.rest();
    });
    let sidecar = start(engine.address, &[]);
    let mut raw = Raw::connect(sidecar.data, &[]);
    let before_settings = 65_535;
    let mut windows = Windows { stream: before_settings, connection: before_settings, sent: 0 };
    assert!(raw.send(&frame(HEADERS, END_HEADERS, 1, &head(&[]))));
    windows.send(&mut raw, UPLOAD, Duration::from_secs(1));
    let untaken = windows.sent;
    assert!(untaken < UPLOAD / 2, "{untaken} bytes were sent that the engine has not taken");
    take.send(()).unwrap();
    windows.send(&mut raw, UPLOAD, DEADLINE);
    assert_eq!(windows.sent, UPLOAD, "{untaken} before the engine took any");
}
