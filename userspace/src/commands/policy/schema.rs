//! `septwatch policy schema`

use std::io::Write;

use anyhow::Result;

use crate::{commands::exit, policy::schema};

/// Prints the JSON schema of policy files, for editors.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {}

pub fn run(_: &Args, out: &mut dyn Write) -> Result<u8> {
    write!(out, "{}", schema::text()?)?;
    Ok(exit::OK)
}
