//! The licences and notices of the crates that the binary is linked with: theirs ask that whoever passes the binary on
//! passes these on.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::{run, setup};

/// What `cargo metadata` says.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    manifest_path: PathBuf,
    /// None: a crate of this workspace.
    source: Option<String>,
}

/// Begins of the names of files that are licences or notices.
const NAMES: [&str; 5] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE"];

/// The text: what is linked, then each file that some of it has, once.
///
/// # Errors
/// cargo does not tell the dependencies, or a file cannot be read.
pub fn all() -> Result<String> {
    let cargo = |arguments: &[&str]| run::quiet(setup::cargo()?.args(arguments));
    let metadata: Metadata =
        serde_json::from_str(&cargo(&["metadata", "--locked", "--format-version", "1"])?)?;
    let mut linked = Vec::new();
    // The eBPF programs are in the binary.
    for package in ["septwatch", "septwatch-ebpf"] {
        let edges = ["tree", "--locked", "--edges", "normal", "--prefix", "none", "--package", package];
        linked.extend(
            cargo(&edges)?.lines().filter_map(name_and_version).map(|(n, v)| (n.to_owned(), v.to_owned())),
        );
    }
    linked.sort();
    linked.dedup();
    let mut text =
        "septwatch is linked with these crates, and with Rust's standard library (MIT OR Apache-2.0):\n\n"
            .to_owned();
    let mut files: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, version) in &linked {
        let package =
            metadata.packages.iter().find(|package| package.name == *name && package.version == *version);
        let package = package.with_context(|| format!("cargo metadata has no {name} {version}"))?;
        if package.source.is_none() {
            continue;
        }
        let license = package.license.as_deref().unwrap_or("see its licence below");
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name} {version}: {license}");
        let folder = package.manifest_path.parent().with_context(|| format!("{name} lies in no folder"))?;
        for file in of_crate(folder)? {
            files.entry(file).or_default().push(format!("{name} {version}"));
        }
    }
    ensure!(!files.is_empty(), "no crate has a licence: their sources are not where cargo says");
    for (file, crates) in files {
        let _ = write!(text, "\n---- {}\n\n{file}\n", crates.join(", "));
    }
    Ok(text)
}

/// The texts of a crate's licences and notices.
fn of_crate(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut texts = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        if NAMES.iter().any(|begin| name.starts_with(begin)) && path.is_file() {
            let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let text = String::from_utf8_lossy(&bytes);
            // Many are the same but for the ends of lines.
            texts.push(text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n").trim().to_owned());
        }
    }
    Ok(texts)
}

/// Of a line of `cargo tree`: `aya v0.14.0`, `aya v0.14.0 (*)`, `septwatch v0.1.0 (/path)`.
fn name_and_version(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split_ascii_whitespace();
    let name = words.next()?;
    Some((name, words.next()?.strip_prefix('v')?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_are_read_from_cargos_tree() {
        assert_eq!(name_and_version("aya v0.14.0 (*)"), Some(("aya", "0.14.0")));
        assert_eq!(name_and_version("septwatch v0.1.0 (/src)"), Some(("septwatch", "0.1.0")));
        assert_eq!(name_and_version(""), None);
        assert_eq!(name_and_version("[build-dependencies]"), None);
    }
}
