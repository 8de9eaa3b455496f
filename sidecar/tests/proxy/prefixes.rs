//! What is read of a body before the decision, and what becomes of the body.

use std::io::Write as _;

use serde_json::{Value, json};
use tidegate_policy::PolicyDocument;

use crate::support::{DEADLINE, Engine, InProcess, Proxy, ok, until};

const HOUR: u64 = 3_600_000;

/// One limit that counts by model, one request each.
fn by_model() -> PolicyDocument {
    document(&json!({"policy": "shop/llama", "name": "per-model", "mode": "Enforce", "key": ["model"],
        "algorithm": {"tokenBucket": {"burst": 1}}, "limit": 1, "windowMillis": HOUR}))
}

/// One limit of tokens for all requests together.
fn tokens(limit: u64) -> PolicyDocument {
    document(
        &json!({"policy": "shop/llama", "name": "tpm", "mode": "Enforce", "key": [], "cost": "totalTokens",
        "algorithm": {"tokenBucket": {"burst": limit}}, "limit": limit, "windowMillis": HOUR}),
    )
}

fn document(limit: &Value) -> PolicyDocument {
    let mut document = serde_json::to_value(PolicyDocument::default()).unwrap();
    document["limits"] = json!([limit]);
    PolicyDocument::from_json(document.to_string().as_bytes()).unwrap()
}

fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Answers with the body that it got.
fn echo() -> Engine {
    Engine::answering(|request| {
        let body = String::from_utf8(request.body.clone()).unwrap();
        ok(&body)
    })
}

#[test]
fn a_limit_by_model_counts_each_by_itself_whatever_its_dialect() {
    let engine = echo();
    let proxy = Proxy::with_document(engine.address, &by_model());
    let chat = |model: &str| post("/v1/chat/completions", &format!(r#"{{"messages":[],"model":"{model}"}}"#));
    for (request, status) in [
        (chat("llama"), 200),
        (chat("llama"), 429),
        (chat("qwen"), 200),
        (post("/v2/models/llama/generate", "{}"), 429),
        (post("/v2/models/mistral/generate", r#"{"model":"llama"}"#), 200),
        (post("/v2/models/mistral/generate", "{}"), 429),
        ("GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 200),
        ("GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 429),
    ] {
        assert_eq!(proxy.ask(&request).status, status, "{request}");
    }
}

#[test]
fn a_body_arrives_as_it_was_sent_however_it_is_cut_and_however_long_it_is() {
    let engine = echo();
    let proxy = InProcess::with_document(engine.address, &tokens(1_000_000_000));
    let text = "\u{1f30a} tide ".repeat(60_000);
    for body in [
        String::new(),
        "{}".to_owned(),
        r#"{"prompt":"short","max_tokens":1}"#.to_owned(),
        format!(r#"{{"prompt":"{text}"}}"#),
        format!("no JSON: {text}"),
        format!("  {{\"a\":[1,2,3]}} {text}"),
    ] {
        let answer = proxy.ask(&post("/v1/completions", &body));
        assert_eq!((answer.status, answer.text()), (200, body.as_str()));
        // The same in chunks, the first of them byte by byte.
        let mut client = proxy.connect();
        client.send("POST /v1/completions HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\n\r\n");
        let (slow, rest) = body.as_bytes().split_at(body.len().min(40));
        for byte in slow {
            client.send_bytes(&[b'1', b'\r', b'\n', *byte, b'\r', b'\n']);
        }
        for chunk in rest.chunks(30_000) {
            client.send(&format!("{:x}\r\n", chunk.len()));
            client.send_bytes(chunk);
            client.send("\r\n");
        }
        client.send("0\r\n\r\n");
        assert_eq!(client.response().text(), body);
    }
    until("what was read has been sent on", || proxy.shared.prefixes.taken() == 0);
}

#[test]
fn only_the_begin_of_a_long_upload_is_waited_for() {
    let (begun, has_begun) = std::sync::mpsc::channel();
    let begun = std::sync::Mutex::new(begun);
    let engine = Engine::new(move |_, mut peer| {
        let begun = begun.lock().unwrap();
        peer.read_to("\r\n\r\n");
        peer.read_exactly(64 * 1024);
        begun.send(()).unwrap();
        let rest = peer.read_exactly(100_000 - 64 * 1024);
        peer.send(&ok(&format!("{}", rest.len())));
    });
    let proxy = Proxy::with_document(engine.address, &tokens(1_000_000));
    let mut client = proxy.connect();
    let body = format!(r#"{{"prompt":"{}"}}"#, "-".repeat(100_000 - 13));
    client.send(&format!("POST / HTTP/1.1\r\nHost: a\r\ncontent-length: {}\r\n\r\n", body.len()));
    client.send(&body[..70_000]);
    // The engine has its begin while the client has not sent its end.
    has_begun.recv_timeout(DEADLINE).unwrap();
    client.send(&body[70_000..]);
    assert_eq!(client.response().status, 200);
}

#[test]
fn a_client_that_waits_for_leave_to_send_is_given_it() {
    let engine = echo();
    let proxy = Proxy::with_document(engine.address, &by_model());
    let body = r#"{"model":"llama"}"#;
    let head =
        "POST /v1/completions HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\ncontent-length: 17\r\n\r\n";
    for status in [200, 429] {
        let mut client = proxy.connect();
        client.send(head);
        assert_eq!(client.read_to("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
        client.send(body);
        assert_eq!(client.response().status, status);
    }
}

#[test]
fn a_stream_of_documents_is_not_held_until_it_ends() {
    // Both sides wait for each other after the first document.
    let engine = Engine::new(|_, mut peer| {
        peer.read_to("\r\n\r\n");
        peer.chunk();
        peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nyes\r\n");
        while !peer.chunk().is_empty() {}
        peer.send("0\r\n\r\n");
    });
    let proxy = Proxy::with_document(engine.address, &by_model());
    let firsts = ["{\"model\":\"a\"}\n", "--boundary\r\n", "plain text\n"];
    for (model, first) in firsts.into_iter().enumerate() {
        let mut client = proxy.connect();
        client.send(&format!(
            "POST /v2/models/{model}/x HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{first}\r\n",
            first.len()
        ));
        client.read_to("yes\r\n");
        client.send("0\r\n\r\n");
        client.read_to("0\r\n\r\n");
    }
}

#[test]
fn who_leaves_before_its_prompt_is_there_spends_nothing() {
    let engine = echo();
    let proxy = InProcess::with_document(engine.address, &by_model());
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 17\r\n\r\n{\"model\":");
    until("it is read", || proxy.shared.prefixes.taken() == 9);
    client.stream.flush().unwrap();
    drop(client);
    proxy.settled();
    until("it is given back", || proxy.shared.prefixes.taken() == 0);
    assert_eq!(proxy.ask(&post("/", r#"{"model":"llama"}"#)).status, 200);
}

#[test]
fn what_a_prompt_costs_is_known_before_it_is_passed_on() {
    let engine = echo();
    let proxy = Proxy::with_document(engine.address, &tokens(1000));
    let prompt = |tokens: usize, answer: u32| {
        let text = "tide".repeat(tokens);
        proxy.ask(&post("/v1/completions", &format!(r#"{{"prompt":"{text}","max_tokens":{answer}}}"#))).status
    };
    assert_eq!(prompt(100, 901), 429, "more than there ever is");
    assert_eq!(prompt(100, 900), 200);
}
