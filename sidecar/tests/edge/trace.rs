//! Spans, as a real receiver of OTLP reads them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;

use crate::nobody::nobody;
use crate::policy_file;
use crate::sidecar::{Sidecar, eventually};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// Takes what is exported.
struct Receiver {
    address: SocketAddr,
    taken: Arc<Mutex<Vec<(String, ExportTraceServiceRequest)>>>,
}

impl Receiver {
    fn start() -> Self {
        let taken: Arc<Mutex<Vec<_>>> = Arc::default();
        let shared = Arc::clone(&taken);
        let address = serve(move |head, body| {
            let export = ExportTraceServiceRequest::decode(body).unwrap();
            shared.lock().unwrap().push((head.to_owned(), export));
            String::new()
        });
        Self { address, taken }
    }

    fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    fn spans(&self) -> Vec<Span> {
        let taken = self.taken.lock().unwrap();
        let resources = taken.iter().flat_map(|(_, export)| &export.resource_spans);
        resources.flat_map(|resource| &resource.scope_spans).flat_map(|scope| scope.spans.clone()).collect()
    }

    fn span(&self, what: &str, is: impl Fn(&Span) -> bool) -> Span {
        eventually(what, || self.spans().into_iter().find(&is))
    }
}

/// A server that answers each request with what `answer` makes of its head and body.
fn serve(answer: impl Fn(&str, &[u8]) -> String + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let answer = Arc::clone(&answer);
            thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                loop {
                    let mut head = String::new();
                    while !head.ends_with("\r\n\r\n") {
                        if reader.read_line(&mut head).unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    let length = header(&head, "content-length").and_then(|value| value.parse().ok());
                    let mut body = vec![0; length.unwrap_or(0)];
                    reader.read_exact(&mut body).unwrap();
                    let text = answer(&head, &body);
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", text.len());
                    if stream.write_all((head + &text).as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
}

/// An engine that says what it was told of its caller.
fn engine() -> SocketAddr {
    serve(|head, _| {
        let told = |name| header(head, name).unwrap_or("none");
        format!("{} {}", told("traceparent"), told("tracestate"))
    })
}

fn text<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    let attribute = attributes.iter().find(|attribute| attribute.key == key)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

fn number(attributes: &[KeyValue], key: &str) -> Option<i64> {
    let attribute = attributes.iter().find(|attribute| attribute.key == key)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::IntValue(number) => Some(*number),
        _ => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    let number = bytes.iter().fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
    format!("{number:0width$x}", width = 2 * bytes.len())
}

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{CALLER}-{flags}")
}

#[test]
fn a_sampled_request_is_a_span_that_continues_its_callers_trace() {
    let receiver = Receiver::start();
    let arguments = [
        "--otlp-endpoint",
        &receiver.endpoint(),
        "--otlp-headers=authorization=Bearer%20secret",
        "--service-name=llama",
        "--resource-attributes=k8s.pod.name=llama-0",
    ];
    let sidecar = Sidecar::start(engine(), &arguments);
    let (parent, state) = (traceparent("01"), "vendor=a,other=b");
    let headers = [("traceparent", parent.as_str()), ("tracestate", state)];
    let answer = sidecar.request("/v1/chat/completions?key=secret", &headers).unwrap();
    let span = receiver.span("the span", |_| true);
    assert_eq!(
        answer.body,
        format!("00-{TRACE}-{}-01 {state}", hex(&span.span_id)),
        "what the engine was told"
    );
    assert_eq!((hex(&span.trace_id), hex(&span.parent_span_id)), (TRACE.to_owned(), CALLER.to_owned()));
    assert_eq!((span.trace_state.as_str(), span.name.as_str()), (state, "GET /v1/chat/completions"));
    assert_eq!(span.kind, SpanKind::Server as i32);
    assert!(span.status.is_none(), "all went well");
    for (key, value) in [
        ("http.request.method", "GET"),
        ("http.route", "/v1/chat/completions"),
        ("url.path", "/v1/chat/completions"),
        ("client.address", "127.0.0.1"),
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.provider.name", "openai"),
        ("tidegate.decision", "admitted"),
        ("tidegate.priority", "medium"),
    ] {
        assert_eq!(text(&span.attributes, key), Some(value), "{key}");
    }
    assert_eq!(number(&span.attributes, "http.response.status_code"), Some(200));
    let [event] = &span.events[..] else { panic!("{:?}", span.events) };
    assert_eq!(event.name, "tidegate.first_byte");
    assert!(span.start_time_unix_nano < event.time_unix_nano);
    assert!(event.time_unix_nano <= span.end_time_unix_nano);
    let (head, export) = receiver.taken.lock().unwrap()[0].clone();
    assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
    assert_eq!(header(&head, "content-type"), Some("application/x-protobuf"));
    assert_eq!(header(&head, "authorization"), Some("Bearer secret"));
    let resource = &export.resource_spans[0].resource.as_ref().unwrap().attributes;
    assert_eq!(text(resource, "service.name"), Some("llama"));
    assert_eq!(text(resource, "k8s.pod.name"), Some("llama-0"));
    assert!(!format!("{span:?}").contains("secret"), "a query is not told");
    let exported = "tidegate_trace_spans_total{outcome=\"exported\"}";
    eventually("the count", || (sidecar.metric(exported) == Some(1.0)).then_some(()));
}

#[test]
fn a_caller_that_does_not_sample_is_obeyed_and_its_headers_pass_unchanged() {
    let receiver = Receiver::start();
    let sidecar = Sidecar::start(engine(), &["--otlp-endpoint", &receiver.endpoint(), "--trace-ratio=0"]);
    let unsampled = traceparent("00");
    for (headers, expected) in [
        (vec![("traceparent", unsampled.as_str()), ("tracestate", "a=b")], format!("{unsampled} a=b")),
        (vec![], "none none".to_owned()),
        (vec![("traceparent", "garbage")], "garbage none".to_owned()),
    ] {
        assert_eq!(sidecar.request("/", &headers).unwrap().body, expected);
    }
    sidecar.request("/", &[("traceparent", &traceparent("01"))]).unwrap();
    receiver.span("the sampled one", |_| true);
    assert_eq!(receiver.spans().len(), 1);
}

#[test]
fn a_refused_request_has_a_span_that_names_the_rule() {
    let receiver = Receiver::start();
    let file = policy_file::File::new(&policy_file::one_request("r1"));
    let path = file.path().display().to_string();
    let arguments = ["--otlp-endpoint", &receiver.endpoint(), "--trace-ratio=1", "--policy-file", &path];
    let sidecar = Sidecar::start(engine(), &arguments);
    sidecar.await_status("the document", |status| status["revision"] == "r1");
    assert_eq!(sidecar.request("/", &[]).unwrap().status, 200);
    assert_eq!(sidecar.request("/v1/models", &[("tracestate", "lost=1")]).unwrap().status, 429);
    let span = receiver.span("the refusal", |span| span.name == "GET /v1/models");
    for (key, value) in [
        ("tidegate.decision", "refused"),
        ("tidegate.reason", "limit"),
        ("tidegate.policy", "tests/one"),
        ("tidegate.rule", "one"),
    ] {
        assert_eq!(text(&span.attributes, key), Some(value), "{key}");
    }
    assert_eq!(number(&span.attributes, "http.response.status_code"), Some(429));
    assert!(span.parent_span_id.is_empty(), "it begins a trace");
    assert_eq!(span.trace_state, "", "a state without a parent means nothing");
    let line = sidecar.line("the refusal", |line| line["verdict"] == "refused");
    assert_eq!(line["trace_id"], hex(&span.trace_id), "the log and the trace name each other");
}

#[test]
fn a_span_names_the_client_that_trusted_proxies_name() {
    let receiver = Receiver::start();
    let document = serde_json::json!({"apiVersion": "policy.tidegate.dev/v1", "revision": "r1",
        "identity": {"policy": "shop/llama", "clientIp": {"trustedProxies": ["127.0.0.0/8"], "from": "XForwardedFor"}}});
    let file = policy_file::File::new(&document.to_string());
    let path = file.path().display().to_string();
    let arguments = ["--otlp-endpoint", &receiver.endpoint(), "--trace-ratio=1", "--policy-file", &path];
    let sidecar = Sidecar::start(engine(), &arguments);
    sidecar.await_status("the document", |status| status["revision"] == "r1");
    sidecar.request("/", &[("x-forwarded-for", "192.0.2.7")]).unwrap();
    let span = receiver.span("the span", |_| true);
    assert_eq!(text(&span.attributes, "client.address"), Some("192.0.2.7"));
}

#[test]
fn spans_that_wait_are_exported_when_the_sidecar_ends() {
    let receiver = Receiver::start();
    let mut sidecar = Sidecar::start(engine(), &["--otlp-endpoint", &receiver.endpoint(), "--trace-ratio=1"]);
    for _ in 0..20 {
        assert_eq!(sidecar.request("/", &[]).unwrap().status, 200);
    }
    sidecar.signal(rustix::process::Signal::TERM);
    assert!(sidecar.await_exit().success());
    // A collector has two seconds at the end. Where a machine that does something else meanwhile takes them from it, the
    // sidecar says so: no span is lost in silence.
    let all_came = || (receiver.spans().len() == 20).then_some(());
    let too_long = "the last spans were not exported: the collector takes too long";
    let told = || sidecar.lines().iter().any(|line| line["message"] == too_long).then_some(());
    eventually("every span, or the line that says that some are lost", || all_came().or_else(told));
}

#[test]
fn without_its_collector_requests_pass_and_lost_spans_are_counted() {
    let nobody = nobody();
    let endpoint = format!("http://{nobody}");
    let sidecar = Sidecar::start(engine(), &["--otlp-endpoint", &endpoint, "--trace-ratio=1"]);
    for _ in 0..5 {
        assert_eq!(sidecar.request("/", &[]).unwrap().status, 200);
    }
    let failed = "tidegate_trace_spans_total{outcome=\"failed\"}";
    eventually("lost spans", || sidecar.metric(failed).filter(|failed| *failed >= 1.0));
    sidecar.line("a warning", |line| line["message"] == "spans are not exported");
    assert_eq!(sidecar.request("/", &[]).unwrap().status, 200);
}
