//! Programs from crates.io that building and checking need: built once per version, kept in the cache.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{by_hand, cargo_program, on_path, rustc_program};
use crate::step::{Outcome, note, step};
use crate::{cache, run};

const BPF_LINKER: &str = "bpf-linker";

/// Checks licences, doubles, sources and advisories of dependencies.
const CARGO_DENY: &str = "cargo-deny";
const CARGO_DENY_VERSION: &str = "0.20.2";

/// Makes the Debian package.
const CARGO_DEB: &str = "cargo-deb";
const CARGO_DEB_VERSION: &str = "3.8.0";

/// Makes sure that the bpf-linker is there which links the eBPF object, and returns its path.
///
/// # Errors
/// It cannot be built: the error holds the command.
pub fn bpf_linker() -> Result<PathBuf> {
    let bin = cache::bpf_linker_bin(&rustc_program())?;
    let root = bin.parent().context("the linker's folder has no parent")?;
    step(BPF_LINKER, || ensure(BPF_LINKER, cache::BPF_LINKER_VERSION, root, "release"))
}

/// Makes sure that cargo-deny is there, and returns its path.
///
/// # Errors
/// As [`bpf_linker`].
pub fn cargo_deny() -> Result<PathBuf> {
    in_cache(CARGO_DENY, CARGO_DENY_VERSION)
}

/// Makes sure that cargo-deb is there, and returns its path.
///
/// # Errors
/// As [`bpf_linker`].
pub fn cargo_deb() -> Result<PathBuf> {
    in_cache(CARGO_DEB, CARGO_DEB_VERSION)
}

fn in_cache(program: &str, version: &str) -> Result<PathBuf> {
    let root = cache::root()?.join(format!("{program}-{version}"));
    // They work for seconds: optimizing them takes longer than that saves.
    step(program, || ensure(program, version, &root, "dev"))
}

/// Takes the program of the cache, else one of the same version in `PATH`, else builds it into the cache with this profile.
fn ensure(program: &str, version: &str, root: &Path, profile: &str) -> Result<(Outcome, PathBuf)> {
    let cached = root.join("bin").join(program);
    for place in [Some(cached.clone()), on_path(program)].into_iter().flatten() {
        if is_version(&place, version) {
            let what = format!("{version}, {}", place.display());
            return Ok((Outcome::Present(what), place));
        }
    }
    note(program, format_args!("building {version}, some minutes"));
    let mut install = Command::new(cargo_program());
    install.args(["install", "--locked", "--force", "--profile", profile, "--version", version, "--root"]);
    install.arg(root).arg(program);
    let command = run::line(&install);
    // What a person builds septwatch with is not for the tools that build it.
    for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR"] {
        install.env_remove(variable);
    }
    run::quiet(&mut install).map_err(|why| {
        by_hand(&format!("cannot build {program}: it needs crates.io and a C compiler"), &why, &command)
    })?;
    Ok((Outcome::Done(format!("built {version} into {}", root.display())), cached))
}

/// Whether the program runs here and is this version.
fn is_version(program: &Path, version: &str) -> bool {
    let printed = run::quiet(Command::new(program).arg("--version"));
    printed.is_ok_and(|text| text.split_whitespace().nth(1) == Some(version))
}
