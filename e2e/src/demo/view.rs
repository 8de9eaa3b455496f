//! Shows a scene: redrawn in place on a terminal, a line a second elsewhere.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use tidegate_policy::report::{BreakerState, Status, TierName, TierState, TierStatus};

use super::watch::{Pod, Scene};
use crate::load::report::{CLASSES, Counts, name};

/// Width of a bar in characters.
const BAR: usize = 20;
/// Between two pictures on a terminal.
const REDRAW: Duration = Duration::from_millis(200);
/// Between two lines elsewhere.
const LINE: Duration = Duration::from_secs(1);
/// Happenings on the screen.
const LATEST: usize = 8;
const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";

/// Where scenes are shown.
#[derive(Debug)]
pub struct View {
    terminal: bool,
    lines_drawn: usize,
    next: Duration,
    told: usize,
}

impl View {
    /// A view on standard output.
    pub fn on_stdout() -> Self {
        let terminal = io::stdout().is_terminal();
        Self { terminal, lines_drawn: 0, next: Duration::ZERO, told: 0 }
    }

    /// Shows the scene, unless it was shown a moment ago; elsewhere than on a terminal each happening at once.
    pub fn show(&mut self, scene: &Scene) -> io::Result<()> {
        let due = scene.at >= self.next;
        if due {
            self.next = scene.at + if self.terminal { REDRAW } else { LINE };
        }
        match (self.terminal, due) {
            (true, true) => self.redraw(scene),
            (true, false) => Ok(()),
            (false, _) => self.print(scene, due),
        }
    }

    /// Shows the last scene.
    pub fn finish(&mut self, scene: &Scene) -> io::Result<()> {
        self.next = Duration::ZERO;
        self.show(scene)
    }

    /// Long lines are cut by the terminal and not wrapped, so that the height is known.
    fn redraw(&mut self, scene: &Scene) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let text = screen(scene);
        if self.lines_drawn > 0 {
            write!(out, "\x1b[{}A\x1b[J", self.lines_drawn)?;
        }
        self.lines_drawn = text.lines().count();
        write!(out, "\x1b[?7l{text}\x1b[?7h")?;
        out.flush()
    }

    fn print(&mut self, scene: &Scene, with_line: bool) -> io::Result<()> {
        let mut out = io::stdout().lock();
        for happening in scene.happenings.iter().skip(self.told) {
            writeln!(out, "{} * {}", clock(happening.at), happening.text)?;
        }
        self.told = scene.happenings.len();
        if with_line {
            writeln!(out, "{}", line(scene))?;
        }
        out.flush()
    }
}

/// The whole screen.
fn screen(scene: &Scene) -> String {
    let mut text = format!("{BOLD}Tidegate{PLAIN}  {}  {}\n", clock(scene.at), scene.phase);
    for pod in &scene.pods {
        pod_block(&mut text, pod);
    }
    text += "\n  priority      sent    served  fallback   refused    failed   last second\n";
    let last = last_second(scene);
    for class in CLASSES {
        let counts = scene.report.counts(Some(class));
        // Writing to a String does not fail, here and below.
        let _ = writeln!(
            text,
            "  {:8} {:>9} {:>9} {:>9} {:>9} {:>9}   {}",
            name(Some(class)),
            counts.sent,
            counts.served,
            counts.fallback,
            counts.refused,
            counts.failed + counts.lost,
            recent(last(class)),
        );
    }
    text.push('\n');
    for happening in scene.happenings.iter().rev().take(LATEST).rev() {
        let _ = writeln!(text, "  {} {}", clock(happening.at), happening.text);
    }
    text
}

fn pod_block(text: &mut String, pod: &Pod) {
    let _ = writeln!(text, "\n  {BOLD}{}{PLAIN}", pod.name);
    let Some(status) = &pod.status else {
        *text += "    no answer from the sidecar\n";
        return;
    };
    for tier in &status.tiers {
        tier_row(text, tier);
    }
    let _ = writeln!(
        text,
        "    {:<12}{:<12}{} {:.2}",
        "pressure",
        "",
        bar(status.pressure, RED),
        status.pressure
    );
    if let Some(breaker) = &status.breaker {
        let colour = if breaker.state == BreakerState::Closed { GREEN } else { RED };
        let next = breaker
            .half_open_in_millis
            .map_or_else(String::new, |millis| format!("half-open in {:.1} s", millis as f64 / 1e3));
        let _ = writeln!(
            text,
            "    {:<12}{colour}{:<12}{PLAIN}{} failures in a row  {next}",
            "breaker",
            breaker.state.as_str(),
            breaker.consecutive_failures
        );
    }
    let _ = writeln!(text, "    {:<12}{:<12}", "in flight", status.in_flight);
}

