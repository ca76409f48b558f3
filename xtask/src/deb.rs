//! The Debian package: what the built binary says of itself is put into files, and cargo-deb makes the package of them as
//! `[package.metadata.deb]` in `userspace/Cargo.toml` lists them.

mod notices;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::setup::{self, cargo_tools, packages};
use crate::step::seconds;
use crate::{build, run};

/// Beside the binary; what is here is listed in `userspace/Cargo.toml`.
const GENERATED: &str = "package";

const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// Builds the binary and makes the package of it.
///
/// # Errors
/// Those of the build, and of [`package`].
pub fn run() -> Result<()> {
    setup::for_building()?;
    package(&build::septwatch()?)?;
    Ok(())
}

/// Makes the package of this binary, which was built, and returns its path.
///
/// # Errors
/// cargo-deb cannot be had, or fails.
pub fn package(septwatch: &Path) -> Result<PathBuf> {
    let cargo_deb = {
        let _lock = setup::alone()?;
        // It asks them for the strip of the binary, and for what the binary is linked with.
        packages::ensure("packaging", &[("strip", "binutils"), ("dpkg-shlibdeps", "dpkg-dev")])?;
        cargo_tools::cargo_deb()?
    };
    let start = Instant::now();
    generate(septwatch)?;
    let mut deb = setup::cargo()?;
    // As cargo would run it: the cargo that it asks for the workspace is this one.
    let cargo = deb.get_program().to_owned();
    deb = with_environment_of(&deb, &cargo_deb);
    deb.env("CARGO", cargo).args(["deb", "--locked", "--no-build", "--package", "septwatch"]);
    let printed = run::quiet(&mut deb)?;
    let path =
        printed.lines().map(PathBuf::from).find(|path| path.extension().is_some_and(|end| end == "deb"));
    let path = path.with_context(|| format!("`{}` named no package: {printed}", run::line(&deb)))?;
    let size = fs::metadata(&path).with_context(|| format!("no {}", path.display()))?.len();
    println!(
        "package: {}, {:.1} MB, made in {}",
        path.display(),
        size as f64 / 1e6,
        seconds(start.elapsed())
    );
    Ok(path)
}

/// Another program with the variables that are set for this one.
fn with_environment_of(command: &Command, program: &Path) -> Command {
    let mut other = Command::new(program);
    other.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    other
}

/// What the binary and the dependencies say, as files.
fn generate(septwatch: &Path) -> Result<()> {
    let folder = septwatch.parent().context("the binary lies in no folder")?.join(GENERATED);
    // A page of a command that is gone must not stay.
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot empty {}", folder.display()));
        }
        _ => {}
    }
    let [pages, completions] = ["man", "completions"].map(|name| folder.join(name));
    for new in [&pages, &completions] {
        fs::create_dir_all(new).with_context(|| format!("cannot create {}", new.display()))?;
    }
    let write = |path: &Path, text: &[u8]| {
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    let said = |arguments: &[&str]| {
        let mut command = Command::new(septwatch);
        // The person's own settings are not the defaults.
        command.env_clear().args(arguments).stdin(Stdio::null());
        run::quiet(&mut command)
    };
    said(&["man", pages.to_str().context("the target folder's name is no text")?])?;
    for shell in SHELLS {
        write(&completions.join(format!("septwatch.{shell}")), said(&["completions", shell])?.as_bytes())?;
    }
    // The defaults, not what this machine's own file says.
    let config = folder.join("agent.toml");
    write(&config, b"")?;
    let at = config.to_str().context("the target folder's name is no text")?;
    let printed = said(&["agent", "--config", at, "--print-config"])?;
    write(&config, printed.as_bytes())?;
    let notices = folder.join("THIRD-PARTY");
    write(&notices, notices::all()?.as_bytes())?;
    // cargo-deb packs what it does not take for built. -n: the same text makes the same file.
    let mut pack = Command::new("gzip");
    pack.args(["-9", "-n"]).arg(&notices);
    for page in fs::read_dir(&pages).with_context(|| format!("cannot read {}", pages.display()))? {
        pack.arg(page?.path());
    }
    run::quiet(&mut pack)?;
    Ok(())
}
