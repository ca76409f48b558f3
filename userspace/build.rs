//! Compiles the eBPF programs, which the library embeds.

#[path = "../xtask/src/cache.rs"]
mod cache;

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow};
use object::{
    build::elf::{Builder, SectionData},
    elf::SHT_STRTAB,
};
use sha2::Digest as _;

fn main() -> Result<()> {
    let ebpf = env::var_os("CARGO_MANIFEST_DIR")
        .map(|dir| PathBuf::from(dir).join("../ebpf"))
        .ok_or_else(|| anyhow!("CARGO_MANIFEST_DIR is not set: run this through cargo"))?;
    let ebpf = ebpf.to_str().ok_or_else(|| anyhow!("{} is not UTF-8", ebpf.display()))?;
    let out = env::var_os("OUT_DIR").map(PathBuf::from).ok_or_else(|| anyhow!("OUT_DIR is not set"))?;
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
    let _alone =
        share_target(&out).context("cannot share the folder in which the eBPF programs are built")?;
    // The object that logs, then the one that does not, in the same place.
    let for_measurements = ["empty", "least"]
        .into_iter()
        .find(|name| env::var_os(format!("CARGO_FEATURE_{}_PROGRAMS", name.to_uppercase())).is_some());
    for (log, name) in [(Some("log"), "septwatch-bpf-log"), (None, "septwatch-bpf")] {
        let features: Vec<_> = log.into_iter().chain(for_measurements).collect();
        let features = &features;
        let package =
            aya_build::Package { name: "septwatch-ebpf", root_dir: ebpf, features, ..Default::default() };
        aya_build::build_ebpf([package], aya_build::Toolchain::Custom(env!("CARGO_PKG_RUST_VERSION")))
            .context("the eBPF programs do not build; `cargo xtask setup` installs what that needs")?;
        let built = out.join("septwatch-bpf");
        strip(&built).with_context(|| format!("cannot strip {}", built.display()))?;
        fs::rename(&built, out.join(name)).with_context(|| format!("cannot rename {}", built.display()))?;
    }
    for name in ["septwatch-calibrate", "septwatch-lookups"] {
        strip(&out.join(name)).with_context(|| format!("cannot strip {name}"))?;
    }
    // Whoever takes over a ledger that another process left must have the same programs.
    let object = out.join("septwatch-bpf");
    let bytes = fs::read(&object).with_context(|| format!("cannot read {}", object.display()))?;
    let hash = sha2::Sha256::digest(bytes);
    let key: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    println!("cargo::rustc-env=SEPTWATCH_PROGRAMS={key}");
    Ok(())
}

/// Makes every profile and every choice of features build the eBPF programs, which are the same for all of them, in one
/// folder of the target folder, and holds that until the returned file is dropped: objects of all features have one name.
fn share_target(out: &Path) -> Result<File> {
    // Of `TARGET/PROFILE/build/septwatch-HASH/out`.
    let shared = out.ancestors().nth(4).context("an odd OUT_DIR")?.join("aya-build");
    fs::create_dir_all(&shared)?;
    // aya-build takes this folder of OUT_DIR.
    let link = out.join("aya-build");
    if !link.is_symlink() {
        if link.exists() {
            fs::remove_dir_all(&link)?;
        }
        std::os::unix::fs::symlink(&shared, &link)?;
    }
    let lock = File::create(shared.join("lock"))?;
    lock.lock()?;
    Ok(lock)
}

/// Leaves out the debugging information, from which the linker made the BTF: nine tenths of the object, which would be
/// in septwatch, and be read, at every start.
fn strip(path: &Path) -> Result<()> {
    let data = fs::read(path)?;
    let mut elf = Builder::read(&*data)?;
    for section in &mut elf.sections {
        let name = section.name.to_string();
        section.delete = name.starts_with(".debug") || name.starts_with(".rel.debug");
    }
    elf.delete_orphans();
    // LLVM keeps the names of sections among those of symbols; the writer wants a table for them.
    let names = elf.sections.add();
    names.name = b".shstrtab"[..].into();
    names.sh_type = SHT_STRTAB;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    elf.write(&mut stripped)?;
    Ok(fs::write(path, stripped)?)
}
