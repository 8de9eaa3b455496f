//! What is fuzzed of the reader of engines' metrics.

use clap::ValueEnum as _;

use super::series::{Engine, EngineType};
use super::text::samples;

/// No exposition fails; what is read of it is a number that can be obeyed, and a label has the value that a reader finds
/// who decodes it.
pub fn metrics(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for sample in samples(&text) {
        assert!(text.contains(sample.name), "a name is a piece of the text");
        for label in ["engine", "request_type"] {
            for value in ["0", "waiting", ""] {
                assert!(!sample.has(label, value) || text.contains(&format!("{label}=\"{value}\"")));
            }
        }
    }
    let detected = Engine::detect(&text);
    let known = EngineType::value_variants().iter().filter_map(|kind| Engine::of(*kind));
    for engine in known {
        let load = engine.read(&text);
        for value in [load.waiting, load.running, load.kv_cache_usage, load.preemptions].into_iter().flatten()
        {
            assert!(value >= 0.0, "{value}");
        }
        assert!(load.kv_cache_usage.is_none_or(|usage| usage <= 1.0));
        assert!(detected.is_some() || load == super::Load::default(), "whose load is read is detected");
    }
    // Lines stand for themselves: what is above or below changes nothing.
    let whole: Vec<f64> = samples(&text).map(|sample| sample.value).collect();
    let apart: Vec<f64> = text.lines().flat_map(samples).map(|sample| sample.value).collect();
    assert_eq!(whole.len(), apart.len());
}
