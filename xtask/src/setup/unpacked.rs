//! Programs for tests from the distribution's packages: unpacked into the cache, never installed. An installed server would
//! be started, and what checks a package brings a hundred others along.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::{by_hand, on_path};
use crate::step::{Outcome, step};
use crate::{apt, cache, lock, run};

/// Programs that are unpacked together.
pub struct Group {
    /// The step, and the folder in the cache.
    name: &'static str,
    /// What tests find their `/usr` by.
    variable: &'static str,
    /// What for.
    purpose: &'static str,
    /// The packages, and a file of each, below `usr`.
    packages: &'static [(&'static str, &'static str)],
    /// Whether they run without what this machine lacks of their dependencies.
    alone: bool,
}

/// What the agent talks to.
pub const SERVERS: Group = Group {
    name: "servers",
    variable: "SEPTWATCH_SERVERS",
    purpose: "servers for the tests of the agent",
    packages: &[
        ("prometheus", "bin/prometheus"),
        ("prometheus-alertmanager", "bin/prometheus-alertmanager"),
        ("nats-server", "sbin/nats-server"),
    ],
    alone: true,
};

/// What the Debian package is checked by, the shells that read its completions, and what runs the container of the
/// Kubernetes manifest, with the system calls that are allowed there by default.
pub const CHECKERS: Group = Group {
    name: "checkers",
    variable: "SEPTWATCH_CHECKERS",
    purpose: "what checks the package",
    packages: &[
        ("lintian", "bin/lintian"),
        ("mandoc", "bin/mandoc"),
        ("zsh", "bin/zsh"),
        ("fish", "bin/fish"),
        ("crun", "bin/crun"),
        ("golang-github-containers-common", "share/containers/seccomp.json"),
    ],
    alone: false,
};

/// All.
pub const GROUPS: [Group; 2] = [SERVERS, CHECKERS];

impl Group {
    /// Makes sure that they are there.
    ///
    /// # Errors
    /// No apt, no network, or not enough room; the error ends with the command for a person.
    pub fn ensure(&self) -> Result<()> {
        step(self.name, || {
            let folder = cache::root()?.join(self.name);
            let usr = folder.join("usr");
            let missing: Vec<_> =
                self.packages.iter().filter(|(_, file)| !usr.join(file).is_file()).collect();
            if missing.is_empty() {
                return Ok((Outcome::Present(usr.display().to_string()), ()));
            }
            let names: Vec<_> = missing.iter().map(|(package, _)| *package).collect();
            self.fetch(&names, &folder).map_err(|why| {
                let command = format!("sudo apt-get install -y --no-install-recommends {}", names.join(" "));
                by_hand(self.purpose, &why, &command)
            })?;
            for (package, file) in missing {
                ensure!(usr.join(file).is_file(), "{package} has no /usr/{file}");
            }
            Ok((Outcome::Done(format!("unpacked {} into {}", names.join(", "), folder.display())), ()))
        })
    }

    /// The variable that tests find their `/usr` by, and that, if they are there.
    pub fn usr(&self) -> Option<(&'static str, PathBuf)> {
        let usr = cache::root().ok()?.join(self.name).join("usr");
        usr.is_dir().then_some((self.variable, usr))
    }

    fn fetch(&self, packages: &[&str], folder: &Path) -> Result<()> {
        ensure!(on_path("apt-get").is_some(), "no apt-get");
        // As on the machine itself: packages have files in both.
        for part in ["bin", "sbin", "lib"] {
            let (link, target) = (folder.join(part), Path::new("usr").join(part));
            fs::create_dir_all(folder.join(&target)).with_context(|| format!("cannot create {target:?}"))?;
            if !link.exists() {
                std::os::unix::fs::symlink(&target, &link)
                    .with_context(|| format!("cannot make {}", link.display()))?;
            }
        }
        let download = tempfile::tempdir_in(folder)?;
        let _lock = lock::alone("apt")?;
        let fetch = || {
            let mut wanted = if self.alone { Vec::new() } else { apt::missing(packages)? };
            for name in packages {
                if !wanted.iter().any(|package| package.split('=').next() == Some(name)) {
                    wanted.push((*name).to_owned());
                }
            }
            let mut apt = Command::new("apt-get");
            // apt gives its rights away before it downloads, and may not write here then; without root it need not.
            apt.args(["-o", "APT::Sandbox::User=root", "download"]).args(wanted);
            run::quiet(apt.current_dir(download.path()))
        };
        // A machine that never fetched its lists knows no package: fetch them, then try once more.
        fetch().or_else(|_| run::quiet(Command::new("apt-get").arg("update")).and_then(|_| fetch()))?;
        for entry in fs::read_dir(download.path())? {
            // dpkg-deb -x would put folders in the place of the links.
            let script = "dpkg-deb --fsys-tarfile \"$0\" | tar -x --keep-directory-symlink -C \"$1\"";
            run::quiet(Command::new("sh").args(["-c", script]).arg(entry?.path()).arg(folder))?;
        }
        Ok(())
    }
}
