//! `cargo xtask fleet`: plays the agents of many hosts at a bus.

use std::ffi::OsString;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::{run, setup};

/// The simulator, which is built first, with these arguments.
///
/// # Errors
/// It cannot be built.
pub fn simulator(arguments: &[OsString]) -> Result<Command> {
    let mut cargo = setup::cargo()?;
    cargo.args(["run", "--locked", "--release", "--quiet", "--package", "septwatch"]);
    cargo.args(["--example", "fleet-simulator", "--"]).args(arguments).stdin(Stdio::null());
    Ok(cargo)
}

/// Plays.
///
/// # Errors
/// It cannot be built, or the server does not take what is played.
pub fn play(arguments: &[OsString]) -> Result<()> {
    setup::for_building()?;
    run::shown(&mut simulator(arguments)?).context("the simulator")
}
