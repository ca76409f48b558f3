//! Where the lab keeps things, and how their names are made from what they were made of.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use crate::cache;

/// Hexadecimal digits of a key in a folder's name.
const KEY: usize = 12;

/// A folder of the lab in the cache, made if it is not there.
///
/// # Errors
/// There is no cache folder, or it cannot be written.
pub fn folder(name: &str) -> Result<PathBuf> {
    let folder = cache::root()?.join("lab").join(name);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}

/// The repository.
pub fn repository() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// The repository's folder `tests/lab`.
pub fn tests_lab() -> PathBuf {
    repository().join("tests/lab")
}

/// A key from texts; each counts whole, so that no two lists give the same key by accident.
pub fn key(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
        hash.update("\n");
    }
    hex(hash)[..KEY].to_owned()
}

/// The SHA-256 of a file.
///
/// # Errors
/// It cannot be read.
pub fn file_hash(path: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    io::copy(&mut file, &mut hash).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(hex(hash))
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_lists_apart() {
        assert_eq!(key(&["a", "b"]).len(), KEY);
        assert_ne!(key(&["a", "b"]), key(&["ab"]));
        assert_ne!(key(&["a", "b"]), key(&["b", "a"]));
    }
}
