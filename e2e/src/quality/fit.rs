//! The engine model beside a published table of vLLM.
//!
//! Source: "LLM Inference Benchmarks on Consumer- and Enterprise-Grade Accelerators", IOG Foundation, 2025,
//! <https://github.com/IOG-Foundation/llm-inference-benchmarks>: vLLM 0.8.5, Meta-Llama-3-8B-Instruct in 16 bits on one
//! `GeForce` RTX 4090, `benchmark_serving.py` with 200 prompts of `ShareGPT` (41,169 prompt tokens, 40,351 generated) as a
//! Poisson process of 1 to 32 requests a second. The rows of the H100 in the same table are not used: there the prompts
//! of one run were still in the prefix cache in the next, and the time to the first token hardly grows with the prompt.
//!
//! The table gives totals of tokens, not each length. They are drawn here from truncated log-normals with the
//! published means, whose shapes are fitted with the costs.

use std::time::Duration;

use tidegate_cli::engine_model::{Model, ModelConfig, Step};

use crate::random::Random;

/// One row of the table, or what the model gives for it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// Requests offered per second.
    pub rate: f64,
    /// Requests completed per second of the whole run.
    pub throughput: f64,
    /// Time to the first token: mean, P50, P90, P99, in milliseconds.
    pub ttft: [f64; 4],
    /// Time per output token after the first: mean, P50, P90, P99, in milliseconds.
    pub tpot: [f64; 4],
}

/// The published rows.
pub const PUBLISHED: [Row; 5] = [
    Row {
        rate: 1.0,
        throughput: 1.041,
        ttft: [49.16, 43.50, 77.43, 110.69],
        tpot: [19.51, 19.45, 19.84, 22.66],
    },
    Row {
        rate: 4.0,
        throughput: 3.395,
        ttft: [56.86, 50.02, 90.25, 132.07],
        tpot: [22.60, 22.56, 23.76, 28.86],
    },
    Row {
        rate: 8.0,
        throughput: 5.269,
        ttft: [69.22, 60.99, 111.09, 180.34],
        tpot: [26.82, 26.87, 29.36, 33.06],
    },
    Row {
        rate: 16.0,
        throughput: 6.973,
        ttft: [85.85, 74.37, 143.88, 193.13],
        tpot: [32.89, 32.53, 38.83, 45.46],
    },
    Row {
        rate: 32.0,
        throughput: 8.158,
        ttft: [161.46, 162.92, 260.01, 330.49],
        tpot: [46.31, 38.62, 74.67, 93.36],
    },
];

const PROMPTS: usize = 200;
/// Draws of the arrivals and lengths that a row is the mean of.
const DRAWS: u64 = 12;
/// HTTP, tokenising and detokenising before the first token.
const OVERHEAD: Duration = Duration::from_micros(4160);
const PROMPT_LENGTH: Length = Length { mean: 205.8, sigma: 0.81, longest: 1024.0 };
const OUTPUT_LENGTH: Length = Length { mean: 201.8, sigma: 1.38, longest: 778.0 };
/// What `benchmark_serving.py` leaves out of `ShareGPT`: anything shorter than 4 tokens or longer than 1024.
const SHORTEST: f64 = 4.0;
/// The published runs draw their gaps from one seed: at 1 request a second all 200 had come after 187 s.
const GAPS: f64 = 187.0 / 200.0;

/// A log-normal of this mean, cut off at both ends.
#[derive(Debug, Clone, Copy)]
struct Length {
    mean: f64,
    sigma: f64,
    longest: f64,
}

impl Length {
    /// Lengths whose mean is the published one.
    fn draw(self, random: &mut Random) -> Vec<u32> {
        let normals: Vec<f64> = (0..PROMPTS).map(|_| random.normal()).collect();
        let lengths = |location: f64| -> Vec<f64> {
            normals.iter().map(|z| (location + self.sigma * z).exp().clamp(SHORTEST, self.longest)).collect()
        };
        let (mut low, mut high) = (0.0, 10.0);
        for _ in 0..40 {
            let middle = f64::midpoint(low, high);
            let mean = lengths(middle).iter().sum::<f64>() / PROMPTS as f64;
            *(if mean < self.mean { &mut low } else { &mut high }) = middle;
        }
        lengths(low).into_iter().map(|length| length.round() as u32).collect()
    }
}

/// What the model gives for each published row.
pub fn modelled(config: &ModelConfig) -> Vec<Row> {
    PUBLISHED.iter().map(|row| modelled_row(config, row.rate)).collect()
}

