//! `septwatch policy arm`: from now on the agent may act.

use std::{
    io::{self, BufRead as _, Write},
    path::Path,
};

use anyhow::Result;

use crate::{
    commands::{BadInput, exit},
    hooks::lock::RUN,
    policy::control::{Request, ask},
};

/// Arms the agent that runs here: from now on it does what its policy says, if that says `armed = true` too.
///
/// Exit code 0: it is armed; 2: the policy's name was not given; 3: no agent runs, or it says no.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Do not ask for the policy's name.
    #[arg(long)]
    pub yes: bool,
}

/// Runs the command.
///
/// # Errors
/// The agent is not armed.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<u8> {
    let folder = Path::new(RUN);
    let status = ask(folder, &Request::Status)?;
    let policy = status["policy"].as_str().unwrap_or_default().to_owned();
    if !args.yes {
        eprint!("The policy {policy:?} will be carried out on this host. Type its name to arm the agent: ");
        let mut typed = String::new();
        io::stdin().lock().read_line(&mut typed)?;
        if typed.trim() != policy {
            return Err(
                BadInput(format!("that is not {policy:?}: nothing was changed; --yes does not ask")).into()
            );
        }
    }
    ask(folder, &Request::Arm { policy: policy.clone() })?;
    writeln!(out, "armed: {policy}")?;
    Ok(exit::OK)
}
