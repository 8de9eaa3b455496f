//! The table at the end.

use std::{fmt::Write as _, time::Duration};

use super::watch::Scene;

/// What was measured beside the load.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    /// From the change of the policy to the first request judged by it.
    pub policy_update: Option<Duration>,
    /// Requests that were lost while it changed.
    pub lost_during_update: usize,
    /// From the engine's first failure to the opening of the breaker.
    pub breaker_opened: Option<Duration>,
    /// From the engine's recovery to the closing of the breaker.
    pub breaker_closed: Option<Duration>,
}

/// Everything in figures.
pub fn text(scene: &Scene, measured: &Measured) -> String {
    let mut text = format!("\nSummary\n\n{}\n", scene.report.table());
    for pod in scene.pods.iter().filter(|pod| pod.gpu_total > 0) {
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        let share = pod.gpu_peak as f64 / pod.gpu_total as f64 * 100.0;
        let peak = format!("{:.1} of {:.1} GiB ({share:.0} %)", gib(pod.gpu_peak), gib(pod.gpu_total));
        row(&mut text, &format!("GPU memory peak of {}", pod.name), &peak);
    }
    if let Some(update) = measured.policy_update {
        let lost = format!("{}, {} requests lost meanwhile", millis(update), measured.lost_during_update);
        row(&mut text, "policy update, until enforced", &lost);
    }
    if let Some(opened) = measured.breaker_opened {
        row(&mut text, "breaker opened after the engine failed", &millis(opened));
    }
    if let Some(closed) = measured.breaker_closed {
        row(&mut text, "breaker closed after it recovered", &millis(closed));
    }
    text
}

fn row(text: &mut String, name: &str, value: &str) {
    // Writing to a String does not fail.
    let _ = writeln!(text, "{name:<40} {value}");
}

fn millis(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_measured_is_in_the_table() {
        let mut scene = Scene::new(["llama-0"]);
        scene.observe_gpu(0, 60 << 30, 80 << 30);
        let measured = Measured { policy_update: Some(Duration::from_millis(12)), ..Measured::default() };
        let text = text(&scene, &measured);
        assert!(text.contains("60.0 of 80.0 GiB (75 %)"), "{text}");
        assert!(text.contains("12 ms, 0 requests lost"), "{text}");
        assert!(!text.contains("breaker"), "{text}");
    }
}
