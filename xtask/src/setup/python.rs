//! Python readers of other tools' formats, for the tests that read what `septwatch export` writes, what the agent sends, and
//! the Kubernetes manifest: pyarrow, Perfetto's own message classes, OpenTelemetry's own messages and services, and
//! Kubernetes' schemas, in a virtual environment in the cache.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::{by_hand, packages};
use crate::step::{Outcome, note, step};
use crate::{cache, run};

/// What is installed, each at the version that the tests were written with.
const READERS: [&str; 6] = [
    "grpcio==1.85.3",
    "kubernetes-validate==1.37.0",
    "opentelemetry-proto==1.45.2",
    "perfetto==0.59.1",
    "protobuf==7.36.2",
    "pyarrow==26.0.1",
];

/// Makes sure that the readers are there, and returns the Python that has them.
///
/// # Errors
/// There is no Python, or the readers cannot be installed: the error holds the command that does.
pub fn readers() -> Result<PathBuf> {
    packages::ensure("Python", &[("python3", "python3")])?;
    step("Python readers", install)
}

/// The Python that has the readers, if they were installed.
pub fn installed() -> Option<PathBuf> {
    let python = python().ok()?;
    python.is_file().then_some(python)
}

fn python() -> Result<PathBuf> {
    Ok(cache::root()?.join("python-readers/bin/python3"))
}

fn install() -> Result<(Outcome, PathBuf)> {
    let python = python()?;
    let folder = cache::root()?.join("python-readers");
    let looks = "import kubernetes_validate, pyarrow.parquet, perfetto.protos.perfetto.trace.perfetto_trace_pb2, \
        opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc";
    let is_there = || run::quiet(Command::new(&python).args(["-c", looks])).is_ok();
    if is_there() {
        return Ok((Outcome::Present(folder.display().to_string()), python));
    }
    note("Python readers", format_args!("installing {}", READERS.join(", ")));
    // Debian has what makes virtual environments in a package of its own, which brings no program.
    let venv = || run::quiet(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder));
    if venv().is_err() {
        packages::install("Python readers", "python3-venv")?;
        venv()?;
    }
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--only-binary", ":all:"]).args(READERS);
    let command = run::line(&pip);
    run::quiet(&mut pip).map_err(|why| by_hand("cannot install from PyPI", &why, &command))?;
    Ok((Outcome::Done(format!("installed into {}", folder.display())), python))
}
