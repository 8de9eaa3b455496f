//! A server over TLS on a thread of its own, whose certificate can change and whose connections can be cut.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

pub(crate) trait Service: Send + Sync + 'static {
    fn answer(&self, request: Request<Incoming>) -> impl Future<Output = Response<Body>> + Send;
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    config: Arc<Mutex<Arc<ServerConfig>>>,
    cut: watch::Sender<u64>,
}

impl Server {
    pub(crate) fn start(config: Arc<ServerConfig>, service: Arc<impl Service>) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let config = Arc::new(Mutex::new(config));
        let cut = watch::Sender::new(0);
        let (current, cuts) = (Arc::clone(&config), cut.subscribe());
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                loop {
                    let accepted = listener.accept().await;
                    let acceptor = TlsAcceptor::from(Arc::clone(&current.lock().unwrap()));
                    tokio::spawn(connection(
                        accepted.unwrap().0,
                        acceptor,
                        Arc::clone(&service),
                        cuts.clone(),
                    ));
                }
            });
        });
        Self { address, config, cut }
    }

    /// For connections from now on.
    pub(crate) fn use_certificate(&self, config: Arc<ServerConfig>) {
        *self.config.lock().unwrap() = config;
    }

    /// Ends every connection there is.
    pub(crate) fn cut(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }
}

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    service: Arc<impl Service>,
    mut cuts: watch::Receiver<u64>,
) {
    cuts.mark_unchanged();
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let stream = TokioIo::new(stream);
    let service = service_fn(|request| {
        let service = Arc::clone(&service);
        async move { Ok::<_, Infallible>(service.answer(request).await) }
    });
    let served = async {
        if h2 {
            let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await;
        } else {
            let _ = http1::Builder::new().serve_connection(stream, service).await;
        }
    };
    tokio::select! {
        () = served => {}
        _ = cuts.changed() => {}
    }
}
