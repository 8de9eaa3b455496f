//! Budgets of tokens: what is reserved, what is settled, and how a stream ends for which nothing is left.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tidegate_policy::PolicyDocument;

use crate::nobody::nobody;
use crate::support::{DEADLINE, Engine, Proxy, Request, ok, until};

const HOUR: u64 = 3_600_000;

/// Limits of tokens for all requests together.
fn document(limits: &[Value]) -> PolicyDocument {
    let mut document = serde_json::to_value(PolicyDocument::default()).unwrap();
    document["limits"] = limits.iter().enumerate().map(|(i, limit)| {
        let mut rule = json!({"policy": "shop/llama", "name": format!("budget-{i}"), "mode": "Enforce", "key": [],
            "cost": "totalTokens", "algorithm": "fixedWindow", "windowMillis": 744 * HOUR});
        rule.as_object_mut().unwrap().extend(limit.as_object().unwrap().clone());
        rule
    }).collect();
    PolicyDocument::from_json(document.to_string().as_bytes()).unwrap()
}

fn budget(limit: u64) -> PolicyDocument {
    document(&[json!({"limit": limit})])
}

/// A prompt of so many tokens, and so many to answer it.
fn post(path: &str, tokens: usize, most: u32) -> String {
    let body = json!({"model": "m", "prompt": "tide".repeat(tokens), "max_tokens": most}).to_string();
    format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\naccept-encoding: gzip, br\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn ask(proxy: &Proxy, tokens: usize, most: u32) -> u16 {
    let status = proxy.ask(&post("/v1/completions", tokens, most)).status;
    proxy.settled();
    status
}

/// How many tokens are left, to be found out at the price of all of them.
fn left(proxy: &Proxy) -> u32 {
    let passes = |most: u32| {
        let answer = proxy.ask(&post("/v1/fails", 0, most));
        proxy.settled();
        answer.status != 429
    };
    let (mut low, mut high) = (0, 100_000);
    while low + 1 < high {
        let middle = u32::midpoint(low, high);
        *(if passes(middle) { &mut low } else { &mut high }) = middle;
    }
    low
}

/// Answers with this body, and costs nothing on `/v1/fails`.
fn engine(answer: impl Fn(&Request) -> String + Send + Sync + 'static) -> Engine {
    Engine::answering(move |request| {
        if request.head.starts_with("POST /v1/fails") {
            return "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n".to_owned();
        }
        answer(request)
    })
}

fn usage(prompt: u32, output: u32) -> String {
    ok(&json!({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": output}}).to_string())
}

#[test]
fn an_answer_is_settled_by_its_usage() {
    let engine = engine(|request| {
        assert_eq!(request.header("accept-encoding"), Some("identity"));
        usage(90, 7)
    });
    let proxy = Proxy::with_document(engine.address, &budget(1000));
    assert_eq!(ask(&proxy, 100, 800), 200);
    assert_eq!(left(&proxy), 1000 - 97);
    assert_eq!(ask(&proxy, 100, 850), 429, "more than is left");
    for kind in ["input", "output"] {
        let labels = format!(
            "gen_ai_operation_name=\"text_completion\",gen_ai_provider_name=\"openai\",gen_ai_token_type=\"{kind}\""
        );
        let metric =
            |name: &str| proxy.metrics().contains(&format!("gen_ai_client_token_usage_{name}{{{labels}}}"));
        assert!(metric("count") && metric("sum"), "{}", proxy.metrics());
    }
}

#[test]
fn what_failed_is_given_back() {
    for (status, tokens) in [("500 Oops", 100), ("429 Too Many", 0), ("503 Full", 0), ("400 Bad", 0)] {
        let engine = engine(move |_| format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\n{{}}"));
        let proxy = Proxy::with_document(engine.address, &budget(1000));
        ask(&proxy, 100, 500);
        assert_eq!(left(&proxy), 1000 - tokens, "{status}");
    }
}

#[test]
fn an_engine_that_is_not_there_costs_nothing() {
    let nobody = nobody();
    let proxy = Proxy::with_document(nobody, &budget(1000));
    for _ in 0..5 {
        assert_eq!(ask(&proxy, 400, 500), 502);
    }
}

#[test]
fn an_answer_without_usage_costs_the_text_that_came() {
    let engine = engine(|_| ok(&json!({"text_output": "tide".repeat(30)}).to_string()));
    let proxy = Proxy::with_document(engine.address, &budget(1000));
    assert_eq!(ask(&proxy, 100, 500), 200);
    assert_eq!(left(&proxy), 1000 - 130);
}

/// Events of a stream, each a piece that came alone.
fn events(of: &[Value]) -> String {
    let chunks = of.iter().map(|event| {
        let name = event["type"].as_str().map(|name| format!("event: {name}\n")).unwrap_or_default();
        let text = format!("{name}data: {event}\n\n");
        format!("{:x}\r\n{text}\r\n", text.len())
    });
    format!("{EVENTS}{}0\r\n\r\n", chunks.collect::<String>())
}

#[test]
fn usage_settles_the_answers_of_every_dialect_plain_and_streamed() {
    let text = "tide".repeat(50);
    let anthropic = json!({"type": "message", "content": [{"type": "text", "text": text}],
        "usage": {"input_tokens": 80, "cache_read_input_tokens": 10, "output_tokens": 7}});
    let anthropic_stream = [
        json!({"type": "message_start", "message": {"usage": {"input_tokens": 80, "cache_read_input_tokens": 10,
            "output_tokens": 1}}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}}),
        json!({"type": "message_stop"}),
    ];
    let openai_stream = [
        json!({"choices": [{"index": 0, "delta": {"content": text}}], "usage": null}),
        json!({"choices": [], "usage": {"prompt_tokens": 90, "completion_tokens": 7}}),
    ];
    let responses_stream = [
        json!({"type": "response.output_text.delta", "delta": text}),
        json!({"type": "response.completed", "response": {"usage": {"input_tokens": 90, "output_tokens": 7}}}),
    ];
    let triton =
        json!({"model_name": "m", "num_input_tokens": 90, "num_output_tokens": 7, "text_output": text});
    let piece =
        |tokens: u32| json!({"num_input_tokens": 90, "num_output_tokens": tokens, "text_output": text});
    let kserve = json!({"model_name": "m", "outputs": [
        {"name": "text_output", "datatype": "BYTES", "shape": [1], "data": [text]},
        {"name": "num_output_tokens", "datatype": "UINT32", "shape": [1], "data": [7]},
        {"name": "num_input_tokens", "datatype": "UINT32", "shape": [1], "data": [90]},
    ]});
    let responses =
        json!({"output": [{"content": [{"text": text}]}], "usage": {"input_tokens": 90, "output_tokens": 7}});
    for (path, answer) in [
        ("/v1/messages", ok(&anthropic.to_string())),
        ("/v1/messages", events(&anthropic_stream)),
        ("/v1/chat/completions", events(&openai_stream)),
        ("/v1/responses", ok(&responses.to_string())),
        ("/v1/responses", events(&responses_stream)),
        ("/v2/models/m/generate", ok(&triton.to_string())),
        ("/v2/models/m/generate_stream", events(&[piece(3), piece(4)])),
        ("/v2/models/m/infer", ok(&kserve.to_string())),
    ] {
        let body = answer.clone();
        let engine = engine(move |request| {
            assert_eq!(request.header("accept-encoding"), Some("identity"));
            body.clone()
        });
        let proxy = Proxy::with_document(engine.address, &budget(1000));
        let got = proxy.ask(&post(path, 100, 500));
        assert_eq!(got.status, 200, "{path}");
        proxy.settled();
        assert_eq!(left(&proxy), 1000 - 97, "{path}: {answer}");
    }
}

#[test]
fn an_answer_that_is_packed_anyway_is_counted_from_a_copy_or_costs_what_was_reserved() {
    let usage = json!({"usage": {"prompt_tokens": 90, "completion_tokens": 7}}).to_string();
    let packed = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(usage.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let damaged: Vec<u8> = packed.iter().rev().copied().collect();
    for (coding, body, costs) in [("gzip", &packed, 97), ("br", &packed, 600), ("gzip", &damaged, 600)] {
        let sent = body.clone();
        let engine = Engine::new(move |_, mut peer| {
            while let Some(request) = peer.request() {
                if request.head.starts_with("POST /v1/fails") {
                    peer.send("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
                    continue;
                }
                let length = sent.len();
                peer.send(&format!(
                    "HTTP/1.1 200 OK\r\ncontent-encoding: {coding}\r\ncontent-length: {length}\r\n\r\n"
                ));
                peer.send_bytes(&sent);
            }
        });
        let proxy = Proxy::with_document(engine.address, &budget(1000));
        let answer = proxy.ask(&post("/v1/completions", 100, 500));
        assert!(answer.body == *body, "it passes as it came");
        proxy.settled();
        assert_eq!(left(&proxy), 1000 - costs, "{coding}");
    }
}

#[test]
fn tokens_of_a_minute_and_of_a_day_and_requests_are_all_kept() {
    let engine = engine(|_| usage(100, 0));
    for (tpm, tpd, rpm, spent) in [(250, 1000, 8, "tpm"), (1000, 250, 8, "tpd"), (1000, 1000, 2, "rpm")] {
        let limits = [
            json!({"limit": tpm, "name": "tpm", "windowMillis": HOUR, "algorithm": {"slidingWindow": {"subWindows": 10}}}),
            json!({"limit": tpd, "name": "tpd", "windowMillis": 24 * HOUR}),
            json!({"limit": rpm, "name": "rpm", "cost": "requests"}),
        ];
        let proxy = Proxy::with_document(engine.address, &document(&limits));
        assert_eq!([0; 3].map(|_| ask(&proxy, 100, 10)), [200, 200, 429], "{spent}");
        let refused = proxy.ask(&post("/v1/completions", 100, 10));
        assert!(refused.header("x-tidegate-reason").unwrap().ends_with(&format!("rule={spent}")), "{spent}");
    }
}

#[test]
fn kinds_of_tokens_have_their_weights() {
    let engine = engine(|_| {
        ok(&json!({"usage": {"prompt_tokens": 100, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 60}}})
            .to_string())
    });
    let weights = json!({"limit": 1000, "cost": {"tokens": {"input": 1.0, "cached": 0.1, "output": 4.0}}});
    let proxy = Proxy::with_document(engine.address, &document(&[weights]));
    assert_eq!(ask(&proxy, 100, 10), 200);
    // A reservation of output tokens counts four times.
    assert_eq!(left(&proxy), (1000 - 40 - 6 - 40) / 4);
}

/// An engine that streams events, each of one token, for as long as it is told to.
fn streaming(goes_on: &Arc<AtomicBool>, head: &'static str, event: &'static str) -> Engine {
    let goes_on = goes_on.clone();
    Engine::new(move |_, mut peer| {
        let Some(request) = peer.request() else { return };
        if request.head.starts_with("POST /v1/fails") {
            peer.send("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            return;
        }
        peer.send(head);
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        while goes_on.load(Ordering::SeqCst) {
            if peer.stream.write_all(chunk.as_bytes()).is_err() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
        peer.send("0\r\n\r\n");
    })
}

const EVENTS: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const CHAT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"tide\"}}]}\n\n";

#[test]
fn a_stream_whose_client_did_not_ask_for_usage_is_counted_from_its_text() {
    let engine = Engine::new(|_, mut peer| {
        while let Some(request) = peer.request() {
            if request.head.starts_with("POST /v1/fails") {
                peer.send("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
                continue;
            }
            let body = CHAT.repeat(40);
            peer.send(&format!("{EVENTS}{:x}\r\n{body}\r\n0\r\n\r\n", body.len()));
        }
    });
    let proxy = Proxy::with_document(engine.address, &budget(1000));
    assert_eq!(ask(&proxy, 100, 500), 200);
    assert_eq!(left(&proxy), 1000 - 140);
}

#[test]
fn a_stream_that_its_client_leaves_costs_what_was_generated() {
    // Twenty events, and then nothing until it is left.
    let engine = Engine::new(|_, mut peer| {
        let Some(request) = peer.request() else { return };
        if request.head.starts_with("POST /v1/fails") {
            return peer.send("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
        let chunk = format!("{:x}\r\n{CHAT}\r\n", CHAT.len());
        peer.send(&format!("{EVENTS}{}", chunk.repeat(20)));
        peer.rest();
    });
    let proxy = Proxy::with_document(engine.address, &budget(100_000));
    let mut client = proxy.connect();
    client.send(&post("/v1/chat/completions", 100, 50_000));
    client.read_to("\r\n\r\n");
    for _ in 0..20 {
        client.chunk();
    }
    drop(client);
    proxy.settled();
    assert_eq!(left(&proxy), 100_000 - 100 - 20);
}

#[test]
fn a_stream_ends_as_its_dialect_expects_when_the_tokens_run_out() {
    let anthropic = "event: content_block_delta\ndata: {\"delta\":{\"text\":\"tide\"}}\n\n";
    let responses = "event: response.output_text.delta\ndata: {\"delta\":\"tide\"}\n\n";
    for (path, event, kind, last) in [
        ("/v1/chat/completions", CHAT, "\"type\":\"rate_limit_exceeded\"", "data: [DONE]"),
        ("/v1/messages", anthropic, "\"type\":\"rate_limit_error\"", "}"),
        ("/v1/responses", responses, "\"code\":\"rate_limit_exceeded\"", "}"),
    ] {
        let engine = streaming(&Arc::new(AtomicBool::new(true)), EVENTS, event);
        let proxy = Proxy::with_document(engine.address, &budget(400));
        let mut client = proxy.connect();
        client.send(&post(path, 100, 100));
        let answer = client.response();
        let text = answer.text();
        let error = text.find("\"error\"").unwrap_or_else(|| panic!("{text}"));
        let generated = text.matches(event).count();
        assert!((300..340).contains(&generated), "{generated} events of {path}");
        assert!(text.contains(kind) && text.trim_end().ends_with(last), "{}", &text[error - 40..]);
        assert!(text.starts_with(event) && text.ends_with("\n\n"), "events are whole");
        proxy.settled();
        let line = proxy.line("the end of the stream", |line| line["decision"] == "ended");
        assert!(line["message"].as_str().unwrap().ends_with("was ended with an error event"), "{line}");
        // The client's connection is still of use.
        client.send(&post("/v1/fails", 100, 100));
        assert_eq!(client.response().status, 429, "there is a debt");
    }
}

#[test]
fn a_stream_that_may_finish_leaves_a_debt() {
    let goes_on = Arc::new(AtomicBool::new(true));
    let engine = streaming(&goes_on, EVENTS, CHAT);
    let limit = json!({"limit": 400, "onExhausted": "Finish"});
    let proxy = Proxy::with_document(engine.address, &document(&[limit]));
    let mut client = proxy.connect();
    client.send(&post("/v1/chat/completions", 100, 100));
    client.read_to("\r\n\r\n");
    for _ in 0..600 {
        assert_eq!(client.chunk(), CHAT.as_bytes());
    }
    goes_on.store(false, Ordering::SeqCst);
    while !client.chunk().is_empty() {}
    proxy.settled();
    assert_eq!(ask(&proxy, 1, 1), 429);
}

#[test]
fn a_packed_stream_is_aborted_when_the_tokens_run_out() {
    let event = CHAT.repeat(500);
    let packed: Vec<u8> = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(event.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let engine = Engine::new(move |_, mut peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n");
        peer.send(&format!("{:x}\r\n", packed.len()));
        peer.send_bytes(&packed);
        peer.send("\r\n");
        peer.stream.set_read_timeout(Some(DEADLINE)).unwrap();
        peer.rest();
    });
    let proxy = Proxy::with_document(engine.address, &budget(400));
    let mut client = proxy.connect();
    client.send(&post("/v1/chat/completions", 100, 100));
    client.read_to("\r\n\r\n");
    let rest = client.rest();
    assert!(!rest.ends_with(b"0\r\n\r\n"), "it is seen to be broken off");
    until("it is over", || proxy.in_flight() == 0);
    let line = proxy.line("the end of the stream", |line| line["decision"] == "ended");
    let told = line["message"].as_str().unwrap();
    assert!(told.ends_with("its stream is compressed and was aborted"), "{line}");
    assert_eq!((&line["policy"], &line["rule"]), (&json!("shop/llama"), &json!("budget-0")));
}
