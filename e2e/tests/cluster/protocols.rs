//! What an injected pod speaks on a guarded port.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use tidegate_e2e::engine::grpc::{LIVE, SERVER_LIVE};
use tidegate_e2e::harness::{Engine, Http2, admin_url, engine_url, in_namespace};

const GRPC: &str = "application/grpc";

/// An empty message of gRPC.
const EMPTY: [u8; 5] = [0; 5];

fn field<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

#[tokio::test]
async fn http_2_events_and_grpc_pass_an_injected_pod() -> anyhow::Result<()> {
    in_namespace(async |lab| {
        lab.apply_permissive_policy().await?;
        let pods = lab.engine(&Engine::new("llama")).await?;
        let mut client = Http2::connect(&engine_url(&pods[0])?).await?;
        let prompt = r#"{"model": "llama-sim", "prompt": "tide", "max_tokens": 8, "stream": true}"#;
        let (events, _) = client.post("/v1/completions", "application/json", prompt).await?;
        assert_eq!(events.status(), 200);
        assert!(
            field(events.headers(), "content-type").starts_with("text/event-stream"),
            "{:?}",
            events.headers()
        );
        let text = String::from_utf8_lossy(events.body());
        assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
        let (live, trailers) = client.post(SERVER_LIVE, GRPC, Bytes::from_static(&EMPTY)).await?;
        assert_eq!((live.status().as_u16(), &live.body()[..]), (200, &LIVE[..]));
        assert_eq!(field(&trailers, "grpc-status"), "0", "{live:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_limit_refuses_calls_of_grpc_by_their_own_status() -> anyhow::Result<()> {
    in_namespace(async |lab| {
        lab.apply(
            "{apiVersion: tidegate.dev/v1alpha1, kind: RateLimitPolicy, metadata: {name: limit}, spec: {
               targetRefs: [{group: apps, kind: Deployment, name: llama}],
               limits: [{name: all, algorithm: TokenBucket, limit: 1, window: 1h, burst: 1}]}}",
        )
        .await?;
        let pods = lab.engine(&Engine::new("llama")).await?;
        lab.until_programmed(&pods[0]).await?;
        let mut client = Http2::connect(&engine_url(&pods[0])?).await?;
        let (_, trailers) = client.post(SERVER_LIVE, GRPC, Bytes::from_static(&EMPTY)).await?;
        assert_eq!(field(&trailers, "grpc-status"), "0");
        let (refused, _) = client.post(SERVER_LIVE, GRPC, Bytes::from_static(&EMPTY)).await?;
        assert_eq!(field(refused.headers(), "grpc-status"), "8", "{refused:?}");
        assert!(field(refused.headers(), "x-tidegate-reason").starts_with("limit; "), "{refused:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_is_not_http_is_refused_on_a_guarded_port() -> anyhow::Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    in_namespace(async |lab| {
        lab.apply_permissive_policy().await?;
        let pods = lab.engine(&Engine::new("llama")).await?;
        let address = engine_url(&pods[0])?.replace("http://", "");
        let mut connection = tokio::net::TcpStream::connect(address).await?;
        connection.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await?;
        let mut answer = Vec::new();
        let end = tokio::time::timeout(Duration::from_mins(1), connection.read_to_end(&mut answer)).await;
        assert!(end.is_ok(), "the connection stays open");
        let metrics = lab.http.get(&format!("{}/metrics", admin_url(&pods[0])?)).await?.body;
        let refused =
            metrics.lines().find(|line| line.starts_with(r#"tidegate_protocol_refused_total{reason="tls"}"#));
        assert!(refused.is_some_and(|line| !line.ends_with(" 0")), "{refused:?}");
        Ok(())
    })
    .await
}
