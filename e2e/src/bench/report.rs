//! The report: `bench.md` for people, `bench.json` with every measurement.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::Context as _;
use serde::Serialize;

use super::{cpu::Rounds, decide::Figure, memory::Footprint, process::Memory};

/// What the sidecar is called in the tables.
const OURS: &str = "tidegate";

/// Where and with what it was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Model and number of processors.
    pub processor: String,
    /// Kernel release.
    pub kernel: String,
    /// What the programs say about themselves.
    pub versions: Vec<String>,
}

impl Machine {
    /// This machine.
    pub fn here(versions: Vec<String>) -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let processor = format!("{} × {}", cores, model.trim_start_matches([' ', '\t', ':']));
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self { processor, kernel: kernel.trim().to_owned(), versions }
    }
}

/// All that was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// CPU time per request.
    pub cpu: Vec<Rounds>,
    /// Memory.
    pub memory: Vec<Footprint>,
    /// Seconds between the last close and the last reading of the memory.
    pub settle_seconds: u64,
    /// What a decision costs, and that it is right.
    pub decisions: Vec<Figure>,
}

impl Report {
    /// Writes both files and returns the text.
    pub fn write(&self, directory: &Path) -> anyhow::Result<String> {
        let text = self.markdown();
        fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
        fs::write(directory.join("bench.md"), &text)?;
        fs::write(directory.join("bench.json"), serde_json::to_vec_pretty(self)?)?;
        Ok(text)
    }

    /// What is worse than promised, one line each: for `--check`.
    pub fn broken_promises(&self) -> Vec<String> {
        let mut broken = Vec::new();
        if let Some(rounds) = self.cpu.first() {
            for base in ["nginx", "haproxy"] {
                let ratio = median(&rounds.ratios(OURS, base));
                if ratio > 1.0 {
                    broken.push(format!("CPU time per request is {ratio:.2} of {base}'s: promised is 1.00"));
                }
            }
        }
        if let Some(ours) = self.memory.iter().find(|footprint| footprint.peer == OURS) {
            let after = ours.idle.rss + ours.idle.rss * 3 / 10;
            let promises = [
                ("idle", ours.idle.rss, 5 * 1024),
                ("at 64 connections", ours.at_64.rss, 6 * 1024),
                ("at 400 connections", ours.at_400.rss, 11 * 1024),
                ("after they closed", ours.after.rss, after),
            ];
            for (when, rss, most) in promises.into_iter().filter(|(_, rss, most)| rss > most) {
                broken.push(format!("{rss} KiB are resident {when}: promised are {most}"));
            }
        }
        broken.extend(self.decisions.iter().filter(|figure| figure.holds() == Some(false)).map(|figure| {
            let value = figure.value.map_or_else(|| "not measured".to_owned(), |value| format!("{value:.2}"));
            format!("{}: {value} {}: promised is {}", figure.name, figure.unit, figure.bound())
        }));
        broken
    }

    fn markdown(&self) -> String {
        let mut text = String::from("# Benchmarks\n\n");
        // Writing to a String does not fail, here and below.
        let _ = writeln!(text, "{}, Linux {}.", self.machine.processor, self.machine.kernel);
        for version in &self.machine.versions {
            let _ = writeln!(text, "- {version}");
        }
        self.cpu_section(&mut text);
        self.memory_section(&mut text);
        self.decision_section(&mut text);
        text
    }

    fn cpu_section(&self, text: &mut String) {
        let Some(first) = self.cpu.first() else { return };
        let names: Vec<&str> = first.rounds.iter().flatten().map(|cost| cost.peer).collect();
        let names = &names[..names.len() / first.rounds.len().max(1)];
        *text += "\n## CPU time per request\n\nµs of all threads of the proxy per completed request: median of the \
            rounds (best). Rounds are interleaved; ratios are medians of the ratios within a round. The sidecar has \
            three tiers, priorities, two limits and a breaker in force.\n\n";
        let ratios: Vec<(&str, &str)> = names
            .iter()
            .filter(|name| **name != OURS && names.contains(&OURS))
            .map(|name| (OURS, *name))
            .collect();
        let heads: String = ratios.iter().fold(String::new(), |all, (a, b)| all + &format!(" {a} ÷ {b} |"));
        let _ = writeln!(text, "| traffic | {} |{heads}", names.join(" | "));
        let _ = writeln!(text, "|{}", "---|".repeat(1 + names.len() + ratios.len()));
        for rounds in &self.cpu {
            let _ = write!(text, "| {} |", rounds.scenario.name);
            for name in names {
                let micros = rounds.micros(name);
                let _ = write!(text, " {:.1} ({:.1}) |", median(&micros), best(&micros));
            }
            for (ours, base) in &ratios {
                let _ = write!(text, " **{:.2}** |", median(&rounds.ratios(ours, base)));
            }
            text.push('\n');
        }
    }

