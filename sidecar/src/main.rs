//! The command line of the sidecar.

use std::process::ExitCode;

use tidegate_sidecar::args::{self, Command, EXIT_USAGE, RedirectArgs, Unparsed};
use tidegate_sidecar::redirect::{self, Redirect};
use tidegate_sidecar::supervisor::{self, Supervisor};
use tidegate_sidecar::{log, worker};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // Before the parser of command lines: what this process does not use takes no memory.
    if let Some(supervisor) = Supervisor::of(std::env::args_os()) {
        return finish(supervisor.supervise());
    }
    match args::parse(std::env::args_os()) {
        Ok(cli) => run(cli.command),
        Err(Unparsed::Asked(answer)) => {
            print!("{answer}");
            ExitCode::SUCCESS
        }
        Err(Unparsed::Wrong(message)) => {
            eprintln!("tidegate-sidecar: {message}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn run(command: Command) -> ExitCode {
    match command {
        Command::Redirect(arguments) => redirect(arguments),
        Command::Run(run) => {
            log::start(run.log_level);
            let arguments: Vec<_> = std::env::args_os().skip(2).collect();
            finish(supervisor::run(&run, &arguments))
        }
        Command::Worker(worker) => {
            log::start(worker.run.log_level);
            finish(worker::run(&worker))
        }
    }
}

fn finish(ended: anyhow::Result<ExitCode>) -> ExitCode {
    ended.unwrap_or_else(|error| {
        tracing::error!(error = format!("{error:#}"), "ending");
        ExitCode::FAILURE
    })
}

fn redirect(arguments: RedirectArgs) -> ExitCode {
    let RedirectArgs { guard, to } = arguments;
    let redirect = Redirect { guarded: guard.into_iter().collect(), to };
    match redirect::apply(&redirect) {
        Ok(()) => {
            eprintln!("tidegate-sidecar: ports {:?} are redirected to {to}", redirect.guarded);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("tidegate-sidecar: {error}");
            ExitCode::FAILURE
        }
    }
}
