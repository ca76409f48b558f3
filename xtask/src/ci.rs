//! Everything that must hold before a change goes in. Cheap parts first, tests last; all parts run, so that one
//! run names all that is wrong.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;

use crate::step::seconds;
use crate::{audit, build, run, setup, test};

/// A part: its name, and what it does.
type Part = (&'static str, fn() -> Result<()>);

/// The parts before the tests. The eBPF programs have their own lints: no other crate is for their target.
const PARTS: [Part; 5] = [
    ("format", format),
    ("audit", audit::run),
    ("lints", lints),
    ("lints of the eBPF programs", bpf_lints),
    ("docs", docs),
];

const HOST_CRATES: [&str; 3] = ["--workspace", "--exclude", "septwatch-ebpf"];

/// Runs all parts, prints how long each took, and the count of tests as the last line.
///
/// # Errors
/// Set-up fails. What a part finds wrong is not an error but an exit code.
pub fn run() -> Result<ExitCode> {
    let options = test::Options { strict: true, ..test::Options::default() };
    test::beside_the_lab(&options, || all(&options))
}

fn all(options: &test::Options) -> Result<ExitCode> {
    setup::for_building()?;
    let mut told = Vec::new();
    let mut good = true;
    for (name, part) in PARTS {
        println!("\n== {name}");
        let start = Instant::now();
        let result = part();
        let time = seconds(start.elapsed());
        match result {
            Ok(()) => told.push(format!("{name}: good, {time}")),
            Err(error) => {
                eprintln!("error: {name}: {error:#}");
                told.push(format!("{name}: FAILED, {time}"));
                good = false;
            }
        }
    }
    println!("\n== tests");
    let start = Instant::now();
    let count = test::floors(options)?;
    told.push(format!(
        "tests: {}, {}",
        if count.is_good(true) { "good" } else { "FAILED" },
        seconds(start.elapsed())
    ));
    println!("\n{}", told.join("\n"));
    count.tell();
    Ok(if good && count.is_good(true) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn format() -> Result<()> {
    run::shown(setup::cargo()?.args(["fmt", "--all", "--check"]))
}

fn lints() -> Result<()> {
    let whole = ["--all-targets", "--", "-D", "warnings"];
    let mut cargo = setup::cargo()?;
    run::shown(cargo.args(["clippy", "--locked"]).args(HOST_CRATES).args(whole))?;
    let mut cargo = setup::cargo()?;
    run::shown(cargo.args(["clippy", "--locked", "--package", "septwatch"]).args(build::TESTED).args(whole))
}

fn bpf_lints() -> Result<()> {
    let mut cargo = setup::cargo()?;
    // -Z is for a nightly compiler unless this is set; core is not shipped for this target.
    cargo.env("RUSTC_BOOTSTRAP", "1").args([
        "clippy",
        "--locked",
        "--release",
        "--package",
        "septwatch-ebpf",
    ]);
    cargo.args(["-Z", "build-std=core", "--target", "bpfel-unknown-none", "--", "-D", "warnings"]);
    run::shown(&mut cargo)
}

fn docs() -> Result<()> {
    let mut cargo = setup::cargo()?;
    // Module headers are written for those who work on septwatch: private items are documented, and may be linked.
    cargo.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links");
    cargo.args(["doc", "--locked", "--no-deps", "--document-private-items"]);
    cargo.args(HOST_CRATES).args(build::TESTED);
    run::shown(&mut cargo)
}
