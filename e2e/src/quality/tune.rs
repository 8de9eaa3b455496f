//! The same number of tries for every policy, on seeds that no score is taken from.

use super::{policy::Kind, scene::Scene, score::Score};

/// The best of `budget` tries by the mean primary score over `scenes`: the authors' values first, then points of a
/// Halton sequence in the policy's space (Halton, 1964), on logarithmic axes.
pub fn tune(kind: &Kind, scenes: &[Scene], budget: usize) -> (Vec<f64>, f64) {
    let tries = if kind.axes.is_empty() { 1 } else { budget.max(1) };
    let candidates = (0..tries).map(|i| if i == 0 { kind.default.to_vec() } else { point(kind, i) });
    let judged = candidates.map(|values| {
        let score = goodput(kind, &values, scenes);
        (values, score)
    });
    let best = judged.reduce(|best, other| if other.1 > best.1 { other } else { best });
    best.unwrap_or_else(|| (kind.default.to_vec(), 0.0))
}

fn goodput(kind: &Kind, values: &[f64], scenes: &[Scene]) -> f64 {
    let scores: Vec<Score> = scenes.iter().map(|scene| scene.score(kind, values)).collect();
    scores.iter().map(|score| score.goodput).sum::<f64>() / scores.len().max(1) as f64
}

fn point(kind: &Kind, number: usize) -> Vec<f64> {
    const PRIMES: [usize; 6] = [2, 3, 5, 7, 11, 13];
    kind.axes
        .iter()
        .zip(PRIMES)
        .map(|(axis, base)| axis.low * (axis.high / axis.low).powf(radical_inverse(number, base)))
        .collect()
}

/// The digits of `number` in `base`, mirrored at the point: in (0, 1).
fn radical_inverse(mut number: usize, base: usize) -> f64 {
    let (mut value, mut place) = (0.0, 1.0 / base as f64);
    while number > 0 {
        value += (number % base) as f64 * place;
        number /= base;
        place /= base as f64;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_fill_the_space_evenly() {
        let points: Vec<f64> = (1..=7).map(|i| radical_inverse(i, 2)).collect();
        assert_eq!(points, [0.5, 0.25, 0.75, 0.125, 0.625, 0.375, 0.875]);
    }
}
