//! `septwatch policy show`

use std::io::Write;

use anyhow::Result;

use crate::{
    commands::{BadInput, exit},
    policy::shipped,
};

/// Prints a policy that comes with septwatch, with its explanation: to be read, or copied and changed.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Its name.
    name: String,
}

pub fn run(args: &Args, out: &mut dyn Write) -> Result<u8> {
    let Some(text) = shipped::text(&args.name) else {
        let names = shipped::names();
        return Err(BadInput(format!("{:?} is no shipped policy: there are {names}", args.name)).into());
    };
    write!(out, "{text}")?;
    Ok(exit::OK)
}
