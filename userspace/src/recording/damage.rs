//! What is wrong with a file that should be a recording.

use std::{
    io::{self, ErrorKind},
    path::PathBuf,
};

use thiserror::Error;

use super::frame::VERSION;

/// A file cannot be read as a recording at all.
#[derive(Debug, Error)]
pub enum OpenError {
    /// It cannot be opened or read.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nothing is in it.
    #[error("{path}: the file is empty: nothing was recorded, or it was never written", path = .0.display())]
    Empty(PathBuf),
    /// It begins with something else.
    #[error("{path}: not a recording of septwatch: such a file begins with the bytes 89 53 57 54 0d 0a 1a 0a", path = .0.display())]
    Magic(PathBuf),
    /// A septwatch that is newer than this one wrote it.
    #[error("{path}: format version {version}: this septwatch reads versions up to {VERSION}; a newer septwatch reads it", path = path.display())]
    Version {
        /// Which file.
        path: PathBuf,
        /// Its version.
        version: u16,
    },
    /// Without its header nothing in it can be understood.
    #[error("{path}: the recording's header, at byte {at}, {what}", path = path.display())]
    Header {
        /// Which file.
        path: PathBuf,
        /// Where.
        at: u64,
        /// What is wrong with it.
        what: Fault,
    },
}

/// What is wrong with a part of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// The file ends in it.
    #[error("is cut off")]
    CutOff,
    /// The file ends before the frame that says so.
    #[error("is missing: the recorder was killed, or the rest of the file is missing")]
    NoEnd,
    /// Its head's checksum is wrong: where the next begins is not known.
    #[error("is damaged where it begins")]
    Head,
    /// Its checksum is wrong.
    #[error("is damaged")]
    Payload,
    /// Its checksum is right, and it is nothing that a recorder writes.
    #[error("makes no sense at byte {0} of its contents")]
    Content(usize),
    /// Frames are missing before it.
    #[error("is not the one that follows")]
    Order,
    /// The file cannot be read further.
    #[error("cannot be read: {0}")]
    Io(ErrorKind),
}

/// Something that is missing from a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where, in bytes from the file's begin.
    pub at: u64,
    /// Of the file's frames, which.
    pub frame: u32,
    /// What is wrong with it.
    pub fault: Fault,
    /// Records that are missing for it; none where that cannot be known.
    pub records: Option<u64>,
    /// Whether the file was not read beyond.
    pub last: bool,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { at, frame, fault, records, last } = self;
        write!(f, "frame {frame}, at byte {at}, {fault}")?;
        match records {
            Some(records) => write!(f, "; {records} records are missing"),
            None if *last => write!(f, "; how many records are missing is not known"),
            None => Ok(()),
        }
    }
}
