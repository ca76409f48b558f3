//! What the tests share: running the binary, and other eyes on the kernel than its own. Nothing here knows how
//! septwatch is made; what is true of a scenario stands in the tests.
#![expect(clippy::expect_used, clippy::panic, reason = "inside of a test, a panic is its failure")]

pub mod bpf;
pub mod frees;
pub mod output;
pub mod process;
pub mod stopped;

use std::{
    env,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use process::Run;

/// How long anything may take before it counts as hanging. A machine may be busy.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(180);

/// The binary under test; or why there is none that can be tested here, for [`skip!`](crate::skip).
///
/// # Errors
/// Why the demo cannot run here, and what would help.
pub fn septwatch() -> Result<PathBuf, String> {
    static DOCTOR: OnceLock<Result<(), String>> = OnceLock::new();
    let path = binary()?;
    if !rustix::process::geteuid().is_root() {
        return Err("loads eBPF programs: run as root".to_owned());
    }
    DOCTOR.get_or_init(|| demo_can_run(&path)).clone()?;
    Ok(path)
}

/// The binary under test, for what needs neither root nor eBPF.
///
/// # Errors
/// It is not named.
pub fn binary() -> Result<PathBuf, String> {
    let path = env::var_os("SEPTWATCH_BIN")
        .ok_or("SEPTWATCH_BIN does not name the septwatch to test: use `cargo xtask test 2`")?;
    Ok(PathBuf::from(path))
}

/// Asks doctor, whose word on the demo is thereby held against what the demo does.
fn demo_can_run(path: &Path) -> Result<(), String> {
    let report = Run::new(path, &["doctor", "--json"]).finish().json_line();
    if report["demo"] == "works" {
        Ok(())
    } else {
        Err(format!("doctor says of the demo: {}", report["demo"]))
    }
}

/// The binary under test as `support::septwatch()` gives it; ends the test as skipped where it cannot run.
#[macro_export]
macro_rules! septwatch {
    () => {
        match $crate::support::septwatch() {
            Ok(path) => path,
            Err(why) => $crate::skip!("{why}"),
        }
    };
}
