//! Programs that come with the distribution.

use std::process::Command;

use anyhow::{Result, anyhow, bail};

use super::{by_hand, on_path};
use crate::step::{Outcome, note, step};
use crate::{lock, run};

/// Makes sure that programs are there, as one step of this name. Each is given with the Debian package that has it; a program that needs
/// more than one is given more than once. Where one is missing, root on a machine with apt installs the packages.
///
/// # Errors
/// One is missing and cannot be installed: the error holds the command that does.
pub fn ensure(name: &str, needed: &[(&str, &str)]) -> Result<()> {
    step(name, || Ok((install_missing(name, needed)?, ())))
}

fn install_missing(name: &str, needed: &[(&str, &str)]) -> Result<Outcome> {
    let missing: Vec<_> = needed.iter().filter(|(program, _)| on_path(program).is_none()).collect();
    if missing.is_empty() {
        let mut programs: Vec<_> = needed.iter().map(|(program, _)| *program).collect();
        programs.dedup();
        return Ok(Outcome::Present(programs.join(", ")));
    }
    let packages = missing.iter().map(|(_, package)| *package).collect::<Vec<_>>().join(" ");
    install(name, &packages)?;
    Ok(Outcome::Done(format!("installed {packages}")))
}

/// Installs Debian packages, whose names are separated by spaces, for the step of this name.
///
/// # Errors
/// As [`ensure`].
pub fn install(name: &str, packages: &str) -> Result<()> {
    if on_path("apt-get").is_none() {
        bail!("missing programs. Install what your distribution calls: {packages}");
    }
    let what = format!("{name}: missing packages");
    let command = format!("sudo apt-get install -y --no-install-recommends {packages}");
    if !rustix::process::geteuid().is_root() {
        return Err(by_hand(&what, &anyhow!("only root can install them"), &command));
    }
    note(name, format_args!("installing {packages}"));
    let _lock = lock::alone("apt")?;
    let install = || {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive").args(["install", "-y", "--no-install-recommends"]);
        run::quiet(apt.args(packages.split(' ')))
    };
    // A machine that never fetched its lists knows no package: fetch them, then try once more.
    install()
        .or_else(|_| run::quiet(Command::new("apt-get").arg("update")).and_then(|_| install()))
        .map_err(|why| by_hand(&what, &why, &command))?;
    Ok(())
}
