//! The report: `bench.md` for people, `bench.json` with every measurement.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::Context as _;
use serde::Serialize;

use super::{
    cpu,
    figure::{Figure, median},
    latency,
    memory::{Footprint, Sample},
    peer::Peer,
    process::Memory,
    sse,
};

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

/// Figures of one part of the report.
#[derive(Debug, Clone, Serialize)]
pub struct Part {
    /// Its title.
    pub title: &'static str,
    /// How they were measured.
    pub about: &'static str,
    /// The figures.
    pub figures: Vec<Figure>,
}

/// All that was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// CPU time per request.
    pub cpu: Vec<cpu::Rounds>,
    /// Latency at a constant rate.
    pub latency: Vec<latency::Rounds>,
    /// CPU time per event of a stream.
    pub sse: Vec<sse::Rounds>,
    /// Memory.
    pub memory: Vec<Footprint>,
    /// Seconds between the last close and the last reading of the memory.
    pub settle_seconds: u64,
    /// What was promised, and more.
    pub parts: Vec<Part>,
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
        let figures = self.parts.iter().flat_map(|part| &part.figures);
        let broken = figures.filter(|figure| figure.holds() == Some(false)).map(|figure| {
            let value = figure.value.map_or_else(|| "not measured".to_owned(), |value| format!("{value:.2}"));
            format!("{}: {value} {}: promised is {}", figure.name, figure.unit, figure.bound())
        });
        broken.collect()
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
        for part in &self.parts {
            figures(part, &mut text);
        }
        text
    }

    fn cpu_section(&self, text: &mut String) {
        let Some(first) = self.cpu.first() else { return };
        let names: Vec<&str> = first.rounds.iter().flatten().map(|cost| cost.peer).collect();
        let names = &names[..names.len() / first.rounds.len().max(1)];
        *text += "\n## CPU time per request\n\nµs of all threads of the proxy per completed request: median of the \
            rounds (best). Rounds are interleaved; ratios are medians of the ratios within a round. The sidecar has \
            three tiers, priorities, two limits and a breaker in force.\n\n";
        let ours = Peer::OURS;
        let ratios: Vec<&str> =
            names.iter().copied().filter(|name| *name != ours && names.contains(&ours)).collect();
        let heads: String =
            ratios.iter().fold(String::new(), |all, name| all + &format!(" {ours} ÷ {name} |"));
        let _ = writeln!(text, "| traffic | {} |{heads}", names.join(" | "));
        let _ = writeln!(text, "|{}", "---|".repeat(1 + names.len() + ratios.len()));
        for rounds in &self.cpu {
            let _ = write!(text, "| {} |", rounds.scenario.name);
            for name in names {
                let micros = rounds.micros(name);
                let _ = write!(text, " {:.1} ({:.1}) |", median(&micros), best(&micros));
            }
            for base in &ratios {
                let _ = write!(text, " **{:.2}** |", median(&rounds.ratios(ours, base)));
            }
            text.push('\n');
        }
    }

    fn memory_section(&self, text: &mut String) {
        let Some(first) = self.memory.first() else { return };
        let _ = writeln!(
            text,
            "\n## Memory\n\nKiB resident (proportional, private dirty), all processes of the proxy together: idle, with \
            connections that are kept after one request each, with connections under load, and {} s after all have \
            closed.\n",
            self.settle_seconds
        );
        let numbers = |samples: &[Sample], kind: &str| {
            samples
                .iter()
                .fold(String::new(), |all, sample| all + &format!(" {} {kind} |", sample.connections))
        };
        let heads = numbers(&first.held, "held") + &numbers(&first.loaded, "under load");
        let columns = 4 + first.held.len() + first.loaded.len();
        let _ = writeln!(
            text,
            "| proxy | idle |{heads} after close | after ÷ idle |\n|{}",
            "---|".repeat(columns)
        );
        for footprint in &self.memory {
            let cell =
                |memory: &Memory| format!(" {} ({}, {}) |", memory.rss, memory.pss, memory.private_dirty);
            let samples = footprint.held.iter().chain(&footprint.loaded);
            let middle = samples.fold(String::new(), |all, sample| all + &cell(&sample.memory));
            let kept = footprint.after.rss as f64 / footprint.idle.rss.max(1) as f64;
            let (idle, after) = (cell(&footprint.idle), cell(&footprint.after));
            let _ = writeln!(text, "| {} |{idle}{middle}{after} {kept:.2} |", footprint.peer);
        }
    }
}

fn figures(part: &Part, text: &mut String) {
    if part.figures.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n## {}\n\n{}\n", part.title, part.about);
    *text += "| figure | value | promised | | |\n|---|---|---|---|---|\n";
    for figure in &part.figures {
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

fn best(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{
        cpu::{Cost, Rounds, SCENARIOS},
        wrk::Run,
    };

    fn report(ours: f64, rss: u64) -> Report {
        let cost =
            |peer, micros| Cost { peer, micros, run: Run { requests: 1, per_second: 1.0, p99_ms: 1.0 } };
        let rounds = (0..5).map(|n| {
            let noise = 1.0 + f64::from(n);
            vec![cost("nginx", 10.0 * noise), cost("haproxy", 12.0 * noise), cost(Peer::OURS, ours * noise)]
        });
        let memory = Memory { rss, pss: 1, private_dirty: 1 };
        let held = vec![Sample { connections: 64, memory }];
        let footprint = Footprint { peer: Peer::OURS, idle: memory, held, loaded: Vec::new(), after: memory };
        let rounds = Rounds { scenario: SCENARIOS[0], rounds: rounds.collect() };
        let all = [rounds.figures(), footprint.figures()].concat();
        Report {
            machine: Machine::here(vec!["nginx/1".to_owned()]),
            cpu: vec![rounds],
            latency: Vec::new(),
            sse: Vec::new(),
            memory: vec![footprint],
            settle_seconds: 60,
            parts: vec![Part { title: "Promises", about: "All of them.", figures: all }],
        }
    }

    #[test]
    fn ratios_are_taken_within_a_round_so_that_noise_cancels() {
        let text = report(9.0, 4000).markdown();
        assert!(text.contains("| 30.0 (10.0) | 36.0 (12.0) | 27.0 (9.0) | **0.90** | **0.75** |"), "{text}");
        assert!(text.contains("| small body, 64 connections: CPU per request ÷ nginx | 0.90 "), "{text}");
        assert!(
            text.contains("| resident, 64 connections held | 3.91 MiB | ≤ 6 | PASS | one run |"),
            "{text}"
        );
    }

    #[test]
    fn only_what_is_worse_than_promised_is_reported() {
        assert_eq!(report(10.0, 5 * 1024).broken_promises(), Vec::<String>::new());
        let broken = report(11.0, 7 * 1024).broken_promises();
        assert_eq!(broken.len(), 3, "{broken:?}");
        assert!(broken[0].contains("÷ nginx: 1.10"), "{broken:?}");
    }
}
