use std::net::TcpListener;
use std::thread;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::engine::Engine;
use crate::nobody::nobody;
use crate::sidecar::Sidecar;

/// A gRPC server whose health service knows `llm` as serving and `old` as not.
fn health_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let stream = TokioIo::new(listener.accept().await.unwrap().0);
                let server = http2::Builder::new(TokioExecutor::new());
                tokio::spawn(server.serve_connection(stream, service_fn(check)));
            }
        });
    });
    port
}

async fn check(
    request: Request<Incoming>,
) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = std::convert::Infallible>>, hyper::Error> {
    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
    assert_eq!(request.headers()["content-type"], "application/grpc");
    let body = request.into_body().collect().await?.to_bytes();
    let (code, answer): (&str, &[u8]) = match &body[..] {
        b"\0\0\0\0\0" | b"\0\0\0\0\x05\x0a\x03llm" => ("0", &[0, 0, 0, 0, 2, 8, 1]),
        b"\0\0\0\0\x05\x0a\x03old" => ("0", &[0, 0, 0, 0, 2, 8, 2]),
        _ => ("5", &[]),
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_str(code).unwrap());
    let body = Full::new(Bytes::copy_from_slice(answer)).with_trailers(async { Some(Ok(trailers)) });
    Ok(Response::builder().header("content-type", "application/grpc").body(body).unwrap())
}

#[test]
fn a_tcp_probe_tells_whether_the_engine_accepts() {
    let engine = Engine::start();
    let dead = nobody().port();
    let (port, dead_port) = (engine.address.port().to_string(), dead.to_string());
    let sidecar = Sidecar::start(engine.address, &["--guard", &port, "--opaque", &dead_port]);
    assert_eq!(sidecar.admin(&format!("/probe/tcp/{port}")).unwrap().status, 200);
    let answer = sidecar.admin(&format!("/probe/tcp/{dead}")).unwrap();
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains(&dead_port), "{}", answer.body);
}

#[test]
fn a_grpc_probe_tells_what_the_engines_health_service_says() {
    let engine = Engine::start();
    let port = health_server();
    let sidecar = Sidecar::start(engine.address, &["--guard", &port.to_string()]);
    for (query, status) in [("", 200), ("?service=llm", 200), ("?service=old", 503), ("?service=what", 503)] {
        let answer = sidecar.admin(&format!("/probe/grpc/{port}{query}")).unwrap();
        assert_eq!(answer.status, status, "{query}: {}", answer.body);
    }
}

#[test]
fn ports_that_are_not_guarded_are_not_probed() {
    let engine = Engine::start();
    let other = engine.address.port();
    let sidecar = Sidecar::start(engine.address, &["--guard", "8000"]);
    for kind in ["tcp", "grpc"] {
        assert_eq!(sidecar.admin(&format!("/probe/{kind}/{other}")).unwrap().status, 404);
    }
}

#[test]
fn the_admin_port_answers_what_it_knows_and_refuses_the_rest() {
    let sidecar = Sidecar::start(Engine::start().address, &[]);
    for path in ["/live", "/ready", "/metrics", "/throttle/status"] {
        assert_eq!(sidecar.admin(path).unwrap().status, 200, "{path}");
    }
    for path in ["/", "/nothing", "/throttle", "/probe/udp/1", "/probe/tcp/x"] {
        assert_eq!(sidecar.admin(path).unwrap().status, 404, "{path}");
    }
    let version = format!("tidegate_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(sidecar.metric(&version), Some(1.0));
}
