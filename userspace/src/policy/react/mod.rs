//! One file per reaction: what is done to the host or to a VM, and how it is seen that it is done. Nothing here decides:
//! that is the engine's; and nothing here writes the audit log: that is the actor's.

pub mod cordon;
pub mod freeze;
pub mod hold;
pub mod host;
pub(crate) mod journal;
pub mod log;
pub mod notify;
pub mod panic;
pub mod quarantine;
pub mod signal;
pub mod vmm;

use std::{error::Error, io, path::Path, time::Duration};

/// How often something that must come true is looked at.
const LOOK: Duration = Duration::from_millis(2);

/// A reaction that was not carried out, or of which that was not seen.
#[derive(Debug, thiserror::Error)]
pub enum ReactError {
    /// A file of the host.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A system call.
    #[error("{call}: {source}")]
    Call {
        /// Which.
        call: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It was not tried, for it would be wrong, or there is nothing to do it to.
    #[error("{0}")]
    Refused(String),
    /// It was tried, and what should follow was not seen.
    #[error("{0}")]
    NotSeen(String),
    /// The programs in the kernel cannot be told.
    #[error("the programs in the kernel: {0}")]
    Kernel(#[source] Box<dyn Error + Send + Sync>),
    /// The process that keeps the descriptors.
    #[error("the hold keeper: {0}")]
    Keeper(#[source] io::Error),
    /// The audit log cannot be kept.
    #[error(transparent)]
    Audit(#[from] super::audit::AuditError),
}

fn file(path: &Path) -> impl Fn(io::Error) -> ReactError + Copy + '_ {
    move |source| ReactError::File { path: path.display().to_string(), source }
}

fn call(call: &'static str) -> impl Fn(rustix::io::Errno) -> ReactError + Copy {
    move |errno| ReactError::Call { call, source: errno.into() }
}

/// A frame or another number that people know in hexadecimal; `?` where it is not known.
pub(super) fn hex(number: Option<u64>) -> String {
    number.map_or_else(|| "?".to_owned(), |number| format!("{number:#x}"))
}
