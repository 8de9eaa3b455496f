//! How long answers usually are.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Before anything is learned.
const FIRST: u32 = 256;

/// One answer moves a mean by this share of its distance.
const SHARE: u32 = 16;

/// So many models have means of their own: names come from clients, whoever they are.
const MODELS: usize = 64;

/// So many places are looked at for a model. One that finds none of them free shares the mean of all.
const PLACES: usize = 4;

/// A model by its name, or by none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Model(u64);

impl Model {
    /// As a request names it.
    pub fn of(name: Option<&str>) -> Self {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        Self(hasher.finish())
    }

    /// What a place of this model is marked with; never 0.
    fn mark(self) -> u64 {
        (self.0 >> 32) << 32 | 1 << 32
    }
}

/// The means of the tokens of answers whose clients left their number open, the latest weighing most: of each model, and
/// of all for one that is new.
#[derive(Debug)]
pub struct UsualOutput {
    all: AtomicU32,
    /// Each a mark in the upper half and a mean in the lower one, or 0.
    models: [AtomicU64; MODELS],
}

impl Default for UsualOutput {
    fn default() -> Self {
        Self { all: AtomicU32::new(FIRST * SHARE), models: [const { AtomicU64::new(0) }; MODELS] }
    }
}

impl UsualOutput {
    /// Tokens to reserve for such an answer of this model.
    pub fn get(&self, model: Model) -> u32 {
        let known =
            self.places(model).map(|place| place.load(Relaxed)).find(|word| word & !MEAN == model.mark());
        let mean = known.map_or_else(|| self.all.load(Relaxed), mean);
        (mean / SHARE).max(1)
    }

    /// Such an answer of this model had so many. Of two that come at the same instant one may be forgotten.
    pub fn learn(&self, model: Model, output: u32) {
        let all = self.all.load(Relaxed);
        self.all.store(moved(all, output), Relaxed);
        for place in self.places(model) {
            let word = place.load(Relaxed);
            if word == 0 || word & !MEAN == model.mark() {
                let before = if word == 0 { all } else { mean(word) };
                place.store(model.mark() | u64::from(moved(before, output)), Relaxed);
                return;
            }
        }
    }

    fn places(&self, model: Model) -> impl Iterator<Item = &AtomicU64> {
        let first = model.0 as usize % MODELS;
        (0..PLACES).map(move |i| &self.models[(first + i) % MODELS])
    }
}

const MEAN: u64 = u32::MAX as u64;

const fn mean(word: u64) -> u32 {
    (word & MEAN) as u32
}

/// Kept in sixteenths: a mean of whole tokens would never come down to that of short answers.
fn moved(sum: u32, output: u32) -> u32 {
    (sum - sum / SHARE).saturating_add(output.min(u32::MAX / SHARE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_follows_what_is_generated() {
        let (usual, model) = (UsualOutput::default(), Model::of(None));
        assert_eq!(usual.get(model), 256);
        for (output, expected) in [(1000, 1000), (10, 10), (u32::MAX, u32::MAX / 16)] {
            for _ in 0..1000 {
                usual.learn(model, output);
            }
            assert!(
                usual.get(model).abs_diff(expected) <= expected / 10,
                "{} for {output}",
                usual.get(model)
            );
        }
    }

    #[test]
    fn models_have_means_of_their_own_and_a_flood_of_names_takes_none_away() {
        let usual = UsualOutput::default();
        let (short, long) = (Model::of(Some("short")), Model::of(Some("long")));
        for _ in 0..200 {
            usual.learn(short, 10);
            usual.learn(long, 2000);
        }
        for i in 0..10_000 {
            usual.learn(Model::of(Some(&format!("made-up-{i}"))), 500);
        }
        assert!(usual.get(short) < 20 && usual.get(long) > 1900, "{} {}", usual.get(short), usual.get(long));
        let new = usual.get(Model::of(Some("new")));
        assert!((400..600).contains(&new), "a new one is taken to be as all: {new}");
    }
}
