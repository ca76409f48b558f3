//! Packages from suites that this machine does not use, without touching its own package database.
//!
//! The address of the mirror and the keyring come from the machine's apt configuration; lists and packages go to a
//! folder of their own in the cache. Signatures are always verified. Nothing is installed from here, and no
//! address, suite or package may be named here: callers do that.

mod sources;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::{cache, lock, run};

/// The file in the folder that apt's tools are given.
const CONFIG: &str = "apt.conf";

/// Which index of a suite is fetched.
#[derive(Clone, Copy)]
pub enum Index {
    /// Built packages of this machine's architecture.
    Binaries,
    /// Source packages.
    Sources,
}

/// What apt would install on this machine, as it is, for these packages to work: `name=version` of each.
///
/// # Errors
/// apt fails, or knows no such package.
pub fn missing(packages: &[&str]) -> Result<Vec<String>> {
    let mut install = Command::new("apt-get");
    install.env("LC_ALL", "C").args(["--simulate", "--no-install-recommends", "install"]);
    Ok(sources::to_install(&run::quiet(install.args(packages))?))
}

/// One suite of the distribution, with lists and packages in the cache.
pub struct Private {
    folder: PathBuf,
    /// apt's own locks make the second fail, not wait.
    _lock: File,
}

impl Private {
    /// Fetches the suite's index (the component `main`), or only asks whether it changed when an earlier call did.
    ///
    /// # Errors
    /// No apt, no mirror in its configuration, or none that has this suite and a signature the configured keyring
    /// verifies.
    pub fn open(suite: &str, index: Index) -> Result<Self> {
        let mirrors = sources::configured()?;
        let mut refusals = Vec::new();
        for mirror in &mirrors {
            let private = Self::configure(suite, index, mirror)?;
            match run::quiet(private.tool("apt-get").arg("update")) {
                Ok(_) => return Ok(private),
                Err(error) => refusals.push(sources::complaint(&error.to_string())),
            }
        }
        bail!("no configured mirror gives the suite {suite}: {}", refusals.join("; "))
    }

    fn configure(suite: &str, index: Index, mirror: &sources::Mirror) -> Result<Self> {
        let (kind, target) = match index {
            Index::Binaries => ("deb", "Packages"),
            Index::Sources => ("deb-src", "Sources"),
        };
        let name = format!("{suite}-{kind}");
        let lock = lock::alone(&format!("apt-{name}"))?;
        let folder = cache::root()?.join("apt").join(name);
        let place = folder.to_str().filter(|path| !path.contains(['"', '\n']));
        let place = place.with_context(|| format!("apt cannot use the folder {}", folder.display()))?;
        for part in ["sources", "lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(part)).with_context(|| format!("cannot create {place}/{part}"))?;
        }
        let mut stanza = format!(
            "Types: {kind}\nURIs: {}\nSuites: {suite}\nComponents: main\nTargets: {target}\nPDiffs: no\n",
            mirror.uri
        );
        if let Some(keys) = &mirror.signed_by {
            stanza += &format!("Signed-By: {keys}\n");
        }
        let sources = folder.join("sources/septwatch.sources");
        fs::write(&sources, stanza).with_context(|| format!("cannot write {}", sources.display()))?;
        let config = folder.join(CONFIG);
        fs::write(&config, config_text(place))
            .with_context(|| format!("cannot write {}", config.display()))?;
        Ok(Self { folder, _lock: lock })
    }

    /// The versions of a package that the suite has, as apt orders them: newest first.
    ///
    /// # Errors
    /// apt fails. A package that the suite does not have gives an empty list.
    pub fn versions(&self, package: &str) -> Result<Vec<String>> {
        Ok(sources::madison(&run::quiet(self.tool("apt-cache").args(["madison", package]))?))
    }

    /// Downloads a built package into an existing folder and returns its path there.
    ///
    /// # Errors
    /// The suite does not have it, or the download fails or does not match the signed index.
    pub fn download_deb(&self, package: &str, version: &str, into: &Path) -> Result<PathBuf> {
        let files = self.fetch(&["download"], package, version, into)?;
        let [deb] = files.as_slice() else { bail!("{package} {version} is not one file but {files:?}") };
        Ok(deb.clone())
    }

    /// Downloads only the upstream archive of a source package into an existing folder and returns its path there:
    /// a mirror may have dropped the distribution's own part of a version and still hold the archive.
    ///
    /// # Errors
    /// As [`Self::download_deb`].
    pub fn download_upstream(&self, package: &str, version: &str, into: &Path) -> Result<PathBuf> {
        let files = self.fetch(&["source", "--download-only", "--tar-only"], package, version, into)?;
        let archive = files.into_iter().find(|file| file.to_string_lossy().contains(".orig.tar."));
        archive.with_context(|| format!("the source package {package} {version} has no upstream archive"))
    }

    /// Packages and all that they depend on, as `name=version`, for a system that has nothing yet. The suite must
    /// hold all of it.
    ///
    /// # Errors
    /// apt finds no solution: the suite lacks a package or a dependency.
    pub fn closure(&self, packages: &[&str]) -> Result<Vec<String>> {
        let mut install = self.tool("apt-get");
        install.args(["--simulate", "--no-install-recommends", "install"]).args(packages);
        let wanted = sources::to_install(&run::quiet(&mut install)?);
        ensure!(!wanted.is_empty(), "`{}` would install nothing", run::line(&install));
        Ok(wanted)
    }

    /// Downloads packages, given as [`Self::closure`] gives them, into an existing folder.
    ///
    /// # Errors
    /// As [`Self::download_deb`].
    pub fn download_debs(&self, wanted: &[String], into: &Path) -> Result<()> {
        run::quiet(self.tool("apt-get").arg("download").args(wanted).current_dir(into))?;
        Ok(())
    }

    fn fetch(&self, verb: &[&str], package: &str, version: &str, into: &Path) -> Result<Vec<PathBuf>> {
        let wanted = format!("{package}={version}");
        // Asked from a folder that holds no package: apt names only the files that are still missing.
        let named = run::quiet(
            self.tool("apt-get").args(verb).args(["--print-uris", &wanted]).current_dir(&self.folder),
        )?;
        run::quiet(self.tool("apt-get").args(verb).arg(&wanted).current_dir(into))?;
        let files: Vec<_> = sources::file_names(&named).into_iter().map(|name| into.join(name)).collect();
        ensure!(!files.is_empty(), "`apt-get {} {wanted}` gave no file", verb.join(" "));
        for file in &files {
            ensure!(file.is_file(), "apt-get did not leave {}", file.display());
        }
        Ok(files)
    }

    fn tool(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C").arg("-c").arg(self.folder.join(CONFIG)).arg("-q");
        command
    }
}

/// What is set on top of the machine's own apt configuration.
fn config_text(place: &str) -> String {
    format!(
        r#"Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "{place}/sources";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State::lists "{place}/lists";
Dir::State::status "/dev/null";
Dir::Cache "{place}/cache";
APT::Default-Release "";
// Without this a file that could not be fetched is only a warning.
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::Retries "2";
// What the machine does after its own updates is not for ours.
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"#
    )
}
