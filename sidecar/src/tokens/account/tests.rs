use super::*;
use crate::tokens::prompt::Prompt;

const ESTIMATE: Tokens = Tokens { input: 100, cached: 0, output: 50 };
const PROMPT: Tokens = Tokens { output: 0, ..ESTIMATE };

fn account(prompt: Option<Prompt>) -> Account {
    Account::new(&Asked::new("/v1/chat/completions", prompt), ESTIMATE)
}

fn after(outcome: HeadOutcome, body: &str) -> Option<Tokens> {
    let mut account = account(Some(Prompt::default()));
    account.responded(outcome);
    account.answers(&HeaderMap::new());
    account.feed(body.as_bytes());
    account.used()
}

#[test]
fn it_costs_what_was_computed() {
    let usage = r#"{"usage":{"prompt_tokens":90,"completion_tokens":10}}"#;
    assert_eq!(after(HeadOutcome::Status(200), usage), Some(Tokens { input: 90, cached: 0, output: 10 }));
    let text = r#"{"choices":[{"text":"tidetide"}]}"#;
    assert_eq!(after(HeadOutcome::Status(200), text), Some(Tokens { output: 2, ..ESTIMATE }));
    for status in [500, 502, 504] {
        assert_eq!(after(HeadOutcome::Status(status), "{}"), Some(PROMPT), "{status}");
    }
    for status in [400, 404, 422, 429, 503] {
        assert_eq!(after(HeadOutcome::Status(status), "{}"), Some(Tokens::default()), "{status}");
    }
    assert_eq!(after(HeadOutcome::TimedOut, ""), Some(PROMPT));
    assert_eq!(account(Some(Prompt::default())).used(), Some(PROMPT), "its client left before the answer");
}

#[test]
fn what_never_reached_the_engine_costs_nothing() {
    let mut account = account(Some(Prompt::default()));
    account.unsent();
    account.responded(HeadOutcome::Failed);
    assert_eq!(account.used(), Some(Tokens::default()));
}

#[test]
fn a_request_without_a_prompt_costs_nothing_whatever_its_answer_looks_like() {
    let mut account = Account::new(&Asked::new("/v1/models", None), Tokens::default());
    account.responded(HeadOutcome::Status(200));
    account.answers(&HeaderMap::new());
    account.feed(br#"{"content":[{"text":"a long description"}]}"#);
    assert_eq!(account.used(), Some(Tokens::default()));
}

#[test]
fn a_stream_is_looked_at_once_it_is_longer_than_reserved_and_then_now_and_then() {
    let mut account = account(Some(Prompt::default()));
    account.responded(HeadOutcome::Status(200));
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "text/event-stream".parse().unwrap());
    account.answers(&headers);
    let looked: Vec<u32> = (0..100)
        .filter_map(|_| {
            account.feed(b"data: {\"choices\":[{\"delta\":{\"content\":\"tide\"}}]}\n\n");
            account.look().map(|used| used.output)
        })
        .collect();
    assert_eq!(looked, [50, 66, 82, 98]);
}
