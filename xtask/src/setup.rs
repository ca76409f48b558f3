//! What a fresh machine needs before septwatch can be built and run. One file per thing; each looks first, does
//! only what is missing, and where it cannot, ends with the command that a person must run.
//! Building septwatch does not belong here.

pub mod cargo_tools;
mod junit_schema;
mod mounts;
pub mod packages;
pub mod python;
mod rust_src;
pub mod unpacked;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{cache, lock};

/// What building needs: a C compiler as linker, the sources of `core`, bpf-linker.
///
/// # Errors
/// A step that cannot be done; the error ends with the command for a person.
pub fn for_building() -> Result<()> {
    let _lock = alone()?;
    packages::ensure("C compiler", &[("cc", "gcc"), ("cc", "libc6-dev")])?;
    rust_src::ensure()?;
    cargo_tools::bpf_linker()?;
    Ok(())
}

/// What running septwatch needs besides: the mounts.
///
/// # Errors
/// As [`for_building`].
pub fn for_running() -> Result<()> {
    let _lock = alone()?;
    mounts::ALL.iter().try_for_each(mounts::Mount::ensure)
}

/// What the test of JUnit XML needs: Jenkins' schema, whose path this returns, and xmllint.
///
/// # Errors
/// As [`for_building`].
pub fn for_junit() -> Result<PathBuf> {
    let _lock = alone()?;
    junit_schema::ensure()
}

/// What some tests need from packages that are only unpacked.
///
/// # Errors
/// As [`for_building`].
pub fn unpacked(group: &unpacked::Group) -> Result<()> {
    let _lock = alone()?;
    group.ensure()
}

/// A `cargo` whose build scripts find the bpf-linker that was set up.
///
/// # Errors
/// There is no cache folder, or the compiler does not tell its version.
pub fn cargo() -> Result<Command> {
    let mut command = Command::new(cargo_program());
    let mut path = vec![cache::bpf_linker_bin(&rustc_program())?];
    path.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    command.env("PATH", std::env::join_paths(path).context("the cache folder cannot stand in PATH")?);
    Ok(command)
}

fn cargo_program() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn rustc_program() -> OsString {
    std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())
}

/// The error of a step that a person must do: what is wrong, why it could not be done here, and the command.
fn by_hand(what: &str, why: &anyhow::Error, command: &str) -> anyhow::Error {
    anyhow::anyhow!("{what}\n{why:#}\nRun: {command}")
}

/// Waits until nobody else sets up this cache, and holds it for as long as the returned file is open.
///
/// # Errors
/// The cache folder cannot be written.
pub fn alone() -> Result<File> {
    lock::alone("setup")
}

/// Where a program of this name is found in `PATH`.
fn on_path(program: impl AsRef<OsStr>) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program.as_ref())).find(|file| file.is_file())
}
