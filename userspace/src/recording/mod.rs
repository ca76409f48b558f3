//! Recordings: everything that was seen live, in a file.
//!
//! This room knows the file format, its writer and its reader. It neither attaches anything nor judges what it reads.
//!
//! # The format, version 1
//! All numbers are little-endian. A file is a preface and frames, one after the other; it is only ever appended to.
//!
//! **Preface**, 16 bytes: the bytes `89 53 57 54 0d 0a 1a 0a`; the format's version (u16); 0 (u16); CRC-32 of those 12
//! bytes (u32). CRC-32 is that of zlib and PNG (polynomial 0xedb88320, reflected) throughout.
//!
//! **Frame**: a head of 40 bytes ([`frame::Head`]), and its contents as one zstd frame:
//!
//! | offset | size | what |
//! |---|---|---|
//! | 0 | 4 | `swtf` |
//! | 4 | 1 | kind: 1 header, 2 records, 3 state, 4 end |
//! | 5 | 3 | 0 |
//! | 8 | 4 | number of the frame, from 0 |
//! | 12 | 4 | bytes of the contents as stored, at most 16 MiB |
//! | 16 | 4 | bytes of the contents, at most 16 MiB |
//! | 20 | 4 | records in it |
//! | 24 | 8 | records in all frames before it |
//! | 32 | 4 | CRC-32 of the contents as stored |
//! | 36 | 4 | CRC-32 of the 36 bytes before |
//!
//! The first frame is the *header* ([`header::Header`], JSON). Where something was known before the first record, a
//! *state* follows ([`State`], postcard): the TDs of then, and the ledger. Then *records* ([`codec`]): events in the order
//! in which they were read from the kernel, and notes ([`header::Note`], JSON) where they belong. The last frame is the
//! *end* ([`header::End`], JSON). A frame of records stands alone: it can be read without those before it.
//!
//! A recorder writes a frame when it holds 1 MiB, at least once a second, and at once when it holds a violation, which is
//! then on the disk before the recorder goes on.
//!
//! **Vital records** (lifecycle, violations) are kept as the kernel's programs made them, and the header says, in its
//! `schema`, how: name, offset and size of every field. A reader takes the fields that it knows. **Page records**
//! (SEAMCALLs, frames) are by far the most, and coded as differences: 4 to 7 bytes each.
//!
//! **Loss.** Every record has a number that is consecutive on its CPU and in its stream, given before the kernel's ring
//! buffer is asked for room: the numbers that are missing between two records are those that were lost there, exactly.
//! What was lost after the last record of a CPU follows from `counted` in the end frame. Records that arrived and could
//! not be written have a note of their own.
//!
//! **Damage.** A frame whose contents are damaged is skipped, and its records are counted as missing. After a damaged head
//! nothing is read any more. A file without an end frame is one whose recorder was killed.
//!
//! **Versions.** A reader reads every version up to its own. Within a version, a reader ignores frames, notes, and fields
//! that it does not know.

pub mod codec;
mod damage;
pub mod files;
mod follow;
pub mod frame;
pub mod header;
pub mod names;
pub mod reader;
pub mod recorder;
pub mod replay;
pub mod schema;
pub mod tds;
pub mod writer;

use septwatch_common::Td;
use serde::{Deserialize, Serialize};

use crate::model::{
    Model,
    store::snapshot::{KeptTd, Snapshot},
};

/// What was known before the first record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// TDs, where the ledger is not known: another process began it.
    pub tds: Vec<KeptTd>,
    /// The ledger.
    pub ledger: Option<Snapshot>,
}

impl State {
    /// Only these TDs are known.
    pub fn of_tds(tds: Vec<Td>) -> Self {
        let kept = |record| KeptTd { index: 0, by_tdr: true, record };
        Self { tds: tds.into_iter().map(kept).collect(), ledger: None }
    }

    /// Whether nothing was known.
    pub fn is_empty(&self) -> bool {
        self.tds.is_empty() && self.ledger.is_none()
    }

    /// Takes the TDs of then into a model.
    pub fn known(&self, model: &mut Model) {
        let of_ledger = self.ledger.iter().flat_map(|ledger| &ledger.tds);
        for KeptTd { record, .. } in self.tds.iter().chain(of_ledger) {
            model.known(record);
        }
    }

    /// As it is in a file.
    pub fn to_bytes(&self) -> Vec<u8> {
        // It consists of numbers: there is nothing that could not be written.
        postcard::to_allocvec(self).unwrap_or_default()
    }

    /// From what is in a file. None: it makes no sense.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }
}
