//! The sources of the standard library, of exactly this compiler: `core` is compiled for the eBPF target.
//!
//! rustup has them. Where it reaches no server, the distribution's package of the same version holds the same
//! `library` folder; it is placed where rustup would have.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow, bail};

use super::{by_hand, rustc_program};
use crate::apt::{Index, Private};
use crate::step::{Outcome, note, step};
use crate::{cache, run};

const NAME: &str = "rust-src";

/// Suites of Debian in which a current compiler may be, the most probable first.
const SUITES: [&str; 5] = ["trixie-backports", "sid", "forky", "forky-backports", "trixie"];

/// Says which compiler a `library` folder placed by this module is for. rustup leaves the folder behind when it
/// replaces the compiler, and sources of another one do not build.
const MARK: &str = ".placed-by-septwatch";

/// Makes sure that they are there.
///
/// # Errors
/// Neither rustup nor the distribution has them: the error says what each said, and the command for a person.
pub fn ensure() -> Result<()> {
    step(NAME, || Ok((fetch_missing()?, ())))
}

fn fetch_missing() -> Result<Outcome> {
    let compiler =
        cache::rustc_version(&rustc_program()).context("cannot ask the compiler for its version")?;
    let sysroot = run::quiet(Command::new(rustc_program()).args(["--print", "sysroot"]))?;
    let library = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library");
    let release = compiler.lines().find_map(|line| line.strip_prefix("release: "));
    let release = release.context("`rustc -vV` names no release")?;
    if is_for(&library, &compiler) {
        return Ok(Outcome::Present(format!("{release}, {}", library.display())));
    }
    note(NAME, "asking rustup");
    let mut rustup = Command::new("rustup");
    // With it, a refusal reads as a dump of its stack.
    rustup.env_remove("RUST_BACKTRACE");
    let refused = match run::quiet(rustup.args(["component", "add", NAME])) {
        Ok(_) if is_for(&library, &compiler) => return Ok(Outcome::Done(format!("{release} from rustup"))),
        Ok(_) => {
            anyhow!("rustup says that it is there, but {} has no sources of {release}", library.display())
        }
        Err(error) => error,
    };
    note(NAME, "rustup cannot give it, asking the distribution");
    let placed = from_distribution(release, &library, &compiler).map_err(|why| {
        let what = format!("rust-src {release} is missing\nrustup: {refused:#}");
        by_hand(&what, &why, &format!("{}   # with a network", run::line(&rustup)))
    })?;
    Ok(Outcome::Done(placed))
}

/// Whether `library` holds sources, and not of another compiler than this one.
fn is_for(library: &Path, compiler: &str) -> bool {
    let mark = fs::read_to_string(library.join(MARK));
    library.join("core/src/lib.rs").is_file() && mark.map_or(true, |mark| mark == compiler)
}

fn from_distribution(release: &str, library: &Path, compiler: &str) -> Result<String> {
    let mut refusals = Vec::new();
    for suite in SUITES {
        note(NAME, format_args!("looking into {suite}"));
        match place_from(suite, release, library, compiler) {
            Ok(version) => return Ok(format!("{version} from {suite}")),
            Err(error) => refusals.push(format!("{suite}: {error:#}")),
        }
    }
    bail!("{}", refusals.join("\n"))
}

fn place_from(suite: &str, release: &str, library: &Path, compiler: &str) -> Result<String> {
    let suite = Private::open(suite, Index::Binaries)?;
    let versions = suite.versions(NAME)?;
    let Some(version) = versions.iter().find(|version| upstream(version) == release) else {
        bail!("it has {NAME} {versions:?}, not {release}");
    };
    let scratch = Scratch::new()?;
    let deb = suite.download_deb(NAME, version, &scratch.0)?;
    let tree = scratch.0.join("tree");
    run::quiet(Command::new("dpkg").arg("-x").args([&deb, &tree]))?;
    place(&find_library(&tree)?, library, compiler)?;
    Ok(version.clone())
}

/// The `library` folder of an unpacked package (`usr/src/rustc-VERSION/library`).
fn find_library(tree: &Path) -> Result<PathBuf> {
    let sources = tree.join("usr/src");
    let folders =
        fs::read_dir(&sources).with_context(|| format!("the package has no {}", sources.display()))?;
    let mut libraries = folders.flatten().map(|folder| folder.path().join("library"));
    libraries
        .find(|library| library.join("core/src/lib.rs").is_file())
        .context("the package has no library/core")
}

/// Puts the sources into the compiler's own tree. They are copied beside their place first, so that a place is
/// either empty or complete.
fn place(from: &Path, library: &Path, compiler: &str) -> Result<()> {
    fs::write(from.join(MARK), compiler).with_context(|| format!("cannot write into {}", from.display()))?;
    let parent = library.parent().context("the place of rust-src has no parent")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot write into {}", parent.display()))?;
    let beside = parent.join("library.septwatch-new");
    remove(&beside)?;
    run::quiet(Command::new("cp").arg("-r").args([from, &beside]))?;
    remove(library)?;
    fs::rename(&beside, library).with_context(|| format!("cannot place {}", library.display()))
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}

/// Rust's own part of a Debian version: up to the first `+` or `-`, without the epoch. A `~` belongs to it: what
/// stands before a release is another one.
fn upstream(version: &str) -> &str {
    let version = version.split_once(':').map_or(version, |(_, rest)| rest);
    version.split(['+', '-']).next().unwrap_or(version)
}

/// A folder of the cache that lives as long as this value.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let folder = cache::root()?.join(format!("unpack-{}", std::process::id()));
        remove(&folder)?;
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Of no use to anyone, and in nobody's way.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debian_version_tells_rusts() {
        assert_eq!(upstream("1.95.0+dfsg1-1~bpo13+1"), "1.95.0");
        assert_eq!(upstream("1:1.95.0-2"), "1.95.0");
        assert_eq!(upstream("1.95.0~beta.2+dfsg1-1"), "1.95.0~beta.2");
        assert_eq!(upstream("1.95.0"), "1.95.0");
    }
}
