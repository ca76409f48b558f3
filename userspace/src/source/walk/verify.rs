//! Whether what a walk entered is so: some of it, looked at a second time, from both sides.

use septwatch_common::walk::{Found, Mode};

use super::{
    WalkError, Walker,
    compare::{self, Sweep, look},
    pace::Pace,
};

/// Chunks of the ledger that are looked at: all, where there are no more.
const CHUNKS: usize = 64;

/// What differs in a sample of the steps of a walk, and in a sample of the ledger's chunks. None: it was told to end.
///
/// # Errors
/// A program cannot be run.
pub(super) fn differences(
    walker: &mut Walker,
    td: &Found,
    sweep: &Sweep,
    pace: &mut Pace<'_>,
) -> Result<Option<usize>, WalkError> {
    let mut differ = 0;
    for at in &sweep.sample {
        let (_, _, differences) = look(walker, td, Mode::Compare, *at)?;
        differ += differences.len();
        if !pace.go_on() {
            return Ok(None);
        }
    }
    let chunks: Vec<u64> = walker.chunks().collect();
    let every = chunks.len().div_ceil(CHUNKS).max(1);
    let lines = compare::lines(walker, td, chunks.into_iter().step_by(every), pace)?;
    Ok((!lines.stopped).then_some(differ + lines.differences.len()))
}
