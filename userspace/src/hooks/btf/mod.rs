//! A reader of BTF, the kernel's type information: only what a hook plan asks for.
//!
//! One pass over the type section notes where each type lies and which of the *wanted* names exist; prototypes
//! and members are decoded when asked for. Input is taken as hostile: every access is bounds-checked, every walk
//! has an end, every error names the file and the offset. Nothing in here knows what a hook is.
//!
//! Our own reader, because the crates do not fit: `btf` expands all of vmlinux into owned types, knows neither
//! split BTF nor the 7-bit kinds of newer kernels; aya-obj keeps prototypes and members private; `btf-rs` is LGPL.
//!
//! Format: Linux `include/uapi/linux/btf.h` and Documentation/bpf/btf.rst.

mod blob;
mod files;
#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::panic, reason = "a failed test")]
mod tests;
mod types;

use std::{io, path::PathBuf};

pub use blob::{Btf, Kind};
pub use files::{KernelBtf, Module, SYSFS};
pub use types::{Argument, Base, Field, Prototype, TypeRef};

/// What is wrong with a BTF file, and where.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The file cannot be read.
    #[error("{file}: {source}", file = file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file's contents are not the BTF that they should be.
    #[error("{file}: offset {offset:#x}: {what}", file = file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
        /// Bytes from the start of the file.
        offset: usize,
        /// What is wrong there.
        what: Malformed,
    },
    /// The file's types or strings refer to what is not there.
    #[error("{file}: {what}", file = file.display())]
    Unsound {
        /// The file.
        file: PathBuf,
        /// What is wrong, by type or string number.
        what: Malformed,
    },
}

/// A defect of a BTF blob.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Malformed {
    #[error("not BTF: starts with {0:#06x}, not with 0xeb9f")]
    Magic(u16),
    #[error("BTF of the other byte order: this reader runs on the machine that the BTF describes")]
    ByteOrder,
    #[error("BTF version {0}, known is 1")]
    Version(u8),
    #[error("the file ends inside its header")]
    ShortHeader,
    #[error("the {0} section reaches beyond the end of the file")]
    Section(&'static str),
    #[error("the string section does not start and end with a NUL")]
    Strings,
    #[error("type {0} reaches beyond the type section")]
    TypeTruncated(u32),
    #[error("more than {max} types", max = blob::MAX_TYPE)]
    TooManyTypes,
    #[error("there is no type {0}")]
    NoSuchType(u32),
    #[error("there is no string at {0:#x}")]
    NoSuchString(u32),
    #[error("the string at {0:#x} is not UTF-8")]
    NotUtf8(u32),
    #[error("type {0} leads to itself, or through too many others")]
    TooDeep(u32),
    #[error("type {id} is a function of {count} arguments")]
    TooManyArguments { id: u32, count: usize },
    #[error("type {id} is of kind {kind}, expected was {expected}")]
    WrongKind { id: u32, kind: u8, expected: &'static str },
    #[error(
        "the base has types that this version cannot read (kind {0}), so the numbers of a module's types are unknown"
    )]
    UnreadBase(u8),
}
