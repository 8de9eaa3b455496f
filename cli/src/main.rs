//! kubectl tidegate: policies without a cluster, and a look into one.

mod check;
mod cleanup;
mod cluster;
mod command_line;
mod compile;
mod explain;
#[cfg(test)]
mod fake_api;
mod inject;
mod objects;
mod pod_row;
mod print;
mod refused;
mod rotate;
mod sidecars;
mod simulate;
mod status;
mod table;
mod top;

use std::future::Future;
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

/// Whether all is well; what was found out is printed.
fn run(command: &Command) -> Result<bool, Refused> {
    let text = match command {
        Command::Compile(arguments) => compile::run(arguments)?,
        Command::Inject(arguments) => inject::run(arguments)?,
        Command::Simulate(arguments) => simulate::run(arguments)?,
        Command::Check(arguments) => return wait(check::run(arguments)),
        Command::Status(arguments) => wait(status::run(arguments))?,
        Command::Explain(arguments) => wait(explain::run(arguments))?,
        Command::Top(arguments) => return wait(top::run(arguments)).map(|()| true),
        Command::Rotate(arguments) => return wait(rotate::run(arguments)),
        Command::Cleanup(arguments) => return wait(cleanup::run(arguments)),
    };
    print::line(&text).map(|()| true)
}

fn wait<T>(work: impl Future<Output = Result<T, Refused>>) -> Result<T, Refused> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(Refused::of)?.block_on(work)
}

fn finish(result: Result<bool, Refused>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(refused) => {
            for line in refused.lines() {
                eprintln!("error: {line}");
            }
            ExitCode::FAILURE
        }
    }
}
