//! A real VMM for the lab's machines: the distribution's QEMU, as it is, and the firmware that starts TDs. What they
//! need is taken out of their packages into a small root of their own, so that no library of this machine matters.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::boot::Initrd;
use super::place;
use crate::apt::{Index, Private};
use crate::step::{Outcome, note, step};
use crate::{lock, run};

/// The suite: one that holds all that its packages depend on, and a QEMU of 10.1 or later, which knows TDX.
const SUITE: &str = "sid";
const PACKAGES: [&str; 2] = ["qemu-system-x86", "ovmf-inteltdx"];

/// Where the packages have what is wanted of them.
const PROGRAM: &str = "usr/bin/qemu-system-x86_64";
const FIRMWARE: &str = "usr/share/ovmf/OVMF.inteltdx.ms.fd";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const LOADER: &str = "lib64/ld-linux-x86-64.so.2";
/// What QEMU's `q35` loads with `-nodefaults` besides the firmware.
const ROMS: [&str; 2] = ["usr/share/qemu/kvmvapic.bin", "usr/share/qemu/linuxboot_dma.bin"];

/// The folder of a machine that is QEMU's root.
const ROOT: &str = "qemu";

/// QEMU with its libraries.
pub struct Qemu {
    root: PathBuf,
}

/// The one that was fetched before, else the newest of the suite.
///
/// # Errors
/// It cannot be fetched, or its packages are not as they were.
pub fn ensure() -> Result<Qemu> {
    let _lock = lock::alone("qemu")?;
    let folder = place::folder("qemu")?;
    let known = folder.join("known");
    step("QEMU", || {
        if let Ok(name) = fs::read_to_string(&known) {
            let root = folder.join(name.trim());
            if root.join(PROGRAM).is_file() {
                return Ok((Outcome::Present(root.display().to_string()), Qemu { root }));
            }
        }
        note("QEMU", format_args!("fetching {} from {SUITE}", PACKAGES.join(", ")));
        let root = fetch(&folder)?;
        let name = root.file_name().unwrap_or_default().to_string_lossy();
        fs::write(&known, &*name).with_context(|| format!("cannot write {}", known.display()))?;
        Ok((Outcome::Done(format!("unpacked to {}", root.display())), Qemu { root }))
    })
}

fn fetch(folder: &Path) -> Result<PathBuf> {
    let suite = Private::open(SUITE, Index::Binaries)?;
    let wanted = suite.closure(&PACKAGES)?;
    let work = tempfile::tempdir_in(folder).context("no folder to unpack QEMU in")?;
    suite.download_debs(&wanted, work.path())?;
    let all = work.path().join("all");
    for entry in fs::read_dir(work.path()).context("cannot read the downloaded packages")? {
        let deb = entry.context("cannot read the downloaded packages")?.path();
        if deb.extension().is_some_and(|extension| extension == "deb") {
            run::quiet(Command::new("dpkg-deb").arg("-x").arg(deb).arg(&all))?;
        }
    }
    let root = work.path().join("root");
    for file in [PROGRAM, FIRMWARE].iter().chain(&ROMS) {
        copy(&all.join(file), &root.join(file))?;
    }
    // The loader is a link of an absolute path in some packages.
    let loader = all.join(LIBRARIES).join(Path::new(LOADER).file_name().unwrap_or_default());
    let listed = run::quiet(
        Command::new(&loader)
            .arg("--library-path")
            .arg(all.join(LIBRARIES))
            .arg("--list")
            .arg(all.join(PROGRAM)),
    )?;
    copy(&loader, &root.join(LOADER))?;
    for library in libraries(&listed, &all)? {
        copy(&library, &root.join(LIBRARIES).join(library.file_name().unwrap_or_default()))?;
    }
    let version = |package: &str| {
        let found = wanted.iter().find_map(|one| one.strip_prefix(package)?.strip_prefix('='));
        found.with_context(|| format!("{SUITE} names no version of {package}"))
    };
    let to = folder.join(format!("{}-{}", version(PACKAGES[0])?, version(PACKAGES[1])?));
    let _ = fs::remove_dir_all(&to);
    fs::rename(&root, &to).with_context(|| format!("cannot move QEMU to {}", to.display()))?;
    Ok(to)
}

/// The libraries that the loader found, each of which must be of the packages.
fn libraries(listed: &str, packages: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for line in listed.lines().filter(|line| !line.contains("linux-vdso") && !line.contains("/ld-linux")) {
        let path = line.split_once("=> ").and_then(|(_, path)| path.split(" (0x").next()).map(PathBuf::from);
        let path = path.filter(|path| path.starts_with(packages));
        found.push(
            path.with_context(|| format!("a library of QEMU is in none of its packages: {}", line.trim()))?,
        );
    }
    ensure!(!found.is_empty(), "the loader names no library of QEMU");
    Ok(found)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().unwrap_or(to);
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    fs::copy(from, to).with_context(|| format!("the packages of QEMU hold no {}", from.display()))?;
    Ok(())
}

impl Qemu {
    /// Puts it into a machine.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn add_to(&self, initrd: &mut Initrd) -> Result<()> {
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
                let path = entry.with_context(|| format!("cannot read {}", folder.display()))?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if let Ok(inside) = path.strip_prefix(&self.root) {
                    initrd.file(&format!("{ROOT}/{}", inside.display()), &path)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use super::*;

    #[test]
    fn every_library_must_be_of_the_packages() {
        let listed = "\tlinux-vdso.so.1 (0x1)\n\tlibz.so.1 => /p/usr/lib/libz.so.1 (0x2)\n\t/lib64/ld-linux-x86-64.so.2 => /p/ld (0x3)\n";
        assert_eq!(libraries(listed, Path::new("/p")).unwrap(), [Path::new("/p/usr/lib/libz.so.1")]);
        for bad in ["", "\tlibz.so.1 => not found\n", "\tlibz.so.1 => /usr/lib/libz.so.1 (0x2)\n"] {
            assert!(libraries(bad, Path::new("/p")).is_err(), "{bad}");
        }
    }
}