fn modelled_row(config: &ModelConfig, rate: f64) -> Row {
    let rows: Vec<Row> = (0..DRAWS).map(|seed| one_draw(config, rate, seed)).collect();
    let mean = |of: &dyn Fn(&Row) -> f64| rows.iter().map(of).sum::<f64>() / rows.len() as f64;
    Row {
        rate,
        throughput: mean(&|row| row.throughput),
        ttft: std::array::from_fn(|i| mean(&|row| row.ttft[i])),
        tpot: std::array::from_fn(|i| mean(&|row| row.tpot[i])),
    }
}

/// A request on its way, times in seconds.
#[derive(Debug, Clone, Copy, Default)]
struct Track {
    arrived: f64,
    first: f64,
    last: f64,
}

fn one_draw(config: &ModelConfig, rate: f64, seed: u64) -> Row {
    let mut random = Random::new(seed);
    let prompts = PROMPT_LENGTH.draw(&mut random);
    let outputs = OUTPUT_LENGTH.draw(&mut random);
    let mut at = 0.0;
    let mut arrivals: Vec<f64> = Vec::with_capacity(PROMPTS);
    for _ in 0..PROMPTS {
        at += random.exponential() / rate;
        arrivals.push(at);
    }
    let scale = GAPS * PROMPTS as f64 / rate / at;
    let mut tracks: Vec<Track> =
        arrivals.iter().map(|at| Track { arrived: at * scale, ..Track::default() }).collect();
    serve(config, &prompts, &outputs, &mut tracks);
    summary(rate, &outputs, &tracks)
}

fn serve(config: &ModelConfig, prompts: &[u32], outputs: &[u32], tracks: &mut [Track]) {
    let mut model = Model::new(config.clone());
    let (mut now, mut next) = (0.0, 0);
    loop {
        while next < tracks.len() && tracks[next].arrived <= now {
            // Nothing here is longer than the model's context.
            let _fits = model.submit(next as u64, prompts[next], outputs[next]);
            next += 1;
        }
        match model.begin_step() {
            Step::Takes(duration) => now += duration.as_secs_f64(),
            Step::Idle | Step::OutOfMemory(_) if next == tracks.len() => return,
            Step::Idle | Step::OutOfMemory(_) => now = tracks[next].arrived,
        }
        for token in model.end_step() {
            let track = &mut tracks[token.id as usize];
            if track.first <= 0.0 {
                track.first = now + OVERHEAD.as_secs_f64();
            }
            track.last = now + OVERHEAD.as_secs_f64();
        }
    }
}

fn summary(rate: f64, outputs: &[u32], tracks: &[Track]) -> Row {
    let milliseconds = |of: &dyn Fn(usize, &Track) -> Option<f64>| {
        let mut values: Vec<f64> = tracks.iter().enumerate().filter_map(|(i, track)| of(i, track)).collect();
        values.sort_by(f64::total_cmp);
        let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
        [mean, quantile(&values, 0.5), quantile(&values, 0.9), quantile(&values, 0.99)].map(|s| s * 1e3)
    };
    let end = tracks.iter().map(|track| track.last).fold(0.0, f64::max);
    Row {
        rate,
        throughput: tracks.len() as f64 / end,
        ttft: milliseconds(&|_, track| Some(track.first - track.arrived)),
        tpot: milliseconds(&|i, track| {
            (outputs[i] > 1).then(|| (track.last - track.first) / f64::from(outputs[i] - 1))
        }),
    }
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = (share * sorted.len().saturating_sub(1) as f64).round() as usize;
    sorted.get(at).copied().unwrap_or_default()
}

/// The relative errors of a row, in the order throughput, TTFT, TPOT.
pub fn errors(published: &Row, modelled: &Row) -> [f64; 9] {
    let all = |row: &Row| {
        let mut all = [row.throughput; 9];
        all[1..5].copy_from_slice(&row.ttft);
        all[5..].copy_from_slice(&row.tpot);
        all
    };
    let (published, modelled) = (all(published), all(modelled));
    std::array::from_fn(|i| modelled[i] / published[i] - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_reproduces_the_published_table() {
        let modelled = modelled(&ModelConfig::llama_3_8b_on_rtx_4090());
        let mut all = Vec::new();
        for (published, modelled) in PUBLISHED.iter().zip(&modelled) {
            let errors = errors(published, modelled);
            assert!(errors[0].abs() < 0.15, "throughput at {}: {:+.0} %", published.rate, errors[0] * 100.0);
            assert!(errors[1].abs() < 0.2, "mean TTFT at {}: {:+.0} %", published.rate, errors[1] * 100.0);
            assert!(errors[5].abs() < 0.1, "mean TPOT at {}: {:+.0} %", published.rate, errors[5] * 100.0);
            all.extend(errors.map(f64::abs));
        }
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        assert!(mean < 0.1, "{:.1} % on average", mean * 100.0);
    }
}
