use serde_json::json;

use super::*;

fn whole(answer: &serde_json::Value) -> Tokens {
    let mut reader = UsageReader::default();
    reader.feed(answer.to_string().as_bytes());
    reader.tokens(1000)
}

fn stream(events: &[serde_json::Value]) -> Tokens {
    let mut reader = UsageReader::of_events();
    for event in events {
        reader.feed(event.to_string().as_bytes());
        reader.next();
    }
    reader.tokens(1000)
}

fn tokens(input: u32, cached: u32, output: u32) -> Tokens {
    Tokens { input, cached, output }
}

/// A text of so many tokens.
fn words(tokens: usize) -> String {
    "tide".repeat(tokens)
}

#[test]
fn what_was_cached_is_among_the_prompt_for_one_and_beside_it_for_the_other() {
    let openai = json!({"choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120,
        "prompt_tokens_details": {"cached_tokens": 60}, "completion_tokens_details": {"reasoning_tokens": 5}}});
    assert_eq!(whole(&openai), tokens(40, 60, 20));
    let responses = json!({"output": [], "usage": {"input_tokens": 100, "output_tokens": 20,
        "input_tokens_details": {"cached_tokens": 30}}});
    assert_eq!(whole(&responses), tokens(70, 30, 20));
    let anthropic = json!({"content": [], "usage": {"input_tokens": 10, "cache_creation_input_tokens": 5,
        "cache_read_input_tokens": 80, "output_tokens": 7}});
    assert_eq!(whole(&anthropic), tokens(15, 80, 7));
}

#[test]
fn usage_is_found_in_every_dialect_of_stream() {
    let chunk = json!({"choices": [{"index": 0, "delta": {"content": words(3)}}], "usage": null});
    let last = json!({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}});
    assert_eq!(stream(&[chunk, last]), tokens(9, 0, 2));
    let start = json!({"type": "message_start", "message": {"usage": {"input_tokens": 25, "output_tokens": 1,
        "cache_read_input_tokens": 4}}});
    let delta = json!({"type": "content_block_delta", "delta": {"type": "text_delta", "text": words(6)}});
    assert_eq!(stream(&[start.clone(), delta.clone()]), tokens(25, 4, 6), "cut off before its last count");
    let end = json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 15}});
    assert_eq!(stream(&[start, delta, end]), tokens(25, 4, 15));
    let delta = json!({"type": "response.output_text.delta", "delta": words(4)});
    assert_eq!(stream(std::slice::from_ref(&delta)), tokens(1000, 0, 4));
    let done = json!({"type": "response.output_text.done", "text": words(4)});
    assert_eq!(stream(&[delta.clone(), done.clone()]), tokens(1000, 0, 4), "said once more in the end");
    let completed = json!({"type": "response.completed", "response": {"output": [{"content": [{"text": words(4)}]}],
        "usage": {"input_tokens": 3, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 1}}}});
    assert_eq!(stream(&[delta, done, completed]), tokens(2, 1, 5));
}

#[test]
fn without_usage_the_text_is_counted_wherever_a_dialect_has_it() {
    for answer in [
        json!({"choices": [{"message": {"role": "assistant", "content": words(12)}}]}),
        json!({"choices": [{"text": words(5)}, {"text": words(7)}]}),
        json!({"choices": [{"message": {"content": null, "reasoning_content": words(2),
            "tool_calls": [{"id": "call-1", "function": {"name": words(4), "arguments": words(6)}}]}}]}),
        json!({"content": [{"type": "text", "text": words(12)}]}),
        json!({"output": [{"content": [{"type": "output_text", "text": words(12)}]}]}),
        json!({"model_name": "m", "text_output": words(12)}),
        json!({"generated_text": words(12)}),
        json!([{"generated_text": words(12)}]),
        json!({"outputs": [{"name": "text_output", "data": [words(12)]}]}),
    ] {
        assert_eq!(whole(&answer), tokens(1000, 0, 12), "{answer}");
    }
    for event in [
        json!({"choices": [{"delta": {"content": words(12)}}]}),
        json!({"choices": [{"text": words(12)}]}),
        json!({"type": "content_block_delta", "delta": {"partial_json": words(12)}}),
        json!({"token": {"id": 1, "text": words(12)}, "generated_text": words(500)}),
        json!({"text_output": words(12)}),
    ] {
        assert_eq!(stream(std::slice::from_ref(&event)), tokens(1000, 0, 12), "{event}");
    }
}

#[test]
fn other_engines_say_it_in_their_own_places() {
    let sglang = json!({"text": words(3), "meta_info": {"prompt_tokens": 8, "completion_tokens": 3, "cached_tokens": 2}});
    assert_eq!(whole(&sglang), tokens(6, 2, 3));
    let tgi = json!({"generated_text": words(3), "details": {"generated_tokens": 4}});
    assert_eq!(whole(&tgi), tokens(1000, 0, 4));
    let triton =
        json!({"model_name": "m", "num_input_tokens": 8, "num_output_tokens": 3, "text_output": words(5)});
    assert_eq!(whole(&triton), tokens(8, 0, 3));
    assert_eq!(stream(&[triton.clone(), triton]), tokens(8, 0, 6), "of each piece its own");
    let several = json!({"num_output_tokens": [3, 4], "text_output": [words(5), words(6)]});
    assert_eq!(whole(&several), tokens(1000, 0, 7));
    // As they are written by some servers: names first.
    let kserve = br#"{"outputs": [{"name": "text_output", "datatype": "BYTES", "shape": [1], "data": ["a"]},
        {"name": "num_output_tokens", "datatype": "UINT32", "shape": [2], "data": [3, 1]},
        {"name": "logits", "datatype": "FP32", "shape": [1], "data": [99]},
        {"name": "num_input_tokens", "datatype": "UINT32", "shape": [1], "data": [[8]]}]}"#;
    let mut reader = UsageReader::default();
    reader.feed(kserve);
    assert_eq!(reader.tokens(1000), tokens(8, 0, 4));
    // And by others: in the order of the alphabet.
    let kserve = json!({"outputs": [
        {"name": "text_output", "datatype": "BYTES", "shape": [1], "data": [words(5)]},
        {"name": "num_output_tokens", "datatype": "UINT32", "shape": [2], "data": [3, 1]},
        {"name": "logits", "datatype": "FP32", "shape": [1], "data": [99]},
        {"name": "num_input_tokens", "datatype": "UINT32", "shape": [1], "data": [8]},
    ]});
    assert_eq!(whole(&kserve), tokens(8, 0, 4));
    let embeddings =
        json!({"data": [{"embedding": [0.1, 0.2]}], "usage": {"prompt_tokens": 8, "total_tokens": 8}});
    assert_eq!(whole(&embeddings), tokens(8, 0, 0));
}
