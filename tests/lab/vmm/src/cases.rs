//! Many cases in one machine, each with a module that knows nothing of the one before.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::{commands, module};

/// Where a case's files go, each case in a folder of its name.
const FOLDER: &str = "/out/cases";

/// What the software module can tell of a case.
const TRUTH: [&str; 5] = ["owned", "frames", "calls", "inject", "state"];

/// Makes the kernel warn again at a place that has warned before.
const WARN_AGAIN: &str = "/sys/kernel/debug/clear_warn_once";

/// Marks the kernel log, on the console too, so that a machine that dies has said in which case.
///
/// # Errors
/// There is no kernel log, or no debugfs.
pub fn begin(name: &str) -> Result<()> {
    fs::write("/dev/kmsg", format!("<3>lab: case {name}\n")).context("cannot write to the kernel log")?;
    fs::write(WARN_AGAIN, "1").with_context(|| format!("cannot write {WARN_AGAIN}"))
}

/// Writes down what the module knows, and makes it forget. Every process of the case has left.
///
/// # Errors
/// The module is not there, or the files cannot be written.
pub fn end(name: &str) -> Result<()> {
    commands::take_memory(commands::PUSH_OUT_MIB)?;
    let folder = Path::new(FOLDER).join(name);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    for file in TRUTH {
        let path = folder.join(file);
        fs::write(&path, module::read(file)?).with_context(|| format!("cannot write {}", path.display()))?;
    }
    module::write("reset", "1")
}
