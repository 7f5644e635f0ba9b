//! The operator's process: flags, log, runtime. Effects: those of `run`.

use std::process::ExitCode;

use clap::Parser;
use searchcell_operator::command::{plan, status, table};
use searchcell_operator::settings::{Cli, Command};
use searchcell_operator::{run, telemetry};

/// Threads that passes and requests run on. Few: the operator mostly waits, and each has buffers of its own.
const THREADS: usize = 2;

/// Of `table`: 0: there is an answer, 1: there is none, 2: it was not to be had. Of `plan`: 0: there is nothing to do, 1:
/// there is something, 2: nobody can tell. Of `status`: 0: all is well, 1: it is not, 2: it cannot be read.
fn answer<E: std::fmt::Display>(result: Result<bool, E>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("searchcell: {error}");
            ExitCode::from(2)
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match &cli.command {
        Some(Command::Version) => {
            println!("searchcell {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        // Answers go to standard output, and nothing else does.
        Some(Command::Table(_) | Command::Plan(_) | Command::Status(_)) => {}
        None => telemetry::start(cli.settings.log_format, &cli.settings.log),
    }
    // Before any client is built: none of them chooses one by itself.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("a crypto provider was installed before");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build();
    let result = match runtime {
        Ok(runtime) => {
            match &cli.command {
                Some(Command::Table(args)) => return answer(runtime.block_on(table::run(args))),
                Some(Command::Plan(args)) => {
                    return answer(runtime.block_on(plan::run(args, cli.settings.lifetimes())));
                }
                Some(Command::Status(args)) => return answer(runtime.block_on(status::run(args))),
                Some(Command::Version) | None => {}
            }
            let result = runtime.block_on(run::run(cli.settings));
            runtime.shutdown_background();
            result.map_err(|error| error.to_string())
        }
        Err(error) => Err(error.to_string()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error, "the operator ends");
            ExitCode::FAILURE
        }
    }
}
