//! The `septwatch` command.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Parser;
use septwatch::commands::{
    self, BadInput, Interrupted, agent, audit, check,
    cli::{Cli, Command},
    completions, demo, diff, doctor, exit, explain, export, hold_keeper, man, minimize, policy, record,
    replay, report, top, watch,
};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { exit::USAGE } else { exit::OK };
            // Nothing is left to tell somebody who does not read.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let mut out = io::BufWriter::new(io::stdout().lock());
    let result = match &cli.command {
        Command::Top(args) => top::run(args, &mut out),
        Command::Agent(args) => agent::run(args, &mut out),
        Command::Demo(args) => demo::run(args, &mut out),
        Command::DemoStandIn => demo::stand_in::run(),
        Command::Watch(args) => watch::run(args, &mut out),
        Command::Record(args) => record::run(args, &mut out),
        Command::Replay(args) => replay::run(args, &mut out),
        Command::Check(args) => check::run(args, &mut out),
        Command::Diff(args) => diff::run(args, &mut out),
        Command::Export(args) => export::run(args),
        Command::Minimize(args) => minimize::run(args, &mut out),
        Command::Report(args) => report::run(args, &mut out),
        Command::Policy(args) => policy::run(args, &mut out),
        Command::Audit(args) => audit::run(args, &mut out),
        Command::HoldKeeper(args) => hold_keeper::run(args),
        Command::Doctor(args) => doctor::run(args).map_err(Into::into),
        Command::Completions(args) => completions::run(args, &mut out),
        Command::Man(args) => man::run(args),
        Command::Explain(args) => return explain_exit(args),
    };
    let result = result.and_then(|code| Ok(out.flush().map(|()| code)?));
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) if commands::is_broken_pipe(&error) => ExitCode::from(exit::OK),
        Err(error) => {
            eprintln!("septwatch: {}", commands::told(error.as_ref()));
            ExitCode::from(exit_of(&error))
        }
    }
}

fn explain_exit(args: &explain::Args) -> ExitCode {
    explain::run(args).unwrap_or_else(|error| {
        eprintln!("septwatch: {}", commands::told(error.as_ref()));
        ExitCode::from(exit::USAGE)
    })
}

/// What an error means for whoever called: bad input, or a host that cannot.
fn exit_of(error: &anyhow::Error) -> u8 {
    if error.is::<Interrupted>() {
        return exit::INTERRUPTED;
    }
    if error.is::<BadInput>() {
        return exit::USAGE;
    }
    if let Some(error) = error.downcast_ref::<doctor::DoctorError>() {
        return if matches!(error, doctor::DoctorError::Btf(_)) { exit::USAGE } else { exit::HOST };
    }
    exit::HOST
}
