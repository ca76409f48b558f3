//! Servers that the agent talks to, from the distribution's packages: unpacked into the cache, never installed, for an
//! installed one would be started.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::{by_hand, on_path};
use crate::step::{Outcome, step};
use crate::{cache, run};

/// In the cache.
const FOLDER: &str = "servers";
/// In that: where bin and sbin are.
const PROGRAMS: &str = "usr";

/// The packages, and a program of each.
const PACKAGES: [(&str, &str); 3] = [
    ("prometheus", "bin/prometheus"),
    ("prometheus-alertmanager", "bin/prometheus-alertmanager"),
    ("nats-server", "sbin/nats-server"),
];

/// Makes sure that they are there.
///
/// # Errors
/// No apt, no network, or not enough room; the error ends with the command for a person.
pub fn ensure() -> Result<()> {
    step("servers", || {
        let folder = cache::root()?.join(FOLDER);
        let programs = folder.join(PROGRAMS);
        let missing: Vec<_> =
            PACKAGES.iter().filter(|(_, program)| !programs.join(program).is_file()).collect();
        if missing.is_empty() {
            return Ok((Outcome::Present(programs.display().to_string()), ()));
        }
        let names: Vec<_> = missing.iter().map(|(package, _)| *package).collect();
        fetch(&names, &folder).map_err(|why| {
            let command = format!("sudo apt-get install -y --no-install-recommends {}", names.join(" "));
            by_hand("servers for the tests of the agent", &why, &command)
        })?;
        Ok((Outcome::Done(format!("unpacked {} into {}", names.join(", "), folder.display())), ()))
    })
}

/// Where their bin, sbin and share are, if they are there.
pub fn folder() -> Option<PathBuf> {
    Some(cache::root().ok()?.join(FOLDER).join(PROGRAMS)).filter(|folder| folder.is_dir())
}

fn fetch(packages: &[&str], folder: &Path) -> Result<()> {
    ensure!(on_path("apt-get").is_some(), "no apt-get");
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let download = tempfile::tempdir_in(folder)?;
    // apt gives its rights away before it downloads, and may not write here then; without root it need not.
    let fetch = || {
        let mut apt = Command::new("apt-get");
        apt.args(["-o", "APT::Sandbox::User=root", "download"]).args(packages);
        run::quiet(apt.current_dir(download.path()))
    };
    // A machine that never fetched its lists knows no package: fetch them, then try once more.
    fetch().or_else(|_| run::quiet(Command::new("apt-get").arg("update")).and_then(|_| fetch()))?;
    for entry in fs::read_dir(download.path())? {
        run::quiet(Command::new("dpkg-deb").arg("-x").arg(entry?.path()).arg(folder))?;
    }
    Ok(())
}
