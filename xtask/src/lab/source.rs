//! Where a kernel's source comes from: the distribution, an archive, or somebody's tree.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::{mirror, place};
use crate::apt::{Index, Private};
use crate::run;
use crate::step::{Outcome, note, step};

/// Suites that have kernels with TDX, most settled first.
const SUITES: [&str; 2] = ["trixie-backports", "sid"];

/// A kernel source that is known, but not necessarily unpacked yet.
#[derive(Clone)]
pub struct Source {
    /// What it is called in folder names and in the table: a release, or the name of the tree.
    pub name: String,
    /// What identifies its contents, for keys. A tree's contents change; then it is where the tree is.
    pub identity: String,
    origin: Origin,
}

#[derive(Clone)]
enum Origin {
    /// To be fetched when the tree is not in the cache any more.
    Release,
    Archive(PathBuf),
    Tree(PathBuf),
}

/// A release of the distribution. What was fetched once is used again without asking.
///
/// # Errors
/// It was never fetched, and cannot be now.
pub fn released(release: &str) -> Result<Source> {
    ensure!(
        release.starts_with(|c: char| c.is_ascii_digit())
            && release.chars().all(|c| c.is_ascii_digit() || c == '.'),
        "`{release}` is not a kernel release: give one as 7.3, or a tree with --source"
    );
    let known = place::folder("sources")?.join(release);
    let identity = match fs::read_to_string(&known) {
        Ok(identity) => identity.trim().to_owned(),
        Err(_) => {
            let identity = place::file_hash(&fetch(release)?)?;
            fs::write(&known, &identity).with_context(|| format!("cannot write {}", known.display()))?;
            identity
        }
    };
    Ok(Source { name: release.to_owned(), identity, origin: Origin::Release })
}

/// A tree or an archive.
///
/// # Errors
/// It is not there, or is no kernel source.
pub fn given(path: &Path) -> Result<Source> {
    let path = path.canonicalize().with_context(|| format!("--source {}", path.display()))?;
    let stem = path.file_name().unwrap_or_default().to_string_lossy();
    let name: String = stem.chars().take_while(|c| c.is_ascii_alphanumeric() || "-._".contains(*c)).collect();
    if path.is_dir() {
        ensure!(
            path.join("arch/x86/virt/vmx/tdx/Makefile").is_file(),
            "{} is not a kernel source tree with TDX host support (no arch/x86/virt/vmx/tdx)",
            path.display()
        );
        return Ok(Source { name, identity: format!("tree {}", path.display()), origin: Origin::Tree(path) });
    }
    let identity = place::file_hash(&path)?;
    Ok(Source { name, identity, origin: Origin::Archive(path) })
}

impl Source {
    /// Makes the source be in this folder. For a tree, what changed there since; the answer is a state that differs
    /// whenever a file differs. What was built in the folder stays.
    ///
    /// # Errors
    /// It cannot be fetched, unpacked or copied.
    pub fn put_into(&self, folder: &Path) -> Result<String> {
        if let Origin::Tree(tree) = &self.origin {
            return step(&format!("source {}", self.name), || {
                let copied = mirror::update(tree, folder)?;
                Ok((
                    Outcome::Done(format!("{} of {} files copied", copied.written, copied.files)),
                    copied.state,
                ))
            });
        }
        let complete = folder.join(".unpacked");
        if complete.is_file() {
            return Ok(self.identity.clone());
        }
        let archive = match &self.origin {
            Origin::Archive(path) => path.clone(),
            _ => fetch(&self.name)?,
        };
        step(&format!("source {}", self.name), || {
            note(&self.name, format_args!("unpacking {}", archive.display()));
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
            unpack(&archive, folder)?;
            fs::write(&complete, "").with_context(|| format!("cannot write {}", complete.display()))?;
            if matches!(self.origin, Origin::Release) {
                let _ = fs::remove_file(&archive);
            }
            Ok((Outcome::Done(format!("unpacked to {}", folder.display())), self.identity.clone()))
        })
    }
}

