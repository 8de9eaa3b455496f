//! What each inference engine calls its metrics.
//!
//! An engine is known by the label `llm-d.ai/engine-type`, or by the first of its series that is found.

use super::text::{Sample, samples};
use crate::stages::Told;

/// One time series, or several that differ in labels that are not named here.
#[derive(Debug, Clone, Copy)]
struct Series {
    name: &'static str,
    label: Option<(&'static str, &'static str)>,
}

/// An inference engine whose metrics are known, as in the label `llm-d.ai/engine-type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum EngineType {
    /// vLLM.
    Vllm,
    /// `SGLang` with `--enable-metrics`.
    Sglang,
    /// Text Generation Inference.
    Tgi,
    /// TensorRT-LLM's own server.
    TrtllmServe,
    /// Triton with the TensorRT-LLM backend.
    TritonTensorrtLlm,
    /// Triton with any other backend.
    Triton,
}

/// The names of one engine.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) kind: EngineType,
    waiting: &'static [Series],
    running: &'static [Series],
    /// Used share of the KV cache, 0 to 1.
    kv_cache_usage: &'static [Series],
    preemptions: &'static [Series],
    /// Histograms of the times of stages, in seconds.
    stages: &'static [(&'static str, Series)],
    /// One that has the stage as a label.
    by_stage: Option<(&'static str, &'static str)>,
}

/// What an exposition says of the engine's load. A value that the engine does not tell is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Load {
    pub(super) waiting: Option<f64>,
    pub(super) running: Option<f64>,
    pub(super) kv_cache_usage: Option<f64>,
    pub(super) preemptions: Option<f64>,
}

const fn plain(name: &'static str) -> Series {
    Series { name, label: None }
}

const fn labelled(name: &'static str, label: &'static str, value: &'static str) -> Series {
    Series { name, label: Some((label, value)) }
}

/// All engines that are known.
static ENGINES: [Engine; 6] = [
    Engine {
        kind: EngineType::Vllm,
        waiting: &[plain("vllm:num_requests_waiting")],
        running: &[plain("vllm:num_requests_running")],
        // The second is what versions before v1 of the engine say.
        kv_cache_usage: &[plain("vllm:kv_cache_usage_perc"), plain("vllm:gpu_cache_usage_perc")],
        preemptions: &[plain("vllm:num_preemptions_total")],
        stages: &[
            ("queue", plain("vllm:request_queue_time_seconds")),
            ("prefill", plain("vllm:request_prefill_time_seconds")),
            ("decode", plain("vllm:request_decode_time_seconds")),
        ],
        by_stage: None,
    },
    Engine {
        kind: EngineType::Sglang,
        waiting: &[plain("sglang:num_queue_reqs")],
        running: &[plain("sglang:num_running_reqs")],
        kv_cache_usage: &[plain("sglang:token_usage")],
        preemptions: &[],
        stages: &[
            ("queue", plain("sglang:queue_time_seconds")),
            ("prefill", labelled("sglang:per_stage_req_latency_seconds", "stage", "prefill_forward")),
        ],
        by_stage: Some(("sglang:per_stage_req_latency_seconds", "stage")),
    },
    Engine {
        kind: EngineType::Tgi,
        waiting: &[plain("tgi_queue_size")],
        running: &[plain("tgi_batch_current_size")],
        kv_cache_usage: &[],
        preemptions: &[],
        stages: &[
            ("queue", plain("tgi_request_queue_duration")),
            // Of a batch, which is what TGI times: all requests in it wait for it.
            ("prefill", labelled("tgi_batch_inference_duration", "method", "prefill")),
            ("decode", labelled("tgi_batch_inference_duration", "method", "decode")),
        ],
        by_stage: None,
    },
    Engine {
        kind: EngineType::TrtllmServe,
        waiting: &[plain("trtllm_num_requests_waiting")],
        running: &[plain("trtllm_num_requests_running")],
        kv_cache_usage: &[plain("trtllm_kv_cache_utilization")],
        preemptions: &[],
        stages: &[
            ("queue", plain("trtllm_request_queue_time_seconds")),
            ("prefill", plain("trtllm_request_prefill_time_seconds")),
            ("decode", plain("trtllm_request_decode_time_seconds")),
        ],
        by_stage: None,
    },
    Engine {
        kind: EngineType::TritonTensorrtLlm,
        waiting: &[labelled("nv_trt_llm_request_metrics", "request_type", "waiting")],
        running: &[labelled("nv_trt_llm_request_metrics", "request_type", "scheduled")],
        kv_cache_usage: &[labelled("nv_trt_llm_kv_cache_block_metrics", "kv_cache_block_type", "fraction")],
        preemptions: &[],
        stages: &[],
        by_stage: None,
    },
    // After the one before, which has these too.
    Engine {
        kind: EngineType::Triton,
        waiting: &[plain("nv_inference_pending_request_count")],
        running: &[],
        kv_cache_usage: &[],
        preemptions: &[],
        stages: &[],
        by_stage: None,
    },
];