    fn memory_section(&self, text: &mut String) {
        if self.memory.is_empty() {
            return;
        }
        let _ = writeln!(
            text,
            "\n## Memory\n\nKiB resident (proportional, private dirty), all processes of the proxy together, at kept \
            connections under load, and {} s after all have closed.\n\n\
            | proxy | idle | 64 connections | 400 connections | after close | after ÷ idle |\n|---|---|---|---|---|---|",
            self.settle_seconds
        );
        for footprint in &self.memory {
            let cell = |memory: &Memory| format!("{} ({}, {})", memory.rss, memory.pss, memory.private_dirty);
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {:.2} |",
                footprint.peer,
                cell(&footprint.idle),
                cell(&footprint.at_64),
                cell(&footprint.at_400),
                cell(&footprint.after),
                footprint.after.rss as f64 / footprint.idle.rss.max(1) as f64,
            );
        }
    }

    fn decision_section(&self, text: &mut String) {
        if self.decisions.is_empty() {
            return;
        }
        *text += "\n## Decisions\n\nThe core by itself, by cycle counter less its own overhead; rounds with stolen time are \
            discarded. Ratios are of one run.\n\n| figure | value | promised | | |\n|---|---|---|---|---|\n";
        for figure in &self.decisions {
            let value = figure.value.map_or_else(|| "–".to_owned(), |value| format!("{value:.2}"));
            let verdict = match figure.holds() {
                Some(true) => "PASS",
                Some(false) => "**FAIL**",
                None => "",
            };
            let (name, unit, bound, note) = (&figure.name, &figure.unit, figure.bound(), &figure.note);
            let _ = writeln!(text, "| {name} | {value} {unit} | {bound} | {verdict} | {note} |");
        }
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

fn best(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{
        cpu::{Cost, SCENARIOS},
        wrk::Run,
    };

    fn report(ours: f64, rss: u64) -> Report {
        let cost =
            |peer, micros| Cost { peer, micros, run: Run { requests: 1, per_second: 1.0, p99_ms: 1.0 } };
        let rounds = (0..5).map(|n| {
            let noise = 1.0 + f64::from(n);
            vec![cost("nginx", 10.0 * noise), cost("haproxy", 12.0 * noise), cost(OURS, ours * noise)]
        });
        let memory = Memory { rss, pss: 1, private_dirty: 1 };
        let footprint = Footprint { peer: OURS, idle: memory, at_64: memory, at_400: memory, after: memory };
        Report {
            machine: Machine::here(vec!["nginx/1".to_owned()]),
            cpu: vec![Rounds { scenario: SCENARIOS[0], rounds: rounds.collect() }],
            memory: vec![footprint],
            settle_seconds: 60,
            decisions: vec![Figure {
                name: "full".to_owned(),
                value: Some(70.0),
                unit: "ns".to_owned(),
                at_most: Some(100.0),
                at_least: None,
                note: "warm".to_owned(),
            }],
        }
    }

    #[test]
    fn ratios_are_taken_within_a_round_so_that_noise_cancels() {
        let text = report(9.0, 4000).markdown();
        assert!(text.contains("| 30.0 (10.0) | 36.0 (12.0) | 27.0 (9.0) | **0.90** | **0.75** |"), "{text}");
        assert!(text.contains("| full | 70.00 ns | ≤ 100 | PASS | warm |"), "{text}");
    }

    #[test]
    fn only_what_is_worse_than_promised_is_reported() {
        assert_eq!(report(10.0, 5 * 1024).broken_promises(), Vec::<String>::new());
        let broken = report(11.0, 7 * 1024).broken_promises();
        assert_eq!(broken.len(), 3, "{broken:?}");
        assert!(broken[0].contains("1.10 of nginx"), "{broken:?}");
    }
}
