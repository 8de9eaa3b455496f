use super::*;

fn small(kv_blocks: u32, max_batch: usize) -> Model {
    Model::new(ModelConfig { kv_blocks, max_batch, ..ModelConfig::default() })
}

fn takes(step: Step) -> Duration {
    match step {
        Step::Takes(duration) => duration,
        other => panic!("{other:?}"),
    }
}

/// Steps until idle; returns for each sequence the step of its first and of its last token.
fn drain(model: &mut Model) -> Vec<(u64, usize, usize)> {
    let mut seen: Vec<(u64, usize, usize)> = Vec::new();
    for step in 0..100_000 {
        if model.begin_step() == Step::Idle {
            return seen;
        }
        for token in model.end_step() {
            match seen.iter_mut().find(|(id, ..)| *id == token.id) {
                Some((.., last)) => *last = step,
                None => seen.push((token.id, step, step)),
            }
        }
    }
    panic!("the engine never became idle: {model:?}");
}

#[test]
fn a_request_gives_exactly_its_output_tokens_and_frees_its_blocks() {
    let mut model = small(100, 8);
    model.submit(1, 40, 25).unwrap();
    let mut tokens = 0;
    let mut peak = 0.0_f64;
    while model.begin_step() != Step::Idle {
        peak = peak.max(model.kv_usage());
        tokens += model.end_step().len();
    }
    assert_eq!(tokens, 25);
    assert!((peak - 0.05).abs() < 1e-9, "65 tokens are 5 blocks of 100, not {peak}");
    assert!(model.kv_usage().abs() < f64::EPSILON);
}

#[test]
fn a_step_takes_longer_in_a_fuller_batch_and_a_fuller_cache() {
    let step_of = |sequences: u64, prompt: u32| {
        let mut model = small(1000, 64);
        for id in 0..sequences {
            model.submit(id, prompt, 50).unwrap();
        }
        model.begin_step();
        model.end_step();
        takes(model.begin_step())
    };
    let alone = step_of(1, 16);
    let batched = step_of(32, 16);
    let cached = step_of(1, 8000);
    assert!(batched > alone.mul_f64(1.4), "{batched:?} after {alone:?}");
    assert!(cached > alone.mul_f64(1.2), "{cached:?} after {alone:?}");
}

#[test]
fn a_full_cache_makes_requests_wait_although_the_batch_has_room() {
    let mut model = small(10, 8);
    model.submit(1, 100, 20).unwrap();
    model.submit(2, 100, 20).unwrap();
    model.begin_step();
    assert_eq!((model.running(), model.waiting()), (1, 1));
    let seen = drain(&mut model);
    assert_eq!(seen.len(), 2, "the second one runs when the first is done");
    assert!(seen[1].1 > seen[0].2);
}

#[test]
fn an_exhausted_cache_preempts_the_youngest_which_still_completes() {
    let mut model = small(10, 8);
    model.submit(1, 60, 40).unwrap();
    model.submit(2, 60, 40).unwrap();
    let seen = drain(&mut model);
    assert!(model.preemptions() > 0);
    assert_eq!(seen.len(), 2);
    assert!(seen[0].2 < seen[1].2, "the oldest is never the one that loses its place");
    assert!(model.kv_usage().abs() < f64::EPSILON);
}

#[test]
fn a_long_prompt_is_computed_in_chunks_while_others_decode() {
    let mut model = small(1000, 8);
    model.submit(1, 16, 50).unwrap();
    model.begin_step();
    model.end_step();
    model.submit(2, 5000, 5).unwrap();
    let seen = drain(&mut model);
    let long = seen.iter().find(|(id, ..)| *id == 2).unwrap();
    assert_eq!(long.1, 2, "5000 tokens take three steps of 2048");
}

#[test]
fn an_aborted_request_gives_its_blocks_back() {
    let mut model = small(10, 8);
    model.submit(1, 100, 20).unwrap();
    model.begin_step();
    model.abort(1);
    assert!(model.kv_usage().abs() < f64::EPSILON);
    assert_eq!(model.begin_step(), Step::Idle);
}

#[test]
fn what_can_never_fit_is_refused_at_once() {
    let mut model = small(10, 8);
    assert_eq!(model.submit(1, 150, 20), Err(TooLong { requested: 170, limit: 159 }));
}

#[test]
fn whole_prompts_stop_the_decoding_ones_for_their_step() {
    let config = ModelConfig { prefill: Prefill::Whole, ..ModelConfig::default() };
    let mut model = Model::new(config);
    model.submit(1, 16, 50).unwrap();
    model.begin_step();
    model.end_step();
    model.submit(2, 5000, 5).unwrap();
    model.begin_step();
    assert_eq!(model.end_step(), [Emitted { id: 2, last: false }]);
    model.begin_step();
    assert_eq!(model.end_step().len(), 2);
}

#[test]
fn a_cache_that_grows_on_demand_ends_in_out_of_memory_and_an_empty_engine() {
    let config = ModelConfig { kv_blocks: 10, overflow: Overflow::OutOfMemory, ..ModelConfig::default() };
    let mut model = Model::new(config);
    model.submit(1, 60, 40).unwrap();
    model.submit(2, 60, 40).unwrap();
    let empty = model.reading().gpu_used;
    for step in 0..100 {
        match model.begin_step() {
            Step::OutOfMemory(lost) => {
                assert!(step > 0);
                assert_eq!(lost, [1, 2]);
                assert_eq!(model.reading().gpu_used, empty);
                return;
            }
            _ => drop(model.end_step()),
        }
    }
    panic!("200 tokens fit into 160");
}

#[test]
fn a_reserved_cache_is_all_in_use_for_the_driver_of_the_gpu() {
    let model = small(100, 8);
    let reading = model.reading();
    assert_eq!(reading.gpu_used, ModelConfig::default().gpu.weights + 100 * (2 << 20));
    assert!(reading.kv_usage.abs() < f64::EPSILON);
}

#[test]
fn tokens_that_are_computed_anew_are_counted_again() {
    let mut model = small(10, 8);
    model.submit(1, 60, 40).unwrap();
    model.submit(2, 60, 40).unwrap();
    drain(&mut model);
    assert!(model.reading().computed_tokens > 200, "{}", model.reading().computed_tokens);
}
