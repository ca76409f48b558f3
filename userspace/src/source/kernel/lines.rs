//! Lines of the ledger, read while the programs write them.

use aya::maps::{HashMap, MapData, MapError};
use septwatch_common::{Line, config::CHUNK};

/// Reads the ledger of programs that run.
pub struct LedgerReader {
    pub(super) ledger: HashMap<MapData, u64, [u64; CHUNK]>,
}

impl LedgerReader {
    /// Open lines, and their frames, in no order. While lines change, one may be left out: what cannot be read is.
    pub fn open_lines(&self) -> impl Iterator<Item = (u64, Line)> {
        open_lines(&self.ledger).filter_map(Result::ok)
    }
}

pub(super) fn open_lines(
    ledger: &HashMap<MapData, u64, [u64; CHUNK]>,
) -> impl Iterator<Item = Result<(u64, Line), MapError>> {
    ledger.iter().flat_map(|chunk| {
        // A chunk that cannot be read is one error.
        let (first, lines, error) = match chunk {
            Ok((key, lines)) => (key * CHUNK as u64, Some(lines), None),
            Err(error) => (0, None, Some(Err(error))),
        };
        let lines = lines.into_iter().flatten().zip(first..).map(|(line, pfn)| (pfn, Line(line)));
        lines.filter(|(_, line)| line.is_lent()).map(Ok).chain(error)
    })
}
