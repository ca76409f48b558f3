//! Why a program cannot be attached.

use std::io;

use aya::programs::{ProgramError, links::LinkError};
use thiserror::Error;

use crate::hooks::{bpf::BpfError, pins::PinError};

/// A program cannot be attached.
#[derive(Debug, Error)]
pub enum AttachError {
    /// The object has no such program.
    #[error("the eBPF object has no program {0}")]
    Missing(String),
    /// The kernel refuses it.
    #[error("{hook}: the program cannot be attached")]
    Refused {
        /// The function or tracepoint.
        hook: String,
        /// Why, with the verifier's words if it was the verifier.
        #[source]
        source: ProgramError,
    },
    /// The kernel refuses it, or the link to it.
    #[error("{hook}: the program cannot be attached")]
    Raw {
        /// The function or tracepoint.
        hook: String,
        /// Why, with the verifier's words if it was the verifier.
        #[source]
        source: BpfError,
    },
    /// The kernel is too old to give a descriptor for it.
    #[error("{hook}: the link has no descriptor")]
    Link {
        /// The function.
        hook: String,
        /// Why.
        #[source]
        source: LinkError,
    },
    /// It cannot be pinned.
    #[error("{hook}: the link cannot be pinned")]
    LinkPin {
        /// The function.
        hook: String,
        /// Why.
        #[source]
        source: aya::pin::PinError,
    },
    /// It cannot be pinned.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// The file that holds a function of this process is not to be found.
    #[error("{hook}: no mapping of this process holds its address {address:#x}")]
    NotMapped {
        /// The function.
        hook: String,
        /// Where it should be.
        address: u64,
    },
    /// /proc cannot be read.
    #[error("{path}")]
    Proc {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}