impl Series {
    fn is(&self, sample: &Sample<'_>) -> bool {
        sample.name == self.name && self.label.is_none_or(|(label, value)| sample.has(label, value))
    }
}

impl Engine {
    /// The names of an engine of this type.
    pub(super) fn of(engine_type: EngineType) -> Option<&'static Self> {
        ENGINES.iter().find(|engine| engine.kind == engine_type)
    }

    /// The engine whose series an exposition has.
    pub(super) fn detect(exposition: &str) -> Option<&'static Self> {
        ENGINES.iter().find(|engine| engine.read(exposition) != Load::default())
    }

    /// The load that an exposition tells. Counts of several models or data-parallel ranks add up; of several KV
    /// caches the fullest counts, since the next request may need that one.
    pub(super) fn read(&self, exposition: &str) -> Load {
        let mut load = Load::default();
        let of = |all: &[Series], sample: &Sample<'_>| all.iter().any(|series| series.is(sample));
        for sample in samples(exposition).filter(|sample| sample.value.is_finite() && sample.value >= 0.0) {
            if of(self.waiting, &sample) {
                load.waiting = Some(load.waiting.unwrap_or(0.0) + sample.value);
            } else if of(self.running, &sample) {
                load.running = Some(load.running.unwrap_or(0.0) + sample.value);
            } else if of(self.preemptions, &sample) {
                load.preemptions = Some(load.preemptions.unwrap_or(0.0) + sample.value);
            } else if of(self.kv_cache_usage, &sample) {
                load.kv_cache_usage = Some(load.kv_cache_usage.unwrap_or(0.0).max(sample.value.min(1.0)));
            }
        }
        load
    }

    /// What an exposition tells of the times of a stage; nothing where the engine keeps no histogram of them.
    pub(super) fn times(&self, exposition: &str, stage: &str) -> Told {
        let named = self.stages.iter().find(|(name, _)| *name == stage).map(|(_, series)| *series);
        let (name, label) = match (named, self.by_stage) {
            (Some(series), _) => (series.name, series.label),
            (None, Some((name, label))) => (name, Some((label, stage))),
            (None, None) => return Told::default(),
        };
        let mut told = Told::default();
        for sample in samples(exposition).filter(|sample| sample.value.is_finite() && sample.value >= 0.0) {
            let is_bucket = sample.name.strip_suffix("_bucket") == Some(name)
                && label.is_none_or(|(label, value)| sample.has(label, value));
            let bound = sample.get("le").filter(|_| is_bucket).and_then(|bound| bound.parse().ok());
            if let Some(bound) = bound {
                told.bucket(bound, sample.value);
            }
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VLLM: &str = r#"# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="llama"} 3.0
vllm:num_requests_running{engine="1",model_name="llama"} 4.0
vllm:num_requests_waiting{engine="0",model_name="llama"} 90.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 90.0
vllm:kv_cache_usage_perc{engine="0",model_name="llama"} 0.19
vllm:kv_cache_usage_perc{engine="1",model_name="llama"} 0.12
vllm:num_preemptions_total{engine="0",model_name="llama"} 2.0
vllm:num_preemptions_created{engine="0",model_name="llama"} 1.7e+09
"#;

    fn read(text: &str) -> (EngineType, Load) {
        let engine = Engine::detect(text).unwrap();
        (engine.kind, engine.read(text))
    }

    #[test]
    fn ranks_add_up_and_the_fullest_cache_counts() {
        let load = Load {
            waiting: Some(90.0),
            running: Some(7.0),
            kv_cache_usage: Some(0.19),
            preemptions: Some(2.0),
        };
        assert_eq!(read(VLLM), (EngineType::Vllm, load));
    }

    #[test]
    fn every_engine_is_detected_by_its_names() {
        let cases = [
            ("vllm:gpu_cache_usage_perc 0.5", EngineType::Vllm),
            ("sglang:num_queue_reqs{model=\"m\"} 4", EngineType::Sglang),
            ("tgi_queue_size 1", EngineType::Tgi),
            ("trtllm_kv_cache_utilization 0.2", EngineType::TrtllmServe),
            (
                "nv_inference_pending_request_count{model=\"e\"} 1\n\
                 nv_trt_llm_request_metrics{model=\"m\",request_type=\"waiting\",version=\"1\"} 6",
                EngineType::TritonTensorrtLlm,
            ),
            ("nv_inference_pending_request_count{model=\"e\"} 1", EngineType::Triton),
        ];
        for (text, engine_type) in cases {
            assert_eq!(read(text).0, engine_type);
        }
        for engine_type in <EngineType as clap::ValueEnum>::value_variants() {
            assert!(Engine::of(*engine_type).is_some(), "{engine_type:?}");
        }
        assert!(Engine::detect("python_gc_objects_collected_total 3").is_none());
    }

    #[test]
    fn a_value_that_is_no_number_is_absent() {
        assert!(Engine::detect("vllm:kv_cache_usage_perc NaN\nvllm:num_requests_waiting -1").is_none());
    }

    #[test]
    fn the_kinds_of_blocks_are_kept_apart() {
        let text = "nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"max\"} 999\n\
                    nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"fraction\"} 0.25\n";
        assert_eq!(read(text).1, Load { kv_cache_usage: Some(0.25), ..Load::default() });
    }

    fn told(buckets: &[(f64, f64)]) -> Told {
        let mut told = Told::default();
        for (bound, count) in buckets {
            told.bucket(*bound, *count);
        }
        told
    }

    #[test]
    fn times_of_stages_are_read_by_the_names_of_each_engine() {
        let text = "vllm:request_prefill_time_seconds_bucket{le=\"0.3\",model_name=\"a\"} 1\n\
                    vllm:request_prefill_time_seconds_bucket{le=\"+Inf\",model_name=\"a\"} 2\n\
                    vllm:request_prefill_time_seconds_bucket{le=\"+Inf\",model_name=\"b\"} 3\n\
                    vllm:request_prefill_time_seconds_count{model_name=\"a\"} 2\n\
                    vllm:request_decode_time_seconds_bucket{le=\"+Inf\"} 9\n";
        let vllm = Engine::of(EngineType::Vllm).unwrap();
        assert_eq!(vllm.times(text, "prefill"), told(&[(0.3, 1.0), (f64::INFINITY, 5.0)]));
        assert_eq!(vllm.times(text, "queue"), Told::default());
        assert_eq!(vllm.times(text, "attention"), Told::default());
        let text = "sglang:per_stage_req_latency_seconds_bucket{stage=\"prefill_forward\",le=\"1\"} 4\n\
                    sglang:per_stage_req_latency_seconds_bucket{stage=\"tokenize\",le=\"1\"} 5\n";
        let sglang = Engine::of(EngineType::Sglang).unwrap();
        assert_eq!(sglang.times(text, "prefill"), told(&[(1.0, 4.0)]));
        assert_eq!(sglang.times(text, "tokenize"), told(&[(1.0, 5.0)]));
        let text = "tgi_batch_inference_duration_bucket{method=\"decode\",le=\"1\"} 6\n";
        assert_eq!(Engine::of(EngineType::Tgi).unwrap().times(text, "decode"), told(&[(1.0, 6.0)]));
    }
}
