//! The kernel's own tests of guest_memfd, which need no TD, built from the source that the lab's kernel is of.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::kernel::{self, Image};
use super::place;
use crate::setup::packages;
use crate::step::{Outcome, note, step};
use crate::{lock, run};

/// Their names under `tools/testing/selftests/kvm`.
const TESTS: [&str; 5] = [
    "guest_memfd_test",
    "pre_fault_memory_test",
    "set_memory_region_test",
    "x86/private_mem_conversions_test",
    "x86/private_mem_kvm_exits_test",
];

/// Where they are in the kernel's source.
const FOLDER: &str = "tools/testing/selftests/kvm";

/// The programs, built if they are not there.
///
/// # Errors
/// A missing program or header that cannot be installed, or a compile error.
pub fn ensure(image: &Image) -> Result<Vec<PathBuf>> {
    let _lock = lock::alone(&kernel::lock_name(&image.name))?;
    // The tree's name tells source and compiler.
    let tree = image.tree.file_name().unwrap_or_default().to_string_lossy();
    let folder =
        place::folder("selftests")?.join(format!("{}-{}", image.name, place::key(&[&tree, &image.state])));
    let programs: Vec<PathBuf> =
        TESTS.iter().map(|test| folder.join(test.rsplit('/').next().unwrap_or(test))).collect();
    if programs.iter().all(|program| program.is_file()) {
        return Ok(programs);
    }
    packages::ensure("selftest tools", &[("rsync", "rsync"), ("/usr/include/uuid/uuid.h", "uuid-dev")])?;
    image.source.put_into(&image.tree)?;
    step("selftests", || {
        note("selftests", format_args!("compiling {FOLDER}"));
        let work = tempfile::tempdir_in(place::folder("selftests")?).context("no folder to compile in")?;
        let headers = work.path().join("usr");
        run::quiet(
            kernel::make(&image.tree)
                .arg("headers_install")
                .arg(format!("INSTALL_HDR_PATH={}", headers.display())),
        )?;
        let out = work.path().join("out");
        fs::create_dir(&out).with_context(|| format!("cannot create {}", out.display()))?;
        let jobs = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let mut make: Command = kernel::make(&image.tree.join(FOLDER));
        make.arg(format!("-j{jobs}")).arg(format!("OUTPUT={}", out.display()));
        make.arg(format!("KHDR_INCLUDES=-isystem {}/include", headers.display()));
        run::quiet(make.args(TESTS.iter().map(|test| out.join(test))))?;
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        for (test, program) in TESTS.iter().zip(&programs) {
            run::quiet(Command::new("objcopy").arg("--strip-debug").arg(out.join(test)).arg(program))?;
        }
        Ok((Outcome::Done(format!("built in {}", folder.display())), ()))
    })?;
    Ok(programs)
}