/// Unpacks an archive without its topmost folder; a Debian source package (`linux-source-R`) holds the archive.
fn unpack(archive: &Path, folder: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(folder).args(["--strip-components=1", "-xf"]);
    if archive.extension().is_none_or(|extension| extension != "deb") {
        run::quiet(tar.arg(archive))?;
        return Ok(());
    }
    let inside = tempfile::tempdir_in(place::folder("sources")?).context("no folder to unpack in")?;
    run::quiet(Command::new("dpkg-deb").arg("-x").arg(archive).arg(inside.path()))?;
    let sources = inside.path().join("usr/src");
    let found = fs::read_dir(&sources).with_context(|| format!("{} holds no usr/src", archive.display()))?;
    let inner = found
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "xz"))
        .with_context(|| format!("{} holds no .tar.xz", archive.display()))?;
    run::quiet(tar.arg(inner))?;
    Ok(())
}

/// Fetches a release's source from whichever suite has it: the package that holds only the source, else the archive
/// of the newest source package that the mirror still has.
fn fetch(release: &str) -> Result<PathBuf> {
    let into = place::folder("sources")?;
    step(&format!("source {release}"), || {
        note(release, "fetching the kernel's source from the distribution");
        let mut tried = Vec::new();
        for suite in SUITES {
            match fetch_from(suite, release, &into, &mut tried) {
                Ok(Some(archive)) => return Ok((Outcome::Done(format!("{}", archive.display())), archive)),
                Ok(None) => {}
                Err(error) => tried.push(format!("{suite}: {error:#}")),
            }
        }
        bail!(
            "no suite of {} has a source of Linux {release}; give one with --source\n{}",
            SUITES.join(", "),
            tried.join("\n")
        )
    })
}

fn fetch_from(suite: &str, release: &str, into: &Path, tried: &mut Vec<String>) -> Result<Option<PathBuf>> {
    let binaries = Private::open(suite, Index::Binaries)?;
    let package = format!("linux-source-{release}");
    if let Some(version) = binaries.versions(&package)?.first() {
        return binaries.download_deb(&package, version, into).map(Some);
    }
    let sources = Private::open(suite, Index::Sources)?;
    let mut versions = sources.versions("linux")?;
    versions.retain(|version| is_of(release, version));
    versions.sort_by_key(|version| std::cmp::Reverse(numbers(version)));
    for version in versions {
        match sources.download_upstream("linux", &version, into) {
            Ok(archive) => return Ok(Some(archive)),
            // An index may name more than the mirror keeps.
            Err(error) => tried.push(format!("{suite} {version}: {error}")),
        }
    }
    Ok(None)
}

/// Is `6.19.14-1` of the release `6.19`, or `6.19.14` of itself?
fn is_of(release: &str, version: &str) -> bool {
    let upstream = version.split('-').next().unwrap_or(version);
    upstream == release || upstream.strip_prefix(release).is_some_and(|rest| rest.starts_with('.'))
}

/// The numbers of the upstream version, for comparing. (Between revisions of one, it does not matter which is built.)
fn numbers(version: &str) -> Vec<u32> {
    let upstream = version.split('-').next().unwrap_or(version);
    upstream.split('.').map_while(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_is_the_one_with_the_greatest_numbers() {
        assert!(numbers("6.19.14-1~bpo13+1") > numbers("6.19.8-1"));
        assert!(numbers("6.19.8-1") > numbers("6.18.15-1"));
    }

    #[test]
    fn versions_belong_to_releases() {
        assert!(is_of("6.19", "6.19.14-1~bpo13+1"));
        assert!(is_of("6.19.14", "6.19.14-1"));
        assert!(is_of("7.3", "7.3-1"));
        assert!(!is_of("6.1", "6.19.14-1"));
        assert!(!is_of("6.19", "6.18.15-1"));
    }

    #[test]
    fn what_is_no_release_is_refused() {
        for bad in ["", "../x", "v7.3", "7.3-rc1"] {
            assert!(released(bad).is_err(), "{bad}");
        }
    }
}
