//! Putting programs into the kernel, several at a time. What takes the time is the verifier, and each program is work for
//! one CPU.

use std::{
    num::NonZero,
    sync::Mutex,
    thread::{self, available_parallelism},
};

use aya::{
    Btf, Ebpf,
    programs::{Program, ProgramError},
};

use crate::locked::lock;

/// The type of which `walk_find` goes through all.
pub const FILES: &str = "task_file";

/// Loads these programs, on as many CPUs as there are: with one, none. Who needs one of them loads it again if that failed,
/// and says why.
pub fn load(ebpf: &mut Ebpf, names: &[&str], btf: Option<&Btf>) {
    let programs: Vec<_> = ebpf.programs_mut().filter(|(name, _)| names.contains(name)).collect();
    let threads = available_parallelism().map_or(1, NonZero::get).min(programs.len());
    if threads < 2 {
        return;
    }
    let rest = Mutex::new(programs.into_iter());
    let next = || lock(&rest).next();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((name, program)) = next() {
                    let _ = load_one(name, program, btf);
                }
            });
        }
    });
}

fn load_one(name: &str, program: &mut Program, btf: Option<&Btf>) -> Result<(), ProgramError> {
    match (program, btf) {
        (Program::RawTracePoint(program), _) => program.load(),
        (Program::UProbe(program), _) => program.load(),
        (Program::FExit(program), Some(btf)) => program.load(name, btf),
        (Program::Iter(program), Some(btf)) => program.load(FILES, btf),
        _ => Ok(()),
    }
}

/// Whether it is loaded now: that it was before is no error.
///
/// # Errors
/// The kernel refused it.
pub fn loaded(result: Result<(), ProgramError>) -> Result<(), ProgramError> {
    match result {
        Err(ProgramError::AlreadyLoaded) => Ok(()),
        other => other,
    }
}
