//! Prints each device of this machine: UUID, memory, and how long NVML took.
//!
//! `cargo run -p tidegate-gpu --example readings [-- path/to/libnvidia-ml.so.1]`

use std::path::Path;
use std::time::Instant;

use tidegate_gpu::{Outcome, RETRY, ReadError, Sampler, Sink};

const ROUNDS: usize = 5;
const MIB: u64 = 1 << 20;

struct Printer;

impl Sink for Printer {
    fn driver(&mut self, state: Result<String, ReadError>) {
        match state {
            Ok(version) => println!("driver {version}"),
            Err(error) => println!("{error}"),
        }
    }

    fn reading(&mut self, uuid: &str, asked: Instant, outcome: Outcome) {
        let micros = asked.elapsed().as_micros();
        match outcome {
            Ok(memory) => {
                let (used, total) = (memory.used_bytes, memory.total_bytes);
                println!(
                    "{uuid}  {} of {} MiB ({used} of {total} bytes)  {micros} µs",
                    used / MIB,
                    total / MIB
                );
            }
            Err(error) => println!("{uuid}  {error}  {micros} µs"),
        }
    }

    fn nameless(&mut self, error: ReadError) {
        println!("{error}");
    }
}

fn main() {
    let library = std::env::args().nth(1).unwrap_or_else(|| "libnvidia-ml.so.1".to_owned());
    let mut sampler = Sampler::new(Path::new(&library), RETRY);
    for round in 1..=ROUNDS {
        println!("round {round}");
        sampler.sample(&mut Printer);
    }
}
