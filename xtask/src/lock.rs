//! One at a time where two would get in each other's way, in one xtask or in several: locked files in the cache.

use std::fs::{self, File};

use anyhow::{Context as _, Result};

use crate::cache;
use crate::step::note;

/// Waits until nobody else holds what has this name, and holds it for as long as the returned file is open. Who holds
/// it already and asks again waits forever.
///
/// # Errors
/// The cache folder cannot be written.
pub fn alone(what: &str) -> Result<File> {
    let folder = cache::root()?.join("locks");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let path = folder.join(what);
    let lock = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    if lock.try_lock().is_err() {
        note(what, format_args!("waiting for who holds {}", path.display()));
        lock.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    }
    Ok(lock)
}
