//! kubectl tidegate: policies without a cluster, and a look into one.

mod command_line;
mod compile;
mod inject;
mod objects;
mod refused;
mod simulate;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;

use command_line::{Arguments, Command};
use refused::Refused;

/// `EX_USAGE` of sysexits.h.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    match Arguments::try_parse() {
        Ok(arguments) => finish(run(&arguments.command)),
        Err(error) => {
            let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            // A closed pipe is nobody's loss here.
            _ = error.print();
            if asked_for { ExitCode::SUCCESS } else { ExitCode::from(USAGE) }
        }
    }
}

fn run(command: &Command) -> Result<String, Refused> {
    match command {
        Command::Compile(arguments) => compile::run(arguments),
        Command::Inject(arguments) => inject::run(arguments),
        Command::Simulate(arguments) => simulate::run(arguments),
    }
}

fn finish(result: Result<String, Refused>) -> ExitCode {
    match result.and_then(|output| print(&output)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(refused) => {
            for line in refused.lines() {
                eprintln!("error: {line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn print(output: &str) -> Result<(), Refused> {
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{output}").and_then(|()| stdout.flush()) {
        // Whoever reads has enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| Refused::of(format!("standard output: {error}"))),
    }
}
