//! What a decision costs, and that it is right: each figure beside its bound, and beside its peer in the same run.
//!
//! `cargo bench -p tidegate-core --bench decide [-- SECTION…]`; sections: chain, single, allocations, scaling, flood, mutex, oracle,
//! instructions. Standard output has one JSON object for each figure, standard error a table. `make bench` puts them
//! into its report.
#![allow(clippy::panic)] // a benchmark that is refused measures nothing

mod allocations;
#[path = "../../tests/counting/allocator.rs"]
mod allocator;
mod calm;
mod chain;
mod cycles;
mod figure;
mod flood;
mod instructions;
mod mutex;
mod oracle;
mod scaling;
mod single;
mod traffic;

use figure::Figure;

type Section = (&'static str, fn() -> Vec<Figure>);

const SECTIONS: [Section; 8] = [
    ("chain", chain::run),
    ("single", single::run),
    ("allocations", allocations::run),
    ("scaling", scaling::run),
    ("flood", flood::run),
    ("mutex", mutex::run),
    ("oracle", oracle::run),
    ("instructions", instructions::run),
];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let [flag, scenario, count] = &words[..]
        && flag == instructions::FLAG
    {
        return instructions::count(scenario, count);
    }
    if words == ["record"] {
        return instructions::record();
    }
    for (name, section) in SECTIONS {
        if words.is_empty() || words.iter().any(|word| word == name) {
            section().iter().for_each(Figure::tell);
        }
    }
}
