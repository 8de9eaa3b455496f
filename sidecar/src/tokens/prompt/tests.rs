use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

fn read(body: &Json) -> Prompt {
    let mut reader = PromptReader::default();
    reader.feed(body.to_string().as_bytes());
    assert!(reader.has_enough());
    reader.finish(None)
}

/// A text of so many tokens.
fn words(tokens: usize) -> String {
    "tide".repeat(tokens)
}

#[test]
fn every_dialect_is_understood() {
    let chat = json!({"messages": [{"role": "user", "content": words(50)}], "model": "llama", "stream": true,
        "max_completion_tokens": 7, "n": 2, "stream_options": {"include_usage": true}});
    let found = read(&chat);
    assert_eq!(found.model.as_deref(), Some("llama"));
    assert_eq!((found.input, found.max_output, found.answers), (51, Some(7), 2));
    assert!(found.stream && found.include_usage && found.whole);

    let parts = json!({"messages": [{"role": "user", "content": [{"type": "text", "text": words(50)},
        {"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{}", words(5000))}}]}]});
    assert_eq!(read(&parts).input, 50 + 5 + 800, "an image has its own price, whatever its size");

    let completions = json!({"model": "m", "prompt": [words(10), words(20)], "max_tokens": 5});
    let found = read(&completions);
    assert_eq!((found.input, found.max_output, found.answers), (30, Some(5), 2));
    assert_eq!(read(&json!({"prompt": [[1, 2, 3], [4, 5]]})).input, 5, "tokens as numbers");
    assert_eq!(read(&json!({"prompt": [[1, 2, 3], [4, 5]]})).answers, 2);

    let responses = json!({"model": "m", "instructions": words(3), "max_output_tokens": 9,
        "input": [{"role": "user", "content": [{"type": "input_text", "text": words(20)}]}]});
    let found = read(&responses);
    assert_eq!((found.max_output, found.answers), (Some(9), 1));
    assert!((23..28).contains(&found.input), "{}", found.input);

    let anthropic = json!({"model": "m", "max_tokens": 100, "system": words(10), "stream": true,
        "messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "base64",
            "media_type": "image/png", "data": words(1000)}}]}]});
    let found = read(&anthropic);
    assert_eq!(found.max_output, Some(100));
    assert!((810..825).contains(&found.input), "{}", found.input);

    let triton = json!({"text_input": words(12), "parameters": {"max_tokens": 8, "stream": true}});
    let found = read(&triton);
    assert_eq!((found.input, found.max_output, found.stream), (12, Some(8), true));

    // The name of a tensor stands before what it holds, as in KServe's own examples.
    let tensor = |name: &str, data: &str| format!(r#"{{"name":"{name}","shape":[1],"data":{data}}}"#);
    let infer = |tensors: &[String]| {
        let mut reader = PromptReader::default();
        reader.feed(format!(r#"{{"inputs":[{}]}}"#, tensors.join(",")).as_bytes());
        reader.finish(None)
    };
    let found = infer(&[tensor("text_input", &format!("[{:?}]", words(30))), tensor("max_tokens", "[64]")]);
    assert_eq!(found.max_output, Some(64));
    assert!((30..40).contains(&found.input), "{}", found.input);
    assert!((4..9).contains(&infer(&[tensor("input_ids", "[[5,6,7,8]]")]).input));

    let tgi = json!({"inputs": words(6), "parameters": {"max_new_tokens": 3}});
    assert_eq!((read(&tgi).input, read(&tgi).max_output), (6, Some(3)));
    let sglang = json!({"text": words(6), "sampling_params": {"max_new_tokens": 3}});
    assert_eq!((read(&sglang).input, read(&sglang).max_output), (6, Some(3)));
}

#[test]
fn a_name_written_with_escapes_is_the_same_name_and_the_last_one_counts() {
    let mut reader = PromptReader::default();
    let body = br#"{"model":"small","mod\u0065l":"l\u0061rge"}"#;
    reader.feed(body);
    let found = reader.finish(None);
    assert_eq!(found.model.as_deref(), Some("large"));
    let (from, to) = found.model_at.unwrap();
    assert_eq!(&body[from as usize..to as usize], br#""l\u0061rge""#);
}

#[test]
fn fields_of_other_objects_are_not_the_request_s() {
    let found = read(&json!({"metadata": {"model": "x", "max_tokens": 1, "messages": words(100)},
        "messages": [{"role": "u", "content": "c", "max_tokens": 3, "model": "y", "stream": true}]}));
    assert_eq!((found.model, found.max_output, found.stream), (None, None, false));
    assert_eq!(found.input, 1, "three letters");
}

#[test]
fn numbers_that_are_nonsense_reserve_nothing_or_all() {
    let most = |number: &str| {
        let mut reader = PromptReader::default();
        reader.feed(format!(r#"{{"max_tokens":{number}}}"#).as_bytes());
        reader.finish(None).max_output
    };
    assert_eq!(most("-5"), Some(0));
    assert_eq!(most("1e300"), Some(u32::MAX));
    assert_eq!(most("12.9"), Some(12));
    assert_eq!(most("null"), None);
    assert_eq!(most("\"7\""), None);
}

#[test]
fn what_was_not_read_is_taken_to_be_like_what_was() {
    let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":{:?}}}]}}"#, words(100_000));
    let mut reader = PromptReader::default();
    reader.feed(&body.as_bytes()[..65536]);
    assert!(!reader.has_enough());
    let found = reader.finish(Some(body.len() as u64));
    assert_eq!(found.model.as_deref(), Some("m"));
    assert!(!found.whole);
    assert!((99_000..101_000).contains(&found.input), "{}", found.input);
}

#[test]
fn of_a_body_that_nobody_understands_its_size_is_taken() {
    let mut reader = PromptReader::default();
    reader.feed(b"\x1f\x8b\x08");
    assert_eq!(reader.finish(Some(4000)).input, 1000);
    assert_eq!(PromptReader::default().finish(Some(400)).input, 100, "nothing was read");
    assert_eq!(PromptReader::default().finish(None).input, 0);
}

proptest! {
    #[test]
    fn where_a_body_is_cut_makes_no_difference(
        model in ".{0,20}", text in ".{0,300}", most in any::<u32>(), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let body = json!({"messages": [{"role": "user", "content": text}], "model": model, "max_tokens": most}).to_string();
        let whole = read(&serde_json::from_str(&body).unwrap());
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len())).collect();
        cuts.extend([0, body.len()]);
        cuts.sort_unstable();
        let mut reader = PromptReader::default();
        for cut in cuts.windows(2) {
            reader.feed(&body.as_bytes()[cut[0]..cut[1]]);
        }
        let found = reader.finish(Some(body.len() as u64));
        prop_assert_eq!(found.model.as_deref(), Some(model.as_str()));
        prop_assert_eq!(found.max_output, Some(most));
        prop_assert_eq!(found.input, whole.input);
    }

    #[test]
    fn a_longer_text_is_never_fewer_tokens(text in ".{0,300}", more in ".{0,50}") {
        let tokens = |text: &str| read(&json!({"prompt": text})).input;
        let longer = format!("{text}{more}");
        prop_assert!(tokens(&longer) >= tokens(&text));
    }
}
