//! What a kernel lets reactions do, for commands that only ask.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::{
    commands::BadInput,
    hooks::{
        btf::{BtfError, KernelBtf, SYSFS},
        host::{Allowed, Host},
        means::Means,
        plan::{btf_names, plan, symbol_names},
        symbols::Symbols,
    },
};

/// Of the kernel that runs.
pub fn of_host() -> Result<Means> {
    let btf = KernelBtf::read(Path::new(SYSFS), &btf_names()).context("the running kernel")?;
    let host = Host::running(Some(&btf.vmlinux));
    // What is lost without them, the means say.
    let symbols = Symbols::running(&symbol_names()).unwrap_or_default();
    let plan = plan(&btf, Some(&symbols), &host.allowed).context("the running kernel")?;
    Ok(Means::of(&plan, Some(&host)))
}

/// Of one whose BTF is in this folder.
pub fn of_btf(dir: &Path) -> Result<Means> {
    let wrong = |error: BtfError| BadInput(format!("--btf: {error}"));
    let btf = KernelBtf::read(dir, &btf_names()).map_err(wrong)?;
    let plan = plan(&btf, None, &Allowed::assumed()).map_err(wrong)?;
    Ok(Means::of(&plan, None))
}
