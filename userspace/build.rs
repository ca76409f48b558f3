//! Compiles the eBPF programs, which the library embeds.

#[path = "../xtask/src/cache.rs"]
mod cache;

use std::{
    env,
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use anyhow::{Context as _, Result, anyhow};
use sha2::Digest as _;

fn main() -> Result<()> {
    let ebpf = env::var_os("CARGO_MANIFEST_DIR")
        .map(|dir| PathBuf::from(dir).join("../ebpf"))
        .ok_or_else(|| anyhow!("CARGO_MANIFEST_DIR is not set: run this through cargo"))?;
    let ebpf = ebpf.to_str().ok_or_else(|| anyhow!("{} is not UTF-8", ebpf.display()))?;
    println!("cargo::rerun-if-changed=../common/src");
    println!("cargo::rerun-if-changed=../xtask/src/cache.rs");

    let rustc = env::var_os("RUSTC").unwrap_or_else(|| OsString::from("rustc"));
    let mut path = cache::bpf_linker_bin(&rustc)?.into_os_string();
    if let Some(rest) = env::var_os("PATH") {
        path.push(OsStr::new(":"));
        path.push(rest);
    }
    // SAFETY: a build script that has not started a thread yet.
    unsafe {
        env::set_var("PATH", path);
        // `-Z build-std` on the stable compiler, for the eBPF crates alone: they are built by a cargo of their own.
        env::set_var("RUSTC_BOOTSTRAP", "1");
    }
    let package = aya_build::Package { name: "septwatch-ebpf", root_dir: ebpf, ..Default::default() };
    aya_build::build_ebpf([package], aya_build::Toolchain::Custom(env!("CARGO_PKG_RUST_VERSION")))
        .context("the eBPF programs do not build; `cargo xtask setup` installs what that needs")?;
    // Whoever takes over a ledger that another process left must have the same programs.
    let out = env::var_os("OUT_DIR").ok_or_else(|| anyhow!("OUT_DIR is not set: run this through cargo"))?;
    let object = PathBuf::from(out).join("septwatch-bpf");
    let bytes = std::fs::read(&object).with_context(|| format!("cannot read {}", object.display()))?;
    let hash = sha2::Sha256::digest(bytes);
    let key: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    println!("cargo::rustc-env=SEPTWATCH_PROGRAMS={key}");
    Ok(())
}