fn tier_row(text: &mut String, tier: &TierStatus) {
    let colour = colour(tier.state);
    let share = tier.value.zip(tier.threshold).map_or(0.0, |(value, threshold)| value / threshold);
    let recovers = tier
        .recovery_countdown_millis
        .map_or_else(String::new, |millis| format!("recovers in {:.1} s", millis as f64 / 1e3));
    let _ = writeln!(
        text,
        "    {:<12}{colour}{:<12}{PLAIN}{} {}  {recovers}",
        tier.tier.as_str(),
        tier.state.as_str(),
        bar(share, colour),
        reading(tier)
    );
}

/// One line for logs.
fn line(scene: &Scene) -> String {
    let mut text = format!("{} {}", clock(scene.at), scene.phase);
    for pod in &scene.pods {
        let _ = write!(text, " | {} ", pod.name);
        match &pod.status {
            Some(status) => text += &short(status),
            None => text += "does not answer",
        }
    }
    let last = last_second(scene);
    text += " | served, refused in the last second:";
    for class in CLASSES {
        let counts = last(class);
        let _ =
            write!(text, " {} {}, {}", name(Some(class)), counts.served + counts.fallback, counts.refused);
    }
    text
}

fn short(status: &Status) -> String {
    let mut text = String::new();
    for tier in &status.tiers {
        let _ = write!(text, "{} {} ({}), ", tier.tier.as_str(), tier.state.as_str(), reading(tier));
    }
    let _ = write!(text, "pressure {:.2}", status.pressure);
    if let Some(breaker) = &status.breaker {
        let _ = write!(text, ", breaker {}", breaker.state.as_str());
    }
    text
}

/// Value and threshold in a unit for people.
fn reading(tier: &TierStatus) -> String {
    let (factor, unit) = match tier.tier {
        TierName::GpuMemory => (1.0 / f64::from(1 << 30), "GiB"),
        TierName::Qps | TierName::Latency => (1.0, tier.unit.as_str()),
    };
    let number =
        |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{:.1}", value * factor));
    format!("{} of {} {unit}", number(tier.value), number(tier.threshold))
}

const fn colour(state: TierState) -> &'static str {
    match state {
        TierState::Normal | TierState::Learning | TierState::NoData => GREEN,
        TierState::Recovering | TierState::Stale => YELLOW,
        TierState::Tripped => RED,
    }
}

fn bar(share: f64, colour: &str) -> String {
    let full = ((share.clamp(0.0, 1.0) * BAR as f64).round() as usize).min(BAR);
    format!("{colour}{}{PLAIN}{}", "█".repeat(full), "░".repeat(BAR - full))
}

fn last_second(scene: &Scene) -> impl Fn(tidegate_policy::PriorityClass) -> Counts {
    let start = scene.at.saturating_sub(Duration::from_secs(1));
    let recent: Vec<_> =
        scene.report.samples.iter().filter(|sample| sample.at + sample.total >= start).cloned().collect();
    let recent = crate::load::Report { samples: recent };
    move |class| recent.counts(Some(class))
}

fn recent(counts: Counts) -> String {
    format!("{} served, {} refused", counts.served + counts.fallback, counts.refused)
}

fn clock(at: Duration) -> String {
    format!("{:02}:{:04.1}", at.as_secs() / 60, at.as_secs_f64() % 60.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::watch::tests::status;

    fn scene() -> Scene {
        let mut scene = Scene::new(["llama-0", "llama-1"]);
        scene.at = Duration::from_millis(63_500);
        scene.phase = "rising load".to_owned();
        scene.observe(0, Some(status(TierState::Tripped, BreakerState::Open)));
        scene
    }

    #[test]
    fn the_screen_says_state_value_threshold_and_what_happens_next() {
        let text = screen(&scene());
        for part in
            ["01:03.5", "tripped", "20.5 of 16.0 requests/s", "recovers in 2.9 s", "half-open in 1.5 s"]
        {
            assert!(text.contains(part), "{part} is missing:\n{text}");
        }
        assert!(text.contains("no answer from the sidecar"), "the second pod is silent:\n{text}");
    }

    #[test]
    fn a_log_line_has_no_escape_codes() {
        let text = line(&scene());
        assert!(text.contains("qps tripped (20.5 of 16.0 requests/s)"), "{text}");
        assert!(!text.contains('\x1b') && !text.contains('\n'), "{text}");
    }
}
